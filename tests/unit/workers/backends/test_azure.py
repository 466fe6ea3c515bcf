"""What a confidential VM is asked to be, and what only Azure's answers say."""

from __future__ import annotations

import base64
import json

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError

from apps.jobs.engine.machines import BackendError, Sight, Unsettled
from tests.fakes.arm import DISK, NIC, VM
from tests.fakes.worlds import SUBNET, AzureWorld
from tests.unit.workers.backends.conftest import a_run
from workers.backends import arm


@pytest.fixture
def world():
    with AzureWorld() as made:
        yield made
        assert made.fake.mistakes == []


def properties(world, run) -> dict:
    return world.fake.resources[VM, run.machine].body["properties"]


def test_the_request(world, run):
    world.backend.launch(run, "token-1")
    sent = properties(world, run)
    assert sent["securityProfile"] == {
        "securityType": "ConfidentialVM", "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True},
    }  # fmt: skip
    assert sent["hardwareProfile"] == {"vmSize": "Standard_DC4as_v5"}
    disk = sent["storageProfile"]["osDisk"]
    assert disk["deleteOption"] == "Delete" and disk["name"] == f"{run.machine}-0123456789ab-os"
    assert disk["managedDisk"]["securityProfile"] == {"securityEncryptionType": "DiskWithVMGuestState"}
    assert sent["storageProfile"]["imageReference"]["version"] == "22.04.202609010"
    (nic,) = sent["networkProfile"]["networkInterfaces"]
    assert nic["properties"]["deleteOption"] == "Delete"
    os = sent["osProfile"]
    assert os["allowExtensionOperations"] is False
    assert os["linuxConfiguration"]["provisionVMAgent"] is False
    assert os["linuxConfiguration"]["disablePasswordAuthentication"] is True and "adminPassword" not in os
    assert sent["diagnosticsProfile"] == {"bootDiagnostics": {"enabled": False}}
    tags = world.fake.resources[VM, run.machine].body["tags"]
    assert tags["strongroom-installation"] == "0123456789ab" and tags["strongroom-run"] == run.pk.hex
    assert world.fake.resources[NIC, f"{run.machine}-nic"].body["tags"] == tags


def test_user_data_carries_address_run_and_token_and_nothing_else(world, run):
    world.backend.launch(run, "token-1")
    told = json.loads(base64.b64decode(properties(world, run)["userData"]))
    assert told == {"portal": "https://portal.example", "run": str(run.pk), "token": "token-1"}


def test_the_interface_has_no_public_address(world, run):
    world.backend.launch(run, "t")
    (one,) = world.fake.resources[NIC, f"{run.machine}-nic"].body["properties"]["ipConfigurations"]
    assert one["properties"] == {"subnet": {"id": SUBNET}, "privateIPAllocationMethod": "Dynamic"}


def test_a_gallery_image_and_a_tpm_without_state(run):
    image = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/G/images/runner/versions/1.2.3"
    with AzureWorld(image=image, encryption="NonPersistedTPM") as world:
        world.backend.launch(run, "t")
        storage = properties(world, run)["storageProfile"]
        assert storage["imageReference"] == {"id": image}
        assert storage["osDisk"]["managedDisk"]["securityProfile"] == {
            "securityEncryptionType": "NonPersistedTPM"
        }
        assert world.fake.mistakes == []


def test_a_key_that_nobody_has_and_that_differs_every_time(world):
    keys = set()
    for one in (a_run(), a_run()):
        world.backend.launch(one, "t")
        ssh = properties(world, one)["osProfile"]["linuxConfiguration"]["ssh"]
        keys.add(ssh["publicKeys"][0]["keyData"])
    assert len(keys) == 2 and all(k.startswith("ssh-rsa ") for k in keys)


def test_evicted_and_switched_off(run):
    with AzureWorld(spot=True) as world:
        world.started(run)
        assert properties(world, run)["priority"] == "Spot"
        assert properties(world, run)["evictionPolicy"] == "Deallocate"
        world.fake.evict(run.machine)
        assert world.backend.observe(run) is Sight.EVICTED
    with AzureWorld() as world:
        world.started(run)
        world.fake.stop(run.machine)
        assert world.backend.observe(run) is Sight.GONE
        world.fake.evict(run.machine)
        assert world.backend.observe(run) is Sight.GONE  # nobody evicts an ordinary machine


