"""What a Confidential Space machine is asked to be, and what only Google's answers say."""

from __future__ import annotations

import json

import pytest
from google.api_core import exceptions as api

from apps.jobs.engine.machines import BackendError, Sight, Unsettled
from tests.fakes.worlds import IMAGE, GcpWorld
from workers.backends import gcp


@pytest.fixture
def world():
    with GcpWorld() as made:
        yield made
        assert made.fake.mistakes == []


def body(world, run) -> dict:
    return world.fake.instances[run.machine].body


def test_the_request(world, run):
    world.backend.launch(run, "token-1")
    sent = body(world, run)
    assert sent["confidentialInstanceConfig"] == {
        "enableConfidentialCompute": True, "confidentialInstanceType": "SEV",
    }  # fmt: skip
    assert sent["shieldedInstanceConfig"] == {
        "enableSecureBoot": True, "enableVtpm": True, "enableIntegrityMonitoring": True,
    }  # fmt: skip
    (nic,) = sent["networkInterfaces"]
    assert "accessConfigs" not in nic and "ipv6AccessConfigs" not in nic
    assert sent["scheduling"] == {
        "onHostMaintenance": "TERMINATE", "automaticRestart": False, "provisioningModel": "STANDARD",
        "maxRunDuration": {"seconds": "10800"}, "instanceTerminationAction": "DELETE",
    }  # fmt: skip
    assert sent["serviceAccounts"] == [
        {"email": "runner@trial.iam.gserviceaccount.com", "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}
    ]  # fmt: skip
    (disk,) = sent["disks"]
    assert disk["autoDelete"] and disk["boot"] and disk["initializeParams"]["labels"] == sent["labels"]
    assert sent["labels"]["strongroom-run"] == run.pk.hex
    assert int(sent["labels"]["strongroom-expires"]) - int(sent["labels"]["strongroom-started"]) == 10800


def test_the_token_is_in_no_variable_that_a_token_prints(world, run):
    world.backend.launch(run, "a-secret-token")
    items = {i["key"]: i["value"] for i in body(world, run)["metadata"]["items"]}
    assert items == {
        "tee-image-reference": IMAGE, "tee-restart-policy": "Never", "tee-container-log-redirect": "false",
        "tee-dev-shm-size-kb": str(8 * 1024 * 1024),  # half of the 16 GiB of the size
        "tee-env-STRONGROOM_PORTAL": "https://portal.example", "tee-env-STRONGROOM_RUN": str(run.pk),
        "block-project-ssh-keys": "true", "strongroom-token": "a-secret-token",
    }  # fmt: skip
    assert json.dumps(body(world, run)).count("a-secret-token") == 1


def test_a_larger_size_of_another_kind(run):
    from dataclasses import replace

    from apps.jobs.sizes import Size

    with GcpWorld(spot=True, min_cpu_platform="AMD Milan") as world:
        gpu = Size("gpu", "a3-highgpu-1g", 26, 234, 1, options={"confidential_type": "TDX"})
        world.backend.common = replace(world.backend.common, sizes={"gpu": gpu})
        run.size = "gpu"
        world.backend.launch(run, "t")
        sent = body(world, run)
        assert sent["machineType"].endswith("/a3-highgpu-1g") and sent["minCpuPlatform"] == "AMD Milan"
        assert sent["confidentialInstanceConfig"]["confidentialInstanceType"] == "TDX"
        assert sent["scheduling"]["provisioningModel"] == "SPOT"
        assert {"key": "tee-install-gpu-driver", "value": "true"} in sent["metadata"]["items"]
        assert world.fake.mistakes == []


def test_preempted_while_running(run):
    with GcpWorld(spot=True) as world:
        world.started(run)
        assert world.backend.observe(run) is Sight.RUNNING
        world.fake.preempt(run.machine)
        assert world.left() == set()
        assert world.backend.observe(run) is Sight.EVICTED


def test_the_cloud_ends_a_machine_that_everybody_forgot(world, run):
    world.started(run)
    world.fake.pass_time(10800)
    assert world.left() == set() and world.backend.observe(run) is Sight.GONE


@pytest.mark.parametrize(
    ("code", "becomes"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED", "capacity_missing"),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "capacity_missing"),
        ("QUOTA_EXCEEDED", "quota_exceeded"),
        ("INTERNAL_ERROR", "launch_failed"),
        ("RESOURCE_NOT_FOUND", "cloud_rejected"),
    ],
)
def test_an_operation_that_fails(world, run, code, becomes):
    world.fake.fault("operation", code=code, methods=("POST",))
    world.backend.launch(run, "t")
    assert world.backend.observe(run) is Sight.STARTING
    world.fake.pass_time(60)
    with pytest.raises(BackendError) as refused:
        world.backend.observe(run)
    assert refused.value.code == becomes and not isinstance(refused.value, Unsettled)
    assert world.left() == set()


def test_answers_that_have_no_list_of_reasons():
    assert gcp._from_answer(api.ServiceUnavailable("later")).code == "cloud_unreachable"
    assert gcp._from_answer(api.Forbidden("no")).code == "cloud_denied"
    assert gcp._from_answer(api.TooManyRequests("slow")).code == "cloud_throttled"
    assert gcp._from_answer(api.GatewayTimeout("late")).code == "cloud_unreachable"


def test_a_slow_answer_is_not_waited_for(world, run, monkeypatch):
    import threading
    import time

    monkeypatch.setitem(world.backend._call, "timeout", 0.2)
    release, act = threading.Event(), world.fake.act
    monkeypatch.setattr(world.fake, "act", lambda r: (release.wait(5), act(r))[1])
    before = time.monotonic()
    with pytest.raises(Unsettled) as late:
        world.backend.launch(run, "t")
    assert time.monotonic() - before < 3 and late.value.code == "cloud_unreachable"
    release.set()
