"""The demo's hands: the command line as a person would type it, and steps with their times."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
STRONGROOM = Path(sys.executable).parent / "strongroom"


class StepFailed(Exception):
    """A step of the story did not hold."""


class Machine:
    """A person's own machine: a home folder of their own, and the `strongroom` command."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.env = {"HOME": str(home), "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"}

    def run(self, *arguments: str, fails: bool = False, **env: str) -> str:
        """Run `strongroom ARGUMENTS`; return what it printed. Raises StepFailed unless it succeeds (or fails, if so asked)."""
        done = subprocess.run(
            [str(STRONGROOM), *arguments],
            env={**self.env, **env},
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=900,
        )
        if (done.returncode != 0) != fails:
            raise StepFailed(
                f"`strongroom {' '.join(arguments)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def python(self, python: str, code: str) -> str:
        """Run a few lines in the person's own Python."""
        done = subprocess.run(
            [python, "-c", code], env=self.env, cwd=self.home, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise StepFailed(f"Python ended with {done.returncode}:\n{done.stderr}")
        return done.stdout


class Story:
    """Runs steps in order and prints each with its time."""

    def __init__(self) -> None:
        self.number = 0
        self.started = time.monotonic()

    def step(self, title: str, act: Callable[[], str | None]) -> None:
        self.number += 1
        began = time.monotonic()
        print(f"{self.number:>2}. {title} ...", end="", flush=True)
        note = act()
        print(f" {time.monotonic() - began:.1f} s" + (f"  ({note})" if note else ""), flush=True)

    def total(self) -> float:
        return time.monotonic() - self.started


def until(check: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait for `check`. Raises StepFailed when it takes too long."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise StepFailed(f"after {seconds:.0f} seconds there is still no {what}")
        time.sleep(0.3)
