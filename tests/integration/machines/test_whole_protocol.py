"""The whole protocol over HTTP on machines with (made-up) hardware evidence, and the real runner in them:

launch, claim, E1, keys, run, E2, upload, destroy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as conf

from apps.attestation.models import Evidence, KeyRelease, ReleasePolicy
from apps.core import outbox as core
from apps.core.clock import now
from apps.core.keys import key_file
from apps.jobs import engine
from apps.jobs.engine import machines
from apps.jobs.models import Run
from apps.jobs.states import RUN
from strongroom.evidence import Policy
from tests.fakes.guest import (
    Guests,
    as_metadata,
    as_variables,
    container_guest,
    google_guest,
    pod_guest,
    swaps,
)
from tests.fakes.launcher import Authority, trust_folder
from tests.unit.jobs.engine.world import World, make_world
from tests.unit.strongroom.evidence import authority_amd as amd
from workers import outbox, sweep
from workers.runner import place

IMAGE = amd.IMAGE
OTHER_IMAGE = "sha256:" + "2b" * 32
VARIABLES = ["STRONGROOM_PORTAL", "STRONGROOM_RUN"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(conf.PROGRAMS_PYTHON).exists(), reason="no Python for programs here: run `make`"
    ),
    pytest.mark.skipif(swaps(), reason="this host swaps to a disk, so the runner refuses: swapoff -a"),
]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def portal(transactional_db, live_server, settings, monkeypatch, authority, tmp_path) -> str:
    """A portal that trusts the made-up authority, with an open gate."""
    monkeypatch.setattr(core, "kick", lambda: None)
    monkeypatch.setattr("apps.jobs.gate.unmet_for_run", lambda run, moment: [])
    settings.PORTAL_URL = live_server.url
    settings.RUNNER_IMAGES = {"gcp": IMAGE, "azure-aci": IMAGE, "azure": IMAGE}
    settings.ALLOW_TEST_ANCHORS = True
    settings.TRUST_DIRECTORY = str(trust_folder(tmp_path / "trust", authority.root, *amd.anchors()))
    return str(live_server.url)


class Google:
    """Confidential Space machines of a test. `changes`: claims of their tokens that are otherwise."""

    def __init__(self, portal: str, authority: Authority) -> None:
        self.portal, self.authority = portal, authority
        self.changes: dict[str, Any] = {}
        self.items: dict[str, str] = {}
        self.image = IMAGE
        self.guests = Guests(self._guest)

    def _guest(self, run: Run, token: str) -> Any:
        items = as_metadata(run, token, portal=self.portal, image=self.image) | self.items
        number = str(1000 + len(self.guests.launched))
        return google_guest(items, self.authority, instance=number, **self.changes)


@pytest.fixture
def google(portal, authority) -> Iterator[Google]:
    made = Google(portal, authority)
    machines.register("gcp", made.guests)
    yield made
    machines._backends.pop("gcp")
    made.guests.close()


def put_policy(world: World, **changes: Any) -> None:
    document = {
        "v": 1, "types": ["gcp-confidential-space"], "images": [IMAGE], "max_age_seconds": 600,
        "audiences": [conf.PORTAL_ID], "env_override": VARIABLES, **changes,
    }  # fmt: skip
    policy = Policy.parse(document)
    ReleasePolicy.objects.create(
        dataset=world.dataset, number=1, document=policy.to_json(), sha256=policy.sha256, made_by=world.user
    )


def research(world: World, backend: str = "gcp") -> Run:
    return engine.create_run(
        by=world.user, kind="research", project=world.project, program=world.program,
        inputs=[(world.version, None)], backend=backend,
    )  # fmt: skip


def work(run: Run, guests: Guests, seconds: float = 60.0) -> Run:
    """Drain and sweep, as worker and beat do, until the run has ended and all of it is settled."""
    deadline = time.monotonic() + seconds
    while True:
        outbox.drain(now() + timedelta(seconds=5))
        sweep.sweep_runs()
        run.refresh_from_db()
        if (
            run.state in RUN.final
            and run.machine_gone
            and (run.outputs_opened or run.state != "succeeded" or not run.statement_sha256)
        ):
            return run
        assert time.monotonic() < deadline, (run.state, run.code, run.phase, guests.logs)
        time.sleep(0.05)


def failing(run: Run) -> set[str]:
    checks: set[str] = set()
    for row in Evidence.objects.filter(run=run.pk, accepted=False):
        checks |= {c["id"] for c in row.appraisal["appraisal"]["checks"] if c["outcome"] == "fail"}
    return checks


def test_a_run_on_real_personal_data(google):
    """What the software attester may never see: from launch to destroyed, with hardware evidence twice."""
    world = make_world(personal_data=True)
    put_policy(world)
    run = work(research(world), google.guests)
    assert (run.state, run.code) == ("succeeded", "succeeded"), (failing(run), google.guests.logs)
    assert run.attempt == 1 and google.guests.machines == {}
    first, second = Evidence.objects.filter(run=run.pk).order_by("created_at")
    assert (first.purpose, second.purpose) == ("key-release", "result")
    for row in (first, second):
        assert (row.type, row.tier, row.accepted) == ("gcp-confidential-space", "affirming", True)
        claims = row.appraisal["appraisal"]["claims"]
        assert (claims["image"], claims["instance"], claims["debug"]) == (IMAGE, "1000", False)
    assert KeyRelease.objects.get(run=run.pk).released
    assert run.manifest["image"] == IMAGE
    predicate = json.loads(_payload(run.statement))["predicate"]
    assert (predicate["image"], predicate["evidence"]) == (IMAGE, "gcp-confidential-space")
    assert "Google" in predicate["protection"] and "does not show" in predicate["protection"]
    assert run.output_release.state == "in_review"


def _payload(statement: dict[str, Any]) -> bytes:
    import base64

    return base64.b64decode(statement["payload"])


REFUSED = {
    "debug image": ({"dbgstat": "enabled"}, "debug"),
    "debug image of another spelling": ({"dbgstat": "enable"}, "debug"),
    "no memory encryption": ({"hwmodel": "GCP_SHIELDED_VM"}, "tee"),
    "no secure boot": ({"secboot": False}, "secure-boot"),
}


@pytest.mark.parametrize(("changes", "check"), REFUSED.values(), ids=REFUSED)
def test_no_key_for_evidence_that_falls_short(google, changes, check):
    world = make_world(personal_data=True)
    put_policy(world)
    google.changes = changes
    run = work(research(world), google.guests)
    assert (run.state, run.code) == ("failed", "evidence_refused"), google.guests.logs
    assert check in failing(run)
    assert not KeyRelease.objects.filter(run=run.pk, released=True).exists()
    assert google.guests.machines == {}


def test_no_key_for_another_image(google):
    """The operator starts something else: Google says so in the token."""
    world = make_world(personal_data=True)
    put_policy(world)
    google.image = OTHER_IMAGE
    run = work(research(world), google.guests)
    assert (run.state, run.code) == ("failed", "evidence_refused")
    assert "image" in failing(run)


def test_no_key_where_the_operator_changed_the_environment(google):
    world = make_world(personal_data=True)
    put_policy(world)
    google.items = {"tee-env-LD_PRELOAD": "/tmp/evil.so"}
    run = work(research(world), google.guests)
    assert (run.state, run.code) == ("failed", "evidence_refused")
    assert "overrides" in failing(run)


def test_no_key_where_the_policy_names_another_place(google):
    world = make_world(personal_data=True)
    put_policy(world, zones=["europe-west9-a"])
    run = work(research(world), google.guests)
    assert (run.state, run.code) == ("failed", "evidence_refused")
    assert "place" in failing(run)


def test_a_made_up_authority_is_refused_as_in_production(google, settings):
    """Without the test store only the shipped anchors count, and none of them signed this."""
    settings.TRUST_DIRECTORY = ""
    settings.ALLOW_TEST_ANCHORS = False
    world = make_world(personal_data=True)
    put_policy(world)
    run = work(research(world), google.guests)
    assert (run.state, run.code) == ("failed", "evidence_refused")
    assert "trust-anchor" in failing(run)


def test_a_machine_told_another_run_gives_up(google):
    world = make_world(personal_data=True)
    put_policy(world)
    google.items = {"tee-env-STRONGROOM_RUN": "00000000-0000-4000-8000-000000000000"}
    run = work(research(world), google.guests)
    assert (run.state, run.code) == ("failed", "manifest_differs")
    assert not Evidence.objects.filter(run=run.pk).exists()


def test_no_opened_data_on_a_disk(google, monkeypatch, tmp_path):
    """A machine whose work folder is on a disk claims its run to say so, and asks for no key."""
    monkeypatch.setattr("tests.fakes.guest.MEMORY", tmp_path)
    if place._file_system(tmp_path, Path("/proc/mounts").read_text()) in place.IN_MEMORY:
        pytest.skip("this host's temporary folder is in memory")
    world = make_world(personal_data=True)
    put_policy(world)
    run = work(research(world), google.guests)
    assert (run.state, run.code) == ("failed", "no_memory_storage")
    assert not Evidence.objects.filter(run=run.pk).exists()


def test_power_lost_before_the_program_runs_again_on_another_machine(google):
    world = make_world(personal_data=True)
    put_policy(world)
    run = research(world)
    engine.advance(run.pk)
    run.refresh_from_db()
    google.guests.machines[run.machine].kill()
    run = work(run, google.guests)
    assert (run.state, run.attempt) == ("succeeded", 2), google.guests.logs
    assert len(google.guests.launched) == 2 and google.guests.machines == {}


# Confidential containers of Azure


def report(report_data: bytes, **changes: Any) -> bytes:
    return replace(amd.ACI_REPORT, report_data=report_data, **changes).sign()


class Containers:
    """Confidential container groups of a test. `changes`: fields of their reports that are otherwise."""

    def __init__(self, portal: str) -> None:
        self.portal = portal
        self.changes: dict[str, Any] = {}
        self.guests = Guests(self._guest)

    def _guest(self, run: Run, token: str) -> Any:
        variables = as_variables(run, portal=self.portal)
        return container_guest(variables, token, lambda data: report(data, **self.changes))


@pytest.fixture
def containers(portal) -> Iterator[Containers]:
    made = Containers(portal)
    machines.register("azure-aci", made.guests)
    yield made
    machines._backends.pop("azure-aci")
    made.guests.close()


def containers_policy(world: World) -> None:
    document = amd.policy("azure-aci")
    policy = Policy.parse(document)
    ReleasePolicy.objects.create(
        dataset=world.dataset, number=1, document=policy.to_json(), sha256=policy.sha256, made_by=world.user
    )


def test_a_run_in_confidential_containers(containers):
    world = make_world(personal_data=True)
    containers_policy(world)
    run = work(research(world, "azure-aci"), containers.guests)
    assert (run.state, run.code) == ("succeeded", "succeeded"), (failing(run), containers.guests.logs)
    for row in Evidence.objects.filter(run=run.pk):
        assert (row.type, row.tier, row.accepted) == ("azure-aci", "affirming", True)
        assert row.appraisal["appraisal"]["claims"]["image"] == IMAGE
    predicate = json.loads(_payload(run.statement))["predicate"]
    assert predicate["evidence"] == "azure-aci" and "AMD" in predicate["protection"]
    assert containers.guests.machines == {}


CONTAINERS_REFUSED = {
    "debug": ({"policy": amd.POLICY | 1 << 19}, "debug"),
    "another container policy": ({"host_data": b"\x11" * 32}, "cce-policy"),
}


@pytest.mark.parametrize(("changes", "check"), CONTAINERS_REFUSED.values(), ids=CONTAINERS_REFUSED)
def test_no_key_for_containers_that_fall_short(containers, changes, check):
    world = make_world(personal_data=True)
    containers_policy(world)
    containers.changes = changes
    run = work(research(world, "azure-aci"), containers.guests)
    assert (run.state, run.code) == ("failed", "evidence_refused")
    assert check in failing(run)
    assert not KeyRelease.objects.filter(run=run.pk, released=True).exists()


# A cluster without a TEE


@pytest.fixture
def pods(portal) -> Iterator[Guests]:
    def guest(run: Run, token: str) -> Any:
        files = {"token": token.encode(), "attester-key": key_file("software-attester").read_bytes()}
        named = {"STRONGROOM_TOKEN_FILE": "/at/token", "STRONGROOM_ATTESTER_KEY_FILE": "/at/attester-key"}
        return pod_guest({**as_variables(run, portal=portal), **named}, "/at", files)

    made = Guests(guest)
    machines.register("kubernetes", made)
    yield made
    machines._backends.pop("kubernetes")
    made.close()


def test_a_run_on_a_cluster_without_a_tee_says_so(pods):
    world = make_world()
    run = work(research(world, "kubernetes"), pods)
    assert (run.state, run.code) == ("succeeded", "succeeded"), (failing(run), pods.logs)
    assert {row.tier for row in Evidence.objects.filter(run=run.pk)} == {"none"}
    assert "no hardware protection" in json.loads(_payload(run.statement))["predicate"]["protection"]


def test_software_evidence_is_refused_for_hardware_policies(pods):
    world = make_world()
    put_policy(world)
    run = work(research(world, "kubernetes"), pods)
    assert (run.state, run.code) == ("failed", "evidence_refused")
    assert "type" in failing(run)
