"""Who may do what: the declared table of the route x role matrix. Everybody who is not declared must be refused.

Actors stand in tests/api/world.py. A rule names, per method, who is let in. Objects are of the first project and the
first custodian: people of the second ("foreign") appear only where everybody of their kind may.
`read`: a page or address that is only read. `form`: GET shows a form, POST sends it. `send`: POST only.
"""

from __future__ import annotations

Rule = dict[str, frozenset[str]]

ACTORS = frozenset(
    [
        "anonymous",
        "nobody",
        "researcher",
        "lead",
        "member",
        "invited",
        "left_checker",
        "member_all",
        "lead_foreign",
        "member_foreign",
        "custodian",
        "custodian_checker",
        "custodian_ungranted",
        "custodian_foreign",
        "signatory_ours",
        "signatory_theirs",
        "signatory_foreign",
        "chair",
        "ethics_member",
        "chair_foreign",
        "ethics_member_foreign",
        "checker",
        "auditor",
        "operator",
    ]
)


def only(names: str) -> frozenset[str]:
    found = frozenset(names.split())
    if unknown := found - ACTORS:
        raise ValueError(f"no such actors: {unknown}")
    return found


NOBODY: frozenset[str] = frozenset()
EVERYBODY = ACTORS
SIGNED_IN = ACTORS - {"anonymous"}
OPERATOR = only("operator")
LEAD = only("lead")
TEAM = only("lead member member_all")
DRAFT_TEAM = only("lead member")  # member_all joined the running project only
INVITED = only("invited")
BOARD = only("chair ethics_member")
CHAIR = only("chair")
BOARDS = BOARD | only("chair_foreign ethics_member_foreign")
CUSTODIANS = only("custodian custodian_checker")  # who act for the dataset
ALL_CUSTODIANS = CUSTODIANS | only("custodian_ungranted custodian_foreign")
RESEARCHERS = TEAM | only("researcher invited left_checker lead_foreign member_foreign")
SIGNATORIES = only("signatory_ours signatory_theirs")
CHECKERS = only("checker left_checker member_all custodian_checker")
CHECKER = only("checker")  # the only one in no relation to the project or its data
AUDITOR = only("auditor")

SEE_PROJECT = TEAM | BOARD
SEE_INVITATION = SEE_PROJECT | INVITED  # title, lead and what accepting means; not the application
SEE_ACCESS = TEAM | CUSTODIANS | SIGNATORIES | AUDITOR
SEE_RUN = TEAM | CUSTODIANS | AUDITOR
SEE_PROGRAM = TEAM | CUSTODIANS


def read(who: frozenset[str]) -> Rule:
    return {"GET": who}


def send(who: frozenset[str]) -> Rule:
    return {"POST": who}


def form(who: frozenset[str]) -> Rule:
    return {"GET": who, "POST": who}


def each(**methods: frozenset[str]) -> Rule:
    return dict(methods)


PORTAL: dict[str, Rule] = {
    "front": read(EVERYBODY),
    "home": read(SIGNED_IN),
    "accessibility": read(EVERYBODY),
    "privacy": read(EVERYBODY),
    "terms": read(EVERYBODY),
    "contact": read(EVERYBODY),
    "api-docs": read(EVERYBODY),
    "status": read(EVERYBODY),
    "portal-keys": read(EVERYBODY),
    "health-live": read(EVERYBODY),
    "health-ready": read(EVERYBODY),
    "api:schema": read(EVERYBODY),
}

