"""Private halves closed through Azure Key Vault: a fresh key for each, wrapped by an RSA key of the vault (RSA-OAEP-256).

Key Vault's wrapping takes no associated data, so the private half itself is closed by AES-256-GCM with `about` as
associated data, and the vault wraps that one AES key. Unwrapping happens in the vault; its RSA key never leaves it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom import shapes, strictjson
from strongroom.broker.errors import KeyStoreError
from strongroom.broker.stores.quiet import hush
from strongroom.errors import FormatError

CONNECT_SECONDS, READ_SECONDS, RETRIES = 3, 5, 2
_BOX: dict[str, shapes.Checker] = {
    "key": shapes.text(500),
    "wrapped": shapes.b64(),
    "nonce": shapes.b64(12),
    "ciphertext": shapes.b64(),
}


class AzureKeyVault:
    """`key`: address of an RSA key, `https://VAULT.vault.azure.net/keys/NAME` with or without a version.

    `credential`: for tests; else azure-identity's DefaultAzureCredential (managed identity, environment, CLI).
    `ca_file`: a PEM file of authorities to trust in place of the system's, for a private vault. `options` go to the
    client as they are.
    """

    kind = "azure"

    def __init__(
        self,
        key: str,
        *,
        credential: Any = None,
        ca_file: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            from azure.identity import DefaultAzureCredential
            from azure.keyvault.keys.crypto import CryptographyClient
        except ImportError:
            raise KeyStoreError(
                "not_installed",
                "Azure Key Vault needs azure-keyvault-keys and azure-identity. Install strongroom[azure].",
            ) from None
        if not key.startswith("https://") or "/keys/" not in key:
            raise KeyStoreError(
                "refused", f"{key!r} is not the address of a key: https://VAULT.vault.azure.net/keys/NAME."
            )
        self._key = key.rstrip("/")
        self._client_class = CryptographyClient
        self._credential = credential if credential is not None else DefaultAzureCredential()
        self._options: dict[str, Any] = {
            "connection_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retry_total": RETRIES,
            "logging_enable": False,
            **({"connection_verify": ca_file} if ca_file else {}),
            **(options or {}),
        }
        hush("azure")

    def __repr__(self) -> str:
        return f"<AzureKeyVault {self._key}>"

    def protect(self, secret: bytes, about: dict[str, str]) -> dict[str, Any]:
        kek, nonce = AESGCM.generate_key(256), os.urandom(12)
        result = self._call(self._key, "wrap_key", kek)
        return {
            "key": str(result.key_id),
            "wrapped": shapes.b64_encode(result.encrypted_key),
            "nonce": shapes.b64_encode(nonce),
            "ciphertext": shapes.b64_encode(AESGCM(kek).encrypt(nonce, secret, strictjson.canonical(about))),
        }

    def reveal(self, box: dict[str, Any], about: dict[str, str]) -> bytes:
        damaged = KeyStoreError("malformed", f"The private half of {about['key']} is damaged.")
        try:
            parsed = shapes.fields(box, "box", _BOX)
        except FormatError:
            raise damaged from None
        # The version that wrapped it, and of the configured key only: a file cannot send us to another vault.
        if parsed["key"] != self._key and not parsed["key"].startswith(f"{self._key}/"):
            raise KeyStoreError(
                "refused", f"The private half of {about['key']} was closed by another key than {self._key}."
            )
        wrapped, nonce, ciphertext = (
            shapes.b64_decode(parsed[name], name) for name in ("wrapped", "nonce", "ciphertext")
        )
        kek = self._call(parsed["key"], "unwrap_key", wrapped).key
        try:
            return AESGCM(kek).decrypt(nonce, ciphertext, strictjson.canonical(about))
        except (InvalidTag, ValueError):
            raise damaged from None

    def _call(self, key: str, operation: str, data: bytes) -> Any:
        from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
        from azure.keyvault.keys.crypto import KeyWrapAlgorithm

        try:
            with self._client_class(key, self._credential, **self._options) as client:
                return getattr(client, operation)(KeyWrapAlgorithm.rsa_oaep_256, data)
        except ClientAuthenticationError:
            raise KeyStoreError(
                "refused", f"Azure gave no token for {self._key}. Check the identity and its rights."
            ) from None
        except HttpResponseError as error:
            away = error.status_code is None or error.status_code >= 500 or error.status_code == 429
            code = getattr(getattr(error, "error", None), "code", None) or "unknown"
            raise KeyStoreError(
                "unreachable" if away else "refused",
                f"Azure Key Vault did not {operation.replace('_', ' ')} with {self._key}: {error.status_code} {code}. "
                + (
                    "Try again later." if away else "Check the key's state and the rights to wrap and unwrap."
                ),
            ) from None
        except AzureError as error:
            raise KeyStoreError(
                "unreachable",
                f"Azure Key Vault cannot be reached: {type(error).__name__}. Check network and address.",
            ) from None
        except ValueError:
            raise KeyStoreError(
                "refused", f"Azure Key Vault's key {self._key} cannot do RSA-OAEP-256."
            ) from None
