from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom import shapes
from tests.fakes.launcher import Authority

NONCE = shapes.b64url_encode(hashlib.sha256(b"a context").digest())
IMAGE = "sha256:" + "1a" * 32


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: a unix socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="sr-") as name:
        yield Path(name)
