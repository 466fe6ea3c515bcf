"""The `strongroom` command: everything that a researcher, custodian, checker or auditor does without a browser."""

from __future__ import annotations

import sys

import click

from strongroom import __version__
from strongroom.cli import account, broker, custody, evidence, research, review, verifying
from strongroom.errors import StrongroomError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="strongroom")
def cli() -> None:
    """Use, seal and verify data and results of a Strongroom portal."""


for command in (
    *account.COMMANDS,
    *broker.COMMANDS,
    *custody.COMMANDS,
    *evidence.COMMANDS,
    *research.COMMANDS,
    *review.COMMANDS,
    *verifying.COMMANDS,
):
    cli.add_command(command)


def main() -> None:
    """Run the command; a refusal is printed as sentences, with exit status 1."""
    try:
        code = cli(standalone_mode=False)  # what a command ended with by Exit; None otherwise
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except StrongroomError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"{error.filename or 'A file'}: {error.strerror or error}", err=True)
        sys.exit(1)
