"""For custodians: register, seal, upload, order stand-in data, release them, approve programs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import click

from strongroom import seal as sealing
from strongroom import shapes
from strongroom.cli.show import Bar, table
from strongroom.client import ApiError, Client

PIECE = 4 << 20


@click.group()
def dataset() -> None:
    """Datasets: find, register, seal, upload, release stand-in data."""


@dataset.command("search")
@click.argument("words", nargs=-1)
def search(words: tuple[str, ...]) -> None:
    """Search the catalogue."""
    found = Client.signed_in().get("/datasets", q=" ".join(words))
    table(
        ["Name", "Title", "Custodian"],
        [[d["slug"], d["title"], _name(d["custodian"])] for d in found["results"]],
    )


@dataset.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True)
def show(name: str, as_json: bool) -> None:
    """Show a dataset with its data dictionary."""
    found = Client.signed_in().get(f"/datasets/{name}")
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{found['title']} ({found['slug']}), {found['state']}\n\n{found['summary']}\n")
    fields = found.get("dictionary", {}).get("fields", [])
    table(
        ["Column", "Type", "Unit", "Meaning"],
        [[f["name"], f["type"], f.get("unit", ""), f.get("description", "")] for f in fields],
    )


@dataset.command("register")
@click.argument("description", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--publish", is_flag=True, help="Publish it in the catalogue at once.")
def register(description: Path, publish: bool) -> None:
    """Register a dataset from DESCRIPTION, a JSON file (see `strongroom dataset template`)."""
    client = Client.signed_in()
    made = client.post("/datasets", _json(description))
    click.echo(f"Registered {made['slug']} as a draft.")
    if publish:
        client.post(f"/datasets/{made['slug']}/publish", {})
        click.echo("Published in the catalogue.")


@dataset.command("template")
@click.argument("csv_file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def template(csv_file: Path) -> None:
    """Print a description to fill in, with the columns of CSV_FILE. Only the header is read; nothing is sent."""
    import csv

    with csv_file.open(encoding="utf-8-sig", newline="") as f:
        names = next(csv.reader(f), [])
    fields = [
        {"name": name, "type": "string", "description": "", "unit": "", "sensitive": False, "constraints": {}}
        for name in names
    ]
    description = {
        "slug": csv_file.stem.lower().replace("_", "-").replace(" ", "-"),
        "custodian": "slug-of-your-organisation",
        "title": "",
        "summary": "",
        "keywords": [],
        "personal_data": True,
        "program_approval": "reviewer",
        "dictionary": {"fields": fields, "missingValues": ["", "NA"]},
    }
    click.echo(json.dumps(description, indent=2, ensure_ascii=False))


@dataset.command("seal")
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--version",
    "number",
    required=True,
    type=click.IntRange(1),
    help="The version for which the file is sealed.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Sealed file to write (its header is written beside it). Default: FILE.sealed",
)
def seal(name: str, file: Path, number: int, out: Path | None) -> None:
    """Seal FILE for the dataset NAME on this machine. The plain data do not leave it."""
    client = Client.signed_in()
    found = client.get(f"/datasets/{name}")
    out = out or file.with_name(file.name + ".sealed")
    header = _seal(client, found["id"], number, file, out)
    out.with_name(out.name + ".json").write_text(json.dumps(header), encoding="utf-8")
    click.echo(f"Sealed to {out} ({header['ciphertext']['size']} bytes), header in {out.name}.json")


@dataset.command("upload")
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--wait/--no-wait", default=True, help="Wait for the profiling run.")
def upload(name: str, file: Path, wait: bool) -> None:
    """Seal FILE on this machine and upload it as a new version of the dataset NAME.

    A broken upload goes on where it stopped when the command is given again.
    """
    client = Client.signed_in()
    found = client.get(f"/datasets/{name}")
    media_type = "application/vnd.apache.parquet" if file.suffix.lower() == ".parquet" else "text/csv"
    size = sealing.ciphertext_size(file.stat().st_size)
    note = file.with_name(f".{file.name}.strongroom-upload.json")
    sealed = file.with_name(f".{file.name}.sealed")
    state = _resume(client, note, sealed, found["id"], file)
    if state is None:
        version = client.post(
            f"/datasets/{name}/versions", {"media_type": media_type, "announced_size": size}
        )
        header = _seal(client, found["id"], version["number"], file, sealed)
        state = {
            "version": version["id"],
            "number": version["number"],
            "dataset": found["id"],
            "header": header,
            "mtime": file.stat().st_mtime_ns,
        }
        note.write_text(json.dumps(state), encoding="utf-8")
    else:
        click.echo("Going on with the upload that was broken off.")
    _send(client, state["version"], sealed)
    client.post(f"/versions/{state['version']}/finish", state["header"])
    sealed.unlink()
    note.unlink()
    click.echo(f"Uploaded version {state['number']} ({size} bytes, sealed). Its id: {state['version']}")
    if wait:
        _wait_for_profile(client, state["version"])


@dataset.command("version")
@click.argument("version")
@click.option("--json", "as_json", is_flag=True)
def version_(version: str, as_json: bool) -> None:
    """Show a version with the report of its profiling run."""
    found = Client.signed_in().get(f"/versions/{version}")
    click.echo(json.dumps(found)) if as_json else _print_version(found)


@dataset.command("order-release")
@click.argument("version")
@click.option("--method", default="gaussian_copula", show_default=True)
@click.option("--rows", type=int, help="Number of rows; as many as the real data have if left out.")
@click.option("--wait/--no-wait", default=True)
def order_release(version: str, method: str, rows: int | None, wait: bool) -> None:
    """Order stand-in data from VERSION (its id)."""
    client = Client.signed_in()
    release = client.post(f"/versions/{version}/releases", {"method": method, "rows": rows})
    click.echo(f"Ordered stand-in data. Its id: {release['id']}")
    if wait:
        found = _until(
            client, f"/releases/{release['id']}", lambda r: r["state"] not in ("ordered", "making")
        )
        click.echo(f"State: {found['state'].replace('_', ' ')}")
        if found["report"]:
            click.echo(
                f"Likeness of columns {found['report']['shapes']}, of relationships {found['report']['pairs']}; rows equal to a real row: {found['report']['verbatim_rows']}"
            )
            click.echo(f"Look at it, then: strongroom dataset release {release['id']}")
        else:
            raise click.exceptions.Exit(1)


@dataset.command("release")
@click.argument("release")
@click.option("--refuse", is_flag=True, help="Do not release.")
@click.option("--reason", default="")
def release(release: str, refuse: bool, reason: str) -> None:
    """Release stand-in data to the projects that have access."""
    found = Client.signed_in().post(
        f"/releases/{release}/decision", {"approve": not refuse, "reason": reason}
    )
    click.echo(f"The stand-in data are {found['state']}.")


@click.group()
def program() -> None:
    """Programs that wait for a custodian's decision."""


