"""The browser's sealing (frontend/js) against Python's: what one writes, the other opens."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from strongroom import seal
from tests.unit.frontend.upload_server import Upload, serve

ROOT = Path(__file__).resolve().parents[3]
DATASET = "6f1c2c8e-0b3e-4f57-9d6c-2f0b6f3f8a11"
FIRST = seal.SEGMENT_SIZE - seal.HEADER_SIZE - seal.TAG_SIZE
OTHER = seal.SEGMENT_SIZE - seal.TAG_SIZE


def _node() -> str | None:
    beside = Path(sys.executable).parent / "node"
    return str(beside) if beside.exists() else shutil.which("node")


NODE = _node()
pytestmark = pytest.mark.skipif(
    NODE is None, reason="Node.js is missing: install the development requirements"
)


def node(command: str, **options: Any) -> dict[str, Any]:
    options["js"] = str(ROOT / "frontend" / "js")
    script = str(Path(__file__).with_name("seal_node.mjs"))
    done = subprocess.run(
        [str(NODE), script, command, json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


@pytest.fixture(scope="module")
def broker() -> seal.PrivateKey:
    return seal.generate_key_pair("x25519")


def opened(sealed: bytes, document: dict[str, Any], broker: seal.PrivateKey, version: int = 3) -> bytes:
    """What the runner would see: the header parsed strictly, the key unwrapped, the file unsealed."""
    header = seal.parse_seal_header(json.dumps(document).encode())
    assert (header.ciphertext.sha256, header.ciphertext.size) == (
        hashlib.sha256(sealed).hexdigest(),
        len(sealed),
    )
    key = seal.unwrap_key(header.wrapped_key, broker, seal.info_data_key(DATASET, version))
    out = io.BytesIO()
    seal.unseal_stream(io.BytesIO(sealed), out, key, seal.aad_dataset(DATASET, version))
    assert header.plaintext.sha256 == hashlib.sha256(out.getvalue()).hexdigest()
    assert header.plaintext.size == len(out.getvalue())
    return out.getvalue()


def sealed_by_browser(tmp_path: Path, data: bytes, broker: seal.PrivateKey) -> tuple[bytes, dict[str, Any]]:
    (tmp_path / "in.csv").write_bytes(data)
    answer = node(
        "seal",
        file=str(tmp_path / "in.csv"),
        out=str(tmp_path / "out"),
        dataset=DATASET,
        version=3,
        recipient=broker.public.to_json(),
        mediaType="text/csv",
    )
    return (tmp_path / "out").read_bytes(), answer["header"]


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, 70_001])
def test_incremental_sha256_equals_hashlib(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    for steps in ([size or 1], [1], [63, 64, 65, 3], [64], [1000, 7]):
        if size < 5000 or steps != [1]:
            assert node("hash", file=str(tmp_path / "f"), steps=steps) == {
                "sha256": hashlib.sha256(data).hexdigest()
            }


@pytest.mark.parametrize(
    "size", [1, FIRST - 1, FIRST, FIRST + 1, FIRST + OTHER, FIRST + OTHER + 1, 5 * seal.SEGMENT_SIZE + 17]
)
def test_python_opens_what_the_browser_sealed(tmp_path: Path, broker: seal.PrivateKey, size: int) -> None:
    data = os.urandom(size)
    sealed, header = sealed_by_browser(tmp_path, data, broker)
    assert len(sealed) == seal.ciphertext_size(size)
    assert opened(sealed, header, broker) == data


def test_reference_implementation_opens_what_the_browser_sealed(
    tmp_path: Path, broker: seal.PrivateKey
) -> None:
    tink = pytest.importorskip("tink", reason="tink, the reference implementation, is not installed")
    from tink import secret_key_access, streaming_aead  # type: ignore[import-untyped]

    data = os.urandom(2 * seal.SEGMENT_SIZE + 5)
    sealed, header = sealed_by_browser(tmp_path, data, broker)
    wrapped = base64.b64decode(header["wrapped_key"]["data"])
    key = seal.unwrap_key(wrapped, broker, seal.info_data_key(DATASET, 3))
    streaming_aead.register()
    # AesGcmHkdfStreamingKey: params {ciphertext_segment_size, derived_key_size, hkdf_hash_type SHA256}, key_value
    params = bytes([8]) + _varint(seal.SEGMENT_SIZE) + bytes([16, 32, 24, 3])
    proto = bytes([18, len(params)]) + params + bytes([26, 32]) + key
    keyset = {
        "primaryKeyId": 1,
        "key": [
            {
                "keyData": {
                    "typeUrl": "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
                    "value": base64.b64encode(proto).decode(),
                    "keyMaterialType": "SYMMETRIC",
                },
                "status": "ENABLED",
                "keyId": 1,
                "outputPrefixType": "RAW",
            }
        ],
    }
    handle = tink.json_proto_keyset_format.parse(json.dumps(keyset), secret_key_access.TOKEN)
    primitive = handle.primitive(streaming_aead.StreamingAead)
    with primitive.new_decrypting_stream(io.BytesIO(sealed), seal.aad_dataset(DATASET, 3)) as stream:
        assert stream.read() == data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_wrapped_key_is_bound_to_the_dataset_version(broker: seal.PrivateKey) -> None:
    key = os.urandom(32)
    answer = node(
        "wrap",
        key=base64.b64encode(key).decode(),
        recipient=broker.public.to_json(),
        dataset=DATASET,
        version=3,
    )
    wrapped = base64.b64decode(answer["wrapped"])
    assert seal.unwrap_key(wrapped, broker, seal.info_data_key(DATASET, 3)) == key
    with pytest.raises(seal.keys.SealError):
        seal.unwrap_key(wrapped, broker, seal.info_data_key(DATASET, 4))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "0" * 16}, "does not match its name"),
        ({"public": base64.b64encode(bytes(31)).decode()}, "not a usable one"),
        ({"suite": "mlkem768x25519"}, "cannot use the key suite"),
    ],
)
def test_a_wrong_broker_key_is_refused(broker: seal.PrivateKey, change: dict[str, str], words: str) -> None:
    key = base64.b64encode(bytes(32)).decode()
    answer = node("wrap", key=key, recipient=broker.public.to_json() | change, dataset=DATASET, version=3)
    assert words in answer["refused"]


def test_a_key_without_a_shared_secret_is_refused() -> None:
    public = bytes(32)  # the point of order one: every private key gives zero
    recipient = {
        "suite": "x25519",
        "public": base64.b64encode(public).decode(),
        "id": hashlib.sha256(public).hexdigest()[:16],
    }
    answer = node(
        "wrap", key=base64.b64encode(bytes(32)).decode(), recipient=recipient, dataset=DATASET, version=3
    )
    assert "refused" in answer


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"x,y\n1,2\n", {"type": "text/csv"}),
        ("a.dat", b"PAR1" + bytes(20) + b"PAR1", {"type": "application/vnd.apache.parquet"}),
        (
            "a.parquet",
            b"x,y\n",
            {"refused": "The file is called .parquet but is not a Parquet file. Choose another one."},
        ),
        ("a.csv", b"", {"refused": "The file is empty. Choose another one."}),
        ("a.xlsx", b"PK\x03\x04", {"refused": "Choose a CSV or Parquet file."}),
    ],
)
def test_kind_of_file(tmp_path: Path, name: str, content: bytes, expected: dict[str, str]) -> None:
    (tmp_path / name).write_bytes(content)
    assert node("type", file=str(tmp_path / name)) == expected


def test_memory_stays_flat_while_sealing(tmp_path: Path, broker: seal.PrivateKey) -> None:
    peaks = []
    for megabytes in (8, 160):
        path = tmp_path / f"{megabytes}.csv"
        with path.open("wb") as file:
            for _ in range(megabytes):
                file.write(os.urandom(1 << 20))
        answer = node(
            "seal",
            file=str(path),
            out=str(tmp_path / "out"),
            dataset=DATASET,
            version=1,
            recipient=broker.public.to_json(),
            mediaType="text/csv",
        )
        peaks.append(answer["rss"])
    assert peaks[1] - peaks[0] < 100 << 20, peaks  # the collector's slack, not the file


# --- The transfer -------------------------------------------------------------------------------------------------


def upload_through(
    tmp_path: Path, broker: seal.PrivateKey, upload: Upload, **options: Any
) -> tuple[bytes, dict[str, Any]]:
    data = os.urandom(9 * seal.SEGMENT_SIZE + 123)  # three parts
    (tmp_path / "in.csv").write_bytes(data)
    with serve(upload):
        answer = node(
            "upload",
            file=str(tmp_path / "in.csv"),
            dataset=DATASET,
            version=3,
            mediaType="text/csv",
            recipient=broker.public.to_json(),
            uploadUrl=f"{upload.url}/u",
            finishUrl=f"{upload.url}/f",
            **options,
        )
    return data, answer


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["cut"],
        ["", "cut", "cut"],
        ["deaf"],
        ["", "", "deaf"],
        ["503", "503"],
        ["cut", "503", "deaf", "cut"],
    ],
    ids=lambda faults: "-".join(f or "ok" for f in faults) or "none",
)
def test_upload_arrives_whole_over_a_bad_line(
    tmp_path: Path, broker: seal.PrivateKey, faults: list[str]
) -> None:
    upload = Upload(faults)
    data, answer = upload_through(tmp_path, broker, upload)
    assert answer.get("answer") == {"next": "/done.html"}, answer
    assert upload.header is not None
    assert opened(bytes(upload.data), upload.header, broker) == data
    assert upload.tokens == {"token-1"}


def test_upload_goes_on_after_a_pause(tmp_path: Path, broker: seal.PrivateKey) -> None:
    upload = Upload()
    data, answer = upload_through(tmp_path, broker, upload, pauseFirst=True)
    assert "answer" in answer
    assert upload.header is not None
    assert opened(bytes(upload.data), upload.header, broker) == data


def test_bytes_of_a_lost_page_are_discarded_first(tmp_path: Path, broker: seal.PrivateKey) -> None:
    upload = Upload(stale=b"half of something else")
    data, _ = upload_through(tmp_path, broker, upload)
    assert ("DELETE", "") in upload.seen
    assert upload.header is not None
    assert opened(bytes(upload.data), upload.header, broker) == data


@pytest.mark.parametrize(
    ("upload", "words"),
    [
        (Upload(["refuse"]), "The file is larger than was announced."),
        (Upload(["", "lose"]), "The server lost part of what was sent."),
        (Upload(stale=b"x", can_delete=False), "its key is gone"),
        (Upload(["503"] * 20), "The connection keeps breaking."),
    ],
    ids=["refused", "lost", "stale", "dead"],
)
def test_upload_that_cannot_work_says_why(
    tmp_path: Path, broker: seal.PrivateKey, upload: Upload, words: str
) -> None:
    _, answer = upload_through(tmp_path, broker, upload)
    assert words in answer["refused"]
    assert upload.header is None


def test_refusal_of_the_seal_header_is_shown(tmp_path: Path, broker: seal.PrivateKey) -> None:
    upload = Upload()
    upload.refuse_finish = "The sealed file is for another version."
    _, answer = upload_through(tmp_path, broker, upload)
    assert answer["refused"] == "The sealed file is for another version."
