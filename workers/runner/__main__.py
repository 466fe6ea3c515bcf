"""`python -m workers.runner`: one attempt at one run, inside the environment that it is told it is in."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from workers.runner.attester import NoEvidence
from workers.runner.attesters import ENVIRONMENTS, SOFTWARE, Environment, gcp, metadata
from workers.runner.client import private_authority
from workers.runner.heart import note
from workers.runner.supervisor import supervise
from workers.runner.told import ATTESTER_KEY_FILE, PORTAL, TOKEN_FILE, told

REFUSED = 2


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="workers.runner", description=__doc__)
    made.add_argument(
        "--environment",
        required=True,
        choices=ENVIRONMENTS,
        help="where this runner is; never guessed, and none stands in for another",
    )
    made.add_argument("--workdir", required=True, type=Path, help="empty folder in memory-backed storage")
    made.add_argument("--portal", default="", help=f"address of the portal; else {PORTAL}, or the user data")
    made.add_argument(
        "--token-file", type=Path, help=f"file with the launch token, which is removed; else {TOKEN_FILE}"
    )
    made.add_argument(
        "--attester-key",
        type=Path,
        help=f"key of the software attester, software only; else {ATTESTER_KEY_FILE}",
    )
    made.add_argument("--sandbox-proof", type=Path, help="file where the sandbox's self-test is remembered")
    made.add_argument(
        "--authorities",
        type=Path,
        help="folder of PEM files, part of the image: if it holds any, the portal's certificate must be of one of these "
        "authorities; else of a public one",
    )
    # Addresses are arguments and no variables: what may set a variable from outside is a wider circle.
    made.add_argument("--gcp-metadata", default=metadata.GCP, help="address of Google's metadata service")
    made.add_argument("--azure-metadata", default=metadata.AZURE, help="address of Azure's metadata service")
    made.add_argument("--launcher", type=Path, default=gcp.SOCKET, help="socket of Google's launcher")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser()
    options = made.parse_args(arguments)
    key = options.attester_key
    if key is None and options.environment == SOFTWARE and os.environ.get(ATTESTER_KEY_FILE):
        key = Path(os.environ[ATTESTER_KEY_FILE])
    try:
        environment = Environment(
            options.environment,
            attester_key=key,
            launcher=options.launcher,
            gcp_metadata=options.gcp_metadata,
            azure_metadata=options.azure_metadata,
        )
    except ValueError as error:
        made.error(str(error))
    note("loaded")
    os.umask(0o077)
    try:
        trust = private_authority(options.authorities)
        machine = told(environment, os.environ, portal=options.portal, token_file=options.token_file)
        if environment.hardware:
            options.workdir.mkdir(mode=0o700, exist_ok=True)
    except (NoEvidence, OSError, ValueError) as error:
        print(f"This machine cannot take a run: {error}", file=sys.stderr)
        return REFUSED
    return supervise(
        url=machine.portal,
        token=machine.token,
        base=options.workdir,
        environment=environment,
        sandbox_proof=options.sandbox_proof,
        run=machine.run,
        trust=trust,
    )


if __name__ == "__main__":
    sys.exit(main())
