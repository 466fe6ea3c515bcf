"""Lifecycles of datasets, their versions, access requests, agreements and stage-1 releases."""

from __future__ import annotations

from enum import StrEnum

from apps.core.lifecycle import Lifecycle, Step, register


class DatasetState(StrEnum):
    DRAFT = "draft"
    PUBLISHED = "published"
    SUSPENDED = "suspended"
    WITHDRAWN = "withdrawn"


D = DatasetState
DATASET = register(
    Lifecycle(
        name="dataset",
        states=DatasetState,
        initial=D.DRAFT,
        table={
            D.DRAFT: {D.PUBLISHED: Step("custodian"), D.WITHDRAWN: Step("custodian", reason=True)},
            D.PUBLISHED: {
                D.SUSPENDED: Step("custodian", reason=True, note="stops every run on it at once"),
                D.WITHDRAWN: Step("custodian", reason=True, note="stops every run on it at once"),
            },
            D.SUSPENDED: {
                D.PUBLISHED: Step("custodian", reason=True),
                D.WITHDRAWN: Step("custodian", reason=True),
            },
            D.WITHDRAWN: {},
        },
        labels={
            D.DRAFT: "Draft",
            D.PUBLISHED: "Published",
            D.SUSPENDED: "Suspended",
            D.WITHDRAWN: "Withdrawn",
        },
        colours={D.DRAFT: "grey", D.PUBLISHED: "green", D.SUSPENDED: "red", D.WITHDRAWN: "grey"},
    )
)


class VersionState(StrEnum):
    UPLOADING = "uploading"
    UPLOADED = "uploaded"
    PROFILING = "profiling"
    ACCEPTED = "accepted"
    REFUSED = "refused"


V = VersionState
VERSION = register(
    Lifecycle(
        name="dataset_version",
        states=VersionState,
        initial=V.UPLOADING,
        table={
            V.UPLOADING: {
                V.UPLOADED: Step("custodian"),
                V.REFUSED: Step("custodian", reason=True, note="upload given up"),
            },
            V.UPLOADED: {V.PROFILING: Step("portal"), V.REFUSED: Step("portal", reason=True)},
            V.PROFILING: {
                V.ACCEPTED: Step("portal", note="the profiling run found it as the dictionary says"),
                V.REFUSED: Step("portal", reason=True, note="the profiling run found it otherwise"),
                V.UPLOADED: Step(
                    "portal", reason=True, note="the profiling run itself failed and may be tried again"
                ),
            },
            V.ACCEPTED: {},
            V.REFUSED: {},
        },
        labels={
            V.UPLOADING: "Uploading",
            V.UPLOADED: "Uploaded",
            V.PROFILING: "Being checked",
            V.ACCEPTED: "Accepted",
            V.REFUSED: "Refused",
        },
        colours={
            V.UPLOADING: "blue",
            V.UPLOADED: "blue",
            V.PROFILING: "blue",
            V.ACCEPTED: "green",
            V.REFUSED: "red",
        },
    )
)


class AccessState(StrEnum):
    SUBMITTED = "submitted"
    APPROVED = "approved"
    AGREEMENT_PENDING = "agreement_pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"
    EXPIRED = "expired"


