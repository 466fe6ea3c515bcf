"""Trees, proofs and tiles: published vectors, generated trees, and properties."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import translog
from strongroom.errors import LogError

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors" / "transparency-dev-merkle"
LEAVES = [translog.leaf_hash(str(number).encode()) for number in range(700)]
READ = translog.memory_reader(LEAVES)


def vectors(name: str) -> dict[str, Any]:
    path = VECTORS / f"{name}.json"
    if not path.exists():
        pytest.skip(f"the published vectors are not on this machine ({path})")
    cases: dict[str, Any] = json.loads(path.read_text())
    return cases


def decoded(case: dict[str, Any], name: str) -> bytes:
    return base64.b64decode(case[name] or "")


def holds(function: Any, *arguments: Any) -> bool:
    try:
        function(*arguments)
    except LogError:
        return False
    return True


def test_published_inclusion_vectors() -> None:
    cases = vectors("inclusion")
    wrong = []
    for name, case in cases.items():
        proof = [base64.b64decode(item) for item in case["proof"] or []]
        arguments = (
            decoded(case, "leafHash"),
            case["leafIdx"],
            case["treeSize"],
            proof,
            decoded(case, "root"),
        )
        if holds(translog.verify_inclusion, *arguments) == case["wantErr"]:
            wrong.append(name)
    assert not wrong and len(cases) == 98


def test_published_consistency_vectors() -> None:
    cases = vectors("consistency")
    wrong = []
    for name, case in cases.items():
        proof = [base64.b64decode(item) for item in case["proof"] or []]
        arguments = (case["size1"], case["size2"], proof, decoded(case, "root1"), decoded(case, "root2"))
        if holds(translog.verify_consistency, *arguments) == case["wantErr"]:
            wrong.append(name)
    assert not wrong and len(cases) == 98


def naive_root(hashes: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return hashlib.sha256(b"\x01" + naive_root(hashes[:split]) + naive_root(hashes[split:])).digest()


def test_roots_agree_with_the_definition() -> None:
    for size in [*range(70), 255, 256, 257, 700]:
        expected = naive_root(LEAVES[:size])
        assert translog.root_from_leaves(LEAVES[:size]) == expected
        assert translog.tree_root(size, READ) == expected


def test_every_proof_of_small_trees() -> None:
    for size in range(1, 34):
        root = translog.root_from_leaves(LEAVES[:size])
        for index in range(size):
            proof = translog.inclusion_proof(index, size, READ)
            translog.verify_inclusion(LEAVES[index], index, size, proof, root)
            for other in range(size):
                if other != index:
                    assert not holds(translog.verify_inclusion, LEAVES[other], index, size, proof, root)
                    assert not holds(translog.verify_inclusion, LEAVES[index], other, size, proof, root)
            assert not holds(translog.verify_inclusion, LEAVES[index], index, size, [*proof, root], root)
            assert not holds(translog.verify_inclusion, LEAVES[index], index, size, [root, *proof], root)
            if proof:
                assert not holds(translog.verify_inclusion, LEAVES[index], index, size, proof[:-1], root)
        for size1 in range(1, size + 1):
            root1 = translog.root_from_leaves(LEAVES[:size1])
            proof = translog.consistency_proof(size1, size, READ)
            translog.verify_consistency(size1, size, proof, root1, root)
            assert not holds(translog.verify_consistency, size1, size, proof, root, root1) or size1 == size
            assert not holds(translog.verify_consistency, size1, size, [*proof, root], root1, root)
            if proof:
                assert not holds(translog.verify_consistency, size1, size, proof[:-1], root1, root)
                assert not holds(translog.verify_consistency, size1, size, proof[1:], root1, root)


def test_an_empty_tree_is_consistent_with_nothing() -> None:
    with pytest.raises(LogError):
        translog.verify_consistency(0, 5, [], translog.EMPTY_ROOT, translog.root_from_leaves(LEAVES[:5]))
    with pytest.raises(LogError):
        translog.consistency_proof(0, 5, READ)
    with pytest.raises(LogError):
        translog.verify_consistency(0, 0, [], translog.EMPTY_ROOT, translog.EMPTY_ROOT)


@pytest.mark.parametrize("arguments", [(5, 5), (-1, 5), (0, 0)])
def test_leaves_that_do_not_exist(arguments: tuple[int, int]) -> None:
    with pytest.raises(LogError):
        translog.inclusion_proof(*arguments, READ)
    with pytest.raises(LogError):
        translog.verify_inclusion(LEAVES[0], *arguments, [], LEAVES[0])


@given(st.data())
def test_a_changed_proof_never_holds(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 700))
    index = data.draw(st.integers(0, size - 1))
    root = translog.tree_root(size, READ)
    proof = translog.inclusion_proof(index, size, READ)
    at = data.draw(st.integers(0, len(proof) * 32 - 1))
    changed = bytearray(b"".join(proof))
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    broken = [bytes(changed[n : n + 32]) for n in range(0, len(changed), 32)]
    assert not holds(translog.verify_inclusion, LEAVES[index], index, size, broken, root)


class Disk:
    """Tiles as a log would keep them, by path; counts reads."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def read(self, level: int, index: int, width: int) -> bytes:
        return self.files[translog.tile_path(level, index, width)]

    def write(self, tiles: dict[tuple[int, int, int], bytes]) -> None:
        for tile, data in tiles.items():
            path = translog.tile_path(*tile)
            assert self.files.get(path, data) == data, "a tile never changes once written"
            self.files[path] = data


