"""The documents of a package, read one by one; what cannot be read is recorded as a failed check."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from strongroom import contexts, shapes, strictjson
from strongroom.errors import FormatError, StrongroomError
from strongroom.evidence.model import Checks
from strongroom.package.build import INDEX, MAX_INDEX_BYTES, parse_index
from strongroom.package.portal import MAX_PORTAL_BYTES, PortalKeys
from strongroom.package.zipform import Reader
from strongroom.seal.keys import PublicKey

OUTPUTS = "outputs/"
ALWAYS = (
    "context/c2.json",
    "evidence/e2.json",
    "log/checkpoint",
    "log/entry.json",
    "log/proof.txt",
    "manifest.json",
    INDEX,
    "portal.json",
    "statement.dsse.json",
    "verdict.json",
)
KEY_RELEASE = ("context/c1.json", "evidence/e1.json")  # both or none

_LIMITS = {
    "context/c1.json": 1 << 20,
    "context/c2.json": 1 << 20,
    "evidence/e1.json": 4 << 20,
    "evidence/e2.json": 4 << 20,
    "log/checkpoint": 64 << 10,
    "log/entry.json": 64 << 10,
    "log/proof.txt": 128 << 10,
    "manifest.json": 4 << 20,
    INDEX: MAX_INDEX_BYTES,
    "portal.json": MAX_PORTAL_BYTES,
    "statement.dsse.json": 2 << 20,
    "verdict.json": 2 << 20,
}

# What is read of a manifest here; its other members (limits, parameters, dictionaries) are covered by its hash.
_MANIFEST: dict[str, shapes.Checker] = {
    "v": shapes.exactly(1),
    "run": shapes.uuid_text,
    "portal": contexts.portal_id,
    "project": shapes.nullable(shapes.text(200)),
    "kind": shapes.text(64),
    "program": lambda value, where: shapes.pick(value, where, {"sha256": shapes.nullable(shapes.sha256)}),
    "inputs": shapes.list_of(lambda item, at: shapes.pick(item, at, _MANIFEST_INPUT), contexts.MAX_INPUTS),
    "image": shapes.image_digest,
    "approvals": shapes.sha256,
}
_MANIFEST_INPUT: dict[str, shapes.Checker] = {
    "dataset": shapes.uuid_text,
    "version": shapes.whole(1),
    "stage": shapes.whole(1, 2),
    "sealed": shapes.boolean,
    "sha256": shapes.sha256,
    "plaintext": shapes.sha256,
}

_T = TypeVar("_T")


@dataclass(slots=True)
class Content:
    """Everything but the outputs themselves. A member that could not be read is None, and a check has failed."""

    raw: dict[str, bytes]
    outputs: dict[str, tuple[str, int]]  # path -> (sha256, size), measured
    portal: PortalKeys | None = None
    manifest: dict[str, Any] | None = None
    c1: dict[str, Any] | None = None
    c2: dict[str, Any] | None = None

    @property
    def has_key_release(self) -> bool:
        return KEY_RELEASE[0] in self.raw


def read(reader: Reader, checks: Checks) -> Content | None:
    """Check which files there are and that each is the one that package.json lists; then read the documents.

    None if the files are not the right ones: there is nothing more to look at then. Raises PackageError if the
    file changes under us, or a check sum is wrong.
    """
    names = set(reader.members)
    small = {name for name in names if not name.startswith(OUTPUTS)}
    expected = set(ALWAYS) | (set(KEY_RELEASE) if small & set(KEY_RELEASE) else set())
    missing, extra = sorted(expected - small), sorted(small - expected)
    if not checks.require(
        "package-members",
        not missing and not extra,
        "The package holds the files that a package must hold, and no others.",
        f"The package lacks {_list(missing)}; it holds {_list(extra)} beyond what belongs into one.",
    ):
        return None
    raw = {name: reader.read(name, _LIMITS[name]) for name in sorted(small)}
    content = Content(raw, {})
    if not _check_index(reader, content, checks):
        return None
    content.portal = _document(checks, "portal-document", lambda: _portal(raw["portal.json"]))
    content.manifest = _document(checks, "manifest-document", lambda: parse_manifest(raw["manifest.json"]))
    content.c2 = _document(
        checks, "context-result", lambda: contexts.parse_result(_json(raw, "context/c2.json"))
    )
    if content.has_key_release:
        parse = contexts.parse_key_release
        content.c1 = _document(checks, "context-key-release", lambda: parse(_json(raw, "context/c1.json")))
    return content


def parse_manifest(data: bytes) -> dict[str, Any]:
    """The members of a manifest that verification reads. Raises FormatError."""
    document = strictjson.loads_canonical(data, max_bytes=_LIMITS["manifest.json"], what="manifest.json")
    shapes.pick(document, "manifest.json", {"egress": PublicKey.from_json})
    return shapes.pick(document, "manifest.json", _MANIFEST)


def _check_index(reader: Reader, content: Content, checks: Checks) -> bool:
    try:
        listed = parse_index(content.raw[INDEX])
    except FormatError as error:
        checks.failed("package-index", str(error))
        return False
    found: dict[str, tuple[str, int]] = {}
    for name, member in reader.members.items():
        if name in content.raw:
            found[name] = (hashlib.sha256(content.raw[name]).hexdigest(), member.size)
        else:
            digest = hashlib.sha256()
            for block in reader.chunks(name):
                digest.update(block)
            found[name] = (digest.hexdigest(), member.size)
    del found[INDEX]
    content.outputs = {
        name.removeprefix(OUTPUTS): value for name, value in found.items() if name.startswith(OUTPUTS)
    }
    wrong = sorted(name for name in found.keys() | listed.keys() if found.get(name) != listed.get(name))
    return checks.require(
        "package-index",
        not wrong,
        f"All {len(found)} files are those that {INDEX} lists, byte for byte.",
        f"These files are not as {INDEX} lists them (changed, missing or added): {_list(wrong)}.",
    )


def _portal(data: bytes) -> PortalKeys:
    strictjson.loads_canonical(data, max_bytes=MAX_PORTAL_BYTES, what="portal.json")
    return PortalKeys.parse(data)


def _json(raw: dict[str, bytes], name: str) -> Any:
    return strictjson.loads_canonical(raw[name], max_bytes=_LIMITS[name], what=name)


def _document(checks: Checks, id_: str, parse: Callable[[], _T]) -> _T | None:
    try:
        value = parse()
    except StrongroomError as error:
        checks.failed(id_, str(error))
        return None
    checks.passed(id_, "The document has the required form.")
    return value


def _list(names: list[str]) -> str:
    if not names:
        return "nothing"
    shown = ", ".join(ascii(name)[1:-1] for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
