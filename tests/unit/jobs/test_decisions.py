"""Custodians' word on programs, runs asked for and stopped, output checks: allowed, refused, and why."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db.models import Model

from apps.accounts import actions as accounts
from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.audit.models import Entry
from apps.core.errors import Conflict, Denied, Invalid
from apps.core.lifecycle import history
from apps.core.models import Outbox
from apps.datasets import actions as datasets
from apps.datasets.models import Dataset
from apps.jobs import actions, engine, permissions, queries
from apps.jobs.models import OutputCheck, OutputRelease, Program, ProgramApproval, Run
from apps.projects import actions as projects
from tests import factories
from tests.factories import World, again, browser, drive


def join(w: World, user: User) -> None:
    """Invite somebody into the project and take them out again: they belong to it for ever."""
    projects.invite(by=w.lead, project=w.project, email=user.email)
    projects.accept_invitation(by=user, project=w.project)
    projects.leave_project(by=user, project=w.project)


def kicked(topic: str, obj: Model) -> bool:
    return Outbox.objects.filter(topic=topic, key=str(obj.pk)).exists()


def decide(
    w: World, program: Program, by: User | None = None, *, approve: bool = True, **more: Any
) -> ProgramApproval:
    return actions.decide_program(
        by=by or w.custodian, program=program, dataset=more.pop("dataset", w.dataset), approve=approve, **more
    )


# Programs


def test_approve(w: World) -> None:
    program = w.program()
    run = factories.research_run(program, w.member)
    Outbox.objects.all().delete()
    approval = decide(w, program)
    assert (approval.decision, approval.program_sha256, approval.by, approval.automatic) == (
        "approved",
        program.sha256,
        w.custodian.actor_code,
        False,
    )
    entry = Entry.objects.get(event="program.approved")
    assert entry.scope == f"dataset:{w.dataset.pk}" and entry.data["sha256"] == program.sha256
    assert kicked("advance_run", run)


def test_refuse_needs_a_reason(w: World) -> None:
    program = w.program()
    with pytest.raises(Invalid) as refusal:
        decide(w, program, approve=False, reason=" ")
    assert "reason" in refusal.value.fields and not program.approvals.exists()
    assert decide(w, program, approve=False, reason=" Prints rows. ").reason == "Prints rows."


def test_only_once(w: World) -> None:
    program = w.program()
    decide(w, program)
    with pytest.raises(Conflict) as refusal:
        decide(w, program, w.custodian2, approve=False, reason="No.")
    assert refusal.value.code == "already_decided" and program.approvals.get().decision == "approved"


def test_not_before_the_rehearsal(w: World) -> None:
    program = factories.submitted_program(w.project, w.member, [w.dataset])
    with pytest.raises(Conflict) as refusal:
        decide(w, program)
    assert refusal.value.code == "rehearsal_not_succeeded"
    assert decide(w, program, approve=False, reason="Not for this purpose.").decision == "refused"


def test_not_after_a_failed_rehearsal(w: World) -> None:
    program = factories.submitted_program(w.project, w.member, [w.dataset], content=b"1/0\n")
    run = drive(factories.rehearsal_of(program), {}, exit_class="failed", log=b"ZeroDivisionError")
    assert (run.state, run.exception_type) == ("failed", "ValueError")
    with pytest.raises(Conflict):
        decide(w, program)


@pytest.mark.parametrize("who", ["lead", "member", "ours", "theirs"])
def test_only_custodians_decide(w: World, who: str) -> None:
    with pytest.raises(Denied) as refusal:
        decide(w, w.program(), getattr(w, who))
    assert refusal.value.code == "role_missing"


def test_custodian_without_the_grant(w: World) -> None:
    program, colleague = w.program(), factories.person("Cy Custodian", w.archive, Role.CUSTODIAN)
    with pytest.raises(Denied) as refusal:
        decide(w, program, colleague)
    assert refusal.value.code == "not_a_manager"


def test_grant_without_the_role(w: World) -> None:
    program = w.program()
    holding = w.custodian2.holdings.get(role=Role.CUSTODIAN)
    accounts.revoke_role(by=factories.operator(), holding=holding, reason="Moved.")
    with pytest.raises(Denied):
        decide(w, program, again(w.custodian2))


def test_custodian_who_once_belonged(w: World) -> None:
    program = w.program()
    join(w, w.custodian2)
    with pytest.raises(Denied) as refusal:
        decide(w, program, w.custodian2)
    assert refusal.value.code == "belongs_to_project"
    assert permissions.decidable_datasets(w.custodian2, program) == []


def test_dataset_that_the_program_does_not_read(w: World) -> None:
    other = factories.draft_dataset(w.custodian)
    with pytest.raises(Denied) as refusal:
        decide(w, w.program(), dataset=other)
    assert refusal.value.code == "dataset_not_named"


def test_automatic(w: World) -> None:
    datasets.update_dataset(
        by=w.custodian, dataset=w.dataset, program_approval=Dataset.ProgramApproval.AUTOMATIC
    )
    program = w.program()
    approval = program.approvals.get()
    assert approval.automatic and approval.decision == "approved" and approval.by.startswith("system:")
    actions.approve_automatically(by=factories.PORTAL, program=program)
    assert program.approvals.count() == 1


def test_not_automatic_by_itself(w: World) -> None:
    assert not w.program().approvals.exists()


def test_take_an_approval_back(w: World) -> None:
    program = w.program()
    approval = decide(w, program, reason="Counts only.")
    run = factories.research_run(program, w.member)
    engine.advance(run.pk)
    for by in (w.member, w.ours, factories.operator()):
        with pytest.raises(Denied):
            actions.revoke_program_approval(by=by, approval=approval, reason="No.")
    with pytest.raises(Invalid):
        actions.revoke_program_approval(by=w.custodian2, approval=approval, reason="")
    actions.revoke_program_approval(by=w.custodian2, approval=approval, reason="A leak.")
    assert (approval.decision, approval.by, approval.reason) == (
        "revoked",
        w.custodian.actor_code,
        "Counts only.",
    ), "the approval itself stays as it was given"
    assert (approval.revoked_by, approval.revocation_reason) == (w.custodian2.actor_code, "A leak.")
    page = factories.page(w.custodian, f"/programs/{program.pk}")
    assert approval.revoked_at and "Counts only." in page and "A leak." in page
    with pytest.raises(Conflict):
        actions.revoke_program_approval(by=w.custodian, approval=approval, reason="Again.")
    assert kicked("advance_run", run)
    engine.advance(run.pk)
    assert again(run).state == "cancelled" and again(run).code == "gate_closed"


def test_a_part_in_the_project_is_no_bar_to_taking_an_approval_back(w: World) -> None:
    program = w.approved_program()
    approval = program.approvals.get()
    join(w, w.custodian2)
    address = f"/approvals/{approval.pk}/revoke"
    assert address in factories.page(w.custodian2, f"/programs/{program.pk}")
    assert address not in factories.page(w.member, f"/programs/{program.pk}")
    browser(w.custodian2).post(address, {"reason": "A leak."})
    assert again(approval).decision == "revoked"


def test_programs_that_wait_for_a_custodian(w: World) -> None:
    assert not queries.programs_to_decide(w.custodian).exists()
    program = w.program()
    assert list(queries.programs_to_decide(w.custodian)) == [program]
    assert not queries.programs_to_decide(w.member).exists()
    assert [x.text for x in queries.waiting_for(w.custodian)] == [f"visits ({w.project.ref})"]
    join(w, w.custodian2)
    assert not queries.programs_to_decide(w.custodian2).exists()
    decide(w, program)
    assert not queries.programs_to_decide(w.custodian).exists()


# Runs


def test_ask_for_a_run(w: World) -> None:
    program = w.program()
    run = factories.research_run(program, w.lead)
    assert (run.state, run.kind, run.requested_by) == ("waiting", "research", w.lead.actor_code)
    (entry,) = run.manifest["inputs"]
    assert entry["stage"] == 2 and entry["sealed"] and not run.manifest["full_log"]
    engine.advance(run.pk)
    assert again(run).state == "waiting" and again(run).code == "waits_for_conditions"
    decide(w, program)
    engine.advance(run.pk)
    assert again(run).state == "launching"


def test_one_click_is_one_run(w: World) -> None:
    one, two = w.program(), w.program(name="other")
    first = actions.submit_run(by=w.member, program=one, submission="1")
    assert actions.submit_run(by=w.lead, program=one, submission="1") == first
    other = actions.submit_run(by=w.member, program=two, submission="1")
    assert other != first and other.program == two, "the same token for another program is another run"


@pytest.mark.parametrize("who", ["custodian", "ours", "theirs"])
def test_only_members_ask(w: World, who: str) -> None:
    with pytest.raises(Denied) as refusal:
        factories.research_run(w.approved_program(), getattr(w, who))
    assert refusal.value.code == "not_a_member"


def test_no_run_before_the_rehearsal(w: World) -> None:
    program = factories.submitted_program(w.project, w.member, [w.dataset])
    with pytest.raises(Conflict) as refusal:
        factories.research_run(program, w.member)
    assert refusal.value.code == "rehearsal_not_succeeded"


def test_no_personal_data_under_software_evidence(w: World) -> None:
    """The database itself refuses the input, and the person is told why."""
    program = w.approved_program()
    Dataset.objects.filter(pk=w.dataset.pk).update(personal_data=True)
    with pytest.raises(Conflict) as refusal:
        factories.research_run(program, w.member)
    assert refusal.value.code == "no_hardware_protection" and not Run.objects.filter(kind="research").exists()


@pytest.mark.parametrize("who", ["lead", "member", "custodian", "custodian2"])
def test_stop_a_run(w: World, who: str) -> None:
    run, by = factories.research_run(w.program(), w.member), getattr(w, who)
    with pytest.raises(Invalid):
        actions.cancel_run(by=by, run=run, reason=" ")
    actions.cancel_run(by=by, run=run, reason="A mistake.")
    assert run.cancel_reason == "A mistake." and kicked("advance_run", run)
    assert Entry.objects.get(event="run.cancel_requested").actor == by.actor_code
    with pytest.raises(Conflict):
        actions.cancel_run(by=w.lead, run=run, reason="Again.")
    engine.advance(run.pk)
    assert again(run).state == "cancelled"
    with pytest.raises(Conflict):
        actions.cancel_run(by=by, run=again(run), reason="Late.")


def test_others_do_not_stop_it(w: World) -> None:
    run = factories.research_run(w.program(), w.member)
    for by in (w.ours, w.theirs, w.checkers[0], w.board.chair, factories.operator()):
        with pytest.raises(Denied) as refusal:
            actions.cancel_run(by=by, run=run, reason="Why not.")
        assert refusal.value.code == "cannot_cancel"
    assert again(run).cancel_reason == ""


# Output checks


def check(by: User, release: OutputRelease, decision: str = "approve", comment: str = "") -> None:
    actions.check_outputs(by=by, output_release=again(release), decision=decision, comment=comment)


def test_two_checkers(w: World) -> None:
    release, (one, two, three) = w.outputs(), w.checkers
    assert release.state == "in_review"
    check(one, release)
    release = again(release)
    assert (release.state, release.first_checker, release.second_checker) == ("approved_once", one, None)
    assert not kicked("build_package", release)
    with pytest.raises(Conflict) as refusal:
        check(one, release)
    assert refusal.value.code == "already_checked" and again(release).state == "approved_once"
    check(two, release, comment="Fine.")
    release = again(release)
    assert (release.state, release.second_checker) == ("approved", two) and kicked("build_package", release)
    with pytest.raises(Conflict) as refusal:
        check(three, release)
    assert refusal.value.code == "not_in_review"
    assert [c.by for c in history(release)][-2:] == [one.actor_code, two.actor_code]


@pytest.mark.parametrize("first", [False, True])
def test_reject(w: World, first: bool) -> None:
    release, (one, two, _) = w.outputs(), w.checkers
    if first:
        check(one, release)
    with pytest.raises(Invalid) as refusal:
        check(two, release, "reject", "  ")
    assert "comment" in refusal.value.fields
    with pytest.raises(Invalid):
        check(two, release, "maybe")
    check(two, release, "reject", "A cell of two.")
    release = again(release)
    assert release.state == "rejected" and not kicked("build_package", release)
    engine.build_package(release.pk)
    assert again(release).state == "rejected" and again(release).package_sha256 == ""


def test_who_checks(w: World) -> None:
    release = w.outputs()
    for by, code in (
        (w.lead, "role_missing"),
        (w.custodian, "role_missing"),
        (w.board.chair, "role_missing"),
        (factories.operator(), "role_missing"),
    ):
        with pytest.raises(Denied) as refusal:
            check(by, release)
        assert refusal.value.code == code


def test_checker_who_once_belonged(w: World) -> None:
    release, checker = w.outputs(), w.checkers[0]
    join(w, checker)
    with pytest.raises(Denied) as refusal:
        check(checker, release)
    assert refusal.value.code == "belongs_to_project"
    assert not permissions.checkable(checker).exists() and not permissions.can_see_outputs(checker, release)


def test_checker_who_is_only_invited(w: World) -> None:
    release, checker = w.outputs(), w.checkers[0]
    projects.invite(by=w.lead, project=w.project, email=checker.email)
    with pytest.raises(Denied) as refusal:
        check(checker, release)
    assert refusal.value.code == "belongs_to_project" and "Decline the invitation" in refusal.value.remedy
    assert not permissions.checkable(checker).exists()
    projects.decline_invitation(by=checker, project=w.project)
    assert list(permissions.checkable(checker)) == [release]
    check(checker, release)


def test_a_custodian_is_not_removed_by_an_invitation(w: World) -> None:
    """Not by one that they decline, nor by one that the lead takes back; their list of work says so too."""
    program = w.program()
    custodian = w.custodian
    assert list(queries.programs_to_decide(custodian)) == [program]
    for end in ("decline", "take back"):
        invited = projects.invite(by=w.lead, project=w.project, email=custodian.email)
        assert not queries.programs_to_decide(custodian).exists()
        if end == "decline":
            projects.decline_invitation(by=custodian, project=w.project)
        else:
            projects.remove_member(by=w.lead, membership=invited, reason="A mistake.")
        assert list(queries.programs_to_decide(custodian)) == [program]
    decide(w, program)


def test_checker_who_acts_for_an_input(w: World) -> None:
    release = w.outputs()
    accounts.grant_role(
        by=factories.operator(), user=w.custodian2, role=Role.OUTPUT_CHECKER, organisation=w.archive
    )
    checker = again(w.custodian2)
    with pytest.raises(Denied) as refusal:
        check(checker, release)
    assert refusal.value.code == "custodian_of_input"
    assert not permissions.checkable(checker).exists(), "what they may not check does not wait for them"
    assert not permissions.can_see_outputs(checker, release), "nor do they see the files"
    assert permissions.checkable(w.checkers[0]).exists()


def test_what_waits_for_a_checker(w: World) -> None:
    release, (one, two, _) = w.outputs(), w.checkers
    assert [x.url for x in queries.waiting_for(one)] == [f"/checks/{release.pk}"]
    check(one, release)
    assert queries.waiting_for(one) == [] and len(queries.waiting_for(two)) == 1


def test_revoke_a_release(w: World) -> None:
    release = w.released()
    assert permissions.can_download_package(w.member, release) and not permissions.can_download_package(
        w.custodian, release
    )
    for by in (w.member, w.lead, w.ours, factories.operator()):
        with pytest.raises(Denied) as refusal:
            actions.revoke_release(by=by, output_release=release, reason="No.")
        assert refusal.value.code == "cannot_revoke"
    with pytest.raises(Invalid):
        actions.revoke_release(by=w.custodian, output_release=release, reason="")
    actions.revoke_release(by=w.custodian, output_release=release, reason="A small cell.")
    assert again(release).state == "revoked" and not permissions.can_download_package(
        w.member, again(release)
    )
    with pytest.raises(Conflict):
        actions.revoke_release(by=w.checkers[2], output_release=again(release), reason="Again.")


def test_a_checker_revokes_unless_they_belong(w: World) -> None:
    release, (_, _, three) = w.released(), w.checkers
    join(w, three)
    with pytest.raises(Denied):
        actions.revoke_release(by=three, output_release=release, reason="A small cell.")
    actions.revoke_release(by=w.checkers[0], output_release=release, reason="A small cell.")


def test_gate_closed_before_the_package(w: World) -> None:
    release = w.outputs()
    for checker in w.checkers[:2]:
        check(checker, release)
    datasets.suspend_access(
        by=w.custodian, access_request=w.project.access_requests.get(), reason="A question."
    )
    engine.build_package(release.pk)
    assert again(release).state == "rejected" and OutputCheck.objects.count() == 2


def test_who_sees_runs_and_programs(w: World) -> None:
    program = w.program()
    research, rehearsal = factories.research_run(program, w.member), factories.rehearsal_of(program)
    stranger = factories.person("Sam Stranger", w.university, Role.RESEARCHER)
    for user, sees in (
        (w.member, True),
        (w.lead, True),
        (w.custodian, True),
        (stranger, False),
        (w.checkers[0], False),
        (w.ours, False),
        (factories.operator(), False),
    ):
        assert permissions.can_view_run(user, research) is sees
        assert permissions.can_view_run(user, rehearsal) is sees
        assert permissions.can_read_rehearsal(user, rehearsal) is sees
        assert permissions.visible_programs(user).filter(pk=program.pk).exists() is sees
        assert not permissions.can_read_rehearsal(user, research)
    auditor = factories.person("Audrey Auditor", w.university, Role.AUDITOR, ready=False)
    assert permissions.can_view_run(auditor, research) and not permissions.can_read_rehearsal(
        auditor, rehearsal
    )
    profile = Run.objects.get(kind="profile")
    assert permissions.can_view_run(w.custodian, profile) and not permissions.can_view_run(w.member, profile)


def test_submission_of_an_unknown_token_is_new(w: World) -> None:
    program = w.program()
    runs = {
        actions.submit_run(by=w.member, program=program, submission=uuid.uuid4().hex).pk for _ in range(2)
    }
    assert len(runs) == 2
