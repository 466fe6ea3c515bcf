"""Say which machines a project may choose, for how long, and what its runs may cost together. For the operator, on the host."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.actors import System
from apps.core.errors import DomainError
from apps.jobs.actions import set_allowance
from apps.projects.models import Project


class Command(BaseCommand):
    help = "Set the sizes of machine, the budget and the longest time limit of a project. What is not given stays as it is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", help="the project's reference")
        parser.add_argument(
            "--sizes", help="names of sizes, separated by commas; empty for the default one only"
        )
        parser.add_argument("--budget", help="in pounds, such as 250.00; “none” for no limit")

        parser.add_argument(
            "--minutes", help="the longest time limit that a run may choose; “usual” for the usual one"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(ref=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']!r}.")
        changes: dict[str, Any] = {}
        if options["sizes"] is not None:
            changes["sizes"] = [name for name in options["sizes"].split(",") if name]
        if options["budget"] is not None:
            changes["budget_pence"] = _pence(options["budget"])
        if options["minutes"] is not None:
            changes["longest_seconds"] = _seconds(options["minutes"])
        try:
            set_allowance(by=System("set-allowance"), project=project, **changes)
        except DomainError as error:
            raise CommandError(f"{error.detail} {error.remedy}".strip()) from None
        self.stdout.write(f"The allowance of {project.ref} is set.")


def _pence(text: str) -> int | None:
    if text.strip().lower() == "none":
        return None
    try:
        pence = Decimal(text) * 100
    except InvalidOperation:
        raise CommandError(f"{text!r} is not an amount in pounds.") from None
    if not pence.is_finite() or pence < 0 or pence != pence.to_integral_value():
        raise CommandError(f"{text!r} is not an amount in pounds and whole pence, from 0.")
    return int(pence)


def _seconds(text: str) -> int | None:
    if text.strip().lower() == "usual":
        return None
    if not text.isascii() or not text.isdigit() or not 0 < len(text) <= 6 or not int(text):
        raise CommandError(f"{text!r} is not a number of minutes, from 1.")
    return int(text) * 60
