"""Printing: tables, progress, and waiting for a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from strongroom.client import Client


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A plain table; nothing but a sentence when there are no rows."""
    if not rows:
        click.echo("None.")
        return
    cells = [[str(cell if cell is not None else "") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    for row in [list(head), *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


class Bar:
    """A progress bar over bytes on a terminal; a line now and then elsewhere."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self._last = label, max(total, 1), -1

    def at(self, done: int) -> None:
        percent = min(100, done * 100 // self.total)
        if percent == self._last:
            return
        if sys.stderr.isatty():
            click.echo(f"\r{self.label} {percent:3d} %", nl=percent == 100, err=True)
        elif percent // 25 != self._last // 25:
            click.echo(f"{self.label} {percent} %", err=True)
        self._last = percent


def follow(client: Client, run: str, *, timeout: float, quiet: bool = False) -> dict[str, Any]:
    """Wait until nothing more will happen to the run by itself; print each change of phase. Raises click.ClickException."""
    deadline, said = time.monotonic() + timeout, ""
    while True:
        found = client.get(f"/runs/{run}")
        standing = found["standing"]
        line = f"{standing['label']}: {standing['sentence']}"
        if standing.get("keys_unknown_since"):
            line += " A custodian's key broker does not say whether it still permits this run; it goes on."
        if line != said and not quiet:
            click.echo(f"[{standing['elapsed']:>4} s] {line}")
            said = line
        if standing["settled"]:
            return dict(found)
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"The run has not ended after {timeout:.0f} seconds. It goes on; look again with: strongroom watch {run}"
            )
        time.sleep(1.0)
