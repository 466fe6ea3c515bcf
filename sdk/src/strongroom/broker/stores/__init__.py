"""Key stores: where a broker's private key lies. One interface (`KeyStore`), four ways to close a private half.

local   in the file itself, mode 0600          azure   wrapped through Azure Key Vault
aws     closed by AWS KMS                      gcp     closed by Google Cloud KMS
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strongroom.broker.errors import KeyStoreError
from strongroom.broker.stores.base import (
    CURRENT,
    DEFAULT_SUITES,
    OLD,
    RETIRED,
    KeyStore,
    Protector,
    StoredKey,
    Unopened,
    read_private_file,
)

KINDS = ("local", "aws", "azure", "gcp")
_MEMBERS = {
    "local": frozenset(),
    "aws": frozenset({"key", "region", "endpoint", "context"}),
    "azure": frozenset({"key", "ca_file"}),
    "gcp": frozenset({"key", "endpoint"}),
}


def protector(kind: str, options: Mapping[str, Any]) -> Protector:
    """What closes private halves, from configuration. Cloud libraries are imported here and only if asked for.

    Raises KeyStoreError: `refused` for a member that is unknown or missing, `not_installed`.
    """
    if kind not in KINDS:
        raise KeyStoreError("refused", f"There is no key store {kind!r}. Stores: {', '.join(KINDS)}.")
    if unknown := set(options) - _MEMBERS[kind]:
        raise KeyStoreError("refused", f"The key store {kind} has no {', '.join(sorted(unknown))}.")
    if kind == "local":
        from strongroom.broker.stores.local import LocalFile

        return LocalFile()
    key = options.get("key")
    if not isinstance(key, str) or not key:
        raise KeyStoreError(
            "refused", f"The key store {kind} needs `key`: the name of a key in that service."
        )
    rest = {name: value for name, value in options.items() if name != "key"}
    if kind == "aws":
        from strongroom.broker.stores.aws import AwsKms

        return AwsKms(key, **rest)
    if kind == "azure":
        from strongroom.broker.stores.azure import AzureKeyVault

        return AzureKeyVault(key, **rest)
    from strongroom.broker.stores.gcp import GoogleKms

    return GoogleKms(key, **rest)


def open_store(path: Path | str, kind: str, options: Mapping[str, Any]) -> KeyStore:
    """The store at `path`, or KeyStoreError."""
    return KeyStore.open(path, protector(kind, options))


__all__ = [
    "CURRENT",
    "DEFAULT_SUITES",
    "KINDS",
    "OLD",
    "RETIRED",
    "KeyStore",
    "KeyStoreError",
    "Protector",
    "StoredKey",
    "Unopened",
    "open_store",
    "protector",
    "read_private_file",
]
