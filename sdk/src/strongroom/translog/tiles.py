"""The log as static files: C2SP tlog-tiles.

A tile at level L is up to 256 hashes of complete subtrees of height 8 * L, side by side; a full one is 8,192 bytes.

    tile/<L>/<N>[.p/<W>]        hashes             N in groups of three digits, all but the last with an x:
    tile/entries/<N>[.p/<W>]    leaf data          1234067 -> x001/x234/067
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from strongroom.errors import LogError
from strongroom.translog.merkle import HASH_SIZE, HashReader, root_from_leaves

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
MAX_LEVEL = 63
MAX_ENTRY_SIZE = 0xFFFF  # entry bundles carry a 16-bit length

# (level, index, width) -> the bytes of that tile, width * 32 of them
TileReader = Callable[[int, int, int], bytes]


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """The path of a tile; a `width` under 256 names a partial tile. Raises LogError for what cannot exist."""
    if not 0 <= level <= MAX_LEVEL:
        raise LogError(f"There is no tile level {level}.")
    return f"tile/{level}/{_index_path(index, width)}"


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """The path of an entry bundle: the leaf data of the level 0 tile `index`."""
    return f"tile/entries/{_index_path(index, width)}"


def _index_path(index: int, width: int) -> str:
    if index < 0 or not 1 <= width <= TILE_WIDTH:
        raise LogError("A tile has an index from 0 and a width from 1 to 256.")
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


def tiles_of(size: int) -> list[tuple[int, int, int]]:
    """(level, index, width) of every tile of a tree of `size` leaves, the partial ones last in their level."""
    found = []
    for level in range(MAX_LEVEL + 1):
        count = size >> (TILE_HEIGHT * level)
        if count == 0:
            break
        full, rest = divmod(count, TILE_WIDTH)
        found += [(level, index, TILE_WIDTH) for index in range(full)]
        if rest:
            found.append((level, full, rest))
    return found


def tile_hash_reader(size: int, read_tile: TileReader) -> HashReader:
    """A HashReader for proofs in the tree of `size` leaves from its tiles. Keeps the tiles it has read."""
    kept: dict[tuple[int, int], list[bytes]] = {}

    def hashes(level: int, index: int) -> list[bytes]:
        if (level, index) not in kept:
            width = min((size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH, TILE_WIDTH)
            if width < 1:
                raise LogError(f"A tree of {size} leaves has no tile {index} at level {level}.")
            data = read_tile(level, index, width)
            if len(data) != width * HASH_SIZE:
                raise LogError(
                    f"Tile {tile_path(level, index, width)} is {len(data)} bytes long, not {width * HASH_SIZE}."
                )
            kept[level, index] = [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]
        return kept[level, index]

    def read(height: int, index: int) -> bytes:
        if height < 0 or index < 0 or (index + 1) << height > size:
            raise LogError(f"A tree of {size} leaves has no complete subtree {index} of height {height}.")
        level, above = divmod(height, TILE_HEIGHT)
        first = index << above
        tile, at = divmod(first, TILE_WIDTH)
        return root_from_leaves(hashes(level, tile)[at : at + (1 << above)])

    return read


def append(size: int, leaves: Sequence[bytes], read_tile: TileReader) -> dict[tuple[int, int, int], bytes]:
    """The tiles to write when `leaves` (leaf hashes) are appended to a tree of `size` leaves.

    Gives {(level, index, width): bytes} for each tile that is new or wider than before: full tiles, and for each
    level the partial tile of the new size. `read_tile` is asked only for the old partial tiles, one a level.
    Write them before signing a checkpoint of the new size. Earlier partial tiles may be removed afterwards.
    """
    if any(len(leaf) != HASH_SIZE for leaf in leaves):
        raise LogError(f"A leaf hash has {HASH_SIZE} bytes.")
    written: dict[tuple[int, int, int], bytes] = {}
    fresh, count = list(leaves), size
    for level in range(MAX_LEVEL + 1):
        if not fresh:
            break
        tile, old_width = divmod(count, TILE_WIDTH)
        old = read_tile(level, tile, old_width) if old_width else b""
        if len(old) != old_width * HASH_SIZE:
            raise LogError(
                f"Tile {tile_path(level, tile, old_width)} has the wrong length: the log is damaged."
            )
        row = [old[at : at + HASH_SIZE] for at in range(0, len(old), HASH_SIZE)] + fresh
        above = []
        for start in range(0, len(row), TILE_WIDTH):
            part = row[start : start + TILE_WIDTH]
            written[level, tile + start // TILE_WIDTH, len(part)] = b"".join(part)
            if len(part) == TILE_WIDTH:
                above.append(root_from_leaves(part))
        fresh, count = above, count >> TILE_HEIGHT
    return written


def entry_bundle(entries: Sequence[bytes]) -> bytes:
    """Up to 256 leaf data as a bundle: each behind its length in two bytes, big-endian. Raises LogError."""
    if not 1 <= len(entries) <= TILE_WIDTH or any(len(entry) > MAX_ENTRY_SIZE for entry in entries):
        raise LogError(f"A bundle holds 1 to {TILE_WIDTH} entries of at most {MAX_ENTRY_SIZE} bytes.")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_entry_bundle(data: bytes, width: int) -> list[bytes]:
    """The `width` leaf data in a bundle. Raises LogError if it holds more, fewer, or a broken one."""
    entries, at = [], 0
    for _ in range(width):
        size = int.from_bytes(data[at : at + 2], "big")
        entry = data[at + 2 : at + 2 + size]
        if len(data) < at + 2 or len(entry) != size:
            raise LogError("The entry bundle is cut short.")
        entries.append(entry)
        at += 2 + size
    if at != len(data):
        raise LogError("The entry bundle holds more than its entries.")
    return entries