@given(st.lists(st.integers(0, 300), max_size=5))
def test_tiles_grow_and_prove_the_same_tree(steps: list[int]) -> None:
    disk, size = Disk(), 0
    for step in steps:
        step = min(step, len(LEAVES) - size)
        disk.write(translog.append(size, LEAVES[size : size + step], disk.read))
        size += step
    for tile in translog.tiles_of(size):
        assert len(disk.read(*tile)) == tile[2] * 32
    if size:
        read = translog.tile_hash_reader(size, disk.read)
        root = translog.root_from_leaves(LEAVES[:size])
        assert translog.tree_root(size, read) == root
        for index in {0, size // 2, size - 1}:
            proof = translog.inclusion_proof(index, size, read)
            translog.verify_inclusion(LEAVES[index], index, size, proof, root)
            first = translog.root_from_leaves(LEAVES[: index + 1])
            proof = translog.consistency_proof(index + 1, size, read)
            translog.verify_consistency(index + 1, size, proof, first, root)


def test_a_tree_with_three_levels_of_tiles() -> None:
    disk, size = Disk(), 70_000
    leaves = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(size)]
    for start in range(0, size, 9_999):
        disk.write(translog.append(start, leaves[start : start + 9_999], disk.read))
    widths = {level: [t[2] for t in translog.tiles_of(size) if t[0] == level] for level in range(4)}
    # The example of the specification: 273 full and one of 112; one full and one of 17; one of 1.
    assert widths == {0: [256] * 273 + [112], 1: [256, 17], 2: [1], 3: []}
    read, root = translog.tile_hash_reader(size, disk.read), translog.root_from_leaves(leaves)
    assert translog.tree_root(size, read) == root
    for index in (0, 65_535, 65_536, 69_999):
        translog.verify_inclusion(
            leaves[index], index, size, translog.inclusion_proof(index, size, read), root
        )
    old = translog.root_from_leaves(leaves[:12_345])
    translog.verify_consistency(12_345, size, translog.consistency_proof(12_345, size, read), old, root)


def test_tile_paths() -> None:
    assert translog.tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert translog.tile_path(63, 0, 1) == "tile/63/000.p/1"
    assert translog.tile_path(1, 1000, 255) == "tile/1/x001/000.p/255"
    assert translog.entries_path(5) == "tile/entries/005"
    assert translog.entries_path(5, 3) == "tile/entries/005.p/3"
    for bad in ((64, 0, 256), (-1, 0, 256), (0, -1, 256), (0, 0, 0), (0, 0, 257)):
        with pytest.raises(LogError):
            translog.tile_path(*bad)


def test_damaged_tiles_are_noticed() -> None:
    disk = Disk()
    disk.write(translog.append(0, LEAVES[:300], disk.read))
    disk.files["tile/0/001.p/44"] = disk.files["tile/0/001.p/44"][:-1]
    with pytest.raises(LogError, match="1407 bytes"):
        translog.tree_root(300, translog.tile_hash_reader(300, disk.read))
    with pytest.raises(LogError, match="wrong length"):
        translog.append(300, LEAVES[300:310], disk.read)
    with pytest.raises(LogError):
        translog.append(0, [b"short"], disk.read)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20))
def test_entry_bundles(entries: list[bytes]) -> None:
    data = translog.entry_bundle(entries)
    assert translog.parse_entry_bundle(data, len(entries)) == entries
    for broken in (data + b"\0", data[:-1]):
        with pytest.raises(LogError):
            translog.parse_entry_bundle(broken, len(entries))


def test_entry_bundle_limits() -> None:
    for bad in ([], [b""] * 257, [b"x" * 65536]):
        with pytest.raises(LogError):
            translog.entry_bundle(bad)
