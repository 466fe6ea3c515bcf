"""What the state of a project or review allows, and the numbers that a board goes by."""

from __future__ import annotations

import datetime as dt

from apps.projects.models import EthicsReview, Project
from apps.projects.states import PROJECT, ProjectState, ReviewState

# Opinions of members without an interest that a decision needs, the decider's own among them.
QUORUM = 2
LONGEST_OPINION_YEARS = 5

EDITABLE = frozenset({ProjectState.DRAFT, ProjectState.RETURNED})
RUNNING = frozenset({ProjectState.APPROVED, ProjectState.ACTIVE})
LIVE_REVIEW = frozenset({ReviewState.RECEIVED, ReviewState.UNDER_REVIEW})
OUTCOMES = (ReviewState.FAVOURABLE, ReviewState.FAVOURABLE_WITH_CONDITIONS, ReviewState.UNFAVOURABLE)
# Reviews that ended with a letter to the applicant.
LETTERS = frozenset({*OUTCOMES, ReviewState.RETURNED})


def quorum(review: EthicsReview) -> int:
    """How many opinions this review's board needs. One number for all boards today."""
    return QUORUM


def editable(project: Project) -> bool:
    return project.state in EDITABLE


def can_become(project: Project, state: ProjectState) -> bool:
    return PROJECT.allows(str(project.state), state)


def open_to_people(project: Project) -> bool:
    """Whether people may still be invited: not once the project has ended."""
    return str(project.state) not in PROJECT.final


def years_after(day: dt.date, years: int) -> dt.date:
    """The same day some years on (28 February for a 29th that does not exist)."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return day.replace(year=day.year + years, day=28)
