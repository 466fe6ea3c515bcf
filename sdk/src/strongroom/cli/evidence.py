"""Evidence by itself: verify it offline, look into it, wrap raw evidence into an envelope."""

from __future__ import annotations

import binascii
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from strongroom import evidence as evidences
from strongroom import shapes
from strongroom.cli import decoding
from strongroom.cli.verifying import MARKS, anchors_in
from strongroom.errors import FormatError
from strongroom.evidence import Appraisal, Policy, Tier, Trust, envelope

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NOT_PINNED = (
    "No policy was given, so nothing was pinned: neither which program runs nor how new the firmware must be. "
    "Give --policy to decide whether to trust it."
)
TIERS = {
    Tier.AFFIRMING: "affirming: every check that the policy needs has passed.",
    Tier.WARNING: "warning: nothing failed, but something that is needed was not shown. See the lines marked n/a.",
    Tier.CONTRAINDICATED: "contraindicated: a check failed. Do not rely on it.",
    Tier.NONE: "none: it is what it says it is, and it gives no protection.",
}


def _time(context: click.Context, option: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else shapes.parse_time(value, "The time")
    except FormatError as error:
        raise click.BadParameter(str(error)) from None


def _keys(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[bytes]:
    try:
        return [shapes.b64_decode(value, "The key", size=32) for value in values]
    except FormatError as error:
        raise click.BadParameter(str(error)) from None


def _files(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, bytes]:
    """NAME=FILE, several times: names with the bytes of their files."""
    found: dict[str, bytes] = {}
    for value in values:
        name, separator, file = value.partition("=")
        if not separator or not file:
            raise click.BadParameter(f"{value!r} is not NAME=FILE.")
        if name in found:
            raise click.BadParameter(f"{name} is given twice.")
        try:
            found[name] = Path(file).read_bytes()
        except OSError as error:
            raise click.BadParameter(f"{file}: {error.strerror or error}") from None
    return found


@click.group()
def evidence() -> None:
    """Evidence about where a run ran: verify it offline, look into it, wrap raw evidence."""


@evidence.command()
@click.argument("file", metavar="ENVELOPE", type=FILE)
@click.option(
    "--policy", "policy_file", type=FILE, help="Release policy, a JSON file. Default: one that pins nothing."
)
@click.option(
    "--now",
    metavar="TIME",
    callback=_time,
    help="Time to verify at, like 2026-01-31T09:30:00Z. Default: the current time.",
)
@click.option("--nonce", help="What it must be bound to: n1 or n2 of a context, as text.")
@click.option("--nonce-hex", help="The same as bytes in hex: the literal content of the field that binds.")
@click.option(
    "--trust",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory with trust anchors of your own, in place of the shipped ones.",
)
@click.option(
    "--software-key", "keys", metavar="BASE64", callback=_keys, multiple=True, help="Key of an installation whose software evidence counts (several times)."
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def verify(
    file: Path,
    policy_file: Path | None,
    now: datetime | None,
    nonce: str | None,
    nonce_hex: str | None,
    folder: Path | None,
    keys: list[bytes],
    as_json: bool,
) -> None:
    """Verify an evidence ENVELOPE. Nothing is fetched, and nothing in it is taken on trust.

    Exit status 0 if no check failed, 1 if one did, 2 if the command was not understood.
    """
    policy = _policy(policy_file)
    trust = Trust.of(software_keys=keys, anchors=None if folder is None else anchors_in(folder))
    at = now or datetime.now(UTC)
    appraisal = evidences.verify(
        file.read_bytes(),
        policy or Policy.any(),
        now=at,
        expected_nonce=_expected(nonce, nonce_hex),
        trust=trust,
    )
    if as_json:
        pinned = policy.sha256 if policy else None
        click.echo(
            json.dumps({**appraisal.to_json(), "now": shapes.format_time(at), "policy_sha256": pinned})
        )
    else:
        _print(appraisal, at, policy)
    if not appraisal.ok:
        raise click.exceptions.Exit(1)


def _policy(file: Path | None) -> Policy | None:
    if file is None:
        return None
    try:
        return Policy.parse(file.read_bytes())
    except FormatError as error:
        raise click.BadParameter(f"{file}: {error}", param_hint="--policy") from None


def _expected(nonce: str | None, nonce_hex: str | None) -> str | bytes | None:
    if nonce is not None and nonce_hex is not None:
        raise click.UsageError("Give --nonce or --nonce-hex, not both.")
    if nonce_hex is None:
        return nonce
    try:
        return binascii.unhexlify(nonce_hex)
    except ValueError:
        raise click.BadParameter("not hex.", param_hint="--nonce-hex") from None


def _print(appraisal: Appraisal, at: datetime, policy: Policy | None) -> None:
    for check in appraisal.checks:
        click.echo(decoding.plain(f"{MARKS[check.outcome]}  {check.id}: {check.detail}"))
    click.echo(f"\nEvidence of type {decoding.plain(appraisal.type)}, judged at {shapes.format_time(at)}.")
    if appraisal.ok:
        _print_lines("It says", appraisal.claims)
    click.echo(NOT_PINNED if policy is None else f"Policy: {policy.sha256}.")
    click.echo(f"Tier {TIERS[appraisal.tier]}")


def _print_lines(title: str, value: dict[str, Any]) -> None:
    if value:
        click.echo(f"{title}:")
        for line in decoding.lines(value):
            click.echo(f"  {line}")


@evidence.command()
@click.argument("file", metavar="ENVELOPE", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def show(file: Path, as_json: bool) -> None:
    """Show what is in an evidence ENVELOPE, without verifying any of it."""
    raw = file.read_bytes()
    try:
        found = envelope.parse(raw)
    except FormatError as error:
        raise click.ClickException(str(error)) from None
    parts = {name: decoding.describe(data) for name, data in sorted(found.parts.items())}
    collateral = {name: decoding.describe(data) for name, data in sorted(found.collateral.items())}
    claims = evidences.verify(
        raw, Policy.any(), now=found.collected, expected_nonce=None, trust=Trust.of()
    ).claims  # whatever the checks say: this is what it claims
    if as_json:
        head = {"verified": False, "type": found.type, "collected": shapes.format_time(found.collected)}
        digest = evidences.digest(raw)
        click.echo(
            json.dumps({**head, "sha256": digest, "parts": parts, "collateral": collateral, "claims": claims})
        )
        return
    click.echo(
        "NOT VERIFIED: this is what the evidence says, not what is true. See `strongroom evidence verify`.\n"
    )
    click.echo(
        f"type: {found.type}\ncollected: {shapes.format_time(found.collected)}\nsha256: {evidences.digest(raw)}"
    )
    for title, group in (("part", parts), ("collateral", collateral)):
        for name, said in group.items():
            click.echo()
            _print_lines(f"{title} {name}", said)
    click.echo()
    _print_lines("claims, not verified", claims)


@evidence.command()
@click.argument("type_", metavar="TYPE", type=click.Choice(envelope.TYPES))
@click.option(
    "--part",
    "parts",
    metavar="NAME=FILE",
    callback=_files,
    multiple=True,
    required=True,
    help="A part and its file (several times).",
)
@click.option(
    "--collateral",
    metavar="NAME=FILE",
    callback=_files,
    multiple=True,
    help="Collateral and its file (several times).",
)
@click.option(
    "--collected", metavar="TIME", callback=_time, help="When it was collected. Default: the current time."
)
@click.option(
    "-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write."
)
def build(
    type_: str,
    parts: dict[str, bytes],
    collateral: dict[str, bytes],
    collected: datetime | None,
    out: Path,
) -> None:
    """Wrap raw evidence of TYPE, byte for byte, into an envelope. Nothing is verified."""
    at = collected or datetime.now(UTC).replace(microsecond=0)
    try:
        data = envelope.build(type_, parts, collected=at, collateral=collateral)
    except FormatError as error:
        raise click.UsageError(str(error)) from None
    out.write_bytes(data)
    click.echo(f"Wrote {out}: evidence of type {type_}, collected at {shapes.format_time(at)}, not verified.")


COMMANDS = (evidence,)
