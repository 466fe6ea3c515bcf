"""python -m infra.embedded: the command line of the embedded stack. Exit codes: 0 done, 1 failed, 2 wrong usage."""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence

from infra.embedded.layout import ROOT, Failure, default_layout, read_json
from infra.embedded.lock import Lock, holder
from infra.embedded.process import start_time
from infra.embedded.services import run_with_services
from infra.embedded.stack import START_ORDER, Interrupted, Stack, probe


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.embedded", description="The embedded stack.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="start everything, stay in the terminal, stop at Ctrl-C")
    commands.add_parser("down", help="stop the stack that runs in another terminal")
    commands.add_parser("status", help="show what runs; exit code 1 when the portal is not ready")
    commands.add_parser("env", help="print the running stack's variables for `eval` (they hold passwords)")
    commands.add_parser("clean", help="remove var/ with all data; refused while a stack runs")
    demo = commands.add_parser(
        "demo",
        help="start everything, run the demo's story, leave the portal running",
        epilog="Any other argument goes to `python -m infra.demo`.",
    )
    demo.add_argument("--exit", action="store_true", help="stop afterwards; exit code 0 if every step held")
    services = commands.add_parser("services", help="run a command with PostgreSQL and Valkey of its own")
    services.add_argument("rest", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    given, others = parser.parse_known_args(arguments)
    if others and given.command != "demo":
        parser.error(f"unknown: {' '.join(others)}")
    try:
        match given.command:
            case "up":
                return up()
            case "demo":
                return up(["-m", "infra.demo", *others], leave=given.exit)
            case "down":
                return down()
            case "status":
                return status()
            case "env":
                return env()
            case "clean":
                return clean()
            case _:
                command = given.rest[1:] if given.rest[:1] == ["--"] else given.rest
                if not command:
                    parser.error("services: name the command to run after --")
                return run_with_services(command)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except Interrupted:
        return 130


def up(story: Sequence[str] = (), *, leave: bool = False) -> int:
    """Start the stack; run the story if there is one; then stay until Ctrl-C, unless told to leave."""
    code = 0
    with Stack(default_layout()) as stack:
        stack.up()
        if story:
            code = stack.run([sys.executable, *story])
            if code and not stack.stopping:
                print(f"The demo failed (exit code {code}).", file=sys.stderr, flush=True)
        if not leave and not stack.stopping:
            print(f"Running at {stack.url}. Ctrl-C stops everything that was started here.", flush=True)
            stack.watch()
    return code


def down() -> int:
    layout = default_layout()
    other = holder(layout.lock_file)
    if other is None:
        print("No stack is running on this folder.")
        return 0
    if not other.alive():
        raise Failure("A stack is just starting or stopping. Try again in a moment.")
    os.kill(other.pid, signal.SIGTERM)
    until = time.monotonic() + 90
    while holder(layout.lock_file) == other:
        if time.monotonic() > until:
            raise Failure(f"Process {other.pid} is still stopping after 90 s. Its terminal says why.")
        time.sleep(0.1)
    print("Stopped.")
    return 0


def status() -> int:
    layout = default_layout()
    if holder(layout.lock_file) is None:
        print(f"No stack is running on {layout.var}.")
        return 1
    state = read_json(layout.state_file)
    parts = state.get("parts", {})
    for name in START_ORDER:
        part = parts.get(name)
        if part is None:
            print(f"{name:<9} not started yet")
            continue
        alive = part["pid"] is not None and start_time(part["pid"]) == part["started"]
        running = f"running, process {part['pid']}" if alive else "down, will be started again"
        print(f"{name:<9} {running:<28} restarts: {part['restarts']}  {part['address']}".rstrip())
    if not state.get("url"):
        print("portal    starting")
        return 1
    ready, answer = probe(state["url"] + "/health/ready")
    print(f"portal    {'ready' if ready else 'not ready: ' + answer}")
    return 0 if ready else 1


def env() -> int:
    layout = default_layout()
    variables = read_json(layout.state_file).get("env") if holder(layout.lock_file) else None
    if not variables:
        raise Failure("No stack is running on this folder. Start one with `python -m infra.embedded up`.")
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def clean() -> int:
    layout = default_layout()
    if not layout.var.exists():
        print(f"Nothing to remove: {layout.var} does not exist.")
        return 0
    if layout.var != ROOT / "var" and not layout.run.is_dir():
        raise Failure(
            f"{layout.var} does not look like a var/ folder of Strongroom. Remove it by hand if you mean it."
        )
    layout.prepare()
    with Lock(layout.lock_file):
        for entry in layout.var.iterdir():
            if entry != layout.run:
                _remove(entry)
        _remove(layout.run)
    with contextlib.suppress(OSError):
        layout.var.rmdir()
    print(f"Removed {layout.var}.")
    return 0


def _remove(path: os.PathLike[str]) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except OSError as error:
        raise Failure(
            f"Cannot remove {error.filename} ({error.strerror}). It may belong to another user."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
