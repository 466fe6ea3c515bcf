"""Lifecycles of a project and of an ethics review. The tables are the policy (docs/reference/states.md shows them)."""

from __future__ import annotations

from enum import StrEnum

from apps.core.lifecycle import Lifecycle, Step, register


class ProjectState(StrEnum):
    DRAFT = "draft"
    SUBMITTED = "submitted"
    RETURNED = "returned"
    IN_ETHICS_REVIEW = "in_ethics_review"
    APPROVED = "approved"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    CLOSED = "closed"


S = ProjectState
PROJECT = register(
    Lifecycle(
        name="project",
        states=ProjectState,
        initial=S.DRAFT,
        table={
            S.DRAFT: {
                S.SUBMITTED: Step("principal investigator"),
                S.WITHDRAWN: Step("principal investigator", reason=True),
            },
            S.SUBMITTED: {
                S.IN_ETHICS_REVIEW: Step("ethics chair"),
                S.RETURNED: Step("ethics chair", reason=True),
                S.WITHDRAWN: Step("principal investigator", reason=True),
            },
            S.RETURNED: {
                S.SUBMITTED: Step("principal investigator"),
                S.WITHDRAWN: Step("principal investigator", reason=True),
            },
            S.IN_ETHICS_REVIEW: {
                S.APPROVED: Step("ethics chair", reason=True),
                S.DECLINED: Step("ethics chair", reason=True),
                S.RETURNED: Step("ethics chair", reason=True),
                S.WITHDRAWN: Step("principal investigator", reason=True),
            },
            S.APPROVED: {
                S.ACTIVE: Step("portal", note="when the first agreement is in force"),
                S.SUSPENDED: Step("ethics chair", reason=True),
                S.EXPIRED: Step("portal", reason=True),
                S.CLOSED: Step("principal investigator", reason=True),
            },
            S.ACTIVE: {
                S.SUSPENDED: Step("ethics chair", reason=True),
                S.EXPIRED: Step("portal", reason=True),
                S.CLOSED: Step("principal investigator", reason=True),
            },
            S.SUSPENDED: {
                S.APPROVED: Step("ethics chair", reason=True, note="if it was approved before"),
                S.ACTIVE: Step("ethics chair", reason=True, note="if it was active before"),
                S.CLOSED: Step("principal investigator", reason=True),
            },
            S.DECLINED: {},
            S.WITHDRAWN: {},
            S.EXPIRED: {},
            S.CLOSED: {},
        },
        labels={
            S.DRAFT: "Draft",
            S.SUBMITTED: "Submitted",
            S.RETURNED: "Returned for changes",
            S.IN_ETHICS_REVIEW: "In ethics review",
            S.APPROVED: "Approved",
            S.ACTIVE: "Active",
            S.SUSPENDED: "Suspended",
            S.DECLINED: "Declined",
            S.WITHDRAWN: "Withdrawn",
            S.EXPIRED: "Expired",
            S.CLOSED: "Closed",
        },
        colours={
            S.DRAFT: "grey",
            S.SUBMITTED: "blue",
            S.RETURNED: "yellow",
            S.IN_ETHICS_REVIEW: "blue",
            S.APPROVED: "green",
            S.ACTIVE: "green",
            S.SUSPENDED: "red",
            S.DECLINED: "red",
            S.WITHDRAWN: "grey",
            S.EXPIRED: "grey",
            S.CLOSED: "grey",
        },
    )
)


class ReviewState(StrEnum):
    RECEIVED = "received"
    UNDER_REVIEW = "under_review"
    FAVOURABLE = "favourable"
    FAVOURABLE_WITH_CONDITIONS = "favourable_with_conditions"
    UNFAVOURABLE = "unfavourable"
    RETURNED = "returned"
    WITHDRAWN = "withdrawn"


R = ReviewState
ETHICS_REVIEW = register(
    Lifecycle(
        name="ethics_review",
        states=ReviewState,
        initial=R.RECEIVED,
        table={
            R.RECEIVED: {
                R.UNDER_REVIEW: Step("ethics chair"),
                R.RETURNED: Step("ethics chair", reason=True),
                R.WITHDRAWN: Step("principal investigator", reason=True),
            },
            R.UNDER_REVIEW: {
                R.FAVOURABLE: Step(
                    "ethics chair", reason=True, note="quorum of opinions, decider not in the project"
                ),
                R.FAVOURABLE_WITH_CONDITIONS: Step("ethics chair", reason=True, note="as favourable"),
                R.UNFAVOURABLE: Step("ethics chair", reason=True, note="as favourable"),
                R.RETURNED: Step("ethics chair", reason=True),
                R.WITHDRAWN: Step("principal investigator", reason=True),
            },
            R.FAVOURABLE: {},
            R.FAVOURABLE_WITH_CONDITIONS: {},
            R.UNFAVOURABLE: {},
            R.RETURNED: {},
            R.WITHDRAWN: {},
        },
        labels={
            R.RECEIVED: "Received",
            R.UNDER_REVIEW: "Under review",
            R.FAVOURABLE: "Favourable",
            R.FAVOURABLE_WITH_CONDITIONS: "Favourable with conditions",
            R.UNFAVOURABLE: "Unfavourable",
            R.RETURNED: "Returned for changes",
            R.WITHDRAWN: "Withdrawn",
        },
        colours={
            R.RECEIVED: "blue",
            R.UNDER_REVIEW: "blue",
            R.FAVOURABLE: "green",
            R.FAVOURABLE_WITH_CONDITIONS: "green",
            R.UNFAVOURABLE: "red",
            R.RETURNED: "yellow",
            R.WITHDRAWN: "grey",
        },
    )
)