@pytest.mark.parametrize(
    ("code", "becomes"),
    [
        ("AllocationFailed", "capacity_missing"),
        ("ZonalAllocationFailed", "capacity_missing"),
        ("SkuNotAvailable", "capacity_missing"),
        ("QuotaExceeded", "quota_exceeded"),
        ("OSProvisioningTimedOut", "launch_failed"),
    ],
)
def test_a_machine_whose_making_fails(world, run, code, becomes):
    world.fake.fault("operation", code=code, part="virtualMachines")
    world.backend.launch(run, "t")
    assert world.backend.observe(run) is Sight.STARTING
    world.fake.pass_time(60)
    with pytest.raises(BackendError) as refused:
        world.backend.observe(run)
    assert refused.value.code == becomes and not isinstance(refused.value, Unsettled)


def test_an_interface_without_its_machine_is_completed(world, run):
    """The worker died between the two, or the answer to the second was lost before the act."""
    world.fake.fault("drop_before", methods=("PUT",), part="virtualMachines")
    with pytest.raises(Unsettled):
        world.backend.launch(run, "t")
    assert world.left() == {("networkInterfaces", f"{run.machine}-nic")}
    assert world.backend.observe(run) is Sight.ABSENT
    world.backend.launch(run, "t")
    world.fake.pass_time(60)
    assert world.backend.observe(run) is Sight.RUNNING


def test_two_workers_launch_at_once(world, run, monkeypatch):
    """Both saw nothing; the second one's request says: only if it is not there."""
    second = world.new_backend()
    monkeypatch.setattr(second, "_vm", lambda machine: None)
    world.backend.launch(run, "token-1")
    second.launch(run, "token-2")
    assert world.token_of(run.machine) == "token-1"


def test_an_untagged_disk_of_another_installation_is_left(world, run):
    from tests.fakes.arm import Resource

    stranger = Resource(
        DISK, f"{run.machine}-fedcba987654-os", {"location": "uksouth"}, world.fake.now, "Succeeded"
    )
    plain = Resource(DISK, "data", {"location": "uksouth"}, world.fake.now, "Succeeded")
    for one in (stranger, plain):
        world.fake.resources[DISK, one.name] = one
    world.fake.pass_time(5000)
    assert world.backend.sweep(set()) == []
    world.backend.destroy(run)
    assert len(world.left()) == 2


def test_an_interface_held_for_a_failed_machine_is_asked_again(world, run):
    world.backend.launch(run, "t")
    world.fake.pass_time(60)
    world.fake.leave_parts = {NIC}
    with pytest.raises(Unsettled):
        world.backend.destroy(run)
    world.fake.pass_time(60)
    world.fake.fault(
        "answer", status=400, code="NicReservedForAnotherVm", methods=("DELETE",), part="networkInterfaces"
    )
    with pytest.raises(Unsettled) as wait:
        world.backend.destroy(run)
    assert wait.value.code == "cloud_busy"


@pytest.mark.parametrize(
    ("status", "code", "becomes"),
    [
        (403, "RequestDisallowedByPolicy", "cloud_rejected"),
        (409, "MissingSubscriptionRegistration", "cloud_rejected"),
        (409, "ReadOnlyDisabledSubscription", "cloud_denied"),
        (403, "AuthorizationFailed", "cloud_denied"),
        (409, "QuotaExceeded", "quota_exceeded"),
    ],
)
def test_a_refusal_that_stays_is_one_whatever_its_status(world, run, status, code, becomes):
    world.fake.fault("answer", status=status, code=code, methods=("PUT",), part="virtualMachines")
    # Of a provider that is not registered the client asks for its registration by itself; that needs another right.
    world.fake.fault("answer", status=403, code="AuthorizationFailed", methods=("POST",))
    with pytest.raises(BackendError) as refused:
        world.backend.launch(run, "t")
    assert refused.value.code == becomes and not isinstance(refused.value, Unsettled)


def test_a_lock_on_the_machine_is_no_moment_of_work(world, run):
    world.started(run)
    world.fake.fault("answer", status=409, code="ScopeLocked", methods=("DELETE",))
    with pytest.raises(BackendError) as refused:
        world.backend.destroy(run)
    assert refused.value.code == "destroy_failed" and not isinstance(refused.value, Unsettled)


def test_credentials_that_cannot_be_had():
    with pytest.raises(BackendError) as refused, arm.answers():
        raise ClientAuthenticationError("no managed identity")
    assert refused.value.code == "cloud_denied" and not isinstance(refused.value, Unsettled)
    with pytest.raises(Unsettled), arm.answers():
        raise ServiceRequestError("no route")
    with pytest.raises(Unsettled), arm.answers():
        raise HttpResponseError("cut short")
    with pytest.raises(Unsettled), arm.answers():
        raise TimeoutError


def test_a_lost_operation_is_not_waited_for(world, run):
    """Long-running operations are never polled: the next look reads the machine itself."""
    world.backend.launch(run, "t")
    assert not [r for r in world.fake.requests if "/operations/" in r.path]
