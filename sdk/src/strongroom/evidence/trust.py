"""Whose keys evidence may rest on. Held by the verifier: nothing here ever comes from the evidence.

The anchors of the hardware makers and clouds are files in this package (anchors/), each named with its fingerprint in
anchors/anchors.json. A custodian may hold a directory of their own instead, in the same form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom import shapes, strictjson
from strongroom.errors import FormatError

MAX_INDEX_BYTES = 256 << 10
MAX_FILE_BYTES = 1 << 20
# What an anchor may be for. Each verifier looks at its own purpose only.
PURPOSES = (
    "amd-ark",  # a product's root key; `product` is Milan, Genoa or Turin
    "amd-ask",  # signs VCEKs; not a root, but saves the evidence from bringing it
    "amd-asvk",  # signs VLEKs
    "intel-root",  # Intel SGX Root CA: TDX quotes
    "google-cs-root",  # Confidential Space, PKI tokens
    "google-cs-jwks",  # Confidential Space, OIDC tokens: the key set of a day; `issuer`
    "maa-jwks",  # keys of one Azure Attestation provider; `issuer`
    "uvm-root",  # signs endorsements of Microsoft's utility VM: a fingerprint is enough (did:x509)
)
_WITHOUT_FILE = ("uvm-root",)


class _Folder(Protocol):
    """What `Path` and a resource of an installed package have in common."""

    def joinpath(self, name: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Anchor:
    """One certificate, key set or fingerprint. `sha256`: hex, of the certificate's DER or the file's bytes.

    `test`: it is of a made-up authority, for trying things out; evidence that rests on it shows nothing.
    """

    purpose: str
    name: str
    sha256: str
    product: str = ""
    issuer: str = ""
    data: bytes = b""
    test: bool = False


@dataclass(frozen=True, slots=True)
class Trust:
    """A trust store.

    `software_keys`: raw Ed25519 public keys of installations whose software evidence is recognised: a store of their
    own, no hardware type looks here. `anchors`: what hardware evidence may rest on.
    """

    software_keys: frozenset[bytes] = frozenset()
    anchors: tuple[Anchor, ...] = field(default=())

    @classmethod
    def of(cls, *, software_keys: Iterable[bytes] = (), anchors: Iterable[Anchor] | None = None) -> Self:
        """With the anchors of this package, unless others are given."""
        found = shipped() if anchors is None else tuple(anchors)
        return cls(frozenset(bytes(key) for key in software_keys), found)

    def find(self, purpose: str, *, product: str | None = None, issuer: str | None = None) -> list[Anchor]:
        """The anchors for a purpose, of one product or issuer where it is given."""
        return [
            a
            for a in self.anchors
            if a.purpose == purpose and product in (None, a.product) and issuer in (None, a.issuer)
        ]

    def fingerprints(self, purpose: str, *, product: str | None = None) -> frozenset[str]:
        """Hex SHA-256 of the anchors for a purpose."""
        return frozenset(a.sha256 for a in self.find(purpose, product=product))


@lru_cache(maxsize=1)
def shipped() -> tuple[Anchor, ...]:
    """The anchors of this package."""
    return read(resources.files("strongroom.evidence").joinpath("anchors"))


def read(folder: _Folder | Path, *, allow_test: bool = False) -> tuple[Anchor, ...]:
    """The anchors of a directory with an anchors.json:

        {"v": 1, "anchors": [{"purpose", "name", "sha256", "file"?, "product"?, "issuer"?, "source"?, "test"?}]}

    A PEM file holds exactly one certificate. Raises FormatError where a file is not what its fingerprint says, and for
    an anchor that is marked `"test": true` unless `allow_test`.
    """
    index = _bytes(folder, "anchors.json", MAX_INDEX_BYTES)
    document = shapes.fields(
        strictjson.loads(index, max_bytes=MAX_INDEX_BYTES, what="anchors.json"),
        "anchors.json",
        {"v": shapes.exactly(1), "anchors": shapes.list_of(_entry, 500)},
    )
    for entry in document["anchors"]:
        if entry.get("test", False) and not allow_test:
            raise FormatError(
                f"anchors.json: {entry['name']!r} is marked as a test authority, whose evidence shows nothing. Take it out."
            )
    return tuple(_load(folder, entry) for entry in document["anchors"])


def _entry(value: Any, where: str) -> dict[str, Any]:
    head = {"purpose": shapes.one_of(*PURPOSES), "name": shapes.text(200), "sha256": shapes.sha256}
    more: dict[str, shapes.Checker] = {
        name: shapes.text(200) for name in ("file", "product", "issuer", "source")
    }
    return shapes.fields(value, where, head, {**more, "test": shapes.boolean})


def _load(folder: _Folder | Path, entry: Mapping[str, Any]) -> Anchor:
    name, purpose, data = entry["name"], entry["purpose"], b""
    if purpose not in _WITHOUT_FILE:
        file = entry.get("file", "")
        if not file or "/" in file or file.startswith("."):
            raise FormatError(f"anchors.json: {name!r} must name a file that lies beside it.")
        data = _bytes(folder, file, MAX_FILE_BYTES)
        if not purpose.endswith("-jwks"):
            data = _certificate(data, file)
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise FormatError(
                f"The trust anchor {file} does not have the fingerprint that anchors.json names."
            )
    return Anchor(
        purpose,
        name,
        entry["sha256"],
        entry.get("product", ""),
        entry.get("issuer", ""),
        data,
        entry.get("test", False),
    )


def _certificate(data: bytes, file: str) -> bytes:
    try:
        found = x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion):
        raise FormatError(f"The trust anchor {file} is not a certificate in PEM.") from None
    if len(found) != 1:
        raise FormatError(f"The trust anchor {file} must hold exactly one certificate.")
    return found[0].public_bytes(Encoding.DER)


def _bytes(folder: _Folder | Path, name: str, most: int) -> bytes:
    try:
        data: bytes = folder.joinpath(name).read_bytes()
    except OSError:
        raise FormatError(f"The trust store has no readable file {name}.") from None
    if len(data) > most:
        raise FormatError(f"The trust store's file {name} is too large.")
    return data
