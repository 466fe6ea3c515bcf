"""Who may set a release policy: those who act for the dataset's custodian, and nobody else."""

from __future__ import annotations

from typing import Any

from apps.accounts.models import User
from apps.datasets.models import Dataset
from apps.datasets.permissions import acts_for, require_acts_for


def require_set_policy(user: User | Any, dataset: Dataset) -> None:
    """Raise Denied unless the person acts for the custodian of `dataset`."""
    require_acts_for(user, dataset, to="set the release policy of this dataset")


def can_set_policy(user: User | Any, dataset: Dataset) -> bool:
    return acts_for(user, dataset)
