"""`python -m workers.runner.sandbox FILE`: prove this machine's sandbox now and write the proof to FILE.

Exit code 1, and the reason with its remedy, where no sandbox holds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .model import SandboxRefused
from .proof import prove


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        found = prove(Path(sys.argv[1]))
    except SandboxRefused as refusal:
        print(refusal, file=sys.stderr)
        return 1
    print(f"{found.kind}: {found.detail}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