ACCOUNTS: dict[str, Rule] = {
    "accounts:login": form(EVERYBODY),
    "accounts:logout": send(EVERYBODY),
    "accounts:account": read(SIGNED_IN),
    "accounts:stay": read(SIGNED_IN),
    "accounts:password": form(SIGNED_IN),
    "accounts:accept_terms": send(SIGNED_IN),
    "accounts:tokens": form(SIGNED_IN),
    "accounts:token_revoke": send(LEAD),  # its owner
    "accounts:roles": read(EVERYBODY),
    "accounts:people": read(OPERATOR),
    "accounts:person_new": form(OPERATOR),
    "accounts:person": read(OPERATOR),
    "accounts:role_grant": form(OPERATOR),
    "accounts:role_revoke": form(OPERATOR),
    "accounts:training": form(OPERATOR),
    "accounts:deactivate": form(OPERATOR),
    "accounts:reactivate": form(OPERATOR),
    "accounts:organisations": read(OPERATOR),
    "accounts:organisation_new": form(OPERATOR),
    "api:login-token": each(POST=EVERYBODY, DELETE=NOBODY),  # DELETE: only with a token, never with a session
    "api:whoami": read(SIGNED_IN),
    "api:roles": read(SIGNED_IN),
    "api:terms": send(SIGNED_IN),
    "api:tokens": form(SIGNED_IN),
    "api:token-revoke": send(LEAD),
    "api:organisations": each(GET=SIGNED_IN, POST=OPERATOR),
    "api:organisation": read(SIGNED_IN),
    "api:people": form(OPERATOR),
    "api:person": read(OPERATOR),
    "api:person-roles": send(OPERATOR),
    "api:person-role-revoke": send(OPERATOR),
    "api:person-training": send(OPERATOR),
    "api:person-deactivate": send(OPERATOR),
    "api:person-reactivate": send(OPERATOR),
}

PROJECTS: dict[str, Rule] = {
    "projects:list": read(SIGNED_IN),
    "projects:new": form(RESEARCHERS),
    "projects:detail": read(SEE_INVITATION),
    "projects:withdraw": form(LEAD),
    "projects:close": form(LEAD),
    "projects:suspend": form(CHAIR),
    "projects:reinstate": form(CHAIR),
    "projects:application": read(DRAFT_TEAM),
    "projects:check": form(LEAD),
    "projects:section": form(LEAD),
    "projects:version": read(SEE_PROJECT),
    "projects:submitted": read(TEAM),
    "projects:invitation": send(TEAM | INVITED),  # members are told that they have answered already
    "projects:invite": form(LEAD),
    "projects:remove": form(LEAD),
    "projects:leave": form(TEAM),
    "projects:reviews": read(BOARDS),
    "projects:review": read(BOARD),
    "projects:review-accept": send(CHAIR),
    "projects:review-return": form(CHAIR),
    "projects:review-opinion": form(BOARD),
    "projects:review-interest": form(BOARD),
    "projects:review-decide": form(CHAIR),
    "projects:letter": read(SEE_PROJECT),
    "api:application-form": read(SIGNED_IN),
    "api:projects": each(
        GET=SIGNED_IN, POST=RESEARCHERS - only("lead_foreign member_foreign")
    ),  # in the first university
    "api:project": read(SEE_INVITATION),
    "api:project-answers": each(GET=DRAFT_TEAM, PATCH=LEAD),
    "api:project-members": each(GET=SEE_PROJECT, POST=LEAD),
    "api:project-member-remove": send(LEAD),
    "api:project-invitation": send(TEAM | INVITED),
    "api:project-leave": send(TEAM),
    "api:project-submit": send(LEAD),
    "api:project-versions": read(SEE_PROJECT),
    "api:project-version": read(SEE_PROJECT),
    "api:project-history": read(SEE_PROJECT),
    "api:project-withdraw": send(LEAD),
    "api:project-close": send(LEAD),
    "api:project-suspend": send(CHAIR),
    "api:project-reinstate": send(CHAIR),
    "api:reviews": read(SIGNED_IN),
    "api:review": read(BOARD),
    "api:review-accept": send(CHAIR),
    "api:review-return": send(CHAIR),
    "api:review-opinions": form(BOARD),
    "api:review-decide": send(CHAIR),
    "api:review-letter": read(SEE_PROJECT),
}

