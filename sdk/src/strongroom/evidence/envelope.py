"""The evidence envelope: raw evidence byte for byte, with its collateral, in one canonical JSON document.

    {"v": 1, "type": "software", "parts": {name: base64}, "collateral": {name: base64}, "collected": RFC 3339 UTC}

The envelope itself is not signed. Each type's verifier must cover every member of it, so that no byte can change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strongroom import shapes, strictjson
from strongroom.errors import FormatError

MAX_BYTES = 4 << 20
MAX_PARTS = 32

# Every type of the design. Those without a verifier in this version are known by name, so that the refusal can
# say which evidence it was.
TYPES = (
    "software",
    "gcp-confidential-space",
    "azure-cvm",
    "azure-aci",
    "azure-maa",
    "snp",
    "tdx",
)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope; `raw` are the exact bytes, whose SHA-256 stands for the evidence."""

    type: str
    parts: Mapping[str, bytes]
    collateral: Mapping[str, bytes]
    collected: datetime
    raw: bytes


def _blobs(value: Any, where: str) -> dict[str, bytes]:
    document = shapes.mapping(value, where)
    if len(document) > MAX_PARTS or not all(_NAME.fullmatch(name) for name in document):
        raise FormatError(f"{where} must hold at most {MAX_PARTS} parts with simple lower-case names.")
    return {name: shapes.b64_decode(item, f"{where}.{name}") for name, item in document.items()}


_SHAPE: dict[str, shapes.Checker] = {
    "v": shapes.exactly(1),
    "type": shapes.one_of(*TYPES),
    "parts": _blobs,
    "collateral": _blobs,
    "collected": shapes.time_text,
}


def parse(data: bytes) -> Envelope:
    """Read an envelope strictly: known type, canonical bytes, nothing unknown. Raises FormatError."""
    document = shapes.fields(
        strictjson.loads_canonical(data, max_bytes=MAX_BYTES, what="The evidence"),
        "The evidence",
        _SHAPE,
    )
    collected = shapes.parse_time(document["collected"], "collected")
    if shapes.format_time(collected) != document["collected"]:
        raise FormatError("The evidence's time of collection is not in its one canonical form.")
    return Envelope(document["type"], document["parts"], document["collateral"], collected, data)


def build(
    type_: str,
    parts: Mapping[str, bytes],
    *,
    collected: datetime,
    collateral: Mapping[str, bytes] | None = None,
) -> bytes:
    """The canonical bytes of an envelope. Raises FormatError."""
    data = strictjson.canonical(
        {
            "v": 1,
            "type": type_,
            "parts": {name: shapes.b64_encode(raw) for name, raw in parts.items()},
            "collateral": {name: shapes.b64_encode(raw) for name, raw in (collateral or {}).items()},
            "collected": shapes.format_time(collected),
        }
    )
    parse(data)
    return data
