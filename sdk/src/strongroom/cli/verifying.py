"""Checking without trusting: an output package offline, and the audit log from its first entry to its last."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from strongroom import strictjson, translog
from strongroom.client import Client, Credentials, NotSignedIn
from strongroom.errors import FormatError, LogError
from strongroom.evidence import trust as anchors
from strongroom.evidence.model import Checks, Outcome
from strongroom.package import PortalKeys, verify_package

MARKS = {Outcome.PASS: "pass", Outcome.FAIL: "FAIL", Outcome.NOT_AVAILABLE: "n/a "}


@click.command()
@click.argument("package", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--keys",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="portal.json of the portal that you trust. Default: the keys kept at login.",
)
@click.option(
    "--trust",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory with trust anchors of your own, in place of the shipped ones.",
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def verify(package: Path, keys: Path | None, folder: Path | None, as_json: bool) -> None:
    """Check an output PACKAGE offline: who ran what on which data, and whether a byte was changed.

    Exit status 0 if every check that could be made passed, else 1.
    """
    trust, source = _trusted(keys)
    report = verify_package(package, trust=trust, anchors=None if folder is None else anchors_in(folder))
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        for check in report.checks:
            click.echo(f"{MARKS[check.outcome]}  {check.id}: {check.detail}")
        click.echo(f"\n{report.protection}")
        click.echo(f"Keys of the portal: {source}.")
        click.echo(
            "The package is what it says it is."
            if report.ok
            else "The package must not be relied on: see the checks that failed."
        )
    if not report.ok:
        raise click.exceptions.Exit(1)


def _trusted(keys: Path | None) -> tuple[PortalKeys | None, str]:
    """The pinned keys and, in words, where they come from."""
    if keys is not None:
        try:
            document = strictjson.loads(keys.read_bytes(), what=str(keys))
            # Either portal.json itself, or what the portal serves at /.well-known/strongroom.json, which holds it.
            inner = document.get("keys", document) if isinstance(document, dict) else document
            return PortalKeys.parse(inner), f"read from {keys}"
        except FormatError as error:
            raise click.ClickException(f"{keys} is not a portal.json: {error}") from None
    try:
        credentials = Credentials.load()
    except NotSignedIn:
        return None, "taken from the package itself (you are not signed in and gave no --keys)"
    if credentials.keys is None:
        return None, "taken from the package itself (no keys were kept at login)"
    return PortalKeys.parse(credentials.keys), f"as kept when you signed in to {credentials.portal}"


def anchors_in(folder: Path) -> tuple[anchors.Anchor, ...]:
    """The trust anchors of a directory. Raises BadParameter, saying what is wrong with it."""
    try:
        return anchors.read(folder)
    except FormatError as error:
        raise click.BadParameter(str(error), param_hint="--trust") from None


@click.group()
def audit() -> None:
    """The audit log."""


@audit.command("verify")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def audit_verify(as_json: bool) -> None:
    """Check the whole audit log: that no entry was removed, changed, added in between or reordered.

    Needs the role of auditor. The tree head is kept, so that the next check also shows that nothing that was there
    today is gone then. Exit status 0 or 1.
    """
    credentials = Credentials.load()
    client = Client.signed_in()
    keys = PortalKeys.parse(credentials.keys or client.portal_keys())
    checks = check_log(client, keys, state_file(credentials.portal))
    good = checks.ok
    if as_json:
        click.echo(json.dumps({"ok": good, "checks": [check.to_json() for check in checks.items]}))
    else:
        for check in checks.items:
            click.echo(f"{MARKS[check.outcome]}  {check.id}: {check.detail}")
        click.echo("The log is complete and unchanged." if good else "The log is not what it should be.")
    if not good:
        raise click.exceptions.Exit(1)


def state_file(portal: str) -> Path:
    """Where the last tree head seen of a portal is kept."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "strongroom"
    return base / (portal.split("://")[-1].replace("/", "_").replace(":", "_") + ".checkpoint")


def check_log(client: Client, keys: PortalKeys, memory: Path) -> Checks:
    """Recompute every leaf from the entries and the root from the leaves; compare with signed heads, now and before."""
    checks = Checks()
    note = client.request("GET", "/audit/checkpoint").content
    try:
        head = translog.open_checkpoint(note, keys.log)
    except LogError as error:
        checks.failed("checkpoint", str(error))
        return checks
    checks.passed("checkpoint", f"The portal's log key signed a tree of {head.size} entries.")
    leaves = _leaves(client, head.size, checks)
    if leaves is None:
        return checks
    checks.require(
        "root",
        translog.root_from_leaves(leaves) == head.root,
        f"The {head.size} entries are exactly those that the signed tree commits to.",
        "The entries are not those that the signed tree commits to.",
    )
    _compare_with_memory(checks, leaves, head, keys, memory)
    if checks.ok:
        memory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        memory.write_bytes(note)
    return checks


def _leaves(client: Client, size: int, checks: Checks) -> list[bytes] | None:
    """Leaf hashes of all sequenced entries, each recomputed from its entry and salt. None where one is missing."""
    leaves: list[bytes] = []
    wrong = 0
    tile: tuple[int, bytes] = (-1, b"")
    for item in client.pages("/audit/entries", order="index", page_size=1000):
        if len(leaves) == size:
            break
        if item["index"] != len(leaves):
            checks.failed(
                "entries",
                f"Entry {len(leaves)} is missing: after entry {len(leaves) - 1} comes entry {item['index']}.",
            )
            return None
        leaf = _leaf(item)
        if tile[0] != item["index"] // 256:
            tile = (
                item["index"] // 256,
                client.request("GET", f"/audit/tile/0/{item['index'] // 256}").content,
            )
        offset = item["index"] % 256 * 32
        if leaf != tile[1][offset : offset + 32]:
            wrong += 1
            if wrong <= 20:
                checks.failed(
                    "entry",
                    f"Entry {item['index']} ({_about(item)}) was changed after it was written, or its place in the tree was.",
                )
        leaves.append(leaf)
    if len(leaves) < size:
        checks.failed(
            "entries",
            f"The signed tree has {size} entries, but only {len(leaves)} are there: the last ones were removed.",
        )
        return None
    if not wrong:
        checks.passed(
            "entries", f"All {size} entries are there, in order, and each is what its leaf commits to."
        )
    return leaves


def _leaf(item: dict[str, Any]) -> bytes:
    try:
        return translog.leaf_hash(translog.leaf_data(item["entry"], bytes.fromhex(item["salt"])))
    except (LogError, FormatError, ValueError):
        return b""


def _about(item: dict[str, Any]) -> str:
    entry = item["entry"]
    return f"{entry.get('event')}, {entry.get('at')}"


def _compare_with_memory(
    checks: Checks, leaves: list[bytes], head: translog.Checkpoint, keys: PortalKeys, memory: Path
) -> None:
    try:
        before = translog.open_checkpoint(memory.read_bytes(), keys.log)
    except FileNotFoundError:
        checks.not_available(
            "history",
            "This is the first check from this machine, so there is no earlier tree head to compare with.",
        )
        return
    except LogError as error:
        checks.failed("history", f"The tree head kept from the last check cannot be read: {error}")
        return
    same = before.size <= head.size and translog.root_from_leaves(leaves[: before.size]) == before.root
    checks.require(
        "history",
        same,
        f"The {before.size} entries of the last check are still there, unchanged.",
        f"The log of the last check ({before.size} entries) is not the beginning of the present one: it was rewritten.",
    )


COMMANDS = (verify, audit)
