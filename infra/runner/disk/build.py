"""The build, step by step. Needs root (to make a root file system) and mmdebstrap; all else comes with the packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from infra.runner.disk import debian, image, initrd, pcrs, root, wheels
from infra.runner.disk.commit import Commit
from infra.runner.disk.tools import Tools


class CannotBuild(Exception):
    """Something that the build needs is not here."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """key, certificate: PEM files of the operator for Secure Boot; both or neither. authority: who signs the portal's
    certificate, PEM, where no public authority does."""

    folder: Path
    out: Path
    mirrors: debian.Mirrors
    with_programs: bool = True
    console: bool = False
    key: Path | None = None
    certificate: Path | None = None
    authority: Path | None = None


def require() -> None:
    """Raises CannotBuild."""
    if os.geteuid() != 0:
        raise CannotBuild(
            "Only root can make the files of a root file system: run it in a throw-away machine or container."
        )
    if shutil.which("mmdebstrap") is None:
        raise CannotBuild("mmdebstrap is not here: apt-get install mmdebstrap")


def build(wanted: Wanted, commit: Commit, say: object = print) -> dict[str, object]:
    """Everything into `wanted.out`; returns what is written to image.json. Raises CannotBuild, CalledProcessError."""
    require()
    out = wanted.out
    for name in ("parts", "root"):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    _say(say, "Packages that make the image")
    debian.bootstrap(
        wanted.mirrors, variant="extract", packages=debian.PARTS, into=str(out / "parts"), time=commit.time
    )
    tools = Tools(out / "parts", time=commit.time)
    (kernel,) = (out / "parts/boot").glob("vmlinuz-*")
    modules = out / "parts/lib/modules" / kernel.name.removeprefix("vmlinuz-")
    tools.run("sbin/depmod", "-b", tools.parts, modules.name)
    _say(say, "The root file system")
    _root(wanted, commit, tools, modules)
    return assemble(wanted, commit, tools, kernel, modules, say)


def _root(wanted: Wanted, commit: Commit, tools: Tools, modules: Path) -> None:
    place, out = wanted.out / "root", wanted.out
    debian.bootstrap(
        wanted.mirrors, variant="essential", packages=debian.ROOT, into=str(place), time=commit.time
    )
    listed = subprocess.run(
        ["dpkg-query", f"--admindir={place}/var/lib/dpkg", "--show"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    (out / "packages.txt").write_text(f"kernel\t{modules.name}\n{listed}")
    root.fill(place, commit, authority=wanted.authority)
    if wanted.with_programs:
        first = wheels.fetch(wanted.folder, out / "wheels")
        (pip,) = (tools.parts / "usr/share/python-wheels").glob("pip-*.whl")
        lock = place / root.HOME / "requirements/programs.txt"
        root.programs(place, wheels=out / "wheels", first=first, lock=lock, pip=pip)
    else:
        root.bare(place)
    root.kernel_modules(place, modules)
    root.settle(place, time=commit.time)


def assemble(
    wanted: Wanted, commit: Commit, tools: Tools, kernel: Path, modules: Path, say: object
) -> dict[str, object]:
    """Root folder to disk. By itself where only the command line or the signature changes."""
    out, squashed, tree = wanted.out, wanted.out / "root.squashfs", wanted.out / "root.verity"
    _say(say, "Squashing and hashing the root file system")
    image.squash(tools, out / "root", squashed)
    verity = image.hash_tree(tools, squashed, tree)
    packed = initrd.build(
        tools.parts, modules=modules, libraries=tools.libraries("sbin/dmsetup"), time=commit.time
    )
    line = image.command_line(verity, console=wanted.console)
    unified = out / "strongroom.efi"
    unified.write_bytes(
        image.kernel_image(
            (tools.parts / image.STUB).read_bytes(),
            kernel=kernel.read_bytes(),
            initrd=packed,
            line=line,
            release=_release(commit),
        )
    )
    if wanted.key and wanted.certificate:
        tools.run(
            "usr/bin/sbsign", "--key", wanted.key, "--cert", wanted.certificate, "--output", unified, unified
        )
    _say(say, "The disk")
    image.esp(tools, unified, out / "esp.img", time=commit.time)
    image.disk((out / "esp.img", squashed, tree), verity, out / "strongroom.raw")
    image.as_vhd(out / "strongroom.raw", out / "strongroom.vhd", verity, time=commit.time)
    made = _described(wanted, commit, verity, line, modules.name)
    (out / "image.json").write_text(json.dumps(made, indent=1) + "\n")
    return made


def _described(
    wanted: Wanted, commit: Commit, verity: image.Verity, line: str, kernel: str
) -> dict[str, object]:
    digest = image.digest(wanted.out / "strongroom.vhd")
    unified = (wanted.out / "strongroom.efi").read_bytes()
    return {
        "v": 1,
        "commit": commit.name,
        "with_programs": wanted.with_programs,
        "kernel": kernel,
        "command_line": line,
        "root_hash": verity.hash,
        "disk": digest,
        "code": {"type": "azure-cvm", "image": digest, "pcrs": pcrs.golden(unified)},
    }


def _release(commit: Commit) -> str:
    return f'ID=strongroom-runner\nNAME="Strongroom runner"\nVERSION_ID="{commit.name[:12]}"\nPRETTY_NAME="Strongroom runner {commit.name[:12]}"\n'


def _say(say: object, text: str) -> None:
    if callable(say):
        say(text)
