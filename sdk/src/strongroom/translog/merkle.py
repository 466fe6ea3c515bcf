"""The Merkle tree of RFC 6962 section 2.1 (the same tree as RFC 9162 section 2.1) and its proofs.

Hashes are 32 raw bytes. A tree of n leaves splits at the largest power of two below n. Proofs are built through a
HashReader, so the tree may live in memory, in a table or in tile files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from strongroom.errors import LogError

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

# (height, index) -> hash of the complete subtree over the leaves [index * 2**height, (index + 1) * 2**height)
HashReader = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_from_leaves(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf *hashes*, all at once. For checking a whole log, or a small one."""
    if not hashes:
        return EMPTY_ROOT
    # One pass per level; an odd one out rises unchanged, which is RFC 6962's split seen from below.
    level = list(hashes)
    while len(level) > 1:
        pairs = [node_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) - len(level) % 2 :]
    return level[0]


def memory_reader(hashes: Sequence[bytes]) -> HashReader:
    """A HashReader over leaf hashes in memory: for tests and small trees."""

    def read(height: int, index: int) -> bytes:
        start, end = index << height, (index + 1) << height
        if not 0 <= start < end <= len(hashes):
            raise LogError(f"The tree holds no complete subtree {index} of height {height}.")
        return root_from_leaves(hashes[start:end])

    return read


def tree_root(size: int, read: HashReader) -> bytes:
    """The root of the first `size` leaves."""
    if size < 0:
        raise LogError("A tree cannot have a negative size.")
    return EMPTY_ROOT if size == 0 else _range_hash(0, size, read)


def inclusion_proof(index: int, size: int, read: HashReader) -> list[bytes]:
    """The audit path of leaf `index` in the tree of `size` leaves, leaf's sibling first (RFC 9162, 2.1.3.1)."""
    if not 0 <= index < size:
        raise LogError(f"A tree of {size} leaves has no leaf {index}.")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range_hash(middle, high, read))
            high = middle
        else:
            path.append(_range_hash(low, middle, read))
            low = middle
    return path[::-1]


def consistency_proof(size1: int, size2: int, read: HashReader) -> list[bytes]:
    """The proof that the tree of `size1` leaves is a prefix of that of `size2` (RFC 9162, 2.1.4.1).

    `size1` = 0 is refused: an empty tree is consistent with everything, so such a proof would prove nothing.
    """
    if not 0 < size1 <= size2:
        raise LogError(
            f"There is no consistency proof from {size1} to {size2} leaves: it needs 0 < first <= second."
        )
    path: list[bytes] = []
    low, high, whole = 0, size2, True
    while size1 != high:
        middle = low + _split(high - low)
        if size1 <= middle:
            path.append(_range_hash(middle, high, read))
            high = middle
        else:
            path.append(_range_hash(low, middle, read))
            low, whole = middle, False
    if not whole:
        path.append(_range_hash(low, high, read))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check an audit path (RFC 9162, 2.1.3.2). `leaf` is the leaf hash. Raises LogError if it does not hold."""
    if not 0 <= index < size:
        raise LogError(f"A tree of {size} leaves has no leaf {index}.")
    _check_hashes([leaf, root, *proof])
    node, last, running = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise LogError("The inclusion proof is longer than the tree is high.")
        if node & 1 or node == last:
            running = node_hash(sibling, running)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            running = node_hash(running, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise LogError("The inclusion proof is shorter than the tree is high.")
    if running != root:
        raise LogError(
            "The inclusion proof does not lead to the root: the entry is not in this tree at this place."
        )


def verify_consistency(size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes) -> None:
    """Check that nothing was removed or changed between two tree heads (RFC 9162, 2.1.4.2). Raises LogError.

    `size1` = 0 is refused, see `consistency_proof`.
    """
    if not 0 < size1 <= size2:
        raise LogError(f"A consistency proof from {size1} to {size2} leaves proves nothing.")
    if size1 == size2:
        if proof:
            raise LogError("A consistency proof between two tree heads of one size must be empty.")
        if root1 != root2:
            raise LogError("Two tree heads of one size differ: the log has shown two faces.")
        return
    _check_hashes([root1, root2, *proof])
    path = list(proof)
    if size1 & (size1 - 1) == 0:
        path.insert(0, root1)  # a complete subtree is not repeated in the proof
    if not path:
        raise LogError("The consistency proof is empty.")
    node, last = size1 - 1, size2 - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise LogError("The consistency proof is longer than the tree is high.")
        if node & 1 or node == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise LogError("The consistency proof is shorter than the tree is high.")
    if first != root1 or second != root2:
        raise LogError(
            "The consistency proof does not hold: an entry was removed or changed between the tree heads."
        )


def _range_hash(low: int, high: int, read: HashReader) -> bytes:
    """The hash over leaves [low, high), where low is a multiple of every power of two up to high - low's."""
    size = high - low
    if size & (size - 1) == 0:
        height = size.bit_length() - 1
        value = read(height, low >> height)
        _check_hashes([value])
        return value
    middle = low + _split(size)
    return node_hash(_range_hash(low, middle, read), _range_hash(middle, high, read))


def _split(size: int) -> int:
    """The largest power of two below `size` (which is at least 2)."""
    return 1 << (size - 1).bit_length() - 1


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(not isinstance(value, bytes) or len(value) != HASH_SIZE for value in hashes):
        raise LogError(f"A hash of the log has {HASH_SIZE} bytes; one here has not.")
