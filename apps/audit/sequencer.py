"""Taking entries into the tree: one place each, in the order of (at, id), under a signed checkpoint.

Nothing but this module writes `Entry.index`, `Tile` and `Checkpoint`. A lock in the database makes it one at a time
over all processes and machines; a transaction takes in a bounded number, so a long backlog never holds a lock long.
"""

from __future__ import annotations

from django.conf import settings
from django.db import connection, transaction

from apps.audit.models import Checkpoint, Entry, Tile
from apps.core.actors import System, require_actor
from apps.core.clock import now
from apps.core.errors import DomainError
from apps.core.keys import signing_key
from strongroom import translog
from strongroom.errors import LogError
from strongroom.signing import SigningKey

BATCH = 5_000
LOCK = int.from_bytes(b"srlog", "big")  # a number of our own in PostgreSQL's space of advisory locks


class LogBroken(DomainError):
    """The stored tree is not what the last checkpoint says. Nothing more is signed until somebody has looked."""

    status = 503
    title = "The audit log needs attention"

    def __init__(self, detail: str) -> None:
        super().__init__(
            "log_broken",
            detail,
            "The operator must run `manage.py verify_log` and keep the database as it is.",
        )


def log_key() -> SigningKey:
    """The key that signs checkpoints."""
    return SigningKey(signing_key("log").private_bytes_raw())


def log_verifier() -> translog.Verifier:
    """The public half, named by the log's origin, which is the portal's id."""
    return translog.Verifier(settings.PORTAL_ID, log_key().public)


def read_tile(level: int, index: int, width: int) -> bytes:
    """A `strongroom.translog.TileReader` over the table. Raises LogError for a tile that is missing or too narrow."""
    row = Tile.objects.filter(level=level, index=index).values_list("hashes", flat=True).first()
    data = b"" if row is None else bytes(row)
    if len(data) < width * 32:
        raise LogError(f"The stored tree lacks the tile {translog.tile_path(level, index, width)}.")
    return data[: width * 32]


def reader(size: int) -> translog.HashReader:
    """Hashes of the stored tree as it was at `size` leaves."""
    return translog.tile_hash_reader(size, read_tile)


def seal_log(*, by: object = System("log-sealer")) -> int:
    """Take in every entry that has no place yet; sign a checkpoint for each batch. Returns how many were taken in.

    Safe to call at any time and from many processes. Raises LogBroken where the stored tree does not match the last
    checkpoint: signing on top of a forged tree would vouch for it.
    """
    require_actor(by)
    total = 0
    while taken := _seal_batch():
        total += taken
        if taken < BATCH:
            break
    return total


def _seal_batch() -> int:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        fresh = list(
            Entry.objects.filter(index__isnull=True)
            .order_by("at", "id")
            .values_list("id", "leaf_hash")[:BATCH]
        )
        if not fresh:
            return 0
        size = _checked_size()
        try:
            tiles = translog.append(size, [bytes(leaf) for _, leaf in fresh], read_tile)
        except LogError as error:
            raise LogBroken(str(error)) from error
        Tile.objects.bulk_create(
            [Tile(level=level, index=index, hashes=data) for (level, index, _), data in tiles.items()],
            update_conflicts=True,
            unique_fields=["level", "index"],
            update_fields=["hashes"],
        )
        _give_places([pk for pk, _ in fresh], size)
        new = size + len(fresh)
        head = translog.Checkpoint(settings.PORTAL_ID, new, translog.tree_root(new, reader(new)))
        note = translog.sign_checkpoint(head, log_key()).decode()
        Checkpoint.objects.create(size=new, root=head.root, note=note, at=now())
    return len(fresh)


def _checked_size() -> int:
    """The size of the tree so far, after comparing the stored tree's root with the last signed one."""
    last = Checkpoint.objects.order_by("-size").first()
    if last is None:
        if Entry.objects.filter(index__isnull=False).exists():
            raise LogBroken("Entries have places in the log, but there is no checkpoint.")
        return 0
    try:
        head = translog.open_checkpoint(last.note.encode(), log_verifier())
        root = translog.tree_root(last.size, reader(last.size))
    except LogError as error:
        raise LogBroken(str(error)) from error
    if head.size != last.size or not head.root == bytes(last.root) == root:
        raise LogBroken(
            f"The stored tree of {last.size} entries is not the one that the last checkpoint signed."
        )
    return last.size


def _give_places(ids: list[object], first: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE audit_entry AS e SET index = v.index FROM unnest(%s::uuid[], %s::bigint[]) AS v (id, index) "
            "WHERE e.id = v.id AND e.index IS NULL",
            [ids, list(range(first, first + len(ids)))],
        )
        if cursor.rowcount != len(ids):
            raise LogBroken("Entries disappeared while they were being taken into the log.")
