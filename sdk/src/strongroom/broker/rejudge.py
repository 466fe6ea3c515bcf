"""Whether a release that was made would be made still, under the configuration and the policies of this moment.

The evidence is judged as of the time when it came: a policy is never failed by the time that has passed since. Pure but
for reading the policies' files.
"""

from __future__ import annotations

import json

from strongroom import contexts, shapes
from strongroom.broker.config import Config
from strongroom.broker.errors import Refusal
from strongroom.broker.release import Asked, judge
from strongroom.broker.standing import PERMITTED, UNKNOWN, WITHDRAWN, Standing
from strongroom.broker.state import Shown

_STRUCK = {"dataset_unknown": WITHDRAWN, "policy_unreadable": UNKNOWN}


def standing_of(shown: Shown, config: Config) -> Standing:
    """What the custodian says now of a release that was decided on `shown`."""
    context = json.loads(shown.context)
    versions = {item["dataset"]: item["version"] for item in context["inputs"]}
    changed: list[Asked] = []
    doubt: Standing | None = None
    for dataset, before in sorted(shown.policies.items()):
        try:
            asked = config.asked(dataset, versions[dataset])
        except Refusal as refusal:
            found = Standing(_STRUCK[refusal.code], refusal.code, str(refusal))
            if found.standing == WITHDRAWN:
                return found
            doubt = found  # another dataset may still say no
            continue
        allowed = config.datasets[dataset].programs
        if allowed is not None and shown.program not in allowed:
            sentence = f"The custodian does not release dataset {dataset} to this program any more."
            return Standing(WITHDRAWN, "program_refused", sentence)
        if asked.policy.sha256 != before:
            changed.append(asked)
    return _under(changed, shown, context, config) or doubt or Standing(PERMITTED)


def _under(changed: list[Asked], shown: Shown, context: dict[str, object], config: Config) -> Standing | None:
    """What the changed policies say against the evidence of then; None for nothing."""
    if not changed:
        return None
    decision = judge(
        envelope=shown.envelope,
        asked=changed,
        nonce=contexts.n1(context),
        now=shapes.parse_time(shown.at, "at"),
        trust=config.trust,
        image=str(context["image"]),
        manifest=str(context["manifest"]),
    )
    if decision.ok:
        return None
    sentences = " ".join(check.detail for check in decision.failing)
    return Standing(
        WITHDRAWN,
        "policy_not_met",
        f"The release policy was changed, and the evidence of this run does not satisfy it. {sentences}",
    )
