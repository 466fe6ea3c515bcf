"""Everybody and everything that the route x role matrix needs: actors by name, and an object in the right state for each route."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from apps.accounts import actions as accounts
from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.attestation import actions as attestation
from apps.audit.models import Entry
from apps.audit.sequencer import seal_log
from apps.core.clock import now
from apps.datasets import actions as datasets
from apps.jobs import actions as jobs
from apps.projects import actions as projects
from tests import factories
from tests.factories import World, again


@dataclass
class Call:
    """How a route is called: arguments of its address, and what a POST (PUT, PATCH) sends."""

    kwargs: dict[str, Any]
    body: Any = None
    content_type: str = "application/json"
    headers: dict[str, str] | None = None


def _belong(world: World, user: User) -> None:
    projects.invite(by=world.lead, project=world.project, email=user.email)
    projects.accept_invitation(by=user, project=world.project)
    projects.leave_project(by=user, project=world.project)


class Matrix:
    """Two universities, two archives, two boards. Objects are all of the first; the second's people are the foreign ones."""

    def __init__(self) -> None:
        self.own, self.foreign = World(), World()
        self.own.open_access()
        self.actors = self._actors()
        self.calls = self._calls()

    def _actors(self) -> dict[str, User | None]:
        own, foreign, grant = self.own, self.foreign, accounts.grant_role
        ungranted = factories.person("Cy Custodian", own.archive, Role.CUSTODIAN)
        both = factories.person("Bo Both", own.archive, Role.CUSTODIAN, Role.OUTPUT_CHECKER)
        datasets.add_manager(by=own.custodian, dataset=own.dataset, user=both)
        left = factories.person("Lee Left", own.university, Role.RESEARCHER, Role.OUTPUT_CHECKER)
        _belong(own, left)
        invited = factories.person("Ivy Invited", own.university, Role.RESEARCHER)
        projects.invite(by=own.lead, project=own.project, email=invited.email)
        pi_checker = factories.person("Max Member", own.university, Role.RESEARCHER)
        projects.invite(by=own.lead, project=own.project, email=pi_checker.email)
        projects.accept_invitation(by=pi_checker, project=own.project)
        for role in (Role.OUTPUT_CHECKER, Role.SIGNATORY):
            grant(by=factories.operator(), user=pi_checker, role=role, organisation=own.university)
        return {
            "anonymous": None,
            "nobody": factories.person("Nora Nobody", own.university, ready=False),
            "researcher": factories.person("Rae Researcher", own.university, Role.RESEARCHER),
            "lead": own.lead,
            "member": own.member,
            "invited": invited,
            "left_checker": left,  # once in the project; an output checker
            "member_all": pi_checker,  # in the project; output checker and signatory too
            "lead_foreign": foreign.lead,
            "member_foreign": foreign.member,
            "custodian": own.custodian,
            "custodian_checker": both,  # acts for the dataset; an output checker too
            "custodian_ungranted": ungranted,  # same organisation, but not for the dataset
            "custodian_foreign": foreign.custodian,
            "signatory_ours": own.ours,
            "signatory_theirs": own.theirs,
            "signatory_foreign": foreign.ours,
            "chair": own.board.chair,
            "ethics_member": own.board.member,
            "chair_foreign": foreign.board.chair,
            "ethics_member_foreign": foreign.board.member,
            "checker": own.checkers[0],
            "auditor": factories.person("Audrey Auditor", own.university, Role.AUDITOR, ready=False),
            "operator": factories.operator(),
        }

    def _calls(self) -> dict[str, Call]:
        calls: dict[str, Call] = {}
        for part in (
            self._accounts,
            self._projects,
            self._datasets,
            self._attestation,
            self._access,
            self._jobs,
            self._audit,
        ):
            calls |= part()
        return calls

    def _accounts(self) -> dict[str, Call]:
        target = factories.person("Tara Target", self.own.university, Role.RESEARCHER)
        holding = target.holdings.get()
        token, _ = accounts.create_token(by=self.own.lead, name="laptop", scopes=["read"], days=3)
        gone = factories.person("Gil Gone", self.own.university)
        accounts.deactivate_person(by=factories.operator(), user=gone, reason="Left.")
        pk, slug, day = {"pk": target.pk}, self.own.university.slug, "2026-01-05"
        role = {"role": "output_checker", "organisation": slug}
        reason = {"reason": "Because."}
        return {
            "accounts:token_revoke": Call({"pk": token.pk}),
            "accounts:person": Call(pk),
            "accounts:role_grant": Call(pk),
            "accounts:role_revoke": Call({**pk, "holding": holding.pk}),
            "accounts:training": Call(pk),
            "accounts:deactivate": Call(pk),
            "accounts:reactivate": Call({"pk": gone.pk}),
            "accounts:accept_terms": Call({}, {"version": settings.TERMS_VERSION}, "form"),
            "api:login-token": Call({}, {}),
            "api:terms": Call({}, {"version": settings.TERMS_VERSION}),
            "api:tokens": Call({}, {"name": "other", "scopes": ["read"], "days": 3}),
            "api:token-revoke": Call({"pk": token.pk}),
            "api:organisations": Call({}, {"name": "New", "slug": "new", "kind": "university"}),
            "api:organisation": Call({"key": slug}),
            "api:people": Call(
                {},
                {
                    "email": "new@example.org",
                    "name": "New",
                    "organisation": slug,
                    "password": factories.PASSWORD,
                },
            ),
            "api:person": Call(pk),
            "api:person-roles": Call(pk, role),
            "api:person-role-revoke": Call({**pk, "holding": holding.pk}, reason),
            "api:person-training": Call(pk, {"course": "Safe data", "completed_on": day}),
            "api:person-deactivate": Call(pk, reason),
            "api:person-reactivate": Call({"pk": gone.pk}, reason),
        }

    def _projects(self) -> dict[str, Call]:
        own, reason = self.own, {"reason": "Because."}
        active = {"pk": own.project.pk}
        colleague = factories.person("Col League", own.university, Role.RESEARCHER)
        drafted = factories.draft_project(own.lead, [own.member], title="A draft")
        draft = {"pk": drafted.pk}
        submitted = factories.draft_project(own.lead, [own.member], title="Submitted")
        received = projects.submit_application(
            by=own.lead, project=submitted, board=own.board.organisation, declared=True
        ).review
        judged = factories.draft_project(own.lead, [own.member], title="Under review")
        review = {"pk": factories.review_of(judged, own.lead, own.board).pk}
        decided = {"pk": own.project.versions.get().review.pk}
        suspended = factories.approved_project(own.lead, own.board, [own.member], title="Suspended")
        projects.suspend_project(by=own.board.chair, project=suspended, reason="An incident.")
        for project in (drafted, submitted, judged, suspended):
            projects.invite(by=own.lead, project=again(project), email=again(self.actors["invited"]).email)
        membership = {"member": own.project.memberships.get(user=own.member).pk}
        version, decide = (
            {**active, "number": 1},
            {
                "outcome": "favourable",
                "reason": "Good.",
                "valid_until": str(now().date() + dt.timedelta(days=200)),
            },
        )
        until = {"pk": suspended.pk}
        return {
            "projects:detail": Call(active),
            "projects:withdraw": Call({"pk": submitted.pk}),
            "projects:close": Call(active),
            "projects:suspend": Call(active),
            "projects:reinstate": Call(until),
            "projects:application": Call(draft),
            "projects:check": Call(draft),
            "projects:section": Call({**draft, "code": "people"}),
            "projects:version": Call(version),
            "projects:submitted": Call(version),
            "projects:invitation": Call(active, {"decision": "accept", "answer": "accept"}, "form"),
            "projects:invite": Call(active),
            "projects:remove": Call({**active, **membership}),
            "projects:leave": Call(active),
            "projects:review": Call(review),
            "projects:review-accept": Call({"pk": received.pk}),
            "projects:review-return": Call({"pk": received.pk}),
            "projects:review-opinion": Call(review),
            "projects:review-interest": Call(review),
            "projects:review-decide": Call(review),
            "projects:letter": Call(decided),
            "api:projects": Call({}, {"title": "New", "organisation": own.university.slug}),
            "api:project": Call(active),
            "api:project-answers": Call(draft, {"answers": {"title": "Other"}}),
            "api:project-members": Call(active, {"email": colleague.email}),
            "api:project-member-remove": Call({**active, **membership}, reason),
            "api:project-invitation": Call(active, {"decision": "accept"}),
            "api:project-leave": Call(active, {}),
            "api:project-submit": Call(draft, {"board": own.board.organisation.slug, "declaration": True}),
            "api:project-versions": Call(active),
            "api:project-version": Call(version),
            "api:project-history": Call(active),
            "api:project-withdraw": Call({"pk": submitted.pk}, reason),
            "api:project-close": Call(active, reason),
            "api:project-suspend": Call(active, reason),
            "api:project-reinstate": Call(until, reason),
            "api:review": Call(review),
            "api:review-accept": Call({"pk": received.pk}, {}),
            "api:review-return": Call({"pk": received.pk}, reason),
            "api:review-opinions": Call(review, {"opinion": "support", "comment": "Clear."}),
            "api:review-decide": Call(review, decide),
            "api:review-letter": Call(decided),
        }

    def _datasets(self) -> dict[str, Call]:
        own, reason, draft = (
            self.own,
            {"reason": "Because."},
            factories.draft_dataset(self.own.custodian, title="A draft"),
        )
        datasets.add_manager(by=own.custodian, dataset=draft, user=self.actors["custodian_checker"])
        public, hidden, slug = {"slug": own.dataset.slug}, {"ref": draft.slug}, {"ref": own.dataset.slug}
        other = {"pk": own.custodian2.pk}
        uploading = {
            "pk": datasets.start_upload(
                by=own.custodian, dataset=own.dataset, media_type="text/csv", announced_size=500
            ).pk
        }
        broken = factories.uploaded_version(own.dataset, own.custodian)
        datasets.profile_failed(by=factories.PORTAL, version=broken, reason="The machine was lost.")
        stuck, accepted = {"pk": broken.pk}, own.dataset.versions.get(number=1)
        suspended = factories.published_dataset(own.custodian, title="Suspended")
        datasets.add_manager(by=own.custodian, dataset=suspended, user=self.actors["custodian_checker"])
        datasets.suspend_dataset(by=own.custodian, dataset=suspended, reason="A question.")
        email = {"email": own.custodian2.email}
        new = {
            "slug": "brand-new",
            "title": "New",
            "summary": "New.",
            "personal_data": False,
            "custodian": own.archive.slug,
        }
        chunk = Call(uploading, b"x", "application/offset+octet-stream", {"Upload-Offset": "0"})
        return {
            "datasets:detail": Call(public),
            "datasets:version": Call({"pk": accepted.pk}),
            "datasets:upload": Call(uploading),
            "datasets:give_up": Call(uploading),
            "datasets:check_again": Call(stuck),
            "datasets:manage": Call(public),
            "datasets:edit": Call(public),
            "datasets:dictionary": Call(public),
            "datasets:add_manager": Call(public, email, "form"),
            "datasets:remove_manager": Call({**public, **other}),
            "datasets:start_upload": Call(public, {"media_type": "text/csv"}, "form"),
            "datasets:change_state": Call({**public, "verb": "suspend"}),
            "api:datasets": Call({}, new),
            "api:dataset": Call(slug, {"title": "Other"}),
            "api:dataset-dictionary": Call(slug, factories.DICTIONARY),
            "api:dataset-publish": Call(hidden, {}),
            "api:dataset-suspend": Call(slug, reason),
            "api:dataset-resume": Call({"ref": suspended.slug}, reason),
            "api:dataset-withdraw": Call(slug, reason),
            "api:dataset-managers": Call(slug, email),
            "api:dataset-manager": Call({**slug, **other}),
            "api:dataset-versions": Call(slug, {"media_type": "text/csv", "announced_size": 700}),
            "api:version": Call({"pk": accepted.pk}),
            "api:version-content": chunk,
            "api:version-finish": Call(uploading, {}),
            "api:version-give-up": Call(uploading, reason),
            "api:version-check-again": Call(stuck, {}),
            "datasets:release_order": Call({"version_pk": accepted.pk}),
            "api:releases": Call({"pk": accepted.pk}, {"method": "gaussian_copula"}),
        }

    def _attestation(self) -> dict[str, Call]:
        own = self.own
        document = attestation.default_policy(personal_data=False)
        made = attestation.set_policy(by=own.custodian, dataset=own.dataset, document=document)
        public, ref = {"slug": own.dataset.slug}, {"ref": own.dataset.slug}
        sent = {"document": json.dumps(document), "instead_of": made.sha256}
        return {
            "attestation:policy": Call(public),
            "attestation:policy_version": Call({**public, "number": 1}),
            "attestation:policy_change": Call(public),
            "attestation:policy_paste": Call(public),
            "attestation:policy_confirm": Call(public, sent, "form"),
            "attestation:key_broker": Call(public),
            "api:release-policy": Call(ref, {"policy": document}),
            "api:release-policies": Call(ref),
            "api:release-policy-preview": Call(ref, {"policy": document}),
            "api:key-broker": Call(ref, {"broker": ""}),
        }

    def _access(self) -> dict[str, Call]:
        own, reason = self.own, {"reason": "Because."}
        active = own.project.access_requests.get()
        datasets_ = [factories.published_dataset(own.custodian, title=f"Set {n}") for n in range(3)]
        for dataset in datasets_:
            datasets.add_manager(by=own.custodian, dataset=dataset, user=self.actors["custodian_checker"])
        request = {"pk": factories.access_request(own.project, datasets_[0], own.lead).pk}
        issued = factories.issued_agreement(own.project, datasets_[1], own.lead, own.custodian)
        live, open_, force = {"pk": active.pk}, {"pk": issued.pk}, {"pk": active.agreements.get().pk}
        released = {"pk": own.dataset.versions.get(number=1).releases.get().pk}
        review = {"pk": factories.made_release(datasets_[0].versions.get(), own.custodian).pk}
        ask = {
            "project": str(own.project.pk),
            "purpose": "Visits.",
            "ends_on": str(now().date() + dt.timedelta(days=100)),
        }
        signing = {"sha256": issued.sha256, "password": factories.PASSWORD}
        return {
            "datasets:request_access": Call({"slug": datasets_[2].slug}),
            "datasets:access": Call(live),
            "datasets:access_decide": Call(request),
            "datasets:access_change": Call({**live, "verb": "suspend"}),
            "datasets:access_change[withdraw]": Call({**request, "verb": "withdraw"}),
            "datasets:access_change[revoke]": Call({**live, "verb": "revoke"}),
            "datasets:access_change[resume]": Call({**live, "verb": "resume"}),
            "datasets:agreement": Call(force),
            "datasets:agreement_sign": Call(open_),
            "datasets:agreement_terminate": Call(force),
            "datasets:agreement_text": Call(force),
            "datasets:release": Call(review),
            "datasets:release_decide": Call(review),
            "datasets:release_withdraw": Call(released),
            "datasets:release_data": Call(released),
            "datasets:release_data[unreleased]": Call(review),
            "api:access-request": Call({"ref": datasets_[2].slug}, ask),
            "api:stand-in": Call({"ref": own.dataset.slug}),
            "api:access-detail": Call(live),
            "api:access-decide": Call(request, {"approve": True, "reason": "Fits."}),
            "api:access-change": Call({**live, "verb": "suspend"}, reason),
            "api:access-change[withdraw]": Call({**request, "verb": "withdraw"}, reason),
            "api:access-change[revoke]": Call({**live, "verb": "revoke"}, reason),
            "api:access-change[resume]": Call({**live, "verb": "resume"}, reason),
            "api:agreement-detail": Call(force),
            "api:agreement-sign": Call(open_, {**signing, "side": "user_organisation"}),
            "api:agreement-sign[custodian]": Call(open_, {**signing, "side": "custodian"}),
            "api:agreement-terminate": Call(force, reason),
            "api:release-detail": Call(review),
            "api:release-decide": Call(review, {"approve": True}),
            "api:release-withdraw": Call(released, reason),
            "api:release-data": Call(released),
            "api:release-data[unreleased]": Call(review),
        }

    def _jobs(self) -> dict[str, Call]:
        own, reason = self.own, {"reason": "Because."}
        undecided, approved = own.program(name="Undecided"), own.approved_program(name="Approved")
        waiting = factories.research_run(undecided, own.member)
        rehearsal = factories.rehearsal_of(undecided)
        checked = factories.outputs_in_review(approved, own.member)
        released = factories.outputs_in_review(approved, own.member)
        for checker in own.checkers[1:]:
            jobs.check_outputs(by=checker, output_release=again(released), decision="approve")
        from apps.jobs import engine

        engine.build_package(released.pk)
        profile = own.dataset.versions.get(number=1).runs.filter(kind="profile").get()
        output = {"output_pk": rehearsal.outputs.get(path="summary.csv").pk}
        reviewed = {"output_pk": checked.run.outputs.get(path="table.csv").pk}
        project, pk, run = {"project_pk": own.project.pk}, {"pk": undecided.pk}, {"pk": waiting.pk}
        trial, check, approval = {"pk": rehearsal.pk}, {"pk": checked.pk}, {"pk": approved.approvals.get().pk}
        form = {"name": "n", "datasets": own.dataset.slug, "submission": uuid.uuid4().hex}
        upload = Call({"pk": own.project.pk}, {**form, "file": ("p.py", factories.PROGRAM)}, "multipart")
        decision = {"dataset": own.dataset.slug, "approve": True}
        return {
            "jobs:run": Call(run),
            "jobs:run[rehearsal]": Call(trial),
            "jobs:run[profile]": Call({"pk": profile.pk}),
            "jobs:progress": Call(run),
            "jobs:cancel": Call(run),
            "jobs:log": Call(trial),
            "jobs:evidence": Call(trial),
            "jobs:rehearsal_output": Call({**trial, **output}),
            "jobs:rehearsal_output_file": Call({**trial, **output}),
            "jobs:rehearsal_output_file[research]": Call({"pk": checked.run_id, **reviewed}),
            "jobs:package": Call({"pk": released.run_id}),
            "jobs:programs": Call(project),
            "jobs:program_new": Call(project),
            "jobs:program": Call(pk),
            "jobs:program_source": Call(pk),
            "jobs:program_decide": Call({**pk, "dataset_pk": own.dataset.pk}),
            "jobs:program_run": Call({"pk": approved.pk}),
            "jobs:approval_revoke": Call(approval),
            "jobs:check": Call(check),
            "jobs:check_file": Call({**check, **reviewed}),
            "jobs:check_content": Call({**check, **reviewed}),
            "jobs:check_revoke": Call({"pk": released.pk}),
            "api:programs": upload,
            "api:project-machines": Call({"pk": own.project.pk}),
            "api:program-detail": Call(pk),
            "api:program-source": Call(pk),
            "api:program-decide": Call(pk, decision),
            "api:program-run": Call({"pk": approved.pk}, {}),
            "api:approval-revoke": Call(approval, reason),
            "api:run-detail": Call(run),
            "api:run-cancel": Call(run, reason),
            "api:run-log": Call(trial),
            "api:run-output": Call({**trial, **output}),
            "api:run-output[research]": Call({"pk": checked.run_id, **reviewed}),
            "api:run-package": Call({"pk": released.run_id}),
            "api:check-detail": Call(check, {"decision": "approve"}),
            "api:check-file": Call({**check, **reviewed}),
            "api:check-revoke": Call({"pk": released.pk}, reason),
            "runner-input": Call({"dataset": own.dataset.pk}),
        }

    def _audit(self) -> dict[str, Call]:
        seal_log()
        entry = Entry.objects.filter(actor=self.own.lead.actor_code, index__isnull=False).earliest("index")
        pk = {"pk": entry.pk}
        return {
            "audit:entry": Call(pk),
            "api:audit-proof": Call(pk),
            "api:audit-tile": Call({"level": 0, "index": "000"}),
        }


def data_of(call: Call) -> tuple[Any, str]:
    """Body and content type of an unsafe request."""
    from django.core.files.uploadedfile import SimpleUploadedFile
    from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

    if call.content_type == "form":
        from urllib.parse import urlencode

        return urlencode(call.body), "application/x-www-form-urlencoded"
    if call.content_type == "multipart":
        fields = {
            name: SimpleUploadedFile(*value) if isinstance(value, tuple) else value
            for name, value in call.body.items()
        }
        return encode_multipart(BOUNDARY, fields), MULTIPART_CONTENT
    if isinstance(call.body, bytes):
        return call.body, call.content_type
    return (
        (b"", "application/x-www-form-urlencoded")
        if call.body is None
        else (json.dumps(call.body).encode(), call.content_type)
    )
