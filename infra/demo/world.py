"""Who is in the demo world. Names are of functions, not of people."""

from __future__ import annotations

from dataclasses import dataclass

PASSWORD = "correct-horse-battery"  # noqa: S105  printed for everybody to use
FIRST_PASSWORD = "told-by-the-operator"  # noqa: S105  replaced by each person when they first sign in

ORGANISATIONS = (
    ("northern-university", "Northern University", "university"),
    ("research-ethics-board", "Research Ethics Board", "ethics_board"),
    ("health-data-trust", "Health Data Trust", "custodian"),
    ("diabetes-registry", "Diabetes Registry", "custodian"),
    ("output-office", "Output Checking Office", "university"),
)


@dataclass(frozen=True)
class Account:
    """One person of the demo world: `roles` are held in their own organisation."""

    key: str
    name: str
    organisation: str
    roles: tuple[str, ...]

    @property
    def email(self) -> str:
        return f"{self.key}@demo.example"


OPERATOR = Account("operator", "Demo Operator", "portal-operations", ("operator",))
PEOPLE = (
    Account("lead", "Demo Principal Investigator", "northern-university", ("researcher",)),
    Account("colleague", "Demo Researcher", "northern-university", ("researcher",)),
    Account("signatory", "Demo University Signatory", "northern-university", ("organisation_signatory",)),
    Account("chair", "Demo Ethics Chair", "research-ethics-board", ("ethics_chair",)),
    Account("member", "Demo Ethics Member", "research-ethics-board", ("ethics_member",)),
    Account("custodian", "Demo Trust Custodian", "health-data-trust", ("custodian",)),
    Account("trust-signatory", "Demo Trust Signatory", "health-data-trust", ("organisation_signatory",)),
    Account("registrar", "Demo Registry Custodian", "diabetes-registry", ("custodian",)),
    Account(
        "registry-signatory", "Demo Registry Signatory", "diabetes-registry", ("organisation_signatory",)
    ),
    Account("checker-one", "Demo First Checker", "output-office", ("output_checker",)),
    Account("checker-two", "Demo Second Checker", "output-office", ("output_checker",)),
    Account("auditor", "Demo Auditor", "output-office", ("auditor",)),
)
ROLE_WORDS = {
    "operator": "operator", "researcher": "researcher", "organisation_signatory": "signatory", "ethics_chair": "ethics chair",
    "ethics_member": "ethics member", "custodian": "custodian", "output_checker": "output checker", "auditor": "auditor",
}  # fmt: skip
