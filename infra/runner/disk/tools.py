"""Run the image's tools from the packages that were unpacked for it, so that their version is not this machine's."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
NAMED = Path("lib64/ld-linux-x86-64.so.2")  # as every program names its loader
_LOADER = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"


class Tools:
    """parts: the folder with the unpacked packages."""

    def __init__(self, parts: Path, *, time: int) -> None:
        self.parts = parts
        self._env = {
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C",
            "TZ": "UTC",
            "SOURCE_DATE_EPOCH": str(time),
            "MTOOLS_SKIP_CHECK": "1",
        }

    def _loader(self) -> list[str]:
        return [
            str(self.parts / _LOADER),
            "--library-path",
            ":".join(str(self.parts / p) for p in _LIBRARIES),
        ]

    def run(self, program: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
        """program: its place in the packages, as `usr/bin/mksquashfs`. What it prints. Raises CalledProcessError."""
        name = Path(program).name
        real = self.parts / program
        if real.is_symlink():  # several tools are one program that looks at its name
            target = real.readlink()
            real = self.parts / str(target).lstrip("/") if target.is_absolute() else real.parent / target
        command = [*self._loader(), "--argv0", name, str(real), *map(str, arguments)]
        done = subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env={**self._env, **(env or {})},
        )
        return done.stdout

    def libraries(self, program: str) -> list[tuple[str, Path]]:
        """What the program loads, as (place, file), the loader itself included."""
        listed = subprocess.run(
            [*self._loader(), "--list", str(self.parts / program)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        files = {Path(found) for found in re.findall(r"=> (\S+)", listed)}
        files.add(self.parts / _LOADER)
        # In the initrd all lie where the loader looks without a cache, and the loader where programs name it.
        placed = [
            (f"lib/x86_64-linux-gnu/{file.name}", file) for file in sorted(files) if file.name != NAMED.name
        ]
        return [(str(NAMED), self.parts / _LOADER), *placed]
