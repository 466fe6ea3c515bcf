"""The members of a release policy as a person reads and writes them: one table, from which page, form and API are made.

Each entry says what the member is called, what it does in one or two sentences, and how its value is written in a form.
What a value must look like is not repeated here: strongroom.evidence.Policy decides that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strongroom.evidence import TYPES
from strongroom.evidence.policy import PRODUCTS, SUPPORT, TCB_PARTS, TDX_STATUSES, TEES

TYPE_LABELS = {
    "software": "Software: no protection",
    "gcp-confidential-space": "Google Confidential Space",
    "azure-cvm": "Azure confidential VM, raw evidence",
    "azure-aci": "Azure confidential containers",
    "azure-maa": "Microsoft Azure Attestation token",
    "snp": "AMD SEV-SNP, raw report",
    "tdx": "Intel TDX, raw quote",
}


TEE_LABELS = {"sev-snp": "AMD SEV-SNP", "tdx": "Intel TDX", "sev-es": "AMD SEV-ES", "sev": "AMD SEV"}


class Unreadable(ValueError):
    """A value that is not written as its member needs it. The message is for the person."""


@dataclass(frozen=True)
class Member:
    """`widget`: choices, lines, number or text (a textarea with a form of its own). `read`: form value -> policy value,
    None or empty for "not set"; `write`: policy value -> form value; `show`: policy value -> lines for the page."""

    name: str
    label: str
    explanation: str
    widget: str
    hint: str = ""
    required: bool = False
    choices: Sequence[tuple[str, str]] = ()
    read: Callable[[Any], Any] = lambda value: value
    write: Callable[[Any], Any] = lambda value: value
    show: Callable[[Any], list[str]] = lambda value: [str(item) for item in value]
    unset: str = "Anything is accepted."


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _from_lines(value: Any) -> list[str]:
    return _lines(value or "")


def _to_lines(value: Any) -> str:
    return "\n".join(str(item) for item in value or ())


def _read_tcb(text: Any) -> dict[str, dict[str, int]]:
    """`Milan bootloader=3 snp=8`: a product a line."""
    found: dict[str, dict[str, int]] = {}
    for line in _lines(text or ""):
        product, *parts = line.split()
        if product in found:
            raise Unreadable(f"{product} stands there twice. Write one line for each product.")
        found[product] = {}
        for part in parts:
            name, _, number = part.partition("=")
            if name not in TCB_PARTS or not (number.isascii() and number.isdigit() and len(number) < 4):
                raise Unreadable(f"“{part}” must be a component and a number, such as snp=8.")
            found[product][name] = int(number)
    return found


def _write_tcb(value: Any) -> str:
    rows = ((p, " ".join(f"{part}={n}" for part, n in v.items())) for p, v in (value or {}).items())
    return "\n".join(f"{product} {parts}".strip() for product, parts in rows)


def _read_maa(text: Any) -> dict[str, list[str]]:
    """`https://issuer hash hash`: an issuer a line."""
    found: dict[str, list[str]] = {}
    for line in _lines(text or ""):
        issuer, *hashes = line.split()
        if issuer in found:
            raise Unreadable(f"{issuer} stands there twice. Write all its policies on one line.")
        found[issuer] = hashes
    return found


def _write_maa(value: Any) -> str:
    return "\n".join(" ".join([issuer, *hashes]) for issuer, hashes in (value or {}).items())


def _read_code(text: Any) -> list[Any]:
    if not (text or "").strip():
        return []
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable(
            "Write a JSON list, as the command that records the reference values prints it."
        ) from None
    if not isinstance(value, list):
        raise Unreadable("Write a JSON list: begin with [ and end with ].")
    return value


def _write_code(value: Any) -> str:
    return json.dumps(list(value), indent=1) if value else ""


def _show_code(value: Any) -> list[str]:
    return [
        f"{TYPE_LABELS.get(c['type'], c['type'])}, image {c['image']}: "
        + ", ".join(
            f"{k} {json.dumps(v) if isinstance(v, Mapping) else v}"
            for k, v in c.items()
            if k not in ("type", "image")
        )
        for c in value
    ]


def _duration(seconds: Any) -> list[str]:
    minutes, rest = divmod(int(seconds), 60)
    return [f"{seconds} seconds" + (f" ({minutes} minutes)" if not rest and minutes > 1 else "")]


def _number(value: Any) -> list[str]:
    return [str(value)]


def _words(status: str) -> str:
    """ConfigurationNeeded -> Configuration needed; Intel's own word stays readable in it."""
    parts = re.findall(r"SW|[A-Z][a-z]+", status)
    return " ".join([parts[0], *(part if part == "SW" else part.lower() for part in parts[1:])])


