"""`python -m workers.runner`: one attempt at one run, inside its environment."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from workers.runner.heart import note
from workers.runner.supervisor import supervise


def main() -> int:
    parser = argparse.ArgumentParser(prog="workers.runner", description=__doc__)
    parser.add_argument("--portal", required=True, help="address of the portal")
    parser.add_argument("--token-file", required=True, type=Path, help="file with the one-time launch token")
    parser.add_argument("--workdir", required=True, type=Path, help="empty folder in memory-backed storage")
    parser.add_argument("--attester-key", required=True, type=Path, help="key of the software attester")
    parser.add_argument("--sandbox-proof", type=Path, help="file where the sandbox's self-test is remembered")
    options = parser.parse_args()
    note("loaded")
    token = options.token_file.read_text().strip()
    options.token_file.unlink()
    os.umask(0o077)
    return supervise(
        url=options.portal,
        token=token,
        base=options.workdir,
        attester_key=options.attester_key,
        sandbox_proof=options.sandbox_proof,
    )


if __name__ == "__main__":
    sys.exit(main())
