"""What a sealed file and a wrapped key are bound to, and the seal header kept beside a ciphertext.

Associated data and HPKE info are a label with a zero byte, then canonical JSON. The labels differ, so bytes made
for one purpose never open under another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from strongroom import shapes, strictjson
from strongroom.errors import FormatError
from strongroom.seal.keys import SUITES
from strongroom.seal.stream import FORMAT, SealResult, ciphertext_size

MEDIA_TYPES = ("text/csv", "application/vnd.apache.parquet")
MAX_HEADER_BYTES = 16 << 10

_VERSION = shapes.whole(1)


def aad_dataset(dataset: str, version: int) -> bytes:
    """Associated data of a dataset version: `dataset` is its UUID in lower case, `version` counts from 1."""
    return _bind("strongroom/1/dataset", {"dataset": dataset, "version": version})


def aad_outputs(run: str) -> bytes:
    """Associated data of the sealed outputs of a run (UUID)."""
    return _bind("strongroom/1/outputs", {"run": run})


def info_data_key(dataset: str, version: int) -> bytes:
    """HPKE info of a data key wrapped by the custodian for the key broker."""
    return _bind("strongroom/1/data-key", {"dataset": dataset, "version": version})


def info_run_key(run: str, dataset: str, version: int, n1: str) -> bytes:
    """HPKE info of a data key wrapped by the broker for the environment that attested `n1` (43 characters)."""
    return _bind("strongroom/1/run-key", {"run": run, "dataset": dataset, "version": version, "n1": n1})


def info_egress_key(run: str) -> bytes:
    """HPKE info of the key of a run's sealed outputs, wrapped for output review."""
    return _bind("strongroom/1/egress-key", {"run": run})


def _bind(label: str, members: dict[str, Any]) -> bytes:
    checkers = {
        "dataset": shapes.uuid_text,
        "version": _VERSION,
        "run": shapes.uuid_text,
        "n1": shapes.b64url(32),
    }
    shapes.fields(members, label, {name: checkers[name] for name in members})
    return label.encode() + b"\x00" + strictjson.canonical(members)


@dataclass(frozen=True, slots=True)
class Digested:
    """Some bytes by their lower-case hex SHA-256 and their size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class SealHeader:
    """The parsed seal header of one dataset version. `wrapped_key` is HPKE output for `recipient` (a key id)."""

    dataset: str
    version: int
    suite: str
    recipient: str
    wrapped_key: bytes
    ciphertext: Digested
    plaintext: Digested
    media_type: str

    def to_json(self) -> dict[str, Any]:
        return {
            "v": 1,
            "format": FORMAT,
            "dataset": self.dataset,
            "version": self.version,
            "wrapped_key": {
                "suite": self.suite,
                "recipient": self.recipient,
                "data": shapes.b64_encode(self.wrapped_key),
            },
            "ciphertext": {"sha256": self.ciphertext.sha256, "size": self.ciphertext.size},
            "plaintext": {
                "sha256": self.plaintext.sha256,
                "size": self.plaintext.size,
                "media_type": self.media_type,
            },
        }


def seal_header(
    *,
    dataset: str,
    version: int,
    suite: str,
    recipient: str,
    wrapped_key: bytes,
    result: SealResult,
    media_type: str,
) -> SealHeader:
    """The header for what `seal_stream` has just written. Raises FormatError if a part has the wrong shape."""
    header = SealHeader(
        dataset=dataset,
        version=version,
        suite=suite,
        recipient=recipient,
        wrapped_key=wrapped_key,
        ciphertext=Digested(result.ciphertext_sha256, result.ciphertext_size),
        plaintext=Digested(result.plaintext_sha256, result.plaintext_size),
        media_type=media_type,
    )
    return parse_seal_header(header.to_json())


def parse_seal_header(value: bytes | dict[str, Any]) -> SealHeader:
    """Read a seal header from JSON bytes or a parsed document. Raises FormatError, saying which member is wrong."""
    if isinstance(value, bytes):
        value = strictjson.loads(value, max_bytes=MAX_HEADER_BYTES, what="The seal header")
    size = {"sha256": shapes.sha256, "size": shapes.whole()}
    document = shapes.fields(
        value,
        "The seal header",
        {
            "v": shapes.exactly(1),
            "format": shapes.exactly(FORMAT),
            "dataset": shapes.uuid_text,
            "version": _VERSION,
            "wrapped_key": shapes.mapping,
            "ciphertext": shapes.mapping,
            "plaintext": shapes.mapping,
        },
    )
    wrapped = shapes.fields(
        document["wrapped_key"],
        "The seal header's wrapped_key",
        {"suite": shapes.one_of(*SUITES), "recipient": shapes.text(16, 16), "data": shapes.b64()},
    )
    sealed = shapes.fields(document["ciphertext"], "The seal header's ciphertext", size)
    plain = shapes.fields(
        document["plaintext"],
        "The seal header's plaintext",
        {**size, "media_type": shapes.one_of(*MEDIA_TYPES)},
    )
    if sealed["size"] != ciphertext_size(plain["size"]):
        raise FormatError(
            f"The seal header contradicts itself: a plaintext of {plain['size']} bytes seals to "
            f"{ciphertext_size(plain['size'])} bytes, not {sealed['size']}."
        )
    return SealHeader(
        dataset=document["dataset"],
        version=document["version"],
        suite=wrapped["suite"],
        recipient=wrapped["recipient"],
        wrapped_key=shapes.b64_decode(wrapped["data"], "The seal header's wrapped_key.data"),
        ciphertext=Digested(sealed["sha256"], sealed["size"]),
        plaintext=Digested(plain["sha256"], plain["size"]),
        media_type=plain["media_type"],
    )