A = AccessState
ACCESS = register(
    Lifecycle(
        name="access_request",
        states=AccessState,
        initial=A.SUBMITTED,
        table={
            A.SUBMITTED: {
                A.APPROVED: Step("custodian", note="project approved by its ethics board"),
                A.DECLINED: Step("custodian", reason=True),
                A.WITHDRAWN: Step("principal investigator", reason=True),
            },
            A.APPROVED: {A.AGREEMENT_PENDING: Step("portal"), A.REVOKED: Step("custodian", reason=True)},
            A.AGREEMENT_PENDING: {
                A.ACTIVE: Step("portal", note="agreement signed by both sides"),
                A.REVOKED: Step("custodian", reason=True),
                A.WITHDRAWN: Step("principal investigator", reason=True),
            },
            A.ACTIVE: {
                A.SUSPENDED: Step("custodian", reason=True),
                A.REVOKED: Step("custodian", reason=True),
                A.EXPIRED: Step("portal", reason=True),
            },
            A.SUSPENDED: {
                A.ACTIVE: Step("custodian", reason=True),
                A.REVOKED: Step("custodian", reason=True),
            },
            A.DECLINED: {},
            A.WITHDRAWN: {},
            A.REVOKED: {},
            A.EXPIRED: {},
        },
        labels={
            A.SUBMITTED: "Submitted",
            A.APPROVED: "Approved",
            A.AGREEMENT_PENDING: "Agreement to be signed",
            A.ACTIVE: "Active",
            A.SUSPENDED: "Suspended",
            A.DECLINED: "Declined",
            A.WITHDRAWN: "Withdrawn",
            A.REVOKED: "Revoked",
            A.EXPIRED: "Expired",
        },
        colours={
            A.SUBMITTED: "blue",
            A.APPROVED: "green",
            A.AGREEMENT_PENDING: "yellow",
            A.ACTIVE: "green",
            A.SUSPENDED: "red",
            A.DECLINED: "red",
            A.WITHDRAWN: "grey",
            A.REVOKED: "red",
            A.EXPIRED: "grey",
        },
    )
)


class AgreementState(StrEnum):
    ISSUED = "issued"
    PART_SIGNED = "part_signed"
    IN_FORCE = "in_force"
    VOID = "void"
    TERMINATED = "terminated"
    EXPIRED = "expired"


G = AgreementState
AGREEMENT = register(
    Lifecycle(
        name="agreement",
        states=AgreementState,
        initial=G.ISSUED,
        table={
            G.ISSUED: {
                G.PART_SIGNED: Step("signatory of either side"),
                G.VOID: Step("custodian", reason=True),
            },
            G.PART_SIGNED: {
                G.IN_FORCE: Step("signatory of the other side"),
                G.VOID: Step("custodian", reason=True),
            },
            G.IN_FORCE: {
                G.TERMINATED: Step("custodian", reason=True),
                G.EXPIRED: Step("portal", reason=True),
            },
            G.VOID: {},
            G.TERMINATED: {},
            G.EXPIRED: {},
        },
        labels={
            G.ISSUED: "To be signed",
            G.PART_SIGNED: "Signed by one side",
            G.IN_FORCE: "In force",
            G.VOID: "Void",
            G.TERMINATED: "Terminated",
            G.EXPIRED: "Expired",
        },
        colours={
            G.ISSUED: "yellow",
            G.PART_SIGNED: "yellow",
            G.IN_FORCE: "green",
            G.VOID: "grey",
            G.TERMINATED: "red",
            G.EXPIRED: "grey",
        },
    )
)


class ReleaseState(StrEnum):
    ORDERED = "ordered"
    MAKING = "making"
    TO_REVIEW = "to_review"
    RELEASED = "released"
    REFUSED = "refused"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


L = ReleaseState
STAGE1_RELEASE = register(
    Lifecycle(
        name="stage1_release",
        states=ReleaseState,
        initial=L.ORDERED,
        table={
            L.ORDERED: {L.MAKING: Step("portal"), L.FAILED: Step("portal", reason=True)},
            L.MAKING: {L.TO_REVIEW: Step("portal"), L.FAILED: Step("portal", reason=True)},
            L.TO_REVIEW: {L.RELEASED: Step("custodian"), L.REFUSED: Step("custodian", reason=True)},
            L.RELEASED: {L.WITHDRAWN: Step("custodian", reason=True)},
            L.REFUSED: {},
            L.FAILED: {},
            L.WITHDRAWN: {},
        },
        labels={
            L.ORDERED: "Ordered",
            L.MAKING: "Being made",
            L.TO_REVIEW: "Waits for the custodian",
            L.RELEASED: "Released",
            L.REFUSED: "Refused",
            L.FAILED: "Failed",
            L.WITHDRAWN: "Withdrawn",
        },
        colours={
            L.ORDERED: "blue",
            L.MAKING: "blue",
            L.TO_REVIEW: "yellow",
            L.RELEASED: "green",
            L.REFUSED: "red",
            L.FAILED: "red",
            L.WITHDRAWN: "grey",
        },
    )
)