def _same(words: Sequence[str]) -> list[tuple[str, str]]:
    return [(word, word) for word in words]


MEMBERS: tuple[Member, ...] = (
    Member(
        "types",
        "Kinds of evidence",
        "Which kinds of proof a machine may bring. A kind that is not named is refused. Software evidence protects "
        "nothing, and can never be accepted for data about real people.",
        "choices",
        required=True,
        choices=[(t, TYPE_LABELS.get(t, t)) for t in TYPES],
        show=lambda value: [TYPE_LABELS.get(t, t) for t in value],
    ),
    Member(
        "images",
        "Images of the runner",
        "Which runner may read the data, by the SHA-256 of its image. The runner is the program that opens the data and "
        "keeps the researcher's program shut in.",
        "lines",
        hint="One a line, each sha256: and 64 hex digits",
        read=_from_lines,
        write=_to_lines,
        unset="Any runner is accepted.",
    ),
    Member(
        "max_age_seconds",
        "Age of the evidence",
        "How old evidence may be when it is judged. Old evidence says nothing about the machine now.",
        "number",
        hint="In seconds, for example 600",
        required=True,
        show=_duration,
    ),
    Member(
        "code",
        "Reference values of the code",
        "Evidence that measures a machine does not name the image. These values say which measurements belong to which "
        "image. Without them such evidence never reaches the tier that releases a key.",
        "text",
        hint="A JSON list, as the command that records the values prints it",
        read=_read_code,
        write=_write_code,
        show=_show_code,
        unset="Not given: evidence of Azure VMs, raw SNP and raw TDX releases no key.",
    ),
    Member(
        "tees",
        "Kinds of protected machine",
        "Which hardware protection counts: AMD SEV-SNP and Intel TDX protect memory against change as well as against "
        "reading; plain SEV and SEV-ES do not.",
        "choices",
        choices=[(t, TEE_LABELS.get(t, t)) for t in TEES],
        show=lambda value: [TEE_LABELS.get(t, t) for t in value],
    ),
    Member(
        "products",
        "AMD processors",
        "Which generations of AMD processors count. A published attack forges evidence of Milan; Genoa and Turin are newer.",
        "choices",
        choices=_same(PRODUCTS),
    ),
    Member(
        "tcb",
        "Lowest firmware of AMD processors",
        "Firmware older than this is refused. The makers raise these numbers when a fault has been mended.",
        "text",
        hint="A processor a line, for example: Genoa bootloader=9 tee=0 snp=21 microcode=72",
        read=_read_tcb,
        write=_write_tcb,
        show=lambda value: _lines(_write_tcb(value)),
    ),
    Member(
        "tdx_tcb",
        "State of Intel machines",
        "What Intel says of the machine's firmware on the day. “Up to date” is the only one without a known open fault.",
        "choices",
        choices=[(status, _words(status)) for status in TDX_STATUSES],
        show=lambda value: [_words(status) for status in value],
        unset="Not given: what Intel says is shown and not compared.",
    ),
    Member(
        "tdx_advisories",
        "Intel advisories that you tolerate",
        "Known faults that you accept to stand open on a machine. Every other one is refused.",
        "lines",
        hint="One a line, for example INTEL-SA-00837",
        read=_from_lines,
        write=_to_lines,
        unset="None is tolerated by name.",
    ),
    Member(
        "swversion",
        "Lowest version of Confidential Space",
        "Google's image of the machine must be at least this new.",
        "number",
        hint="For example 250800",
        show=_number,
    ),
    Member(
        "support",
        "Support of Confidential Space",
        "How well Google supports the image of the machine: LATEST is the newest, STABLE is supported, USABLE is out of "
        "support, EXPERIMENTAL is not for real data.",
        "choices",
        choices=_same(SUPPORT),
    ),
    Member(
        "uvm_svn",
        "Lowest version of Azure's container machine",
        "The security version that Microsoft has signed for the machine below the container.",
        "number",
        hint="For example 101",
        show=_number,
    ),
    Member(
        "audiences",
        "Whom evidence is made out to",
        "A token names who it is for. One that is made out to somebody else is refused.",
        "lines",
        hint="One a line: the name of this portal, or of your key broker",
        read=_from_lines,
        write=_to_lines,
    ),
    Member(
        "projects",
        "Cloud projects",
        "In which cloud projects or subscriptions the machine may run.",
        "lines",
        hint="One a line, by number or id",
        read=_from_lines,
        write=_to_lines,
        unset="Any project is accepted.",
    ),
    Member(
        "zones",
        "Places",
        "In which zones or regions the machine may run: where your data are while they are in use.",
        "lines",
        hint="One a line, for example europe-west2-a",
        read=_from_lines,
        write=_to_lines,
        unset="Any place is accepted.",
    ),
    Member(
        "service_accounts",
        "Service accounts",
        "As which account of the cloud the machine may run.",
        "lines",
        hint="One a line, by its e-mail address",
        read=_from_lines,
        write=_to_lines,
    ),
    Member(
        "env_override",
        "Settings that may be changed at the start",
        "Names of environment variables that may differ from those in the image. Every other change is refused.",
        "lines",
        hint="One name a line",
        read=_from_lines,
        write=_to_lines,
        unset="None may be changed.",
    ),
    Member(
        "maa",
        "Azure Attestation providers",
        "Whose tokens count, and under which of the provider's own policies. Anybody can start a provider with a policy "
        "of their own, so both must be named.",
        "text",
        hint="A provider a line: its https address, then the hashes of its policies",
        read=_read_maa,
        write=_write_maa,
        show=lambda value: _lines(_write_maa(value)),
        unset="None: tokens of Azure Attestation are refused.",
    ),
)
BY_NAME = {member.name: member for member in MEMBERS}


