"""The decision whether data keys are released, and wrapping them. Pure: no clock, no network, no database.

A decision asks each dataset's own policy, and what all share: the challenge, the members of C1 that the broker knows by
itself, and the runner image. Every one must hold. Hardware evidence must reach the tier `affirming`; software evidence
has the tier `none` at best, and counts only where the policy names it and the data are not about real people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from strongroom import contexts, evidence, seal, shapes
from strongroom.broker.errors import KeyStoreError, ReleaseError
from strongroom.broker.stores.base import KeyStore
from strongroom.errors import SealError
from strongroom.evidence import Appraisal, Check, Outcome, Policy, Tier, Trust, combined
from strongroom.evidence import manifest as manifests
from strongroom.seal import SealHeader

SOFTWARE = "software"
_SAME = ("instance", "attester", "host", "boot")

CHALLENGE_FAULTS = {
    "unknown": "The challenge was not issued by this key broker.",
    "foreign": "The challenge was issued for another run, attempt or purpose.",
    "spent": "The challenge has been used before.",
    "expired": "The challenge has expired.",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A dataset version whose data key is asked for (or was, of a result), and its custodian's policy."""

    dataset: str
    version: int
    policy: Policy
    personal_data: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one dataset's policy says. `failing`: the checks that failed."""

    asked: Asked
    failing: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return not self.failing


@dataclass(frozen=True, slots=True)
class Decision:
    """All judgements, and the one appraisal that goes on record: each check as the strictest policy found it."""

    judgements: tuple[Judgement, ...]
    appraisal: Appraisal
    policies: tuple[Policy, ...]  # each once, by hash

    @property
    def policy_hashes(self) -> tuple[str, ...]:
        return tuple(policy.sha256 for policy in self.policies)

    @property
    def ok(self) -> bool:
        return self.appraisal.ok and all(j.ok for j in self.judgements)

    @property
    def failing(self) -> list[Check]:
        """Every failed check once, in order."""
        seen: dict[str, Check] = {}
        for check in (*failed(self.appraisal.checks), *(c for j in self.judgements for c in j.failing)):
            seen.setdefault(check.id, check)
        return list(seen.values())

    def to_json(self, at: str) -> dict[str, Any]:
        """What is stored beside the evidence; `at` is the time it was judged at (RFC 3339)."""
        return {
            "at": at,
            "policies": list(self.policy_hashes),
            "documents": [policy.to_json() for policy in self.policies],
            "appraisal": {**self.appraisal.to_json(), "ok": self.ok},
            "datasets": [
                {
                    "dataset": j.asked.dataset,
                    "version": j.asked.version,
                    "policy": j.asked.policy.sha256,
                    "ok": j.ok,
                    "failing": [c.id for c in j.failing],
                }
                for j in self.judgements
            ],
        }


def failed(checks: Iterable[Check]) -> list[Check]:
    return [check for check in checks if check.outcome is Outcome.FAIL]


def decide(
    *,
    context: Mapping[str, Any],
    envelope: bytes,
    asked: Sequence[Asked],
    challenge: Check,
    expected: Mapping[str, Any],
    trust: Trust,
    now: datetime,
) -> Decision:
    """Whether the keys of `asked` may be released to the key in C1 (`context`, parsed) on the evidence `envelope`.

    challenge: from `challenge_check`. expected: the members of C1 that the caller knows by itself, each as it must be;
    a member that must be absent is None. Nothing asked is nothing released. Raises FormatError if C1 is not one.
    """
    if not asked:
        nothing = Check("datasets", Outcome.FAIL, "No dataset is to be released.")
        return Decision((), Appraisal("unknown", Tier.CONTRAINDICATED, (nothing,)), ())
    return judge(
        envelope=envelope,
        asked=asked,
        nonce=contexts.n1(dict(context)),
        now=now,
        trust=trust,
        binding=(challenge, members_equal("context", context, expected, "The key-release context")),
        image=str(context["image"]),
        manifest=str(context["manifest"]),
    )


def judge(
    *,
    envelope: bytes,
    asked: Sequence[Asked],
    nonce: str | None,
    now: datetime,
    trust: Trust,
    image: str,
    manifest: str | None = None,
    binding: Sequence[Check] = (),
    same_as: Mapping[str, Any] | None = None,
    otherwise: Policy | None = None,
) -> Decision:
    """Appraise `envelope` under the policy of each of `asked`; with none, under `otherwise`, and no key depends on it.

    binding: checks made by the caller that every judgement shares. image: the runner image that the manifest names,
    which the evidence must claim. manifest: its hash, for evidence that shows it (None: not compared). same_as: claims of the first evidence, where the same instance must have made both.
    """
    policies = [item.policy for item in asked] or ([otherwise] if otherwise is not None else [])
    if not policies:
        raise ValueError("evidence cannot be judged without a policy")
    found: dict[str, Appraisal] = {}
    distinct: dict[str, Policy] = {}
    for policy in policies:
        if policy.sha256 not in found:
            distinct[policy.sha256] = policy
            found[policy.sha256] = evidence.verify(
                envelope, policy, now=now, expected_nonce=nonce, trust=trust
            )
    shared = failed(binding)
    judgements = []
    for item in asked:
        appraisal = found[item.policy.sha256]
        more = [*_identity(appraisal, image, manifest, same_as), *_releasable(appraisal, item)]
        judgements.append(Judgement(item, (*shared, *failed(appraisal.checks), *failed(more))))
    one = combined(list(found.values()))
    checks = (*binding, *one.checks, *_identity(one, image, manifest, same_as))
    tier = Tier.CONTRAINDICATED if failed(checks) else one.tier
    under = tuple(distinct[name] for name in sorted(distinct))
    return Decision(tuple(judgements), Appraisal(one.type, tier, checks, one.claims), under)


