"""What a confidential container group is asked to be, and the policy that its hardware measures."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from apps.jobs.engine.machines import Sight
from tests.fakes.arm import CONTAINERS
from tests.fakes.worlds import IMAGE, SUBNET, AciWorld
from workers.backends import cce
from workers.backends.azure_aci import policy_from

RUNNER = cce.Container(IMAGE, "runner", ("ab" * 32, "cd" * 32), ("/runner",), (("PATH=.+", True),))


@pytest.fixture
def world():
    with AciWorld() as made:
        yield made
        assert made.fake.mistakes == []


def test_the_request(world, run):
    world.backend.launch(run, "token-1")
    group = world.fake.resources[CONTAINERS, run.machine].body
    sent = group["properties"]
    assert (sent["sku"], sent["restartPolicy"], sent["osType"]) == ("Confidential", "Never", "Linux")
    assert "ipAddress" not in sent and sent["subnetIds"] == [{"id": SUBNET}]
    policy = base64.b64decode(sent["confidentialComputeProperties"]["ccePolicy"]).decode()
    assert policy == world.backend.config.policy and IMAGE in policy
    (container,) = sent["containers"]
    inside = container["properties"]
    assert inside["image"] == IMAGE and inside["resources"]["requests"] == {"cpu": 4.0, "memoryInGB": 16.0}
    names = {e["name"] for e in inside["environmentVariables"]}
    assert names == {"STRONGROOM_PORTAL", "STRONGROOM_RUN", "STRONGROOM_TOKEN_FILE"}
    assert "token-1" not in json.dumps(inside)
    assert inside["volumeMounts"] == [{"name": "token", "mountPath": "/run/strongroom", "readOnly": True}]
    assert group["tags"]["strongroom-run"] == run.pk.hex


def test_the_group_and_the_rendered_policy_say_the_same_of_the_runner(world, run):
    """What the platform enforces is the policy: where the two differ, the container does not start."""
    world.backend.launch(run, "token-1")
    sent = world.fake.resources[CONTAINERS, run.machine].body["properties"]["containers"][0]["properties"]
    text = json.dumps(
        {
            "runner": {"layers": ["ab" * 32], "command": ["/r"]},
            "pause": {"id": "pause", "layers": ["cd" * 32], "command": ["/pause"]},
        }
    )
    policy = cce.render(cce.containers_from(text, IMAGE, "https://portal.example", "/run/strongroom"))
    assert cce.checked(policy, IMAGE) == policy
    runner, pause = json.loads(next(r for r in policy.splitlines() if r.startswith("containers := "))[14:])
    context = sent["securityContext"]
    kept = set(cce.USUAL_CAPABILITIES) - set(context["capabilities"]["drop"])
    assert set(runner["capabilities"]["effective"]) == kept == set(cce.CAPABILITIES)
    assert (context["privileged"], context["allowPrivilegeEscalation"]) == (False, False)
    assert runner["no_new_privileges"] and not runner["allow_stdio_access"] and not runner["allow_elevated"]
    assert set(pause["capabilities"]["bounding"]) == set(cce.USUAL_CAPABILITIES)
    mounted = {mount["destination"] for mount in runner["mounts"]}
    assert mounted == {mount["mountPath"] for mount in sent["volumeMounts"]} | {"/etc/resolv.conf"}
    names = {rule["pattern"].partition("=")[0] for rule in runner["env_rules"]}
    assert names >= {variable["name"] for variable in sent["environmentVariables"]}


def test_the_rendered_policy_knows_the_image():
    """What the recipe of the image sets, the policy lets through; anything else of its base is dropped."""
    recipe = (Path(__file__).parents[4] / "infra/runner/Containerfile").read_text()
    stage = recipe[recipe.index(" AS runner\n") : recipe.index(" AS gcp\n")]
    (line,) = [line for line in stage.splitlines() if line.startswith("ENV ")]
    assert set(line.split()[1:]) == {e for e in cce.IMAGE_ENVIRONMENT if not e.startswith("PATH=")}
    assert f"\nWORKDIR {cce.IMAGE_FOLDER}\n" in stage


def test_the_instructions_drop_what_the_portal_drops():
    text = (Path(__file__).parents[4] / "docs/how-to/azure.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith('"securityContext": ')]
    assert json.loads("{" + line + "}")["securityContext"]["capabilities"]["drop"] == list(cce.DROPPED)


def test_the_policy_is_the_same_for_every_run(world):
    from tests.unit.workers.backends.conftest import a_run

    sent = set()
    for one in (a_run(), a_run()):
        world.backend.launch(one, "t")
        body = world.fake.resources[CONTAINERS, one.machine].body
        sent.add(body["properties"]["confidentialComputeProperties"]["ccePolicy"])
    assert len(sent) == 1


def test_a_group_that_has_ended(world, run):
    world.started(run)
    world.fake.stop(run.machine)
    assert world.backend.observe(run) is Sight.GONE


def test_a_private_registry_by_identity(run):
    identity = (
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/pull"
    )
    with AciWorld(registry_identity=identity, registry_server="registry.example") as world:
        world.backend.launch(run, "t")
        group = world.fake.resources[CONTAINERS, run.machine].body
        assert list(group["identity"]["userAssignedIdentities"]) == [identity]
        assert group["properties"]["imageRegistryCredentials"] == [
            {"server": "registry.example", "identity": identity}
        ]
        assert world.fake.mistakes == []


# ---- the policy ----


def test_rendered_twice_it_is_the_same_bytes():
    assert cce.render([RUNNER]) == cce.render([RUNNER])
    assert len(cce.host_data(cce.render([RUNNER]))) == 64
    other = cce.Container(IMAGE, "runner", ("ab" * 32, "ce" * 32), ("/runner",), (("PATH=.+", True),))
    assert cce.host_data(cce.render([other])) != cce.host_data(cce.render([RUNNER]))


def test_what_is_rendered_passes_the_check():
    policy = cce.render([RUNNER])
    assert cce.checked(policy, IMAGE) == policy
    assert cce.read(policy) == policy and cce.read(cce.encoded(policy)) == policy


@pytest.mark.parametrize("layers", [(), ("ab",), ("AB" * 32,), ("ab" * 32, "")])
def test_no_policy_without_layer_hashes(layers):
    with pytest.raises(ImproperlyConfigured, match="layer hashes"):
        cce.Container(IMAGE, "runner", layers, ("/runner",), ())


def changed(**members: object) -> str:
    policy = cce.render([RUNNER])
    line = next(x for x in policy.splitlines() if x.startswith("containers := "))
    listed = json.loads(line.removeprefix("containers := "))
    listed[0] |= members
    return policy.replace(line, "containers := " + json.dumps(listed))


WRONG = [
    (cce.render([RUNNER]).replace("allow_dump_stacks := false", "allow_dump_stacks := true"), "allow_dump_stacks"),
    (cce.render([RUNNER]).replace("allow_runtime_logging := false\n", ""), "allow_runtime_logging"),
    (changed(layers=[]), "no layer hashes"),
    (changed(allow_elevated=True), "privileged"),
    (changed(exec_processes=[{"command": ["sh"]}]), "from outside"),
    (changed(allow_stdio_access=True), "output"),
    (changed(id="registry.example/other@sha256:" + "00" * 32), "does not name"),
    ("package policy\ncontainers := []\n" + "".join(f"{n} := false\n" for n in cce._MUST_BE_FALSE), "no container"),
    ("package policy\n" + "".join(f"{n} := false\n" for n in cce._MUST_BE_FALSE), "no list"),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "says"), WRONG)
def test_a_policy_that_allows_more(policy, says):
    with pytest.raises(ImproperlyConfigured, match=says):
        cce.checked(policy, IMAGE)


def test_the_policy_that_allows_everything_by_its_hash(monkeypatch):
    policy = cce.render([RUNNER])
    monkeypatch.setattr(cce, "ALLOW_ALL", cce.host_data(policy))
    with pytest.raises(ImproperlyConfigured, match="allows everything"):
        cce.checked(policy, IMAGE)


def test_from_a_file_of_the_operator(tmp_path):
    whole = tmp_path / "policy"
    whole.write_text(cce.encoded(cce.render([RUNNER])))
    assert policy_from(str(whole), "", IMAGE, "https://p.example") == cce.render([RUNNER])
    for text in ("not a policy", "{}", '{"runner": {"layers": []}, "pause": {}}'):
        whole.write_text(text)
        with pytest.raises(ImproperlyConfigured):
            policy_from(str(whole), "", IMAGE, "https://p.example")
        with pytest.raises(ImproperlyConfigured):
            policy_from("", str(whole), IMAGE, "https://p.example")
    with pytest.raises(ImproperlyConfigured, match="confcom"):
        policy_from("", "", IMAGE, "https://p.example")
