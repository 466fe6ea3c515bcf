"""The software attester, which protects nothing and says so."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path

from strongroom.evidence import software
from strongroom.signing import SigningKey


class SoftwareAttester:
    """Signs a report with a key from a file. Anybody who can read the file can sign anything."""

    type = "software"

    def __init__(self, key_file: Path, *, image: str, instance: str) -> None:
        self._key = SigningKey(key_file.read_bytes())
        self._image, self._instance = image, instance
        self._boot = datetime.now(UTC)

    def evidence(self, nonce: str) -> bytes:
        return software.make(
            self._key,
            nonce=nonce,
            image=self._image,
            host=socket.gethostname(),
            instance=self._instance,
            boot=self._boot,
            now=datetime.now(UTC),
        )
