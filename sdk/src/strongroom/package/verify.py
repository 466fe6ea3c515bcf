"""Verifying a package offline: who ran what, on which data, with which result, and whether it is in the log.

Nothing is fetched. With pinned keys the question is "did this portal say so?"; without, only "does it hang together?"
and the report says that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from strongroom import contexts, evidence, shapes, statement, translog
from strongroom.errors import LogError, PackageError, StrongroomError
from strongroom.evidence import Anchor, Appraisal, Check, Checks, Outcome, Tier, Trust, combined
from strongroom.evidence import manifest as manifests
from strongroom.evidence.protection import PROTECTION
from strongroom.evidence.software import CLOCK_SKEW, NO_PROTECTION
from strongroom.package import agreement, content
from strongroom.package.content import Content
from strongroom.package.portal import PortalKeys
from strongroom.package.report import PackageReport
from strongroom.package.zipform import Reader

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
        "policies",
        "e2.nonce",
        "e2-verdict",
        "log-inclusion",
        "log-entry",
    }
)
# And of each piece of evidence for a key release: its nonce, and the portal's word on it.
REQUIRED_WITH_KEYS = frozenset({"contexts", "key-release-evidence", "same-instance"})
HOW_TO_PIN = (
    "The portal's keys were taken from the package itself, so this shows that the package is consistent, not that "
    "it comes from the portal that it names. Get portal.json from the portal by another way, keep it, and pass it "
    "as the trusted keys (strongroom verify --keys portal.json)."
)


def verify_package(
    path: Path | str,
    *,
    trust: PortalKeys | None = None,
    anchors: Sequence[Anchor] | None = None,
    now: datetime | None = None,
) -> PackageReport:
    """Check everything about the package at `path`.

    `trust`: the portal's keys from another source than the package; None leaves the check `portal-keys` not
    available. `anchors`: what hardware evidence may rest on; None: the anchors that this package of ours brings.
    `now`: the present (aware), against which only "not from the future" is judged.
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
    return _Verification(found, checks, trust, anchors, now or datetime.now(UTC)).run()


