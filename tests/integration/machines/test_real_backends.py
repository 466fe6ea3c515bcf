"""The portal's real backends against clouds of our own, whose machines boot the real runner from what they were told.

Nothing is passed on beside the cloud: what the backend forgets to say, the machine does not know.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings as conf
from django.db import IntegrityError, transaction

from apps.attestation.models import Evidence, ReleasePolicy
from apps.core.clock import now
from apps.jobs import engine
from apps.jobs.engine import machines
from apps.jobs.models import Run
from apps.jobs.states import RUN
from strongroom.evidence import Policy
from tests.fakes import vtpm
from tests.fakes.hosting import GOLDEN, Hosting, azure_vm, container_group, google_machine, pod
from tests.fakes.worlds import AciWorld, AzureWorld, GcpWorld, KubernetesWorld
from tests.integration.machines import test_whole_protocol as whole
from tests.unit.jobs.engine.world import World, make_world
from tests.unit.strongroom.evidence import authority_amd as amd
from workers import outbox, sweep

pytestmark = whole.pytestmark
authority, portal = whole.authority, whole.portal


@pytest.fixture
def google(portal, authority) -> Iterator[Hosting]:
    yield from hosted("gcp", Hosting(GcpWorld(), portal, google_machine(authority)))


@pytest.fixture
def containers(portal) -> Iterator[Hosting]:
    yield from hosted("azure-aci", Hosting(AciWorld(), portal, container_group))


@pytest.fixture
def vms(portal) -> Iterator[Hosting]:
    if not vtpm.available():
        pytest.skip(vtpm.MISSING)
    yield from hosted("azure", Hosting(AzureWorld(), portal, azure_vm))


@pytest.fixture
def pods(portal) -> Iterator[Hosting]:
    yield from hosted("kubernetes", Hosting(KubernetesWorld(), portal, pod))


def hosted(name: str, hosting: Hosting) -> Iterator[Hosting]:
    machines.register(name, hosting.backend)
    yield hosting
    machines._backends.pop(name)
    hosting.close()


def put_policy(world: World, document: dict[str, Any]) -> None:
    policy = Policy.parse(document)
    ReleasePolicy.objects.create(
        dataset=world.dataset, number=1, document=policy.to_json(), sha256=policy.sha256, made_by=world.user
    )


def work(run: Run, hosting: Hosting, seconds: float = 60.0) -> Run:
    deadline = time.monotonic() + seconds
    while True:
        hosting.tick()
        outbox.drain(now() + timedelta(seconds=5))
        sweep.sweep_runs()
        run.refresh_from_db()
        if run.state in RUN.final and run.machine_gone and not hosting.world.left():
            hosting.tick()
            return run
        guests = {name: guest.log.read_text() for name, guest in hosting.guests.items()} | hosting.logs
        assert time.monotonic() < deadline, (run.state, run.code, run.phase, hosting.world.left(), guests)
        time.sleep(0.05)


def research(world: World, backend: str) -> Run:
    return engine.create_run(
        by=world.user, kind="research", project=world.project, program=world.program,
        inputs=[(world.version, None)], backend=backend,
    )  # fmt: skip


def finished_well(run: Run, hosting: Hosting, kind: str) -> None:
    assert (run.state, run.code, run.attempt) == ("succeeded", "succeeded", 1), (
        whole.failing(run),
        hosting.logs,
    )
    assert {(row.type, row.tier) for row in Evidence.objects.filter(run=run.pk)} == {(kind, "affirming")}
    assert Evidence.objects.filter(run=run.pk).count() == 2
    assert hosting.booted == [run.machine] and not hosting.world.left() and not hosting.guests
    assert run.machine in hosting.logs


def test_a_run_on_google(google):
    world = make_world(personal_data=True)
    put_policy(world, {
        "v": 1, "types": ["gcp-confidential-space"], "images": [amd.IMAGE], "max_age_seconds": 600,
        "audiences": [conf.PORTAL_ID], "env_override": whole.VARIABLES,
    })  # fmt: skip
    run = work(research(world, "gcp"), google)
    finished_well(run, google, "gcp-confidential-space")


def test_a_run_in_confidential_containers(containers):
    world = make_world(personal_data=True)
    sent = containers.backend.config.policy  # type: ignore[attr-defined]
    digest = hashlib.sha256(sent.encode() if isinstance(sent, str) else sent).hexdigest()
    put_policy(
        world, amd.policy("azure-aci", code=[{"type": "azure-aci", "image": amd.IMAGE, "cce_policy": digest}])
    )
    run = work(research(world, "azure-aci"), containers)
    finished_well(run, containers, "azure-aci")


def test_no_key_where_another_container_policy_was_sent(containers):
    """The operator's workers ask for something else than the custodian accepted: the hardware says so."""
    world = make_world(personal_data=True)
    put_policy(world, amd.policy("azure-aci"))
    run = work(research(world, "azure-aci"), containers)
    assert (run.state, run.code) == ("failed", "evidence_refused")
    assert {"image"} & whole.failing(run) or {"code"} & whole.failing(run), whole.failing(run)
    assert not containers.world.left()


