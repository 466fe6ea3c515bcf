"""For researchers: pull stand-in data, submit programs, watch runs, fetch released outputs."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import click

from strongroom import data
from strongroom.cli.show import follow, table
from strongroom.client import Client
from strongroom.money import in_pounds


@click.command()
@click.argument("name")
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write. Default: NAME-stand-in.csv here."
)
def pull(name: str, out: Path | None) -> None:
    """Download the stand-in data of the dataset NAME. (In Python, strongroom.load does the same.)"""
    entry = data.fetch(name)
    out = out or Path(f"{name}-stand-in.csv")
    shutil.copyfile(entry["path"], out)
    click.echo(f"Wrote {out}")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--project", required=True, help="Reference of the project, for example SR-2026-0001.")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    required=True,
    help="A dataset that the program reads (several times).",
)
@click.option("--name", default="", help="Name of the program. Default: the file's name.")
@click.option("--entry", default="", help="File to start in a zip archive.")
@click.option("--note", default="", help="What it does; custodians and output checkers read this.")
@click.option("--wait/--no-wait", default=True, help="Wait for the rehearsal.")
def submit(
    file: Path, project: str, datasets: tuple[str, ...], name: str, entry: str, note: str, wait: bool
) -> None:
    """Submit FILE (.py, .ipynb or .zip) for a project: it is rehearsed at once on stand-in data."""
    client = Client.signed_in()
    pk = project_id(client, project)
    content = file.read_bytes()
    # The same file for the same project and datasets is the same submission: a repeated command makes nothing twice.
    token = hashlib.sha256(
        b"\0".join([content, project.encode(), ",".join(sorted(datasets)).encode(), entry.encode()])
    ).hexdigest()
    form = {
        "name": name or file.name,
        "datasets": ",".join(datasets),
        "entry": entry,
        "note": note,
        "submission": token,
    }
    program = client.post(f"/projects/{pk}/programs", data=form, files={"file": (file.name, content)})
    click.echo(f"Program {program['id']} (SHA-256 {program['sha256'][:16]}…)")
    if not wait:
        return
    run = follow(client, program["rehearsal"], timeout=1800)
    _print_end(run)
    if run["state"] != "succeeded":
        click.echo(f"Read the log with: strongroom log {run['id']}")
        raise click.exceptions.Exit(1)
    click.echo(f"Ask for the run on the real data with: strongroom run {program['id']}")


@click.command()
@click.argument("project")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def sizes(project: str, as_json: bool) -> None:
    """What PROJECT may choose for a run on the real data: time limit, size of the machine, and what that costs at most."""
    client = Client.signed_in()
    found = client.get(f"/projects/{project_id(client, project)}/machines")
    if as_json:
        click.echo(json.dumps(found))
        return
    usual, longest = found["usual_seconds"] / 60, found["longest_seconds"] / 60
    click.echo(f"Time limit: {usual:g} minutes if none is chosen, {longest:g} at most.")
    if not found["sizes"]:
        click.echo("There are no sizes to choose here.")
        return
    head = ["Size", "Processors", "Memory", "GPUs", f"Cost of {usual:g} minutes, at most"]
    rows = [
        [s["name"], s["vcpus"], f"{s['memory_gib']} GiB", s["gpus"], in_pounds(s["at_most_pence"])]
        for s in found["sizes"]
    ]
    table(head, rows)


@click.command("run")
@click.argument("program")
@click.option("--size", default="", help="Size of the machine; the smallest that fits if not given.")
@click.option("--minutes", type=click.IntRange(1, 999_999), help="Time limit; the usual one if not given.")
@click.option("--wait/--no-wait", default=False, help="Wait until the run has ended.")
def run_(program: str, size: str, minutes: int | None, wait: bool) -> None:
    """Ask that PROGRAM (its id) run on the real data. The run starts once every condition is met."""
    client = Client.signed_in()
    asked: dict[str, str | int] = {"submission": uuid.uuid4().hex}
    if size:
        asked["size"] = size
    if minutes:
        asked["time_limit"] = minutes * 60
    run = client.post(f"/programs/{program}/runs", asked)
    click.echo(f"Run {run['id']}: {run['standing']['sentence']}")
    if run["cost"]["size"]:
        click.echo(f"  size {run['cost']['size']}; cost at most: {in_pounds(run['cost']['at_most_pence'])}")
    for condition in run["unmet"]:
        click.echo(f"  still missing: {condition['detail']} {condition['remedy']}")
    if wait:
        _print_end(follow(client, run["id"], timeout=7200 + (minutes or 0) * 60))


@click.command()
@click.argument("run")
@click.option("--timeout", default=7200.0, show_default=True, help="Seconds.")
def watch(run: str, timeout: float) -> None:
    """Follow a run to its end."""
    found = follow(Client.signed_in(), run, timeout=timeout)
    _print_end(found)
    if found["state"] != "succeeded":
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("run")
@click.option("--reason", required=True)
def cancel(run: str, reason: str) -> None:
    """Stop a run."""
    Client.signed_in().post(f"/runs/{run}/cancel", {"reason": reason})
    click.echo("The run is being stopped.")


@click.command()
@click.option("--kind", default="", type=click.Choice(["", "profile", "synthesise", "rehearsal", "research"]))
@click.option("--project", default="")
@click.option("--json", "as_json", is_flag=True)
def runs(kind: str, project: str, as_json: bool) -> None:
    """List your runs, newest first."""
    found = Client.signed_in().get("/runs", kind=kind, project=project)["results"]
    if as_json:
        click.echo(json.dumps(found))
        return
    table(
        ["Run", "Kind", "Project", "State", "Outputs"],
        [
            [r["id"], r["kind"], r["project"], r["state"], (r["output_release"] or {}).get("state", "")]
            for r in found
        ],
    )


@click.command()
@click.argument("run")
def log(run: str) -> None:
    """Print the log of a rehearsal."""
    click.echo(
        Client.signed_in().request("GET", f"/runs/{run}/log").content.decode("utf-8", "replace"), nl=False
    )


@click.command()
@click.argument("run")
@click.option("--out", type=click.Path(path_type=Path), help="File to write. Default: RUN.zip here.")
def get(run: str, out: Path | None) -> None:
    """Download the released outputs of a run, with everything that proves where they come from."""
    out = out or Path(f"{run}.zip")
    Client.signed_in().download(f"/runs/{run}/package", out)
    click.echo(f"Wrote {out}. Check it with: strongroom verify {out}")


@click.command()
def projects() -> None:
    """List your projects."""
    found = list(Client.signed_in().pages("/projects"))
    table(["Reference", "Title", "State"], [[p["ref"], p["title"], p["state"]] for p in found])


def project_id(client: Client, ref: str) -> str:
    """The id of the project with this reference. Raises click.ClickException."""
    for project in client.pages("/projects"):
        if ref in (project["ref"], project["id"]):
            return str(project["id"])
    raise click.ClickException(f"You have no project {ref}. List yours with: strongroom projects")


def _print_end(run: dict[str, Any]) -> None:
    click.echo(
        f"{run['kind']}: {run['state']}"
        + (f" ({run['exit_class']})" if run["exit_class"] not in ("", "succeeded") else "")
    )
    if run["exception_type"]:
        where = (
            f" at line {run['exception_line']} of {run['exception_file']}" if run["exception_line"] else ""
        )
        click.echo(f"  {run['exception_type']}{where}")


COMMANDS = (pull, submit, sizes, run_, watch, cancel, runs, log, get, projects)