class _Verification:
    """One pass over a package whose files are read. Each step adds checks; a step whose input is missing is skipped,
    as the check that failed to read that input is there already."""

    def __init__(
        self,
        found: Content,
        checks: Checks,
        trust: PortalKeys | None,
        anchors: Sequence[Anchor] | None,
        now: datetime,
    ) -> None:
        self.found, self.checks, self.anchors, self.now = found, checks, anchors, now
        self.keys = self._portal_keys(trust)
        self.statement: dict[str, Any] | None = None
        self.verdict: dict[str, Any] | None = None
        self.appraisals: dict[str, Appraisal] = {}

    def run(self) -> PackageReport:
        self._statement()
        self._verdict()
        self._policies()
        agreement.check(self.found, self.statement, self.checks)
        for which, c1 in self.found.releases:
            self._evidence(which, c1)
        self._evidence("e2", self.found.c2)
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
        before = [item for item in (predicate["e1"], *predicate.get("brokers", [])) if item is not None]
        before.sort(key=lambda item: shapes.parse_time(item["at"], "at"))  # brokers are asked in any order
        times = [item["at"] for item in (*before, predicate["e2"], predicate)]
        moments = [shapes.parse_time(text, "at") for text in times]
        self.checks.require(
            "verdict-times",
            moments == sorted(moments) and moments[-1] <= self.now + CLOCK_SKEW,
            "The times in the verdict are in order and none is in the future.",
            "The times in the verdict are out of order, or one is in the future.",
        )

    def _policies(self) -> None:
        """The package brings exactly the release policies that the verdict names."""
        if self.verdict is None:
            return
        predicate = self.verdict["predicate"]
        stated = [item for item in (predicate["e1"], *predicate.get("brokers", []), predicate["e2"]) if item]
        named = {sha256 for item in stated for sha256 in item["policies"]}
        self.checks.require(
            "policies",
            named == set(self.found.policies) and all(item["policies"] for item in stated),
            f"The package holds each of the {len(named)} release policies that the evidence was judged under.",
            "The release policies in the package are not those that the portal's verdict names.",
        )

    def _evidence(self, which: str, context: dict[str, Any] | None) -> None:
        """An E1 (key release, bound to its C1) or E2 (bound to C2), as of the time when the portal received it."""
        name = f"evidence/{which}.json"
        if context is None or self.keys is None or self.found.manifest is None:
            return
        stated = self._stated(which, context)
        if stated is None:
            self.checks.failed(
                f"{which}-verdict", "There is no valid word of the portal on when it received this evidence."
            )
            return
        nonce = contexts.n2(context) if which == "e2" else contexts.n1(context)
        policies = [self.found.policies[h] for h in stated["policies"] if h in self.found.policies]
        if not policies or len(policies) != len(stated["policies"]):
            self.checks.failed(
                f"{which}-verdict", "The policies that this evidence was judged under are not there."
            )
            return
        # Each policy by itself, as the portal judged: conditions of one are no excuse from those of another.
        appraisal = combined(
            [
                evidence.verify(
                    self.found.raw[name],
                    policy,
                    now=shapes.parse_time(stated["at"], "at"),
                    expected_nonce=nonce,
                    trust=Trust.of(software_keys=self.keys.software_attesters, anchors=self.anchors),
                )
                for policy in policies
            ]
        )
        self.appraisals[which] = appraisal
        self.checks.items += [
            Check(f"{which}.{check.id}", check.outcome, check.detail) for check in appraisal.checks
        ]
        self.checks.require(
            f"{which}.runner-image",
            appraisal.claims.get("image") == self.found.manifest["image"],
            "The evidence shows the runner image that the manifest names.",
            "The evidence does not show the runner image that the manifest names.",
        )
        self.checks.items += [
            Check(f"{which}.{check.id}", check.outcome, check.detail)
            for check in manifests.check(appraisal, context["manifest"])
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

    def _stated(self, which: str, context: dict[str, Any]) -> dict[str, Any] | None:
        """What the portal's verdict says of this evidence."""
        if self.verdict is None:
            return None
        predicate: dict[str, Any] = self.verdict["predicate"]
        if which in ("e1", "e2"):
            return predicate[which]  # type: ignore[no-any-return]  # the verdict's form was checked
        same = [item for item in predicate.get("brokers", []) if item["broker"] == context.get("broker")]
        return same[0] if len(same) == 1 else None

    def _same_instance(self) -> None:
        firsts = [which for which, _ in self.found.releases]
        if not firsts or set(self.appraisals) != {*firsts, "e2"}:
            return
        two = self.appraisals["e2"]
        names = ("instance", "attester", "boot")
        same = all(
            one.ok
            and one.type == two.type
            and [one.claims.get(n) for n in names] == [two.claims.get(n) for n in names]
            for one in (self.appraisals[which] for which in firsts)
        )
        self.checks.require(
            "same-instance",
            two.ok and same,
            "The environment that received the keys is the one that produced the result.",
            "The evidence for the keys and the evidence for the result come from different environments.",
        )

    def _evidence_named(self) -> None:
        if self.statement is None or self.verdict is None or "e2" not in self.appraisals:
            return
        said, found = self.statement["predicate"]["evidence"], self.appraisals["e2"]
        predicate = self.verdict["predicate"]
        released = (predicate["e1"] is not None, len(predicate.get("brokers", [])))
        self.checks.require(
            "statement-evidence",
            said == found.type
            and self.verdict["predicate"]["tier"] == found.tier.value
            and released == (self.found.has_portal_release, len(self.found.broker_c1s)),
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
        required = set(REQUIRED)
        if self.found.has_key_release:
            required |= REQUIRED_WITH_KEYS
            for which, _ in self.found.releases:
                required |= {f"{which}.nonce", f"{which}-verdict"}
        missing = sorted(required - {check.id for check in self.checks.items})
        if missing:
            self.checks.failed("complete", f"These checks could not be made: {', '.join(missing)}.")
        checks = tuple(self.checks.items)
        failed = any(check.outcome is Outcome.FAIL for check in checks)
        kinds = {appraisal.type for appraisal in self.appraisals.values()}
        tier = Tier.CONTRAINDICATED if failed or "e2" not in self.appraisals else self.appraisals["e2"].tier
        return PackageReport(checks, tier, _protection(tier, kinds), self._facts())

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


def _protection(tier: Tier, kinds: set[str]) -> str:
    """Software evidence says what it is even where it fails; hardware evidence counts only where it was accepted."""
    if kinds == {"software"}:
        return NO_PROTECTION
    if tier not in (Tier.AFFIRMING, Tier.WARNING) or len(kinds) != 1:
        return UNKNOWN_PROTECTION
    return PROTECTION.get(next(iter(kinds)), UNKNOWN_PROTECTION)
