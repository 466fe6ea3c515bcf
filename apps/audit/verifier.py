"""Checking the whole log against itself, from the rows up: entry -> leaf -> tiles -> checkpoints.

Two trees are built side by side, one from what the entries say now and one from the stored tiles. The signed roots
then tell which of the two was touched. What this cannot find: entries removed before they were sealed (seconds), and
the end of the log removed together with its checkpoints; a checkpoint kept elsewhere finds the second (`saved`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from django.db import connection, transaction

from apps.audit.actions import entry_document
from apps.audit.models import Checkpoint, Entry, Tile
from apps.audit.sequencer import log_verifier
from strongroom import translog
from strongroom.errors import LogError

CHUNK = 2_000
MOST = 20


@dataclass(frozen=True)
class Finding:
    """One fault. `what` is "entry", "tile" or "checkpoint"; `where` names the row."""

    what: str
    where: str
    sentence: str


@dataclass
class Report:
    """`ok` is True only if everything was read and nothing found. `findings` holds the first 20, in order of place."""

    entries: int = 0
    unsealed: int = 0
    checkpoints: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.findings

    def add(self, what: str, where: str, sentence: str) -> None:
        if what == "tile" and any(f.where == where for f in self.findings):
            return  # one line a tile, not 256
        if len(self.findings) < MOST:
            self.findings.append(Finding(what, where, sentence))


class _Tree:
    """A tree in memory, grown leaf by leaf; only hashes, 32 bytes an entry."""

    def __init__(self) -> None:
        self.size = 0
        self.tiles: dict[tuple[int, int], bytes] = {}

    def _read(self, level: int, index: int, width: int) -> bytes:
        return self.tiles[level, index][: width * 32]

    def grow(self, leaves: list[bytes]) -> None:
        for (level, index, _), data in translog.append(self.size, leaves, self._read).items():
            self.tiles[level, index] = data
        self.size += len(leaves)

    def root(self) -> bytes:
        return translog.tree_root(self.size, translog.tile_hash_reader(self.size, self._read))


@dataclass(frozen=True)
class _Head:
    size: int
    root: bytes
    where: str
    valid: bool  # signed by the log's key and saying what its row says


def verify_log(saved: bytes | None = None) -> Report:
    """Recompute the log from the database. `saved`: a checkpoint kept from earlier, which must still hold.

    Reads one snapshot of the database where it is not called inside a transaction already.
    """
    outermost = not connection.in_atomic_block
    with transaction.atomic():
        if outermost:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return _verify(saved)


def _verify(saved: bytes | None) -> Report:
    report = Report()
    heads = _heads(report, saved)
    size = heads[-1].size if heads else 0
    said, stored = _Tree(), _Tree()
    differing: list[
        tuple[int, str]
    ] = []  # places where entry and tile do not agree, not yet blamed on one of them
    good = 0
    leaves = _leaves(report, size)
    for head in heads:
        while said.size < head.size:
            block = [next(leaves) for _ in range(min(CHUNK, head.size - said.size))]
            differing += [(said.size + n, where) for n, (a, b, where) in enumerate(block) if a != b]
            said.grow([a for a, _, _ in block])
            stored.grow([b for _, b, _ in block])
        if head.size:
            _judge(report, head, said.root(), stored.root(), differing, good)
        good = head.size
    for _ in leaves:  # nothing is left but rows beyond the last checkpoint, which are findings
        pass
    _compare_tiles(report, stored)
    _unsealed(report)
    return report


def _judge(
    report: Report, head: _Head, said: bytes, stored: bytes, differing: list[tuple[int, str]], good: int
) -> None:
    """Say whose fault it is that the two trees, or either of them and the signed root, differ."""
    if head.root == stored:
        for place, where in differing:
            report.add(
                "entry", where, f"The row at place {place} is not the entry that the log took in there."
            )
    elif head.root == said:
        for place, _ in differing:
            path = translog.tile_path(0, place // 256)
            report.add(
                "tile",
                path,
                f"The tile was rewritten: its hash number {place % 256} is not that of entry {place}.",
            )
    elif head.valid:
        for place, where in differing:
            report.add(
                "entry",
                where,
                f"The row at place {place} and the stored tree disagree, and neither is what was signed.",
            )
        if not any(finding.what in ("entry", "tile") for finding in report.findings):
            report.add(
                "checkpoint",
                head.where,
                f"Among the entries from {good} to {head.size - 1} some are not those that were signed.",
            )
    differing.clear()


def _heads(report: Report, saved: bytes | None) -> list[_Head]:
    """Every checkpoint, smallest first, its signature checked."""
    verifier, heads = log_verifier(), []
    for row in Checkpoint.objects.order_by("size").iterator(CHUNK):
        report.checkpoints += 1
        where, valid = f"checkpoint of size {row.size}", True
        try:
            head = translog.open_checkpoint(row.note.encode(), verifier)
            if (head.size, head.root) != (row.size, bytes(row.root)):
                raise LogError("The row and its signed note say different things.")
        except LogError as error:
            valid = False
            report.add("checkpoint", where, str(error))
        heads.append(_Head(row.size, bytes(row.root), where, valid))
    if saved is not None:
        head = translog.open_checkpoint(
            saved, verifier
        )  # LogError: what was brought is not a checkpoint of ours
        if not heads or head.size > heads[-1].size:
            report.add(
                "checkpoint",
                "saved checkpoint",
                f"It covers {head.size} entries; the log has fewer now. The end was removed.",
            )
        else:
            heads.append(_Head(head.size, head.root, "saved checkpoint", True))
    return sorted(heads, key=lambda one: one.size)


def _leaves(report: Report, size: int) -> Iterator[tuple[bytes, bytes, str]]:
    """For each place: (leaf by the entry's content, leaf by the stored tile, which row). Missing rows are findings."""
    rows = Entry.objects.filter(index__isnull=False).order_by("index").iterator(CHUNK)
    row = next(rows, None)
    tile_number, tile = -1, b""
    for place in range(size):
        if place // 256 != tile_number:
            tile_number = place // 256
            kept = Tile.objects.filter(level=0, index=tile_number).values_list("hashes", flat=True).first()
            tile = b"" if kept is None else bytes(kept)
        at = place % 256 * 32
        stored = tile[at : at + 32]
        while (
            row is not None and row.index is not None and row.index < place
        ):  # only negative ones can be here
            report.add(
                "entry", f"entry {row.id}", f"The row claims the place {row.index}, which does not exist."
            )
            row = next(rows, None)
        if row is None or row.index != place:
            report.add(
                "entry", f"place {place}", f"The entry at place {place} is missing: its row was removed."
            )
            yield stored or bytes(32), stored or bytes(32), f"place {place}"
            continue
        where = f"entry {row.id}"
        content = _content_leaf(row)
        report.entries += 1
        if content != bytes(row.leaf_hash):
            report.add(
                "entry",
                where,
                f"The row at place {place} was changed: its content does not match its commitment.",
            )
            # Named already: go on with what the tree holds, so that this one fault is not found again and again.
            content = stored or content
        elif len(stored) < 32:
            report.add(
                "tile", translog.tile_path(0, tile_number), f"The tile lacks the hash of entry {place}."
            )
            stored = content
        yield content, stored or content, where
        row = next(rows, None)
    while row is not None:
        report.add(
            "entry", f"entry {row.id}", f"The row claims the place {row.index}, which no checkpoint covers."
        )
        row = next(rows, None)


def _content_leaf(row: Entry) -> bytes:
    try:
        return translog.leaf_hash(translog.leaf_data(entry_document(row), bytes(row.salt)))
    except LogError:
        return b"\0"  # no leaf at all: it matches nothing


def _compare_tiles(report: Report, tree: _Tree) -> None:
    """Every stored tile against the tree over the stored leaves: the inner hashes, and nothing besides."""
    expected = dict(tree.tiles)
    for row in Tile.objects.order_by("level", "index").iterator(CHUNK):
        wanted = expected.pop((row.level, row.index), None)
        path = translog.tile_path(min(row.level, 63), max(row.index, 0))
        if wanted is None:
            report.add("tile", path, "There is a tile that the log does not have.")
        elif wanted != bytes(row.hashes):
            report.add("tile", path, "The tile is not the one that follows from the tiles below it.")
    for level, index in expected:
        if level > 0:  # level 0 was reported entry by entry
            report.add("tile", translog.tile_path(level, index), "The tile is missing.")


def _unsealed(report: Report) -> None:
    for row in Entry.objects.filter(index__isnull=True).order_by("at", "id").iterator(CHUNK):
        report.unsealed += 1
        if _content_leaf(row) != bytes(row.leaf_hash):
            report.add(
                "entry",
                f"entry {row.id}",
                "The row was changed before it was sealed: its content does not match its commitment.",
            )