def _releasable(appraisal: Appraisal, asked: Asked) -> list[Check]:
    """Whether evidence that passed its checks is also strong enough for a key."""
    if appraisal.type == SOFTWARE:
        if not asked.personal_data:
            return []
        sentence = "The dataset holds real personal data; software evidence protects nothing."
        return [Check("personal-data", Outcome.FAIL, sentence)]
    if not appraisal.ok or appraisal.tier is Tier.AFFIRMING:
        return []  # what failed says why
    open_ = sorted({c.id for c in appraisal.checks if c.outcome is Outcome.NOT_AVAILABLE})
    sentence = (
        f"Evidence of tier {appraisal.tier.value} is not enough for a key: something that matters was not compared "
        f"(not looked at: {', '.join(open_) or 'nothing that is named'}). Pin it in the policy."
    )
    return [Check("tier", Outcome.FAIL, sentence)]


def _identity(
    appraisal: Appraisal, image: str, manifest: str | None, same_as: Mapping[str, Any] | None
) -> list[Check]:
    what = "the runner image that the manifest names"
    checks = [equal("runner-image", appraisal.claims.get("image"), image, what)]
    if manifest is not None:
        checks += manifests.check(appraisal, manifest)
    if same_as is not None:
        here, there = ({m: claims.get(m) for m in _SAME} for claims in (appraisal.claims, same_as))
        checks.append(equal("same-instance", here, there, "the instance to which the keys were released"))
    return checks


def challenge_check(fault: str) -> Check:
    """The check of a challenge; `fault`: "" or one of CHALLENGE_FAULTS."""
    if fault:
        return Check("challenge", Outcome.FAIL, CHALLENGE_FAULTS[fault])
    return Check("challenge", Outcome.PASS, "The challenge is this attempt's, in time and not used before.")


def equal(id_: str, here: Any, there: Any, what: str) -> Check:
    """A check that `here` is `there`; `what` completes "It names …" / "It does not name …"."""
    if here == there:
        return Check(id_, Outcome.PASS, f"It names {what}.")
    return Check(id_, Outcome.FAIL, f"It does not name {what}.")


def members_equal(id_: str, here: Mapping[str, Any], there: Mapping[str, Any], what: str) -> Check:
    """A check that `here` has each member of `there` as it is there; the sentence lists those that differ."""
    different = sorted(name for name, value in there.items() if here.get(name) != value)
    if not different:
        return Check(id_, Outcome.PASS, f"{what} says what is expected of the run.")
    return Check(
        id_, Outcome.FAIL, f"{what} differs from what is expected of the run in: {', '.join(different)}."
    )


def wrap(store: KeyStore, context: Mapping[str, Any], headers: Sequence[SealHeader]) -> list[dict[str, Any]]:
    """Open each data key with the broker's key and close it again for the key in C1. In memory, for a moment.

    Only after `decide` said yes and that is on record. Gives [{"dataset", "version", "wrapped", "suite"}].
    Raises ReleaseError (the key does not open), KeyStoreError `unreachable` (try again), FormatError.
    """
    recipient = seal.PublicKey.from_json(context["hpke_pub"])
    nonce, run = contexts.n1(dict(context)), str(context["run"])
    wrapped = []
    for header in headers:
        try:
            key = store.unwrap(
                header.recipient, header.wrapped_key, seal.info_data_key(header.dataset, header.version)
            )
            info = seal.info_run_key(run, header.dataset, header.version, nonce)
            closed = seal.wrap_key(key, recipient, info)
        except SealError as error:
            raise ReleaseError(header.dataset, str(error)) from None
        except KeyStoreError as error:
            if error.code == "unreachable":
                raise
            raise ReleaseError(header.dataset, str(error)) from None
        entry = {"dataset": header.dataset, "version": header.version}
        wrapped.append({**entry, "wrapped": shapes.b64_encode(closed), "suite": recipient.suite})
    return wrapped


__all__ = [
    "CHALLENGE_FAULTS",
    "Asked",
    "Decision",
    "Judgement",
    "challenge_check",
    "combined",
    "decide",
    "equal",
    "failed",
    "judge",
    "members_equal",
    "wrap",
]