def vm_policy(world: World, **pcrs: str) -> None:
    code = [{"type": "azure-cvm", "image": amd.IMAGE, "pcrs": {**GOLDEN, **pcrs}}]
    put_policy(
        world, {"v": 1, "types": ["azure-cvm"], "images": [amd.IMAGE], "max_age_seconds": 600, "code": code}
    )


def test_a_run_on_an_azure_vm(vms):
    world = make_world(personal_data=True)
    vm_policy(world)
    run = work(research(world, "azure"), vms)
    finished_well(run, vms, "azure-cvm")
    for row in Evidence.objects.filter(run=run.pk):
        shown = row.appraisal["appraisal"]["claims"]["code"]["pcrs"]["15"]
        assert shown == hashlib.sha256(bytes(32) + bytes.fromhex(run.manifest_sha256)).hexdigest()


def test_no_key_for_another_disk_image(vms):
    world = make_world(personal_data=True)
    vm_policy(world, **{"11": "00" * 32})
    run = work(research(world, "azure"), vms)
    assert (run.state, run.code) == ("failed", "evidence_refused")
    assert {"code", "image"} & whole.failing(run)


@pytest.mark.parametrize("cloud", ["google", "containers", "vms"])
def test_a_rehearsal_under_the_portals_own_policy(portal, cloud, request, settings):
    """No key is asked for, so there is no E1; E2 must be of this portal's runner all the same."""
    hosting = request.getfixturevalue(cloud)
    if cloud == "containers":
        sent = hosting.backend.config.policy
        digest = hashlib.sha256(sent.encode() if isinstance(sent, str) else sent).hexdigest()
        settings.RUNNER_CODE = [{"type": "azure-aci", "image": amd.IMAGE, "cce_policy": digest}]
    elif cloud == "vms":
        settings.RUNNER_CODE = [{"type": "azure-cvm", "image": amd.IMAGE, "pcrs": GOLDEN}]
    world = make_world()
    run = engine.create_run(
        by=world.user, kind="rehearsal", project=world.project, program=world.program,
        inputs=[(world.version, world.release)], backend=hosting.backend_name,
    )  # fmt: skip
    run = work(run, hosting)
    assert (run.state, run.code) == ("succeeded", "succeeded"), (whole.failing(run), hosting.logs)
    (row,) = Evidence.objects.filter(run=run.pk)
    assert (row.purpose, row.tier) == ("result", "affirming")


def test_the_default_policy_accepts_this_portals_runner(google):
    """A custodian who has set none still has real data opened by hardware evidence of the portal's image only."""
    run = work(research(make_world(personal_data=True), "gcp"), google)
    finished_well(run, google, "gcp-confidential-space")


def test_a_run_in_a_pod_has_software_evidence_and_says_so(pods):
    world = make_world()
    run = work(research(world, "kubernetes"), pods)
    assert (run.state, run.code, run.attempt) == ("succeeded", "succeeded", 1), (
        whole.failing(run),
        pods.logs,
    )
    assert {(row.type, row.tier) for row in Evidence.objects.filter(run=run.pk)} == {("software", "none")}
    assert pods.booted == [run.machine] and not pods.world.left() and not pods.guests


def test_the_database_keeps_personal_data_from_pods(pods):
    """The gate and the key broker say no as well; this is the last lock on the door."""
    world = make_world(personal_data=True)
    with (
        pytest.raises(IntegrityError, match="no_personal_data_under_software_evidence"),
        transaction.atomic(),
    ):
        research(world, "kubernetes")
