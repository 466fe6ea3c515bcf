"""Roles as code: stable codes, what each is for, where it is held, and what it permits.

This table also renders the roles page and docs/reference/roles.md. Project roles are held through a project
membership (apps.projects), all others in an organisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    RESEARCHER = "researcher"
    PRINCIPAL_INVESTIGATOR = "principal_investigator"
    SIGNATORY = "organisation_signatory"
    ETHICS_MEMBER = "ethics_member"
    ETHICS_CHAIR = "ethics_chair"
    CUSTODIAN = "custodian"
    OUTPUT_CHECKER = "output_checker"
    AUDITOR = "auditor"
    OPERATOR = "operator"


class Permission(StrEnum):
    MANAGE_PEOPLE = "people.manage"
    MANAGE_ORGANISATIONS = "organisations.manage"
    APPLY = "project.apply"
    WORK_ON_PROJECT = "project.work"
    LEAD_PROJECT = "project.lead"
    REVIEW_ETHICS = "ethics.review"
    DECIDE_ETHICS = "ethics.decide"
    REGISTER_DATASET = "dataset.register"
    MANAGE_DATASET = "dataset.manage"
    DECIDE_ACCESS = "access.decide"
    SIGN_AGREEMENT = "agreement.sign"
    CHECK_OUTPUTS = "outputs.check"
    READ_LOG = "log.read"


@dataclass(frozen=True)
class RoleInfo:
    label: str
    purpose: str
    held_in: str  # "project" or the organisation kind: "university", "ethics_board", "custodian", "operator", "any"
    permissions: frozenset[Permission]


P = Permission
ROLES: dict[Role, RoleInfo] = {
    Role.RESEARCHER: RoleInfo(
        "Researcher",
        "Works on a project: explores stand-in data, submits programs, receives released outputs.",
        "any",
        frozenset({P.APPLY, P.WORK_ON_PROJECT}),
    ),
    Role.PRINCIPAL_INVESTIGATOR: RoleInfo(
        "Principal investigator",
        "Leads a project: writes the application, invites colleagues, asks for access.",
        "project",
        frozenset({P.WORK_ON_PROJECT, P.LEAD_PROJECT}),
    ),
    Role.SIGNATORY: RoleInfo(
        "Organisation signatory",
        "Signs agreements for their organisation. Never for a project they belong to.",
        "any",
        frozenset({P.SIGN_AGREEMENT}),
    ),
    Role.ETHICS_MEMBER: RoleInfo(
        "Ethics board member",
        "Reviews project applications sent to their board.",
        "ethics_board",
        frozenset({P.REVIEW_ETHICS}),
    ),
    Role.ETHICS_CHAIR: RoleInfo(
        "Ethics board chair",
        "Reviews applications and gives the board's opinion.",
        "ethics_board",
        frozenset({P.REVIEW_ETHICS, P.DECIDE_ETHICS}),
    ),
    Role.CUSTODIAN: RoleInfo(
        "Data custodian",
        "Answers for datasets: registers and uploads them, decides on access, approves programs, can stop everything.",
        "custodian",
        frozenset({P.REGISTER_DATASET, P.MANAGE_DATASET, P.DECIDE_ACCESS}),
    ),
    Role.OUTPUT_CHECKER: RoleInfo(
        "Output checker",
        "Looks at outputs before release. Never at those of a project they belong to.",
        "any",
        frozenset({P.CHECK_OUTPUTS}),
    ),
    Role.AUDITOR: RoleInfo(
        "Auditor", "Reads and verifies the audit log. Changes nothing.", "any", frozenset({P.READ_LOG})
    ),
    Role.OPERATOR: RoleInfo(
        "Operator",
        "Runs the portal: creates organisations, people and roles. Sees no data and decides nothing.",
        "operator",
        frozenset({P.MANAGE_PEOPLE, P.MANAGE_ORGANISATIONS}),
    ),
}
