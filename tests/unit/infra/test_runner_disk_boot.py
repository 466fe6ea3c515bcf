"""A built image, started here: what is computed is what a TPM is told, and a changed byte does not run.

STRONGROOM_RUNNER_DISK names the folder of `python -m infra.runner.disk build --console --out FOLDER`. With --key and
--certificate it is also started with Secure Boot on.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from infra.runner.disk import pcrs, pe, trial
from tests.fakes.tls import Authority

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


# With Secure Boot on, its keys the image's own in place of Microsoft's

SECURE_FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
# Firmware that keeps its variables from the system needs a mode of the processor that only it may enter.
SECURE = ("-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on")
_BESIDE = Path(sys.executable).with_name("virt-fw-vars")
OWNER = "0b5c2a62-57b5-4d4d-9d1b-2d6c5a3e7f10"  # of the entries in firmware's lists: any
ENROLLER = str(_BESIDE) if _BESIDE.exists() else shutil.which("virt-fw-vars")


def enrolled(folder: Path, certificate: x509.Certificate) -> Path:
    """Firmware's variables with Secure Boot on and this certificate in every list, and no other."""
    pem, made = folder / "key.pem", folder / "variables.fd"
    pem.write_bytes(certificate.public_bytes(Encoding.PEM))
    lists = (
        word for name in ("--set-pk-cert", "--add-kek-cert", "--add-db-cert") for word in (name, OWNER, pem)
    )
    subprocess.run(
        [str(ENROLLER), "--input", trial.VARIABLES, "--output", made, *lists, "--secure-boot"],
        check=True,
        capture_output=True,
    )
    return made


@pytest.fixture
def signer() -> x509.Certificate:
    if not SECURE_FIRMWARE.exists() or ENROLLER is None:
        pytest.skip("no firmware with Secure Boot, or nothing to enrol keys: pip install virt-firmware")
    image = (FOLDER / "strongroom.efi").read_bytes()
    at, size = pe.Pe.parse(image).certificates
    if not size:
        pytest.skip("The image is not signed: build it with --key and --certificate.")
    # PE/COFF, attribute certificate table: eight bytes, then PKCS #7.
    (found,) = pkcs7.load_der_pkcs7_certificates(image[at + 8 : at + size])
    return found


def test_a_signed_image_with_secure_boot_on(tmp_path, signer):
    expected = json.loads((FOLDER / "image.json").read_text())["code"]["pcrs"]
    seen = trial.start(
        FOLDER / "strongroom.raw", tmp_path / "m", seconds=600, arguments=SECURE, firmware=SECURE_FIRMWARE,
        variables=enrolled(tmp_path, signer),
    )  # fmt: skip
    assert {n: seen.pcrs[int(n)].hex() for n in expected} == expected
    assert STARTED in seen.console and seen.ended


def test_secure_boot_starts_no_image_of_another_key(tmp_path, signer):
    other = x509.load_pem_x509_certificate(Authority.make("Another").pem.encode())
    seen = trial.start(
        FOLDER / "strongroom.raw", tmp_path / "m", seconds=120, arguments=SECURE, firmware=SECURE_FIRMWARE,
        variables=enrolled(tmp_path, other),
    )  # fmt: skip
    assert seen.pcrs[11] == bytes(32) and "Linux version" not in seen.console
