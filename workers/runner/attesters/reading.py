"""Small readings shared by the attesters: capped files, strict encodings, the 64 bytes that hardware binds."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strongroom import shapes
from strongroom.errors import FormatError
from workers.runner.attester import NoEvidence

MAX_FILE = 1 << 20


def nonce_bytes(nonce: str) -> bytes:
    """The 32 bytes of n1 or n2. Raises NoEvidence."""
    try:
        shapes.b64url(32)(nonce, "The nonce")
    except FormatError as error:
        raise NoEvidence(str(error)) from None
    return base64.urlsafe_b64decode(nonce + "=")


def report_data(nonce: str) -> bytes:
    """What a 64-byte field of hardware evidence holds for a nonce: its 32 bytes, then zeros."""
    return nonce_bytes(nonce).ljust(64, b"\x00")


def small_file(path: Path, *, most: int = MAX_FILE) -> bytes:
    """A file of at least one and at most `most` bytes. Raises NoEvidence."""
    try:
        with path.open("rb") as reader:
            data = reader.read(most + 1)
    except OSError as error:
        raise NoEvidence(f"{path} cannot be read ({error.strerror}).") from None
    if not data or len(data) > most:
        raise NoEvidence(f"{path} is empty, or longer than {most:,} bytes.")
    return data


def base64_of(text: bytes | str, what: str) -> bytes:
    """Bytes of standard base64; white space around it is allowed, as files end with a line feed. Raises NoEvidence."""
    raw = text.encode() if isinstance(text, str) else text
    try:
        found = base64.b64decode(raw.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise NoEvidence(f"{what} is not base64.") from None
    if not found:
        raise NoEvidence(f"{what} is empty.")
    return found


def base64url_of(text: Any, what: str) -> bytes:
    """Bytes of base64url, with or without padding. Raises NoEvidence."""
    if not isinstance(text, str) or "+" in text or "/" in text:
        raise NoEvidence(f"{what} is not base64url.")
    bare = text.rstrip("=")
    try:
        found = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise NoEvidence(f"{what} is not base64url.") from None
    if not found:
        raise NoEvidence(f"{what} is empty.")
    return found


def json_of(data: bytes | str, what: str) -> Mapping[str, Any]:
    """A JSON object. Raises NoEvidence."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise NoEvidence(f"{what} is not JSON.") from None
    if not isinstance(found, dict):
        raise NoEvidence(f"{what} is not a JSON object.")
    return found


def amd_certificates(document: Mapping[str, Any], what: str) -> dict[str, bytes]:
    """The collateral `vek` and `chain` from what Azure gives for a host's AMD certificates. Raises NoEvidence.

    Members: vcekCert and certificateChain, PEM text each (Azure's THIM service, and host-amd-cert-base64 of a container
    group). It is collateral: the verifier checks it against its own anchors.
    """
    parts = {"vek": document.get("vcekCert"), "chain": document.get("certificateChain")}
    for name, value in parts.items():
        if not isinstance(value, str) or "-----BEGIN CERTIFICATE-----" not in value:
            raise NoEvidence(f"{what} holds no certificate for {name}.")
    return {name: str(value).encode() for name, value in parts.items()}