@program.command("list")
def programs() -> None:
    """List the programs that wait for your decision."""
    found = Client.signed_in().get("/programs/to-decide")
    table(
        ["Program", "Project", "Name", "Datasets", "SHA-256"],
        [[p["id"], p["project"], p["name"], " ".join(p["datasets"]), p["sha256"][:16]] for p in found],
    )


@program.command("show")
@click.argument("program")
@click.option("--source", is_flag=True, help="Print the program itself.")
def show_program(program: str, source: bool) -> None:
    """Show a program and the decisions on it."""
    client = Client.signed_in()
    found = client.get(f"/programs/{program}")
    if source:
        click.echo(
            client.request("GET", f"/programs/{program}/source").content.decode("utf-8", "replace"), nl=False
        )
        return
    click.echo(json.dumps(found, indent=2))


@program.command("decide")
@click.argument("program")
@click.argument("dataset")
@click.option("--approve/--refuse", required=True)
@click.option("--reason", default="")
def decide(program: str, dataset: str, approve: bool, reason: str) -> None:
    """Approve or refuse PROGRAM for DATASET."""
    made = Client.signed_in().post(
        f"/programs/{program}/decisions", {"dataset": dataset, "approve": approve, "reason": reason}
    )
    click.echo(f"Recorded: {made['decision']}.")


