"""For output checkers: look at what waits, fetch the files, decide."""

from __future__ import annotations

from pathlib import Path

import click

from strongroom.cli.show import table
from strongroom.client import Client
from strongroom.paths import safe_path


@click.group()
def review() -> None:
    """Outputs that wait for a checker."""


@review.command("list")
def list_() -> None:
    """List the outputs that wait for you."""
    found = Client.signed_in().get("/checks")
    table(
        ["Outputs", "Project", "Program", "State", "Files"],
        [[c["id"], c["project"], c["program"], c["state"], len(c["files"])] for c in found],
    )


@review.command("fetch")
@click.argument("outputs")
@click.option("--into", type=click.Path(path_type=Path), required=True, help="Folder to write the files to.")
def fetch(outputs: str, into: Path) -> None:
    """Fetch the files of OUTPUTS to look at them. Keep them no longer than the check takes."""
    client = Client.signed_in()
    for file in client.get(f"/checks/{outputs}")["files"]:
        target = into / safe_path(file["path"], "The path")
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download(f"/checks/{outputs}/files/{file['id']}", target, sha256=file["sha256"])
        click.echo(f"Wrote {target}")


@review.command("decide")
@click.argument("outputs")
@click.option("--approve/--reject", required=True)
@click.option("--comment", default="")
def decide(outputs: str, approve: bool, comment: str) -> None:
    """Approve or reject OUTPUTS for release."""
    found = Client.signed_in().post(
        f"/checks/{outputs}", {"decision": "approve" if approve else "reject", "comment": comment}
    )
    click.echo(f"Recorded. The outputs are now: {found['state'].replace('_', ' ')}")


COMMANDS = (review,)