def beside_its_field(sentence: str) -> tuple[str | None, str]:
    """A refusal that names a place in the document, for the form: the field, and the sentence with the field's label.

    `The policy.images[0] must be ...` is ("images", "Images of the runner, entry 1, must be ...").
    """
    found = re.match(r"The policy\.([a-z_]+)(\S*) (.*)", sentence, re.DOTALL)
    if found is None or found[1] not in BY_NAME:
        return None, sentence
    inside = [
        f"entry {int(part[1:-1]) + 1}" if part[0] == "[" else part.strip(".")
        for part in re.findall(r"\[\d+\]|[^\[\]]+", found[2])
    ]
    where = ", ".join([BY_NAME[found[1]].label, *inside]) + ("," if inside else "")
    return found[1], f"{where} {found[3]}"


@dataclass(frozen=True)
class Line:
    """One line of a policy as a page shows it."""

    name: str
    label: str
    explanation: str
    values: tuple[str, ...]
    unset: str


def lines_of(document: Mapping[str, Any]) -> list[Line]:
    """Every member, set or not; one that this table does not know is shown as it stands, never hidden."""
    found = []
    for member in MEMBERS:
        value = document.get(member.name)
        shown = () if value is None or value in ([], {}) else tuple(member.show(value))
        found.append(Line(member.name, member.label, member.explanation, shown, member.unset))
    for name in document:
        if name not in BY_NAME and name != "v":
            found.append(
                Line(name, name, "This page has no explanation for it.", (json.dumps(document[name]),), "")
            )
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(label, before, after) of each line that differs."""

    def said(line: Line) -> str:
        return "; ".join(line.values) or line.unset

    old, new = ({line.name: line for line in lines_of(d)} for d in (before, after))
    names = [*old, *(n for n in new if n not in old)]
    blank = Line("", "", "", (), "Not there")
    pairs = [(old.get(n, blank), new.get(n, blank)) for n in names]
    return [(a.label or b.label, said(a), said(b)) for a, b in pairs if said(a) != said(b)]
