"""The runner's container images do a run: started by podman from what the portal's backends told stand-ins of the clouds.

STRONGROOM_RUNNER_CONTAINERS names images that podman has, by environment (docs/how-to/runner-image.md):
    STRONGROOM_RUNNER_CONTAINERS=gcp=strongroom-runner:gcp,kubernetes=strongroom-runner:kubernetes
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as conf

from apps.attestation.models import Evidence
from tests.fakes import contained
from tests.fakes.hosting import Hosting, told_to_pod
from tests.fakes.worlds import GcpWorld, KubernetesWorld
from tests.integration.machines import test_real_backends as real
from tests.integration.machines import test_whole_protocol as whole
from tests.unit.jobs.engine.world import make_world

VARIABLE = "STRONGROOM_RUNNER_CONTAINERS"
IMAGES = dict(entry.split("=", 1) for entry in os.environ.get(VARIABLE, "").split(",") if "=" in entry)
authority, portal = whole.authority, whole.portal

pytestmark = [
    *whole.pytestmark,
    pytest.mark.skipif(not IMAGES, reason=f"{VARIABLE} names no built images"),
    pytest.mark.skipif(not contained.available(), reason="no podman here: apt-get install podman"),
]


def image(environment: str) -> str:
    if environment not in IMAGES:
        pytest.skip(f"{VARIABLE} names no image for {environment}")
    return IMAGES[environment]


def digest(name: str) -> str:
    asked = ["podman", "image", "inspect", "--format", "{{.Digest}}", name]
    return subprocess.run(asked, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture
def google(portal, authority, settings) -> Iterator[Hosting]:
    name = image("gcp")
    settings.RUNNER_IMAGES = {"gcp": digest(name)}

    def boot(world: GcpWorld, machine: str) -> Any:
        items = {i["key"]: i["value"] for i in world.fake.instances[machine].body["metadata"]["items"]}
        told = {n.removeprefix("tee-env-"): v for n, v in items.items() if n.startswith("tee-env-")}
        token = items["strongroom-token"]
        return contained.google(name, digest(name), told, token, authority, instance="4051200219")

    yield from real.hosted("gcp", Hosting(GcpWorld(), portal, boot))


@pytest.fixture
def pods(portal) -> Iterator[Hosting]:
    name = image("kubernetes")

    def boot(world: KubernetesWorld, machine: str) -> Any:
        return contained.pod(name, *told_to_pod(world, machine))

    yield from real.hosted("kubernetes", Hosting(KubernetesWorld(), portal, boot))


def test_the_image_for_google_does_a_run(google):
    world = make_world(personal_data=True)
    real.put_policy(world, {
        "v": 1, "types": ["gcp-confidential-space"], "images": [digest(IMAGES["gcp"])], "max_age_seconds": 600,
        "audiences": [conf.PORTAL_ID], "env_override": whole.VARIABLES,
    })  # fmt: skip
    run = real.work(real.research(world, "gcp"), google, 180)
    real.finished_well(run, google, "gcp-confidential-space")


def test_the_image_for_a_cluster_does_a_run(pods):
    run = real.work(real.research(make_world(), "kubernetes"), pods, 180)
    assert (run.state, run.code) == ("succeeded", "succeeded"), (whole.failing(run), pods.logs)
    assert {(row.type, row.tier) for row in Evidence.objects.filter(run=run.pk)} == {("software", "none")}


@pytest.mark.parametrize("environment", sorted(IMAGES))
def test_nothing_of_ours_is_compiled(environment):
    """Compiled files hold the time of the build, so no two images would be alike."""
    looked = ["podman", "run", "--rm", "--network", "none", "--entrypoint", "find", image(environment)]
    found = subprocess.run(
        [*looked, "/opt/strongroom", "-name", "*.pyc"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.stdout == ""
