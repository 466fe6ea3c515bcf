"""Private halves in the key store's own file, which only its user may read. No key service, no second lock."""

from __future__ import annotations

from typing import Any

from strongroom import shapes
from strongroom.broker.errors import KeyStoreError
from strongroom.errors import FormatError


class LocalFile:
    """The file's permissions are the whole protection; `KeyStore` refuses a file that others may open."""

    kind = "local"

    def protect(self, secret: bytes, about: dict[str, str]) -> dict[str, Any]:
        return {"private": shapes.b64_encode(secret)}

    def reveal(self, box: dict[str, Any], about: dict[str, str]) -> bytes:
        try:
            return shapes.b64_decode(box.get("private"), "private")
        except FormatError:
            raise KeyStoreError("malformed", f"The private half of {about['key']} is damaged.") from None
