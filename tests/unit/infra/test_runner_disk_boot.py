"""A built image, started here: what is computed is what a TPM is told, and a changed byte does not run.

STRONGROOM_RUNNER_DISK names the folder of `python -m infra.runner.disk build --console --out FOLDER`.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import pytest

from infra.runner.disk import pcrs, trial

VARIABLE = "STRONGROOM_RUNNER_DISK"
FOLDER = Path(os.environ.get(VARIABLE, "/nonexistent"))
STARTED = "strongroom-runner"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (FOLDER / "strongroom.raw").exists(), reason=f"{VARIABLE} names no built image"),
    pytest.mark.skipif(not trial.available(), reason=trial.MISSING),
]


def flipped(folder: Path, partition: int) -> Path:
    """A copy of the disk with one bit changed at the beginning of a partition, 1 being the root file system."""
    copy = folder / "changed.raw"
    shutil.copy(FOLDER / "strongroom.raw", copy)
    with copy.open("r+b") as file:
        file.seek(1024 + partition * 128)
        (first,) = struct.unpack_from("<Q", file.read(128), 32)
        file.seek(first * 512)
        byte = file.read(1)[0]
        file.seek(first * 512)
        file.write(bytes([byte ^ 1]))
    return copy


def test_what_is_computed_is_what_the_tpm_was_told(tmp_path):
    made = json.loads((FOLDER / "image.json").read_text())
    seen = trial.start(FOLDER / "strongroom.raw", tmp_path / "m", seconds=600)
    # Secure Boot is off here; what image.json says of a signed image is for machines where it is on.
    off = pcrs.boot_programs((FOLDER / "strongroom.efi").read_bytes(), secure_boot=False)
    expected = made["code"]["pcrs"] | {"4": off.hex()}
    assert {n: seen.pcrs[int(n)].hex() for n in expected} == expected
    assert seen.ended, "The runner found no portal, and the machine did not switch itself off."


@pytest.mark.parametrize("partition", [1, 2])
def test_a_changed_byte_does_not_run(tmp_path, partition):
    seen = trial.start(flipped(tmp_path, partition), tmp_path / "m", seconds=600)
    assert seen.ended and "is not the one that the command line names" in seen.console
    assert "Reached target" not in seen.console
