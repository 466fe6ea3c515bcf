"""`python -m infra.demo`: make the demo world in a running portal and tell its story. Exit code 0 if every step held.

Needs STRONGROOM_URL, STRONGROOM_VAR and STRONGROOM_PROGRAMS_PYTHON, which the embedded stack sets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

from infra.demo.story import Demo, tell
from infra.demo.tools import ROOT, StepFailed
from infra.demo.web import PageError
from infra.demo.world import OPERATOR, PASSWORD, PEOPLE, ROLE_WORDS


def main() -> int:
    portal, var = os.environ["STRONGROOM_URL"], Path(os.environ["STRONGROOM_VAR"])
    mark = var / "demo" / "finished.json"
    if mark.exists():
        made = json.loads(mark.read_text())
        print(
            f"The demo world is there already ({made['project']}): nothing was done again. `make clean` removes it."
        )
    else:
        if (var / "demo").exists():
            print(
                "An earlier demo did not come to its end. Remove it with `make clean`, then start again.",
                file=sys.stderr,
            )
            return 1
        (var / "demo").mkdir(parents=True)
        demo = Demo(portal, var / "demo", os.environ["STRONGROOM_PROGRAMS_PYTHON"])
        try:
            _first_operator()
            tell(demo)
        except (StepFailed, PageError, AssertionError, StopIteration, IndexError, OSError) as error:
            print(" FAILED", flush=True)
            print(f"\nThis step did not hold: {error or type(error).__name__}", file=sys.stderr)
            if not isinstance(error, StepFailed | PageError):
                traceback.print_exc()
            return 1
        mark.write_text(json.dumps({"project": demo.ref, "run": demo.run, "package": str(demo.package)}))
    _accounts(portal, var)
    return 0


def _first_operator() -> None:
    """The one step that no page can do: the first operator is made on the portal's own machine."""
    subprocess.run(
        [sys.executable, "manage.py", "create_operator", "--email", OPERATOR.email, "--name", OPERATOR.name, "--organisation", "Portal Operations"],
        cwd=ROOT, env={**os.environ, "STRONGROOM_OPERATOR_PASSWORD": PASSWORD}, check=True, stdout=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


def _accounts(portal: str, var: Path) -> None:
    print(f"\nThe portal: {portal}   The package: {var / 'demo' / 'package.zip'}")
    print(f"Accounts (password of all: {PASSWORD}):")
    for person in (OPERATOR, *PEOPLE):
        print(
            f"  {person.email:34} {', '.join(ROLE_WORDS[role] for role in person.roles)}, {person.organisation}"
        )


if __name__ == "__main__":
    sys.exit(main())
