"""The committed tree: an image must be one that somebody else can build again."""

from __future__ import annotations

import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

# What runs in the image, and what decides how it is built.
RUNS = ("workers/__init__.py", "workers/runner", "workers/programs", "sdk/src/strongroom", "infra/runner/vm")
WATCHED = ("workers", "sdk", "requirements", "infra/runner")


class NotCommitted(Exception):
    """There are changes that no commit has."""


@dataclass(frozen=True, slots=True)
class Commit:
    """time: seconds, Unix; every file of the image has it."""

    folder: Path
    name: str
    time: int

    @classmethod
    def of(cls, folder: Path) -> Commit:
        """Raises NotCommitted."""
        if changed := _git(folder, "status", "--porcelain", "--", *WATCHED):
            raise NotCommitted(
                "There are changes that are not committed. An image must be one that somebody else can build again: "
                f"commit first. Changed: {', '.join(line[3:] for line in changed.splitlines()[:5])}"
            )
        return cls(folder, _git(folder, "rev-parse", "HEAD"), int(_git(folder, "log", "-1", "--format=%ct")))

    def unpack(self, into: Path) -> None:
        """What runs in the image, as it is committed."""
        done = subprocess.run(
            ["git", "archive", "--format=tar", self.name, "--", *RUNS, "requirements/programs.txt"],
            cwd=self.folder, check=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(into, filter="data")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.rstrip("\n")
