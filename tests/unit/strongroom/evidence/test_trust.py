"""Trust stores: what the package ships, and a directory of the custodian's own."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.evidence import Tier, Trust, amd, der, trust
from tests.unit.strongroom.evidence import authority_amd as authority
from tests.unit.strongroom.evidence import test_snp as snp

ARK = authority.ark()


def entry(**changes: Any) -> dict[str, Any]:
    good = {
        "purpose": "amd-ark", "name": "a root", "sha256": hashlib.sha256(ARK).hexdigest(), "file": "root.pem",
        "product": "Milan", "source": "a test",
    }  # fmt: skip
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


def store(folder: Path, *entries: dict[str, Any], root: bytes | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "anchors.json").write_text(json.dumps({"v": 1, "anchors": list(entries)}))
    (folder / "root.pem").write_bytes(authority.pem(ARK) if root is None else root)
    return folder


def test_every_shipped_anchor_is_what_its_fingerprint_says() -> None:
    found = trust.shipped()
    assert len({(a.purpose, a.product, a.issuer, a.sha256) for a in found}) == len(found)
    for anchor in found:
        if anchor.data:
            assert hashlib.sha256(anchor.data).hexdigest() == anchor.sha256
        assert anchor.purpose in trust.PURPOSES and not getattr(anchor, "test", False)


@pytest.mark.parametrize("product", authority.PRODUCTS)
def test_the_shipped_keys_of_amd(product: str) -> None:
    store_ = Trust.of()
    (root,) = (der.certificate(a.data) for a in store_.find("amd-ark", product=product))
    assert root.subject_cn == f"ARK-{product}" and amd.signed_by(root, root) and root.is_ca
    for purpose, name in (("amd-ask", f"SEV-{product}"), ("amd-asvk", f"SEV-VLEK-{product}")):
        (found,) = (der.certificate(a.data) for a in store_.find(purpose, product=product))
        assert found.subject_cn == name and amd.signed_by(found, root) and found.is_ca


def test_the_shipped_authority_for_utility_vms_is_the_one_of_the_did() -> None:
    assert Trust.of().fingerprints("uvm-root") == {
        "23ffe2b8bdb9a1711515d4cffda04bc7f793d513c76c243f1020507d8669b7db"
    }


def test_every_shipped_file_is_named_once() -> None:
    folder = resources.files("strongroom.evidence").joinpath("anchors")
    index = json.loads(folder.joinpath("anchors.json").read_text())
    named = [item["file"] for item in index["anchors"] if "file" in item]
    assert sorted(named) == sorted(item.name for item in folder.iterdir() if item.name.endswith(".pem"))
    assert all(item["source"] for item in index["anchors"])


def test_what_the_authority_of_the_tests_signs_is_refused_by_the_shipped_store() -> None:
    assert {"trust-anchor", "chain"} <= snp.failed(snp.judge(snp.make(), trust=Trust.of()))


def test_a_directory_of_ones_own(tmp_path: Path) -> None:
    found = Trust.of(anchors=trust.read(store(tmp_path / "t", entry())))
    assert snp.judge(snp.make(), trust=found).tier is Tier.AFFIRMING
    assert found.fingerprints("amd-ark", product="Milan") and not found.fingerprints(
        "amd-ark", product="Genoa"
    )
    assert not found.find("intel-root") and not found.find("amd-ask")


def test_an_anchor_counts_for_its_own_purpose_and_product_only(tmp_path: Path) -> None:
    for changes in (
        {"purpose": "amd-ask"},
        {"product": "Genoa"},
        {"product": ...},
        {"purpose": "intel-root"},
    ):
        found = Trust.of(anchors=trust.read(store(tmp_path / "t", entry(**changes))))
        assert "trust-anchor" in snp.failed(snp.judge(snp.make(), trust=found))


def test_a_fingerprint_is_enough_for_the_authority_of_utility_vms(tmp_path: Path) -> None:
    fingerprint = hashlib.sha256(authority.uvm_chain()[-1]).hexdigest()
    folder = store(tmp_path / "t", {"purpose": "uvm-root", "name": "x", "sha256": fingerprint})
    assert Trust.of(anchors=trust.read(folder)).fingerprints("uvm-root") == {fingerprint}


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "00" * 32}, {"sha256": hashlib.sha256(ARK).hexdigest().upper()}, {"sha256": ...}, {"file": ...},
        {"file": "missing.pem"}, {"file": "../root.pem"}, {"file": "/etc/passwd"}, {"file": "."}, {"file": ".."},
        {"file": ".hidden"}, {"file": "sub/root.pem"}, {"file": ""}, {"file": "root.pem\0"}, {"file": "anchors.json"},
        {"purpose": "root"}, {"purpose": ...}, {"name": ...}, {"name": ""}, {"more": "x"}, {"file": 1},
    ],
)  # fmt: skip
def test_entries_that_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = store(tmp_path / "t", entry(**changes))
    (tmp_path / "root.pem").write_bytes(authority.pem(ARK))
    with pytest.raises(FormatError):
        trust.read(folder)


@pytest.mark.parametrize(
    "root",
    [
        b"",
        b"x",
        ARK,
        authority.pem(ARK, ARK),
        authority.pem(authority.ark("Genoa")),
        authority.pem(ARK)[:-40],
    ],
)
def test_files_that_are_refused(tmp_path: Path, root: bytes) -> None:
    with pytest.raises(FormatError):
        trust.read(store(tmp_path / "t", entry(), root=root))


@pytest.mark.parametrize(
    "index", [b"", b"[]", b'{"v": 1}', b'{"v": 2, "anchors": []}', b'{"v": 1, "v": 1, "anchors": []}']
)
def test_indexes_that_are_refused(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "anchors.json").write_bytes(index)
    with pytest.raises(FormatError):
        trust.read(tmp_path)


def test_a_missing_directory_and_files_that_are_too_large(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no readable file anchors\.json"):
        trust.read(tmp_path / "none")
    folder = store(tmp_path / "t", entry(), root=b" " * (trust.MAX_FILE_BYTES + 1))
    with pytest.raises(FormatError, match="too large"):
        trust.read(folder)
    shutil.rmtree(folder)
    folder.write_text("a file")
    with pytest.raises(FormatError):
        trust.read(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=200))
def test_noise(tmp_path: Path, noise: bytes) -> None:
    (tmp_path / "anchors.json").write_bytes(noise)
    with pytest.raises(FormatError):
        trust.read(tmp_path)


def test_a_test_authority_must_be_asked_for(tmp_path: Path) -> None:
    folder = store(tmp_path / "t", entry(test=True))
    with pytest.raises(FormatError, match="test authority"):
        trust.read(folder)
    (found,) = trust.read(folder, allow_test=True)
    assert found.test
    (plain,) = trust.read(store(tmp_path / "p", entry(test=False)))
    assert not plain.test
