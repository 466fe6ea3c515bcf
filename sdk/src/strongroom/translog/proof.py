"""The text file that proves offline that a leaf is in the log: C2SP tlog-proof@v1.

    c2sp.org/tlog-proof@v1
    index <n>
    <base64 hash>            the audit path, leaf's sibling first
    ...
    <empty line>
    <the signed checkpoint, byte for byte>

The optional `extra` line is refused here: it is not authenticated, and this project puts nothing in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from strongroom import shapes
from strongroom.errors import FormatError, LogError
from strongroom.translog.merkle import leaf_hash, verify_inclusion
from strongroom.translog.notes import MAX_NOTE_BYTES, Checkpoint, Verifier, open_checkpoint

MAX_PROOF_BYTES = MAX_NOTE_BYTES + 8192

_HEADER = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Proof:
    """A parsed proof: the leaf's index, its audit path, and the bytes of the signed checkpoint."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes


def format_proof(index: int, path: Sequence[bytes], checkpoint: bytes) -> bytes:
    """The proof file. `checkpoint` is a signed note as `sign_checkpoint` gives it. Raises LogError."""
    lines = [_HEADER, f"index {index}", *(shapes.b64_encode(value) for value in path), "", ""]
    data = "\n".join(lines).encode() + checkpoint
    parse_proof(data)
    return data


def parse_proof(data: bytes) -> Proof:
    """Read a proof file strictly. Nothing is verified yet. Raises LogError."""
    if len(data) > MAX_PROOF_BYTES:
        raise LogError(f"The log proof is longer than {MAX_PROOF_BYTES} bytes.")
    head, gap, checkpoint = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
        match = _INDEX.fullmatch(lines[1]) if len(lines) > 1 else None
        if not gap or lines[0] != _HEADER or match is None:
            raise LogError(f"The log proof must begin with {_HEADER} and an index line.")
        if len(lines) > 2 + 64:
            raise LogError("The log proof has more hashes than a tree can be high.")
        path = tuple(shapes.b64_decode(line, "A hash of the log proof", size=32) for line in lines[2:])
    except (FormatError, UnicodeError) as error:
        raise LogError(f"The log proof is not in the expected form: {error}") from None
    return Proof(int(match[1]), path, checkpoint)


def verify_proof(data: bytes, leaf: bytes, log: Verifier) -> Checkpoint:
    """Check that the leaf with this *data* is in the tree that the log signed. Raises LogError if not."""
    proof = parse_proof(data)
    checkpoint = open_checkpoint(proof.checkpoint, log)
    verify_inclusion(leaf_hash(leaf), proof.index, checkpoint.size, proof.path, checkpoint.root)
    return checkpoint
