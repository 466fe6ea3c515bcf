"""What an Azure Attestation token is bound to: 64 bytes that the workload chose and the hardware signed.

A confidential VM's firmware puts `user-data` into its runtime claims and their SHA-256 into the report data. In a
container group the workload sets the report data itself: the bytes, or the SHA-256 of runtime data that hold them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from strongroom import shapes, strictjson
from strongroom.errors import FormatError
from strongroom.evidence.model import Checks
from strongroom.evidence.tokens import NEVER_COMPARED, member, text

SIZE = 64

_HEX = re.compile(r"[0-9a-fA-F]{128}")


def check(
    checks: Checks,
    machine: Mapping[str, Any],
    expected: str | bytes | None,
    runtime: bytes | None,
    *,
    containers: bool,
) -> None:
    """Judge the binding to `expected`, and the part runtime-data if there is one."""
    report_data = _bytes(text(machine, "x-ms-sevsnpvm-reportdata") or text(machine, "tdx_report_data"))
    if runtime is not None:
        checks.require(
            "user-data",
            report_data == hashlib.sha256(runtime).digest() + bytes(32),
            "The runtime data are the ones that the hardware report names by their hash.",
            "The runtime data are not the ones that the hardware report names by their hash.",
        )
    if expected is None:
        checks.not_available("nonce", NEVER_COMPARED)
        return
    wanted = _padded(expected)
    held = [report_data]
    # A machine without Microsoft's firmware sets its report data itself, like a container group.
    named = runtime is not None and _names(runtime, expected)
    if containers:
        where = "neither the report data nor the runtime data hold it; a nonce that the service echoes does not count"
    else:
        held.append(_bytes(text(machine, "x-ms-runtime", "user-data")))
        where = "user-data does not hold it; a client-payload that the service echoes does not count"
    checks.require(
        "nonce",
        wanted is not None and (wanted in held or named),
        "The evidence is bound to this context.",
        f"The evidence is not bound to this context: {where}.",
    )


def user_data(machine: Mapping[str, Any], *, containers: bool) -> str | None:
    """The bytes that bind, in lower-case hex, for showing."""
    found = (
        text(machine, "x-ms-sevsnpvm-reportdata")
        if containers
        else text(machine, "x-ms-runtime", "user-data")
    )
    data = _bytes(found)
    return data.hex() if data is not None and any(data) else None


def _bytes(value: str | None) -> bytes | None:
    return bytes.fromhex(value) if value is not None and _HEX.fullmatch(value) else None


def _padded(expected: str | bytes) -> bytes | None:
    """The 64 bytes that must stand in the bound field. None where nothing could be bound to: too long, or all zero."""
    data = expected if isinstance(expected, bytes) else _decoded(expected)
    return data.ljust(SIZE, b"\0") if data is not None and len(data) <= SIZE and any(data) else None


def _decoded(nonce: str) -> bytes | None:
    try:
        return base64.urlsafe_b64decode(shapes.b64url(32)(nonce, "The nonce") + "=")
    except FormatError:
        return None


def _names(runtime: bytes, expected: str | bytes) -> bool:
    """Whether runtime data, whose hash is judged apart, name the nonce in their member `nonce`."""
    try:
        nonce = member(strictjson.loads(runtime, what="The runtime data"), "nonce")
    except FormatError:
        return False
    return isinstance(nonce, str) and expected in (nonce, nonce.encode())
