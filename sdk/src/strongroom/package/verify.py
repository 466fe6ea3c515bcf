"""Verifying a package offline: who ran what, on which data, with which result, and whether it is in the log.

Nothing is fetched. With pinned keys the question is "did this portal say so?"; without, only "does it hang together?"
and the report says that.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from strongroom import contexts, evidence, shapes, statement, translog
from strongroom.errors import LogError, PackageError, StrongroomError
from strongroom.evidence import Appraisal, Check, Checks, Outcome, Policy, Tier
from strongroom.evidence.software import CLOCK_SKEW, NO_PROTECTION
from strongroom.package import agreement, content
from strongroom.package.content import Content
from strongroom.package.portal import PortalKeys
from strongroom.package.report import PackageReport
from strongroom.package.zipform import Reader

# Between collection of evidence and its reception by the portal. What ties evidence to its run is the nonce.
MAX_EVIDENCE_AGE = timedelta(days=1)
UNKNOWN_PROTECTION = (
    "It is not known how the environment was protected, because the evidence was not accepted."
)
# A package is never accepted on silence: each of these must be among the checks, whatever else is.
REQUIRED = frozenset(
    {
        "package-file",
        "package-members",
        "package-index",
        "portal-keys",
        "manifest",
        "inputs",
        "key-release",
        "outputs",
        "statement-signature",
        "statement-hash",
        "statement-subjects",
        "statement-content",
        "statement-evidence",
        "verdict-signature",
        "verdict-subject",
        "verdict-accepts",
        "verdict-times",
        "e2.nonce",
        "e2-verdict",
        "log-inclusion",
        "log-entry",
    }
)
REQUIRED_WITH_KEYS = REQUIRED | {
    "contexts",
    "key-release-evidence",
    "e1.nonce",
    "e1-verdict",
    "same-instance",
}
HOW_TO_PIN = (
    "The portal's keys were taken from the package itself, so this shows that the package is consistent, not that "
    "it comes from the portal that it names. Get portal.json from the portal by another way, keep it, and pass it "
    "as the trusted keys (strongroom verify --keys portal.json)."
)


def verify_package(
    path: Path | str, *, trust: PortalKeys | None = None, now: datetime | None = None
) -> PackageReport:
    """Check everything about the package at `path`.

    `trust`: the portal's keys from another source than the package; None leaves the check `portal-keys` not
    available. `now`: the present (aware), against which only "not from the future" is judged.
    Never raises for anything in the file, nor for a file that cannot be read: the report says so.
    """
    checks = Checks()
    try:
        with Reader(Path(path)) as reader:
            checks.passed("package-file", "The package file is complete and in its one exact form.")
            found = content.read(reader, checks)
    except PackageError as error:
        checks.failed("package-file", str(error))
        found = None
    except (OSError, ValueError) as error:
        checks.failed(
            "package-file", f"The package cannot be read: {getattr(error, 'strerror', None) or error}."
        )
        found = None
    if found is None:
        checks.not_available(
            "result", "Nothing more was looked at, because the package as a file is not right."
        )
        return PackageReport(tuple(checks.items), Tier.CONTRAINDICATED, UNKNOWN_PROTECTION)
    return _Verification(found, checks, trust, now or datetime.now(UTC)).run()


class _Verification:
    """One pass over a package whose files are read. Each step adds checks; a step whose input is missing is skipped,
    as the check that failed to read that input is there already."""

    def __init__(self, found: Content, checks: Checks, trust: PortalKeys | None, now: datetime) -> None:
        self.found, self.checks, self.now = found, checks, now
        self.keys = self._portal_keys(trust)
        self.statement: dict[str, Any] | None = None
        self.verdict: dict[str, Any] | None = None
        self.appraisals: dict[str, Appraisal] = {}

    def run(self) -> PackageReport:
        self._statement()
        self._verdict()
        agreement.check(self.found, self.statement, self.checks)
        self._evidence("e1")
        self._evidence("e2")
        self._same_instance()
        self._evidence_named()
        self._log()
        self.checks.not_available(
            "witnesses", "No independent witness was asked whether the log showed everybody the same entries."
        )
        return self._report()

    def _portal_keys(self, trust: PortalKeys | None) -> PortalKeys | None:
        stated = self.found.portal
        if trust is None:
            self.checks.not_available("portal-keys", HOW_TO_PIN)
            return stated
        if stated is not None:
            same = (stated.portal, stated.log, stated.verdict_key) == (
                trust.portal,
                trust.log,
                trust.verdict_key,
            )
            self.checks.require(
                "portal-keys",
                same and set(stated.software_attesters) <= set(trust.software_attesters),
                "The portal and its keys are the ones that you trust.",
                f"The package names the portal {stated.portal!r} with keys that are not those that you trust for "
                f"{trust.portal!r}. It comes from elsewhere, or the portal has changed its keys: ask its operators.",
            )
        return trust

    def _statement(self) -> None:
        c2 = self.found.c2
        if c2 is None:
            return
        envelope = self.found.raw["statement.dsse.json"]
        try:
            document = statement.open_envelope(envelope, shapes.b64_decode(c2["sign_pub"], "sign_pub"))
            self.statement = statement.parse_statement(document, statement.RUN_PREDICATE)
        except StrongroomError as error:
            self.checks.failed("statement-signature", f"The run's statement is not acceptable. {error}")
            return
        self.checks.passed(
            "statement-signature", "The statement is signed by the key that the evidence is bound to."
        )
        self.checks.require(
            "statement-hash",
            c2["statement"] == statement.digest(envelope),
            "The evidence is bound to this very statement.",
            "The evidence is bound to another statement than the one in the package.",
        )

    def _verdict(self) -> None:
        if self.keys is None:
            return
        try:
            document = statement.open_envelope(self.found.raw["verdict.json"], self.keys.verdict_key)
            self.verdict = statement.parse_statement(document, statement.VERDICT_PREDICATE)
        except StrongroomError as error:
            self.checks.failed("verdict-signature", f"The portal's verdict is not acceptable. {error}")
            return
        self.checks.passed("verdict-signature", "The verdict is signed by the portal's key.")
        wanted = [{"name": "statement.dsse.json", "digest": {"sha256": self._hash("statement.dsse.json")}}]
        predicate, c2 = self.verdict["predicate"], self.found.c2
        names = ("run", "portal", "manifest")
        same = c2 is not None and [predicate[name] for name in names] == [c2[name] for name in names]
        self.checks.require(
            "verdict-subject",
            self.verdict["subject"] == wanted and same and predicate["portal"] == self.keys.portal,
            "The verdict is about this statement, run, manifest and portal.",
            "The verdict is about another statement, run, manifest or portal.",
        )
        self.checks.require(
            "verdict-accepts",
            predicate["ok"],
            "The portal accepted the evidence of this run when it received it.",
            "The portal itself did not accept the evidence of this run.",
        )
        times = [item["at"] for item in (predicate["e1"], predicate["e2"], predicate) if item is not None]
        moments = [shapes.parse_time(text, "at") for text in times]
        self.checks.require(
            "verdict-times",
            moments == sorted(moments) and moments[-1] <= self.now + CLOCK_SKEW,
            "The times in the verdict are in order and none is in the future.",
            "The times in the verdict are out of order, or one is in the future.",
        )

    def _evidence(self, which: str) -> None:
        """E1 (key release, bound to C1) or E2 (result, bound to C2), as of the time when the portal received it."""
        name = f"evidence/{which}.json"
        context = self.found.c1 if which == "e1" else self.found.c2
        if which == "e1" and not self.found.has_key_release:
            return
        if context is None or self.keys is None or self.found.manifest is None:
            return
        stated = self.verdict["predicate"][which] if self.verdict is not None else None
        if stated is None:
            self.checks.failed(
                f"{which}-verdict", "There is no valid word of the portal on when it received this evidence."
            )
            return
        nonce = contexts.n1(context) if which == "e1" else contexts.n2(context)
        policy = Policy(
            evidence.SUPPORTED, (self.found.manifest["image"],), int(MAX_EVIDENCE_AGE.total_seconds())
        )
        appraisal = evidence.verify(
            self.found.raw[name],
            policy,
            now=shapes.parse_time(stated["at"], "at"),
            expected_nonce=nonce,
            trust=self.keys.trust,
        )
        self.appraisals[which] = appraisal
        self.checks.items += [
            Check(f"{which}.{check.id}", check.outcome, check.detail) for check in appraisal.checks
        ]
        said = stated["appraisal"]
        self.checks.require(
            f"{which}-verdict",
            stated["evidence"] == self._hash(name)
            and (said.get("type"), said.get("tier")) == (appraisal.type, appraisal.tier.value)
            and said.get("ok") is True,
            "The portal's verdict on this evidence is the one reached here.",
            "The portal's verdict is on other evidence, or says something else than what was found here.",
        )

    def _same_instance(self) -> None:
        if set(self.appraisals) != {"e1", "e2"}:
            return
        one, two = (self.appraisals[which] for which in ("e1", "e2"))
        same = [one.claims.get(name) for name in ("instance", "attester", "boot")] == [
            two.claims.get(name) for name in ("instance", "attester", "boot")
        ]
        self.checks.require(
            "same-instance",
            one.ok and two.ok and one.type == two.type and same,
            "The environment that received the keys is the one that produced the result.",
            "The evidence for the keys and the evidence for the result come from different environments.",
        )

    def _evidence_named(self) -> None:
        if self.statement is None or self.verdict is None or "e2" not in self.appraisals:
            return
        said, found = self.statement["predicate"]["evidence"], self.appraisals["e2"]
        released = self.verdict["predicate"]["e1"] is not None
        self.checks.require(
            "statement-evidence",
            said == found.type
            and self.verdict["predicate"]["tier"] == found.tier.value
            and released == self.found.has_key_release,
            f"Statement and verdict name the evidence that is there: {found.type}, tier {found.tier.value}.",
            f"Statement or verdict claim other evidence than there is ({found.type}, tier {found.tier.value}).",
        )

    def _log(self) -> None:
        if self.keys is None:
            return
        raw = self.found.raw
        try:
            opened = translog.parse_entry_file(raw["log/entry.json"])
            head = translog.verify_proof(raw["log/proof.txt"], opened.leaf_data, self.keys.log)
            if translog.parse_proof(raw["log/proof.txt"]).checkpoint != raw["log/checkpoint"]:
                raise LogError("The checkpoint in the package is not the one that the log proof leads to.")
        except LogError as error:
            self.checks.failed("log-inclusion", f"The result is not shown to be in the portal's log. {error}")
            return
        self.checks.passed(
            "log-inclusion",
            f"The entry is in the log {head.origin} of {head.size} entries, whose head the log signed.",
        )
        data = opened.entry.get("data")
        self.checks.require(
            "log-entry",
            isinstance(data, dict) and data.get("statement") == self._hash("statement.dsse.json"),
            "The log entry is about this very statement.",
            "The log entry is about another statement.",
        )

    def _report(self) -> PackageReport:
        required = REQUIRED_WITH_KEYS if self.found.has_key_release else REQUIRED
        missing = sorted(required - {check.id for check in self.checks.items})
        if missing:
            self.checks.failed("complete", f"These checks could not be made: {', '.join(missing)}.")
        checks = tuple(self.checks.items)
        failed = any(check.outcome is Outcome.FAIL for check in checks)
        kinds = {appraisal.type for appraisal in self.appraisals.values()}
        tier = Tier.CONTRAINDICATED if failed or "e2" not in self.appraisals else self.appraisals["e2"].tier
        protection = NO_PROTECTION if kinds == {"software"} else UNKNOWN_PROTECTION
        return PackageReport(checks, tier, protection, self._facts())

    def _facts(self) -> dict[str, Any]:
        if self.statement is None:
            return {}
        predicate = self.statement["predicate"]
        names = (
            "run",
            "portal",
            "project",
            "kind",
            "manifest",
            "started",
            "ended",
            "image",
            "backend",
            "evidence",
        )
        facts = {name: predicate[name] for name in names}
        facts["program"] = predicate["program"]["sha256"]
        facts["exit"] = predicate["exit"]["class"]
        facts["outputs"] = [item["name"] for item in self.statement["subject"]]
        return facts

    def _hash(self, name: str) -> str:
        return hashlib.sha256(self.found.raw[name]).hexdigest()
