"""What a Job is asked to be: restricted, alone, let out to the portal only."""

from __future__ import annotations

import base64

import pytest

from apps.core.keys import key_file
from apps.jobs.engine.machines import BackendError, Sight, Unsettled
from tests.fakes.worlds import IMAGE, KubernetesWorld


@pytest.fixture
def world():
    with KubernetesWorld() as made:
        yield made
        assert made.fake.mistakes == []


def test_the_job(world, run):
    world.backend.launch(run, "token-1")
    job = world.fake.objects["jobs", run.machine]["spec"]
    assert (job["backoffLimit"], job["activeDeadlineSeconds"], job["ttlSecondsAfterFinished"]) == (
        0,
        10800,
        3600,
    )
    pod = job["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    assert pod["restartPolicy"] == "Never" and "runtimeClassName" not in pod
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "1Gi"}
    assert all(v.get("emptyDir", {}).get("medium") == "Memory" for v in pod["volumes"] if "emptyDir" in v)
    assert not any("token-1" in str(e) for e in container["env"])


def test_the_token_and_the_policy_belong_to_the_job(world, run):
    world.backend.launch(run, "token-1")
    uid = world.fake.objects["jobs", run.machine]["metadata"]["uid"]
    for kind in ("secrets", "networkpolicies"):
        assert world.fake.objects[kind, run.machine]["metadata"]["ownerReferences"][0]["uid"] == uid
    secret = world.fake.objects["secrets", run.machine]
    assert secret["immutable"] is True
    # Software evidence needs the installation's key; the pod reads it from the same folder as its token.
    assert base64.b64decode(secret["data"]["attester-key"]) == key_file("software-attester").read_bytes()


def test_the_way_out(run):
    with KubernetesWorld(portal_ip="192.0.2.7") as world:
        world.backend.launch(run, "t")
        policy = world.fake.objects["networkpolicies", run.machine]["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in policy
        assert policy["egress"] == [
            {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"protocol": "TCP", "port": 443}]}
        ]
        pod = world.fake.objects["jobs", run.machine]["spec"]["template"]
        assert pod["spec"]["hostAliases"] == [{"ip": "192.0.2.7", "hostnames": ["portal.example"]}]
        labels = pod["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    with KubernetesWorld() as world:
        world.backend.launch(run, "t")
        rules = world.fake.objects["networkpolicies", run.machine]["spec"]["egress"]
        assert [p["port"] for p in rules[1]["ports"]] == [53, 53] and len(rules) == 2


def test_confidential_containers(run):
    with KubernetesWorld(runtime_class="kata-qemu-snp", pull_secret="registry") as world:
        world.backend.launch(run, "t")
        pod = world.fake.objects["jobs", run.machine]["spec"]["template"]["spec"]
        assert pod["runtimeClassName"] == "kata-qemu-snp" and pod["imagePullSecrets"] == [
            {"name": "registry"}
        ]


@pytest.mark.parametrize("lost", ["secrets", "networkpolicies", "PATCH"])
def test_no_pod_before_its_token_and_its_policy(world, run, lost):
    methods = ("PATCH",) if lost == "PATCH" else ("POST",)
    world.fake.fault("drop_before", methods=methods, part="/" + ("jobs" if lost == "PATCH" else lost))
    with pytest.raises(Unsettled):
        world.backend.launch(run, "token-1")
    assert not [kind for kind, _ in world.fake.objects if kind == "pods"]
    assert world.backend.observe(run) is Sight.ABSENT
    world.new_backend().launch(run, "token-1")
    world.fake.pass_time(60)
    assert world.backend.observe(run) is Sight.RUNNING and world.fake.boots == {run.machine: 1}
    assert ("networkpolicies", run.machine) in world.left()


def test_evicted_and_ended(world, run):
    world.started(run)
    world.fake.stop(run.machine)
    assert world.backend.observe(run) is Sight.GONE
    world.fake.evict(run.machine)
    assert world.backend.observe(run) is Sight.EVICTED


def test_the_deadline_ends_a_forgotten_job(world, run):
    world.started(run)
    world.fake.pass_time(10900)
    assert world.backend.observe(run) is Sight.GONE


@pytest.mark.parametrize(
    ("reason", "becomes"), [("ImagePullBackOff", "launch_failed"), ("InvalidImageName", "cloud_rejected")]
)
def test_an_image_that_cannot_be_had(world, run, reason, becomes):
    world.fake.pull_error = reason
    world.backend.launch(run, "t")
    world.fake.pass_time(30)
    with pytest.raises(BackendError) as refused:
        world.backend.observe(run)
    assert refused.value.code == becomes and not isinstance(refused.value, Unsettled)


def test_without_a_runtime_class_the_evidence_is_software():
    from django.conf import settings

    assert settings.KUBERNETES["runtime_class"] == "" and "kubernetes" in settings.SOFTWARE_BACKENDS
    assert "azure" not in settings.SOFTWARE_BACKENDS and "gcp" not in settings.SOFTWARE_BACKENDS