DATASETS: dict[str, Rule] = {
    "datasets:catalogue": read(EVERYBODY),
    "datasets:detail": read(EVERYBODY),
    "datasets:mine": read(ALL_CUSTODIANS),
    "datasets:register": form(ALL_CUSTODIANS),
    "datasets:version": read(CUSTODIANS),
    "datasets:upload": read(CUSTODIANS),
    "datasets:give_up": form(CUSTODIANS),
    "datasets:check_again": send(CUSTODIANS),
    "datasets:manage": read(CUSTODIANS),
    "datasets:edit": form(CUSTODIANS),
    "datasets:dictionary": form(CUSTODIANS),
    "datasets:add_manager": send(CUSTODIANS),
    "datasets:remove_manager": form(CUSTODIANS),
    "datasets:start_upload": send(CUSTODIANS),
    "datasets:change_state": form(CUSTODIANS),
    "api:datasets": each(
        GET=EVERYBODY, POST=CUSTODIANS | only("custodian_ungranted")
    ),  # for the first archive
    "api:my-datasets": read(SIGNED_IN),
    "api:dataset": each(GET=EVERYBODY, PATCH=CUSTODIANS),
    "api:dataset-dictionary": each(GET=EVERYBODY, PUT=CUSTODIANS),
    "api:dataset-publish": send(CUSTODIANS),
    "api:dataset-suspend": send(CUSTODIANS),
    "api:dataset-resume": send(CUSTODIANS),
    "api:dataset-withdraw": send(CUSTODIANS),
    "api:dataset-managers": form(CUSTODIANS),
    "api:dataset-manager": each(DELETE=CUSTODIANS),
    "api:broker-key": read(EVERYBODY),
    "api:dataset-versions": form(CUSTODIANS),
    "api:version": read(CUSTODIANS),
    "api:version-content": each(PATCH=CUSTODIANS, DELETE=CUSTODIANS),
    "api:version-finish": send(CUSTODIANS),
    "api:version-give-up": send(CUSTODIANS),
    "api:version-check-again": send(CUSTODIANS),
}

ATTESTATION: dict[str, Rule] = {
    "attestation:policy": read(CUSTODIANS),
    "attestation:policy_version": read(CUSTODIANS),
    "attestation:policy_change": form(CUSTODIANS),
    "attestation:policy_paste": form(CUSTODIANS),
    "attestation:policy_confirm": send(CUSTODIANS),
    "attestation:key_broker": form(CUSTODIANS),
    "api:release-policy": each(GET=CUSTODIANS, PUT=CUSTODIANS),
    "api:release-policies": read(CUSTODIANS),
    "api:release-policy-preview": send(CUSTODIANS),
    "api:key-broker": each(GET=CUSTODIANS, PUT=CUSTODIANS),
}

ACCESS: dict[str, Rule] = {
    "datasets:request_access": form(SIGNED_IN),  # of one's own projects, from a list of these
    "datasets:access": read(SEE_ACCESS),
    "datasets:access_decide": form(CUSTODIANS),
    "datasets:access_change": form(CUSTODIANS),
    "datasets:access_change[withdraw]": form(LEAD),
    "datasets:access_change[revoke]": form(CUSTODIANS),
    "datasets:access_change[resume]": form(CUSTODIANS),
    "datasets:agreements": read(SIGNED_IN),
    "datasets:agreement": read(SEE_ACCESS),
    "datasets:agreement_sign": form(SIGNATORIES),
    "datasets:agreement_terminate": form(CUSTODIANS),
    "datasets:agreement_text": read(SEE_ACCESS),
    "datasets:release_order": form(CUSTODIANS),
    "datasets:release": read(CUSTODIANS),
    "datasets:release_decide": form(CUSTODIANS),
    "datasets:release_withdraw": form(CUSTODIANS),
    "datasets:release_data": read(TEAM | CUSTODIANS),
    "datasets:release_data[unreleased]": read(CUSTODIANS),
    "api:access-request": send(LEAD),
    "api:stand-in": read(TEAM | CUSTODIANS),
    "api:access-list": read(SIGNED_IN),
    "api:access-detail": read(SEE_ACCESS),
    "api:access-decide": send(CUSTODIANS),
    "api:access-change": send(CUSTODIANS),
    "api:access-change[withdraw]": send(LEAD),
    "api:access-change[revoke]": send(CUSTODIANS),
    "api:access-change[resume]": send(CUSTODIANS),
    "api:agreements": read(SIGNED_IN),
    "api:agreement-detail": read(SEE_ACCESS),
    "api:agreement-sign": send(only("signatory_ours")),
    "api:agreement-sign[custodian]": send(only("signatory_theirs")),
    "api:agreement-terminate": send(CUSTODIANS),
    "api:releases": form(CUSTODIANS),
    "api:release-detail": read(CUSTODIANS),
    "api:release-decide": send(CUSTODIANS),
    "api:release-withdraw": send(CUSTODIANS),
    "api:release-data": read(TEAM | CUSTODIANS),
    "api:release-data[unreleased]": read(CUSTODIANS),
}

