"""`python -m tests.bench [--only a,b,c,d] [--small] [--wait MINUTES]`: measure, and print one table. The exit code is always 0."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable

from tests.bench.table import FAILED, Row, render

PARTS = {"a": "runs", "b": "sealing", "c": "pages", "d": "verifying"}
TITLES = {
    "a": "a run's overhead on the local backend",
    "b": "sealing and unsealing",
    "c": "pages",
    "d": "verification",
}


QUIET = 0.85


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _machine() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            model = next((line.partition(":")[2].strip() for line in f if line.startswith("model name")), "")
    except OSError:
        model = ""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{model or platform.processor()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}; load {load}"


def idle_share(seconds: float = 3.0) -> float:
    """The part of all processors' time that nobody used, 0 to 1, over the next `seconds`."""

    def read() -> tuple[int, int]:
        with open("/proc/stat") as f:
            fields = [int(value) for value in f.readline().split()[1:]]
        return fields[3], sum(fields[:8])

    idle, total = read()
    time.sleep(seconds)
    idle_after, total_after = read()
    return (idle_after - idle) / max(1, total_after - total)


def wait_for_quiet(minutes: float) -> None:
    """Return when the machine is nearly idle, or when the time is over: then the figures are of a busy machine."""
    until, said = time.monotonic() + minutes * 60, False
    while time.monotonic() < until and idle_share() < QUIET:
        if not said:
            _say(f"    waiting up to {minutes:.0f} minutes for a quiet machine")
            said = True


def measure(part: str, *, small: bool, say: Callable[[str], None]) -> list[Row]:
    """The rows of one part; a part that breaks is one row that says so."""
    began = time.monotonic()
    say(f"({part}) {TITLES[part]} ...")
    try:
        rows: list[Row] = importlib.import_module(f"tests.bench.{PARTS[part]}").measure(small=small, say=say)
    except Exception as error:  # the other parts are still worth having
        traceback.print_exc()
        rows = [Row(part, TITLES[part], f"{type(error).__name__}: {error}"[:120], "", FAILED)]
    say(f"({part}) took {time.monotonic() - began:.0f} s")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--only", default="a,b,c,d", help="parts, like a,c")
    parser.add_argument(
        "--small", action="store_true", help="small sizes, to see that it works; the figures mean little"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=0,
        metavar="MINUTES",
        help="wait before each part until the machine is quiet",
    )
    options = parser.parse_args()
    wanted = [part.strip() for part in options.only.split(",") if part.strip()]
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    print(_machine(), flush=True)
    rows = []
    for part in wanted:
        wait_for_quiet(options.wait)
        rows += measure(part, small=options.small, say=_say)
    print(render(rows))
    print(_machine())
    return 0


if __name__ == "__main__":
    sys.exit(main())
