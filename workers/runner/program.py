"""Lay out the program, run it in the sandbox, and say how it ended."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom.archive import ArchiveRefused, extract_zip
from workers.runner import sandbox
from workers.runner.exits import Exit, read_report
from workers.runner.inside.start import DISK_FULL, OUT_OF_MEMORY

ROOT = Path(__file__).resolve().parent.parent.parent
REPORT = ".strongroom-exit"
# Settings of numeric libraries that depend on the machine's processor and carry no data.
PASSED_ON = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class ProgramRefused(Exception):
    """The program cannot be laid out. `code` is a fine code of the portal."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Layout:
    """The attempt's folders on the machine."""

    base: Path

    @property
    def work(self) -> Path:
        return self.base / "work"

    @property
    def inputs(self) -> Path:
        return self.base / "inputs"

    @property
    def outputs(self) -> Path:
        return self.base / "outputs"

    @property
    def log(self) -> Path:
        return self.base / "program.log"

    def make(self) -> None:
        for folder in (self.work, self.inputs, self.outputs):
            folder.mkdir(mode=0o700)


def lay_out(program: dict[str, Any], content: bytes, layout: Layout) -> dict[str, int]:
    """Write the program into the work folder. Returns the number of lines of each of its own files.

    Raises ProgramRefused.
    """
    if program["kind"] == "builtin":
        return {}
    entry = layout.work / program["entry"]
    if program["kind"] == "zip":
        archive = layout.base / "program.zip"
        archive.write_bytes(content)
        try:
            layout.work.rmdir()  # made empty a moment ago; the archive is unpacked whole or not at all
            extract_zip(archive, layout.work)
        except ArchiveRefused as refused:
            raise ProgramRefused(f"archive_{refused.code}") from refused
    else:
        entry.write_bytes(content)
    if not entry.is_file() or layout.work.resolve() not in entry.resolve().parents:
        raise ProgramRefused("entry_missing")
    lines: dict[str, int] = {}
    for path in layout.work.rglob("*"):
        if path.is_file() and path.suffix == ".py":
            lines[path.relative_to(layout.work).as_posix()] = path.read_bytes().count(b"\n") + 1
    if program["entry"].endswith(".ipynb"):
        try:
            lines["cells"] = len(json.loads(entry.read_bytes())["cells"])
        except (ValueError, KeyError, TypeError) as error:
            raise ProgramRefused("notebook_unreadable") from error
    return lines


def run_program(
    manifest: dict[str, Any],
    layout: Layout,
    lines: dict[str, int],
    *,
    box: sandbox.Sandbox,
    on_tick: Callable[[Any], None],
    cancel: Callable[[], bool],
) -> Exit:
    """Run the manifest's program in the sandbox, within its limits. Raises sandbox.SandboxRefused."""
    program, limits = manifest["program"], manifest["limits"]
    view = view_of(layout, box)
    env = {
        "STRONGROOM_INPUTS": view.inputs,
        "STRONGROOM_OUTPUTS": view.outputs,
        "STRONGROOM_STAGE": "1" if manifest["kind"] == "rehearsal" else "2",
        "STRONGROOM_PARAMETERS": json.dumps(program.get("parameters", {})),
        "HOME": view.work,
        "TMPDIR": view.tmp,
        "MPLCONFIGDIR": view.tmp,
        "MPLBACKEND": "agg",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "LANG": "C.UTF-8",
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
    }
    if program["kind"] == "builtin":
        env["PYTHONPATH"] = str(ROOT)
        argv = [sys.executable, "-m", f"workers.programs.{program['builtin']}"]
    else:
        code = "ipynb" if program["entry"].endswith(".ipynb") else "py"
        start = str(Path(__file__).parent / "inside" / "start.py")
        argv = [sys.executable, start, code, f"{view.work}/{program['entry']}", f"{view.work}/{REPORT}"]
        if manifest["full_log"]:
            argv.append("--keep-notebook")
    result = sandbox.run(
        sandbox.RunSpec(
            argv=argv,
            workdir=layout.work,
            inputs=layout.inputs,
            outputs=layout.outputs,
            log_path=layout.log,
            read_only=visible_code(),
            env=env,
        ),
        sandbox.Limits(**limits),
        kind=box.kind,
        on_tick=on_tick,
        cancel=cancel,
    )
    exit_class = str(result.exit_class)
    name, line, file = read_report(_read_small(layout.work / REPORT), lines=lines)
    if exit_class == "failed":
        if result.return_code == OUT_OF_MEMORY:
            exit_class = "out_of_memory"
        elif result.return_code == DISK_FULL:
            exit_class = "disk_full"
    if exit_class == "succeeded":
        return Exit("succeeded")
    return Exit(exit_class, name, line, file)


def view_of(layout: Layout, box: sandbox.Sandbox) -> sandbox.View:
    """The names under which the program sees its folders."""
    spec = sandbox.RunSpec(
        argv=[],
        workdir=layout.work,
        inputs=layout.inputs,
        outputs=layout.outputs,
        log_path=layout.log,
        read_only=visible_code(),
    )
    return sandbox.view(spec, box.kind)


def visible_code() -> list[Path]:
    """Folders that the program may read: its Python, its packages, the SDK, the built-in programs. No portal code."""
    base = Path(os.path.realpath(sys.executable)).parent.parent
    return [
        Path(sys.prefix),
        Path(sys.base_prefix),
        base,
        ROOT / "sdk" / "src",
        ROOT / "workers" / "programs",
        ROOT / "workers" / "runner" / "inside",
    ]


def _read_small(path: Path) -> bytes:
    """A small regular file that the program left, or nothing. Never follows a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as f:
        return f.read(2000) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
