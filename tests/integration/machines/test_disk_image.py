"""The runner's disk image does a run: booted in qemu from what the portal's Azure backend told the cloud.

It reaches the portal by TLS, attests with the PCRs that its boot left in a TPM, gets the data key, runs the program in
its sandbox, attests the result, and switches itself off. The custodian's policy pins the PCRs that the build computed.

STRONGROOM_RUNNER_DISK names the folder of a build with an authority of its own (docs/how-to/runner-image.md):
    python -m infra.runner.disk build --console --authority FOLDER/authority.pem --out FOLDER
and FOLDER/authority.key is the authority's key.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.attestation.models import Evidence, KeyRelease
from apps.jobs.models import Run
from infra.runner.disk import pcrs, trial
from tests.fakes import booted, vtpm
from tests.fakes.hosting import Hosting
from tests.fakes.tls import Authority
from tests.fakes.worlds import AzureWorld
from tests.integration.machines import test_real_backends as real
from tests.integration.machines import test_whole_protocol as whole
from tests.unit.jobs.engine.world import make_world

VARIABLE = "STRONGROOM_RUNNER_DISK"
FOLDER = Path(os.environ.get(VARIABLE, "/nonexistent"))
SECONDS = 900.0
authority, portal = whole.authority, whole.portal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (FOLDER / "authority.key").exists(),
        reason=f"{VARIABLE} names no image with an authority of its own",
    ),
    pytest.mark.skipif(not trial.available(), reason=trial.MISSING),
    pytest.mark.skipif(not vtpm.available(), reason=vtpm.MISSING),
]


@pytest.fixture(scope="module")
def built() -> dict[str, Any]:
    """The policy's entry for the image. It is not signed, so it starts with Secure Boot off, and has that PCR 4."""
    code: dict[str, Any] = json.loads((FOLDER / "image.json").read_text())["code"]
    off = pcrs.boot_programs((FOLDER / "strongroom.efi").read_bytes(), secure_boot=False)
    return code | {"pcrs": code["pcrs"] | {"4": off.hex()}}


@pytest.fixture
def machines(portal, built, settings, tmp_path) -> Iterator[Hosting]:
    settings.ALLOWED_HOSTS = ["*"]
    settings.RUNNER_IMAGES = {"azure": built["image"]}
    context = Authority.load(FOLDER / "authority.key", FOLDER / "authority.pem").server(
        tmp_path, booted.PORTAL
    )
    tls = booted.Tls(context, int(portal.rpartition(":")[2]))

    def boot(world: AzureWorld, machine: str) -> Any:
        body = world.fake.resources["Microsoft.Compute/virtualMachines", machine].body["properties"]
        return booted.DiskGuest(FOLDER / "strongroom.raw", body["userData"], tls.port)

    hosting = Hosting(AzureWorld(), f"https://{booted.PORTAL}", boot)
    yield from real.hosted("azure", hosting)
    tls.close()
    for name, console in hosting.logs.items():
        (tmp_path / f"{name}.console").write_text(console)


def run_under(built: dict[str, Any], machines: Hosting, **changed: str) -> Run:
    world = make_world(personal_data=True)
    code = [built | {"pcrs": built["pcrs"] | changed}]
    real.put_policy(
        world,
        {"v": 1, "types": ["azure-cvm"], "images": [built["image"]], "max_age_seconds": 600, "code": code},
    )
    return real.work(real.research(world, "azure"), machines, SECONDS)


def test_the_image_does_a_run(machines, built):
    run = run_under(built, machines)
    real.finished_well(run, machines, "azure-cvm")
    for row in Evidence.objects.filter(run=run.pk):
        shown = row.appraisal["appraisal"]["claims"]["code"]["pcrs"]
        assert {n: shown[n] for n in built["pcrs"]} == built["pcrs"]
        assert shown["15"] == hashlib.sha256(bytes(32) + bytes.fromhex(run.manifest_sha256)).hexdigest()


def test_another_image_gets_no_key(machines, built):
    """The custodian accepted other bytes than those that started."""
    run = run_under(built, machines, **{"11": "ab" * 32})
    assert (run.state, run.code) == ("failed", "evidence_refused"), machines.logs
    assert {"code", "image"} & whole.failing(run)
    assert not KeyRelease.objects.filter(run=run.pk, released=True).exists()
