"""Make an operator from the portal's own machine: the first one, or another after all others were lost."""

from __future__ import annotations

import getpass
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.accounts.actions import bootstrap_operator
from apps.core.actors import System
from apps.core.errors import DomainError, Invalid


class Command(BaseCommand):
    help = (
        "Create a person who holds the role Operator. "
        "The password comes from STRONGROOM_OPERATOR_PASSWORD or is asked for."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--email", required=True)
        parser.add_argument("--name", required=True)
        parser.add_argument(
            "--organisation", required=True, help="name of the organisation that operates the portal"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        password = os.environ.get("STRONGROOM_OPERATOR_PASSWORD") or getpass.getpass("Password: ")
        try:
            person = bootstrap_operator(
                by=System("create-operator"),
                email=options["email"],
                name=options["name"],
                organisation=options["organisation"],
                password=password,
            )
        except Invalid as error:
            raise CommandError(
                " ".join(s for sentences in error.fields.values() for s in sentences) or error.detail
            ) from None
        except DomainError as error:
            raise CommandError(f"{error.detail} {error.remedy}".strip()) from None
        self.stdout.write(f"{person.email} is an operator of this portal.")
