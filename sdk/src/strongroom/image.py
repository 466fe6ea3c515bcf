"""What code the runner consists of, as one digest: the `image` of manifests, contexts and statements.

On a cloud machine the image is a container or disk image named by its digest. The local backend has no image, so the
digest is taken over the files that decide what happens to data: the supervisor, the built-in programs, this package,
and the lock file of the programs' environment. It is claimed, not measured: software evidence proves nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("workers/runner", "workers/programs", "sdk/src/strongroom")
FILES = ("requirements/programs.txt",)


def runner_image(root: Path) -> str:
    """`sha256:<hex>` over the sorted paths and contents of the runner's files below the checkout `root`."""
    digest = hashlib.sha256(b"strongroom/1/runner-image\x00")
    for path in sorted(_files(root)):
        name = path.relative_to(root).as_posix().encode()
        content = hashlib.sha256(path.read_bytes()).digest()
        digest.update(len(name).to_bytes(4, "big") + name + content)
    return f"sha256:{digest.hexdigest()}"


def _files(root: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        for path in (root / folder).rglob("*"):
            if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts:
                yield path
    for name in FILES:
        yield root / name
