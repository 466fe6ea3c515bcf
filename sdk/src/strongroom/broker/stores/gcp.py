"""Private halves closed by Google Cloud KMS: `encrypt` and `decrypt` of a symmetric key with additional authenticated data.

Over REST, so that one plain HTTPS address is all the egress needed. Check sums go both ways, as Google asks
(https://cloud.google.com/kms/docs/data-integrity-guidelines).
"""

from __future__ import annotations

from typing import Any

from strongroom import shapes, strictjson
from strongroom.broker.errors import KeyStoreError
from strongroom.broker.stores.quiet import hush
from strongroom.errors import FormatError

SECONDS, RETRY_SECONDS = 5.0, 3.0


class GoogleKms:
    """`key`: projects/P/locations/L/keyRings/R/cryptoKeys/K. Credentials: application default, or `credentials`."""

    kind = "gcp"

    def __init__(self, key: str, *, endpoint: str | None = None, credentials: Any = None) -> None:
        try:
            from google.api_core.client_options import ClientOptions
            from google.auth.exceptions import GoogleAuthError
            from google.cloud import kms_v1
        except ImportError:
            raise KeyStoreError(
                "not_installed", "Google Cloud KMS needs google-cloud-kms. Install strongroom[gcp]."
            ) from None
        self._key = key
        options = ClientOptions(api_endpoint=endpoint) if endpoint else None
        try:
            self._client: Any = kms_v1.KeyManagementServiceClient(
                transport="rest", client_options=options, credentials=credentials
            )
        except GoogleAuthError as error:
            raise KeyStoreError("refused", f"Google gave no credentials: {type(error).__name__}.") from None
        hush("google")

    def __repr__(self) -> str:
        return f"<GoogleKms {self._key}>"

    def protect(self, secret: bytes, about: dict[str, str]) -> dict[str, Any]:
        aad = strictjson.canonical(about)
        answer = self._call(
            "encrypt",
            name=self._key,
            plaintext=secret,
            plaintext_crc32c=crc32c(secret),
            additional_authenticated_data=aad,
            additional_authenticated_data_crc32c=crc32c(aad),
        )
        whole = answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c
        if not whole or answer.ciphertext_crc32c != crc32c(answer.ciphertext):
            raise KeyStoreError("unreachable", "What Google KMS closed was changed on its way. Try again.")
        return {"key": answer.name, "ciphertext": shapes.b64_encode(answer.ciphertext)}

    def reveal(self, box: dict[str, Any], about: dict[str, str]) -> bytes:
        try:
            parsed = shapes.fields(box, "box", {"key": shapes.text(500), "ciphertext": shapes.b64()})
        except FormatError:
            raise KeyStoreError("malformed", f"The private half of {about['key']} is damaged.") from None
        ciphertext, aad = shapes.b64_decode(parsed["ciphertext"], "ciphertext"), strictjson.canonical(about)
        answer = self._call(
            "decrypt",
            name=self._key,
            ciphertext=ciphertext,
            ciphertext_crc32c=crc32c(ciphertext),
            additional_authenticated_data=aad,
            additional_authenticated_data_crc32c=crc32c(aad),
        )
        if answer.plaintext_crc32c != crc32c(answer.plaintext):
            raise KeyStoreError("unreachable", "What Google KMS opened was changed on its way. Try again.")
        return bytes(answer.plaintext)

    def _call(self, operation: str, **request: Any) -> Any:
        from google.api_core.exceptions import (
            GoogleAPICallError,
            RetryError,
            ServiceUnavailable,
            TooManyRequests,
        )
        from google.api_core.retry import Retry, if_exception_type
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException

        again = Retry(
            if_exception_type(ServiceUnavailable, TooManyRequests),
            initial=0.2,
            maximum=1.0,
            timeout=RETRY_SECONDS,
        )
        try:
            return getattr(self._client, operation)(request=request, timeout=SECONDS, retry=again)
        except GoogleAPICallError as error:
            code = int(error.code) if error.code is not None else 0
            away = code >= 500 or code in (0, 408, 429)
            raise KeyStoreError(
                "unreachable" if away else "refused",
                f"Google KMS did not {operation} with {self._key}: {type(error).__name__}. "
                + (
                    "Try again later."
                    if away
                    else "Check the key's state and the rights to encrypt and decrypt."
                ),
            ) from None
        except GoogleAuthError as error:
            raise KeyStoreError("refused", f"Google gave no credentials: {type(error).__name__}.") from None
        except (RetryError, RequestException) as error:
            raise KeyStoreError(
                "unreachable", f"Google KMS cannot be reached: {type(error).__name__}."
            ) from None


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli, RFC 3720 appendix B.4), bit by bit: it is for a few hundred bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
