"""Check the whole audit log on the portal's own machine. Exit code 0 only if nothing was found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.audit.verifier import verify_log
from strongroom.errors import LogError


class Command(BaseCommand):
    help = "Recompute the audit log from the database and compare it with the signed checkpoints."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--checkpoint", type=Path, help="a checkpoint saved earlier: finds a log that lost its end"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = verify_log(options["checkpoint"].read_bytes() if options["checkpoint"] else None)
        except OSError as error:
            raise CommandError(f"The saved checkpoint cannot be read: {error.strerror}.") from None
        except LogError as error:
            raise CommandError(f"The saved checkpoint is not one of this log: {error}") from None
        self.stdout.write(
            f"{report.entries} entries in the tree, {report.unsealed} not sealed yet, {report.checkpoints} checkpoints"
        )
        for finding in report.findings:
            self.stdout.write(f"BAD {finding.where}: {finding.sentence}")
        if not report.ok:
            self.stdout.write(
                "The log was changed. Keep the database as it is, and compare with a backup and with saved checkpoints."
            )
            sys.exit(1)
        self.stdout.write("The log holds: no entry was changed, removed or moved.")