def _seal(client: Client, dataset: str, number: int, file: Path, out: Path) -> dict[str, Any]:
    """Seal `file` to `out` with a fresh key wrapped for the portal's key broker; return the seal header."""
    broker = sealing.PublicKey.from_json(client.get("/broker-key", dataset=dataset, suite="any"))
    key = sealing.generate_data_key()
    bar = Bar("Sealing", file.stat().st_size)
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with file.open("rb") as source, os.fdopen(descriptor, "wb") as target:
        result = sealing.seal_stream(_Counted(source, bar), target, key, sealing.aad_dataset(dataset, number))
    wrapped = sealing.wrap_key(key, broker, sealing.info_data_key(dataset, number))
    return {
        "v": 1,
        "format": sealing.FORMAT,
        "dataset": dataset,
        "version": number,
        "wrapped_key": {"suite": broker.suite, "recipient": broker.id, "data": shapes.b64_encode(wrapped)},
        "ciphertext": {"sha256": result.ciphertext_sha256, "size": result.ciphertext_size},
        "plaintext": {
            "sha256": result.plaintext_sha256,
            "size": result.plaintext_size,
            "media_type": "application/vnd.apache.parquet"
            if file.suffix.lower() == ".parquet"
            else "text/csv",
        },
    }


class _Counted:
    """A reader that moves a progress bar."""

    def __init__(self, source: Any, bar: Bar) -> None:
        self._source, self._bar, self._done = source, bar, 0

    def read(self, size: int, /) -> bytes:
        data: bytes = self._source.read(size)
        self._done += len(data)
        self._bar.at(self._done)
        return data

    def readinto(self, buffer: Any, /) -> int:
        count: int = self._source.readinto(buffer)
        self._done += count
        self._bar.at(self._done)
        return count


def _resume(client: Client, note: Path, sealed: Path, dataset: str, file: Path) -> dict[str, Any] | None:
    """The unfinished upload of this very file, if there is one that the portal still waits for."""
    try:
        state = dict(json.loads(note.read_text(encoding="utf-8")))
        if (
            state["dataset"] != dataset
            or state["mtime"] != file.stat().st_mtime_ns
            or sealed.stat().st_size != state["header"]["ciphertext"]["size"]
        ):
            return None
        return state if client.get(f"/versions/{state['version']}")["state"] == "uploading" else None
    except (OSError, ValueError, KeyError, ApiError):
        return None


def _send(client: Client, version: str, sealed: Path) -> None:
    """Send the sealed file from where the portal stands; survive broken connections for two minutes each."""
    size, failures = sealed.stat().st_size, 0
    bar = Bar("Uploading", size)
    with sealed.open("rb") as source:
        while True:
            try:
                offset = int(client.request("HEAD", f"/versions/{version}/content").headers["Upload-Offset"])
                while offset < size:
                    source.seek(offset)
                    headers = {
                        "Upload-Offset": str(offset),
                        "Content-Type": "application/offset+octet-stream",
                    }
                    answer = client.request(
                        "PATCH", f"/versions/{version}/content", headers=headers, content=source.read(PIECE)
                    )
                    offset, failures = int(answer.headers["Upload-Offset"]), 0
                    bar.at(offset)
                return
            except ApiError as error:
                failures += 1
                if error.status not in (0, 409, 429, 500, 502, 503, 504) or failures > 8:
                    raise
                time.sleep(min(2.0**failures / 4, 30))


def _wait_for_profile(client: Client, version: str) -> None:
    found = _until(client, f"/versions/{version}", lambda v: v["state"] in ("accepted", "refused"))
    _print_version(found)
    if found["state"] != "accepted":
        raise click.exceptions.Exit(1)


def _until(client: Client, path: str, done: Any, timeout: float = 900) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    while True:
        found = dict(client.get(path))
        if done(found):
            return found
        if time.monotonic() > deadline:
            raise click.ClickException("It has not ended in 15 minutes. It goes on; look again later.")
        time.sleep(1.0)


def _print_version(found: dict[str, Any]) -> None:
    click.echo(
        f"Version {found['number']}: {found['state']}"
        + (f", {found['rows']} rows" if found.get("rows") else "")
    )
    if found.get("reason"):
        click.echo(found["reason"])
    for problem in (found.get("report") or {}).get("problems", []):
        rows = ", ".join(str(row) for row in problem["rows"])
        click.echo(
            f"  {problem['sentence']}"
            + (f"; {'row' if len(problem['rows']) == 1 else 'rows'} {rows}" if rows else "")
        )


def _name(value: Any) -> str:
    return str(value.get("name", value)) if isinstance(value, dict) else str(value)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise click.ClickException(f"{path} is not JSON: {error}") from None


COMMANDS = (dataset, program)
