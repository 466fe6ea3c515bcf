"""The transparency log: an append-only list that nobody, its operator included, can rewrite unseen.

`merkle` is the tree and its proofs (RFC 6962, RFC 9162), `tiles` its storage form (C2SP tlog-tiles), `notes` the
signed tree heads and their cosignatures (C2SP signed-note, tlog-checkpoint, tlog-cosignature), `proof` the text
file that travels with a result (C2SP tlog-proof), `leaves` what a leaf of this log is: a salted commitment.
"""

from strongroom.translog.leaves import (
    MAX_ENTRY_FILE_BYTES,
    LogEntry,
    commitment,
    entry_file,
    generate_salt,
    leaf_data,
    parse_entry_file,
)
from strongroom.translog.merkle import (
    EMPTY_ROOT,
    HashReader,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    memory_reader,
    node_hash,
    root_from_leaves,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from strongroom.translog.notes import (
    Checkpoint,
    Cosignature,
    Note,
    Verifier,
    checkpoint_body,
    cosign,
    open_checkpoint,
    parse_note,
    sign_checkpoint,
    verify_cosignatures,
    vkey,
)
from strongroom.translog.proof import Proof, format_proof, parse_proof, verify_proof
from strongroom.translog.tiles import (
    TILE_WIDTH,
    TileReader,
    append,
    entries_path,
    entry_bundle,
    parse_entry_bundle,
    tile_hash_reader,
    tile_path,
    tiles_of,
)

__all__ = [
    "EMPTY_ROOT",
    "MAX_ENTRY_FILE_BYTES",
    "TILE_WIDTH",
    "Checkpoint",
    "Cosignature",
    "HashReader",
    "LogEntry",
    "Note",
    "Proof",
    "TileReader",
    "Verifier",
    "append",
    "checkpoint_body",
    "commitment",
    "consistency_proof",
    "cosign",
    "entries_path",
    "entry_bundle",
    "entry_file",
    "format_proof",
    "generate_salt",
    "inclusion_proof",
    "leaf_data",
    "leaf_hash",
    "memory_reader",
    "node_hash",
    "open_checkpoint",
    "parse_entry_bundle",
    "parse_entry_file",
    "parse_note",
    "parse_proof",
    "root_from_leaves",
    "sign_checkpoint",
    "tile_hash_reader",
    "tile_path",
    "tiles_of",
    "tree_root",
    "verify_consistency",
    "verify_cosignatures",
    "verify_inclusion",
    "verify_proof",
    "vkey",
]