JOBS: dict[str, Rule] = {
    "jobs:runs": read(SIGNED_IN),
    "jobs:run": read(SEE_RUN),
    "jobs:run[rehearsal]": read(SEE_RUN),
    "jobs:run[profile]": read(CUSTODIANS | AUDITOR),
    "jobs:progress": read(SEE_RUN),
    "jobs:cancel": form(SEE_PROGRAM),
    "jobs:log": read(SEE_PROGRAM),
    "jobs:evidence": read(SEE_RUN),
    "jobs:rehearsal_output": read(SEE_PROGRAM),
    "jobs:rehearsal_output_file": read(SEE_PROGRAM),
    "jobs:rehearsal_output_file[research]": read(NOBODY),
    "jobs:package": read(TEAM),
    "jobs:programs": read(TEAM),
    "jobs:program_new": form(TEAM),
    "jobs:program": read(SEE_PROGRAM),
    "jobs:program_source": read(SEE_PROGRAM),
    "jobs:program_decide": form(CUSTODIANS),
    "jobs:program_run": form(TEAM),
    "jobs:approval_revoke": form(CUSTODIANS),
    "jobs:checks": read(CHECKERS),
    "jobs:check": form(CHECKER),
    "jobs:check_file": read(CHECKER),
    "jobs:check_content": read(CHECKER),
    "jobs:check_revoke": form(CHECKER | CUSTODIANS),
    "api:programs": form(TEAM),
    "api:project-machines": read(TEAM),
    "api:programs-to-decide": read(SIGNED_IN),
    "api:program-detail": read(SEE_PROGRAM),
    "api:program-source": read(SEE_PROGRAM),
    "api:program-decide": send(CUSTODIANS),
    "api:program-run": send(TEAM),
    "api:approval-revoke": send(CUSTODIANS),
    "api:runs": read(SIGNED_IN),
    "api:run-detail": read(SEE_RUN),
    "api:run-cancel": send(SEE_PROGRAM),
    "api:run-log": read(SEE_PROGRAM),
    "api:run-output": read(SEE_PROGRAM),
    "api:run-output[research]": read(NOBODY),
    "api:run-package": read(TEAM),
    "api:checks": read(SIGNED_IN),
    "api:check-detail": form(CHECKER),
    "api:check-file": read(CHECKER),
    "api:check-revoke": send(CHECKER | CUSTODIANS),
}

# A run's machine is no person: nobody's session opens its protocol. `claim` is open, its one-time token is in the body.
RUNNER: dict[str, Rule] = {
    "runner-claim": send(EVERYBODY),
    "runner-challenge": send(NOBODY),
    "runner-keys": send(NOBODY),
    "runner-input": read(NOBODY),
    "runner-program": read(NOBODY),
    "runner-phase": send(NOBODY),
    "runner-outputs": each(GET=NOBODY, PUT=NOBODY),
    "runner-result": send(NOBODY),
    "runner-abandon": send(NOBODY),
}

AUDIT: dict[str, Rule] = {
    "audit:log": read(AUDITOR),
    "audit:entry": read(AUDITOR | LEAD),  # who did it
    "api:audit-entries": read(AUDITOR),
    "api:audit-checkpoint": read(EVERYBODY),
    "api:audit-tile": read(EVERYBODY),
    "api:audit-proof": read(AUDITOR | LEAD),
}

EXPECTED: dict[str, Rule] = (
    PORTAL | ACCOUNTS | PROJECTS | DATASETS | ATTESTATION | ACCESS | JOBS | RUNNER | AUDIT
)
