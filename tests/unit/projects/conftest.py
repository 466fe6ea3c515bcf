"""A university, an ethics board and their people."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.utils import timezone

from apps.accounts.models import Organisation, RoleHolding, User
from apps.accounts.roles import Role
from apps.projects import actions
from apps.projects.models import EthicsReview, Project


def person(name: str, organisation: Organisation, *roles: Role) -> User:
    user = User.objects.create_user(
        email=f"{name}@example.org",
        name=name.capitalize(),
        password=None,
        organisation=organisation,
        password_chosen_at=timezone.now(),
    )
    for role in roles:
        RoleHolding.objects.create(user=user, role=role, organisation=organisation, granted_by="system:test")
    return user


def complete_answers(**changes: Any) -> dict[str, Any]:
    today = timezone.localdate()
    return {
        "people_experience": "Ten years of health economics.",
        "people_interests": "no",
        "title": "Cost sharing and visits",
        "lay_summary": "Do people who pay more see the doctor less?",
        "aims": "A count model of visits on coinsurance.",
        "public_benefit": ["services"],
        "starts_on": today.isoformat(),
        "ends_on": (today + dt.timedelta(days=700)).isoformat(),
        "data_needed": "Visits, coinsurance, health status.",
        "lawful_basis": "public_task",
        "linkage": "no",
        "place_of_work": "uk",
        "outputs_expected": ["tables", "models"],
        "outputs_protection": "No cell below ten.",
        **changes,
    }


@dataclass
class World:
    university: Organisation
    board: Organisation
    ada: User
    ben: User
    chair: User
    chair2: User
    member: User
    member2: User
    stranger: User
    extra: dict[str, Any] = field(default_factory=dict)

    def draft(self, **answers: Any) -> Project:
        project = actions.start_project(
            by=self.ada, title="Cost sharing and visits", organisation=self.university
        )
        actions.save_answers(by=self.ada, project=project, answers=complete_answers(**answers))
        return project

    def submitted(self, project: Project | None = None) -> EthicsReview:
        project = project or self.draft()
        version = actions.submit_application(by=self.ada, project=project, board=self.board, declared=True)
        return version.review

    def under_review(self, project: Project | None = None) -> EthicsReview:
        return actions.accept_for_review(by=self.chair, review=self.submitted(project))

    def with_quorum(self, project: Project | None = None) -> EthicsReview:
        review = self.under_review(project)
        actions.give_opinion(by=self.chair, review=review, opinion="support", comment="Clear.")
        actions.give_opinion(by=self.member, review=review, opinion="support", comment="Modest.")
        return review

    def decide(self, review: EthicsReview, by: User | None = None, **changes: Any) -> EthicsReview:
        given = {
            "outcome": "favourable",
            "reason": "Public benefit.",
            "valid_until": timezone.localdate() + dt.timedelta(days=365),
            **changes,
        }
        return actions.decide(by=by or self.chair, review=review, **given)

    def approved(self) -> Project:
        review = self.decide(self.with_quorum())
        return Project.objects.get(pk=review.version.project_id)


def make_world() -> World:
    university = Organisation.objects.create(slug="university", name="University", kind="university")
    board = Organisation.objects.create(slug="board", name="Ethics Board", kind="ethics_board")
    return World(
        university,
        board,
        ada=person("ada", university, Role.RESEARCHER),
        ben=person("ben", university, Role.RESEARCHER),
        chair=person("chair", board, Role.ETHICS_CHAIR),
        chair2=person("vera", board, Role.ETHICS_CHAIR),
        member=person("member", board, Role.ETHICS_MEMBER),
        member2=person("mona", board, Role.ETHICS_MEMBER),
        stranger=person("stranger", university, Role.RESEARCHER),
    )


@pytest.fixture
def world(db: None) -> World:
    return make_world()
