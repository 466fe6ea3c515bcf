"""The installation's own keys, by name, behind one small interface. Default: files of mode 0600 under var/keys.

Names in use: `log` and `verdict` and `software-attester` (Ed25519 signing keys), `broker` and `egress` (X25519, HPKE).
The software attester's key stands for a machine's hardware key and protects nothing; it exists so that the embedded
stack walks every step that real evidence walks.

The key broker's keys lie in a key store of their own (`key_store`): a local file, or closed by a cloud's key service.
The file `broker.key` is the first X25519 key of a local store; the store takes it in when it is made.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from django.conf import settings

from strongroom.broker.stores import KeyStore, KeyStoreError, protector
from strongroom.seal.keys import X25519, PrivateKey, PublicKey

SIGNING = ("log", "verdict", "software-attester")
HPKE = ("broker", "egress")


def key_file(name: str) -> Path:
    """Path of a key's file, made on first use. Two processes racing agree on one: creation is exclusive by link."""
    if name not in SIGNING + HPKE:
        raise ValueError(f"unknown key {name!r}")
    folder = Path(settings.KEY_DIRECTORY)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{name}.key"
    if not path.exists():
        raw = (
            Ed25519PrivateKey.generate() if name in SIGNING else X25519PrivateKey.generate()
        ).private_bytes_raw()
        temporary = folder / f".{name}.{os.getpid()}.{os.urandom(4).hex()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as f:
            f.write(raw)
            f.flush()
            os.fsync(f.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path


@lru_cache(maxsize=16)
def _raw(path: str) -> bytes:
    return Path(path).read_bytes()


def signing_key(name: str) -> Ed25519PrivateKey:
    """The Ed25519 key called `name`."""
    if name not in SIGNING:
        raise ValueError(f"{name!r} is not a signing key")
    return Ed25519PrivateKey.from_private_bytes(_raw(str(key_file(name))))


def hpke_key(name: str) -> X25519PrivateKey:
    """The X25519 key called `name`."""
    if name not in HPKE:
        raise ValueError(f"{name!r} is not an HPKE key")
    return X25519PrivateKey.from_private_bytes(_raw(str(key_file(name))))


def key_store() -> KeyStore:
    """The store of this portal's own key broker, made on first use (docs/reference/settings.md, "Key stores").

    Raises KeyStoreError: it cannot be reached, opened or understood.
    """
    options = json.dumps(settings.KEY_STORE_OPTIONS, sort_keys=True)
    path = settings.KEY_STORE_FILE or str(Path(settings.KEY_DIRECTORY) / "broker.json")
    return _key_store(settings.KEY_STORE, options, path)


def broker_public(suite: str = X25519) -> PublicKey:
    """The key of this portal's broker to seal to. X25519 is what browsers can do; the command line takes the hybrid."""
    return key_store().current(suite)


@lru_cache(maxsize=4)
def _key_store(kind: str, options: str, path: str) -> KeyStore:
    closes = protector(kind, json.loads(options))
    if not Path(path).exists():
        adopt = []
        if kind == "local" or (Path(settings.KEY_DIRECTORY) / "broker.key").exists():
            adopt = [PrivateKey(X25519, hpke_key("broker").private_bytes_raw())]
        try:
            return KeyStore.create(path, closes, adopt=adopt)
        except KeyStoreError as error:
            if error.code != "exists":  # another process was first
                raise
    return KeyStore.open(path, closes)
