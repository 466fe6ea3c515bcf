"""Write the pages of docs/reference that can be made from the code, or say which of them are stale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiYamlRenderer

from apps.accounts.roles import ROLES
from apps.core.lifecycle import LIFECYCLES, Lifecycle
from apps.jobs.codes import CODES
from strongroom.cli import cli

NOTE = "<!-- Made by `make docs` from the code: do not edit. -->\n"


def states() -> str:
    """Every lifecycle as a diagram and a table."""
    parts = [
        NOTE,
        "# States\n",
        "Each table is the policy itself: no other step can be taken. Every step is written to the object's history and to the audit log.\n",
    ]
    for name in sorted(LIFECYCLES):
        parts += _lifecycle(LIFECYCLES[name])
    return "\n".join(parts)


def _lifecycle(lifecycle: Lifecycle) -> list[str]:
    rows = ["| from | to | who | reason | note |", "|---|---|---|---|---|"]
    arrows = ["```mermaid", "stateDiagram-v2", f"    [*] --> {lifecycle.initial}"]
    for source, steps in lifecycle.table.items():
        for target, step in steps.items():
            arrows.append(f"    {source} --> {target}")
            rows.append(
                f"| {lifecycle.labels[source]} | {lifecycle.labels[target]} | {step.owner} | {'required' if step.reason else ''} | {step.note} |"
            )
    arrows += [f"    {state} --> [*]" for state in lifecycle.table if state in lifecycle.final]
    title = lifecycle.name.replace("_", " ").capitalize()
    return [f"\n## {title}\n", *arrows, "```\n", *rows]


def roles() -> str:
    """Who is who, where each role is held, and what it permits."""
    parts = [
        NOTE,
        "# Roles\n",
        "| role | code | held in | what it is for | permissions |",
        "|---|---|---|---|---|",
    ]
    for role, info in ROLES.items():
        permissions = ", ".join(f"`{p}`" for p in sorted(info.permissions))
        parts.append(
            f"| {info.label} | `{role}` | {info.held_in.replace('_', ' ')} | {info.purpose} | {permissions} |"
        )
    parts.append("\nWhat a role excludes: [separation of duties](../explanation/separation-of-duties.md).")
    return "\n".join(parts)


def codes() -> str:
    """Every fine code of a run with its sentences."""
    parts = [NOTE, "# Codes of a run\n", "| code | what is so | what to do |", "|---|---|---|"]
    parts += [f"| `{name}` | {code.sentence} | {code.remedy} |" for name, code in CODES.items()]
    return "\n".join(parts)


def command_line() -> str:
    """The help of every command."""
    parts = [NOTE, "# Command line\n", "`pip install ./sdk` installs it. Every command has `--help`.\n"]

    def tell(command: click.Command, path: str) -> None:
        context = click.Context(command, info_name=path)
        if isinstance(command, click.Group):
            if path != "strongroom":
                parts.append(f"\n## {path}\n\n{command.help or ''}\n")
            for name in command.list_commands(context):
                sub = command.get_command(context, name)
                if sub is not None:
                    tell(sub, f"{path} {name}")
            return
        parts.append(f"\n### {path}\n\n```\n{command.get_help(context)}\n```")

    tell(cli, "strongroom")
    return "\n".join(parts)


def openapi() -> str:
    """The OpenAPI document."""
    schema: Any = SchemaGenerator().get_schema(request=None, public=True)
    return (
        "# Made by `make docs` from the code: do not edit.\n"
        + OpenApiYamlRenderer().render(schema, renderer_context={}).decode()
    )


PAGES: dict[str, Callable[[], str]] = {
    "states.md": states,
    "roles.md": roles,
    "run-codes.md": codes,
    "command-line.md": command_line,
    "openapi.yaml": openapi,
}


class Command(BaseCommand):
    help = "Write docs/reference from the code; with --check, fail when a page is stale."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true")

    def handle(self, *args: Any, check: bool = False, **options: Any) -> None:
        folder = Path(settings.BASE_DIR) / "docs" / "reference"
        stale = []
        for name, make in PAGES.items():
            path, text = folder / name, make().rstrip("\n") + "\n"
            if path.exists() and path.read_text(encoding="utf-8") == text:
                continue
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
        if check and stale:
            raise CommandError(
                f"These pages are not what the code says: {', '.join(stale)}. Run `make docs` and commit them."
            )
        self.stdout.write("up to date" if not stale else f"written: {', '.join(stale)}")
