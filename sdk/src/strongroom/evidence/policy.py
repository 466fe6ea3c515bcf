"""What a custodian accepts: a release policy, as data, with a hash of its own.

A member that this version does not know is refused, never ignored: a condition that nobody reads protects nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from strongroom import shapes, strictjson
from strongroom.errors import FormatError
from strongroom.evidence.envelope import TYPES

MAX_POLICY_BYTES = 64 << 10
TEES = ("sev-snp", "tdx", "sev-es", "sev")
PRODUCTS = ("Milan", "Genoa", "Turin")
TDX_STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    # The machine runs a newer TDX module than the one that the domain was started with.
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
)
UP_TO_DATE = ("UpToDate",)  # what is accepted of them where a policy names none
SUPPORT = ("LATEST", "STABLE", "USABLE", "EXPERIMENTAL")
# Components of a TCB version; `fmc` exists on Turin only (AMD 56860, "TCB_VERSION").
TCB_PARTS = ("fmc", "bootloader", "tee", "snp", "microcode")

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_PCR = re.compile(r"[0-9]|1[0-9]|2[0-3]")


def _hex(size: int) -> shapes.Checker:
    pattern = re.compile(rf"[0-9a-f]{{{size * 2}}}")

    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise FormatError(f"{where} must be {size} bytes in lower-case hex.")
        return value

    return check


def _values(key: re.Pattern[str], what: str, checker: shapes.Checker) -> shapes.Checker:
    """A checker of a non-empty mapping whose names match `key`."""

    def check(value: Any, where: str) -> dict[str, Any]:
        document = shapes.mapping(value, where)
        if not document or not all(key.fullmatch(name) for name in document):
            raise FormatError(f"{where} must name at least one {what}, and nothing else.")
        return {name: checker(item, f"{where}.{name}") for name, item in sorted(document.items())}

    return check


_RTMR = re.compile(r"[0-3]")
# Reference values of a runner image for each type whose evidence does not name the image itself.
_CODE: dict[str, tuple[dict[str, shapes.Checker], dict[str, shapes.Checker]]] = {
    "azure-cvm": (
        {"pcrs": _values(_PCR, "PCR", _hex(32))},
        {"measurement": _hex(48), "mrtd": _hex(48)},  # the paravisor's, where Microsoft's key is not enough
    ),
    "azure-aci": ({"cce_policy": _hex(32)}, {}),
    # Of a container group, or of a guest whose token has PCR values: one of the two (see _code_entry).
    "azure-maa": ({}, {"host_data": _hex(32), "pcrs": _values(_PCR, "PCR", _hex(32))}),
    "snp": ({"measurement": _hex(48)}, {"host_data": _hex(32)}),
    "tdx": ({"mrtd": _hex(48)}, {"rtmrs": _values(_RTMR, "RTMR", _hex(48)), "mrconfigid": _hex(48)}),
}


def _code_entry(value: Any, where: str) -> dict[str, Any]:
    kind = shapes.one_of(*_CODE)(shapes.mapping(value, where).get("type"), f"{where}.type")
    required, optional = _CODE[kind]
    head = {"type": shapes.exactly(kind), "image": shapes.image_digest}
    entry = shapes.fields(value, where, {**head, **required}, optional)
    if kind == "azure-maa" and ("host_data" in entry) is ("pcrs" in entry):
        raise FormatError(f"{where} must have either host_data (container groups) or pcrs (machines).")
    return entry


def _tcb(value: Any, where: str) -> dict[str, dict[str, int]]:
    document = shapes.mapping(value, where)
    if not document or not set(document) <= set(PRODUCTS):
        raise FormatError(f"{where} must name at least one of {', '.join(PRODUCTS)}, and nothing else.")
    shape = {part: shapes.whole(0, 255) for part in TCB_PARTS}
    return {p: shapes.fields(v, f"{where}.{p}", {}, shape) for p, v in sorted(document.items())}


def _maa(value: Any, where: str) -> dict[str, list[str]]:
    document = shapes.mapping(value, where)
    if len(document) > 20 or not all(re.fullmatch(r"https://[a-z0-9.-]+", name) for name in document):
        raise FormatError(f"{where} must map issuers (https://name, no path) to lists of policy hashes.")
    return {
        issuer: _distinct(shapes.b64url(32), 20)(hashes, f"{where}.{issuer}")
        for issuer, hashes in sorted(document.items())
    }


def _env_name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _ENV_NAME.fullmatch(value):
        raise FormatError(f"{where} must be the name of an environment variable.")
    return value


def _distinct(checker: shapes.Checker, most: int) -> shapes.Checker:
    """A checker of a list with at least one entry and none twice."""

    def check(value: Any, where: str) -> list[Any]:
        items: list[Any] = shapes.list_of(checker, most)(value, where)
        if not items:
            raise FormatError(
                f"{where} is empty, so it could never be met: name at least one, or leave it out."
            )
        if len({repr(item) for item in items}) != len(items):
            raise FormatError(f"{where} names the same entry twice.")
        return items

    return check


_REQUIRED: dict[str, shapes.Checker] = {
    "v": shapes.exactly(1),
    "types": shapes.list_of(shapes.one_of(*TYPES), len(TYPES)),
    "images": shapes.list_of(shapes.image_digest, 100),
    "max_age_seconds": shapes.whole(1, 366 * 86400),
}
_OPTIONAL: dict[str, shapes.Checker] = {
    "code": _distinct(_code_entry, 100),
    "tees": _distinct(shapes.one_of(*TEES), len(TEES)),
    "products": _distinct(shapes.one_of(*PRODUCTS), len(PRODUCTS)),
    "tcb": _tcb,
    "tdx_tcb": _distinct(shapes.one_of(*TDX_STATUSES), len(TDX_STATUSES)),
    "tdx_advisories": _distinct(shapes.text(40), 100),
    "swversion": shapes.whole(1, 999999),
    "support": _distinct(shapes.one_of(*SUPPORT), len(SUPPORT)),
    "uvm_svn": shapes.whole(0, 65535),
    "audiences": _distinct(shapes.text(512), 20),
    "projects": _distinct(shapes.text(100), 100),
    "zones": _distinct(shapes.text(100), 200),
    "service_accounts": _distinct(shapes.text(320), 20),
    "env_override": _distinct(_env_name, 50),
    "maa": _maa,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """A release policy. See docs/reference/evidence.md for each member and what it compares.

    `types`: evidence types accepted; one that is not named is refused. `images`: runner images accepted by digest; an
    empty list pins none. `max_age_seconds`: from collection to `now`. Each further member is a condition that holds
    only where it is given; None or empty asks for nothing, and the check then says `not_available`, not `pass`.
    `code` gives, for evidence that measures machines and not images, the reference values of an accepted image.
    """

    types: tuple[str, ...]
    images: tuple[str, ...]
    max_age_seconds: int
    code: tuple[Mapping[str, Any], ...] = ()
    tees: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    tcb: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    tdx_tcb: tuple[str, ...] = ()
    tdx_advisories: tuple[str, ...] = ()
    swversion: int | None = None
    support: tuple[str, ...] = ()
    uvm_svn: int | None = None
    audiences: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    env_override: tuple[str, ...] = ()
    maa: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: bytes | dict[str, Any]) -> Self:
        """From JSON bytes or a parsed document. Raises FormatError, saying which member is wrong."""
        if isinstance(value, bytes):
            value = strictjson.loads(value, max_bytes=MAX_POLICY_BYTES, what="The policy")
        document = shapes.fields(value, "The policy", _REQUIRED, _OPTIONAL)
        if not document["types"]:
            raise FormatError(
                "The policy accepts no type of evidence, so it could never be met: name at least one."
            )
        for name in ("types", "images"):
            if len(set(document[name])) != len(document[name]):
                raise FormatError(f"The policy names the same entry of {name} twice.")
        del document["v"]
        members: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in document.items()}
        return cls(**members)

    @classmethod
    def any(cls, *, max_age_seconds: int = 366 * 86400) -> Self:
        """The policy that pins nothing: for looking at evidence, never for releasing a key."""
        return cls(TYPES, (), max_age_seconds)

    def to_json(self) -> dict[str, Any]:
        """The document; conditions that are not set are left out, so that a policy has one form and one hash."""
        document: dict[str, Any] = {"v": 1}
        for member in fields(self):
            value = getattr(self, member.name)
            if member.name in _OPTIONAL and (value is None or value in ((), {})):
                continue
            if isinstance(value, tuple):
                value = [dict(item) if isinstance(item, Mapping) else item for item in value]
            elif isinstance(value, Mapping):
                value = {k: dict(v) if isinstance(v, Mapping) else v for k, v in value.items()}
            document[member.name] = value
        return document

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the policy's canonical JSON: what approvals and verdicts name."""
        return strictjson.digest(self.to_json())

    def code_for(self, type_: str) -> list[Mapping[str, Any]]:
        """The reference values for evidence of `type_`, of accepted images only."""
        return [c for c in self.code if c["type"] == type_ and (not self.images or c["image"] in self.images)]
