"""Private halves closed by AWS KMS: `Encrypt` and `Decrypt` under a symmetric key, bound by the encryption context.

The context is in clear in CloudTrail, so it holds names only: purpose, id and suite of the broker's key, and what the
configuration adds. A KMS policy may demand it (kms:EncryptionContext:purpose).
https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strongroom import shapes
from strongroom.broker.errors import KeyStoreError
from strongroom.broker.stores.quiet import hush
from strongroom.errors import FormatError

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 3, 5, 3


class AwsKms:
    """`key`: id, ARN or alias of a symmetric KMS key. Credentials: the usual chain of boto3, instance role included."""

    kind = "aws"

    def __init__(
        self,
        key: str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise KeyStoreError("not_installed", "AWS KMS needs boto3. Install strongroom[aws].") from None
        self._key = key
        self._context = dict(context or {})
        retries: Any = {"total_max_attempts": ATTEMPTS, "mode": "standard"}
        config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries=retries)
        try:
            self._client: Any = boto3.client("kms", region_name=region, endpoint_url=endpoint, config=config)
        except Exception as error:  # no region, an endpoint that is none: botocore has a class for each
            raise KeyStoreError("refused", f"AWS KMS cannot be set up: {type(error).__name__}.") from None
        hush("boto3", "botocore")

    def __repr__(self) -> str:
        return f"<AwsKms {self._key}>"

    def protect(self, secret: bytes, about: dict[str, str]) -> dict[str, Any]:
        answer = self._call(
            "encrypt", KeyId=self._key, Plaintext=secret, EncryptionContext=self._bound(about)
        )
        return {"key": answer["KeyId"], "ciphertext": shapes.b64_encode(answer["CiphertextBlob"])}

    def reveal(self, box: dict[str, Any], about: dict[str, str]) -> bytes:
        try:
            parsed = shapes.fields(box, "box", {"key": shapes.text(2048), "ciphertext": shapes.b64()})
            blob = shapes.b64_decode(parsed["ciphertext"], "ciphertext")
        except FormatError:
            raise KeyStoreError("malformed", f"The private half of {about['key']} is damaged.") from None
        # The configured key is named, so that KMS refuses a blob that somebody closed under a key of their own.
        answer = self._call(
            "decrypt", KeyId=self._key, CiphertextBlob=blob, EncryptionContext=self._bound(about)
        )
        return bytes(answer["Plaintext"])

    def _bound(self, about: dict[str, str]) -> dict[str, str]:
        return {**self._context, **about}

    def _call(self, operation: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client, operation)(**arguments)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            away = status >= 500 or code in ("ThrottlingException", "DependencyTimeoutException")
            raise KeyStoreError(
                "unreachable" if away else "refused",
                f"AWS KMS did not {operation} with the key {self._key}: {code}. "
                + ("Try again later." if away else "Check the key's policy and state."),
            ) from None
        except BotoCoreError as error:
            raise KeyStoreError(
                "unreachable",
                f"AWS KMS cannot be reached: {type(error).__name__}. Check network and credentials.",
            ) from None
