"""The documents of a package, read one by one; what cannot be read is recorded as a failed check."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from strongroom import contexts, shapes, strictjson
from strongroom.errors import FormatError, StrongroomError
from strongroom.evidence.model import Checks
from strongroom.evidence.policy import MAX_POLICY_BYTES, Policy
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
# Of custodians' own key brokers, in the order of C2's `brokers`: pairs numbered from 1 without a gap.
_BROKER = re.compile(r"(context/c1|evidence/e1)-([1-9]|1[0-9]|20)\.json")

# The release policies that the evidence was judged under, each named by its hash, which the verdict names.
_POLICY = re.compile(r"policies/([0-9a-f]{64})\.json")

_LIMITS = {
    "context/c1.json": 1 << 20,
    "context/c2.json": 1 << 20,
    "evidence/e1.json": 4 << 20,
    "evidence/e2.json": 4 << 20,
    "log/checkpoint": 64 << 10,
    "log/entry.json": 64 << 10,
    "log/proof.txt": 128 << 10,
    "manifest.json": 4 << 20,
    "policies": MAX_POLICY_BYTES,
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
    "inputs": shapes.list_of(lambda item, at: _manifest_input(item, at), contexts.MAX_INPUTS),
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


def _manifest_input(value: Any, where: str) -> dict[str, Any]:
    """`broker` is whose key broker holds the key: None for the portal's own, where the manifest leaves it out."""
    found = shapes.pick(value, where, _MANIFEST_INPUT)
    broker = value.get("broker")
    return {**found, "broker": None if broker is None else contexts.broker_id(broker, f"{where}.broker")}


@dataclass(slots=True)
class Content:
    """Everything but the outputs themselves. A member that could not be read is None, and a check has failed."""

    raw: dict[str, bytes]
    outputs: dict[str, tuple[str, int]]  # path -> (sha256, size), measured
    portal: PortalKeys | None = None
    manifest: dict[str, Any] | None = None
    c1: dict[str, Any] | None = None
    c2: dict[str, Any] | None = None
    broker_c1s: list[dict[str, Any] | None] = field(default_factory=list)
    policies: dict[str, Policy] = field(default_factory=dict)  # by hash

    @property
    def has_portal_release(self) -> bool:
        """Whether the portal's own broker was asked for a key."""
        return KEY_RELEASE[0] in self.raw

    @property
    def has_key_release(self) -> bool:
        return self.has_portal_release or bool(self.broker_c1s)

    @property
    def releases(self) -> list[tuple[str, dict[str, Any] | None]]:
        """(name of the evidence without folder and ending, its C1) of every release, the portal's own first."""
        first = [("e1", self.c1)] if self.has_portal_release else []
        return [*first, *((f"e1-{n}", c1) for n, c1 in enumerate(self.broker_c1s, start=1))]


def read(reader: Reader, checks: Checks) -> Content | None:
    """Check which files there are and that each is the one that package.json lists; then read the documents.

    None if the files are not the right ones: there is nothing more to look at then. Raises PackageError if the
    file changes under us, or a check sum is wrong.
    """
    names = set(reader.members)
    small = {name for name in names if not name.startswith(OUTPUTS)}
    brokers = len({match[2] for name in small if (match := _BROKER.fullmatch(name))})
    pairs = {f"{part}-{n}.json" for part in ("context/c1", "evidence/e1") for n in range(1, brokers + 1)}
    policies = {name for name in small if _POLICY.fullmatch(name)}
    expected = set(ALWAYS) | policies | (set(KEY_RELEASE) if small & set(KEY_RELEASE) else set()) | pairs
    missing, extra = sorted(expected - small), sorted(small - expected)
    if not checks.require(
        "package-members",
        not missing and not extra,
        "The package holds the files that a package must hold, and no others.",
        f"The package lacks {_list(missing)}; it holds {_list(extra)} beyond what belongs into one.",
    ):
        return None
    raw = {name: reader.read(name, _limit(name)) for name in sorted(small)}
    content = Content(raw, {})
    if not _check_index(reader, content, checks):
        return None
    content.portal = _document(checks, "portal-document", lambda: _portal(raw["portal.json"]))
    content.manifest = _document(checks, "manifest-document", lambda: parse_manifest(raw["manifest.json"]))
    content.c2 = _document(
        checks, "context-result", lambda: contexts.parse_result(_json(raw, "context/c2.json"))
    )
    parse = contexts.parse_key_release
    if content.has_portal_release:
        content.c1 = _document(checks, "context-key-release", lambda: parse(_json(raw, "context/c1.json")))
    for number in range(1, brokers + 1):
        name = f"context/c1-{number}.json"
        content.broker_c1s.append(
            _document(
                checks, f"context-key-release-{number}", partial(lambda name: parse(_json(raw, name)), name)
            )
        )
    found = _document(checks, "policies-form", lambda: _policies(raw, policies))
    content.policies = found or {}
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


def _policies(raw: dict[str, bytes], names: set[str]) -> dict[str, Policy]:
    """Each under the hash that is its name. Raises FormatError."""
    found = {}
    for name in sorted(names):
        strictjson.loads_canonical(raw[name], max_bytes=MAX_POLICY_BYTES, what=name)
        policy = Policy.parse(raw[name])
        if f"policies/{policy.sha256}.json" != name:
            raise FormatError(f"{name} is not the policy whose hash is its name.")
        found[policy.sha256] = policy
    return found


def _json(raw: dict[str, bytes], name: str) -> Any:
    return strictjson.loads_canonical(raw[name], max_bytes=_limit(name), what=name)


def _limit(name: str) -> int:
    """In bytes; of a numbered document that of the one without a number."""
    if _POLICY.fullmatch(name):
        return _LIMITS["policies"]
    match = _BROKER.fullmatch(name)
    return _LIMITS[f"{match[1]}.json" if match else name]


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
