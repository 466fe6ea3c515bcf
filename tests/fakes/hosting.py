"""Guests for the machines of a cloud's fake: what the portal's real backend asked a cloud for is what boots.

The cloud's fake keeps what it was told; `tick` lets its clock run, boots a guest for each machine that is on, and takes
the guest of a machine that is gone off the power.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.fakes.guest import Guest, container_guest, google_guest, pod_guest, vm_guest
from tests.fakes.launcher import Signer
from tests.fakes.worlds import AciWorld, AzureWorld, GcpWorld, KubernetesWorld, World
from tests.unit.strongroom.evidence import authority_amd as amd
from workers.backends.base import Sight

# Of the cloud's own clock, for each tick in which something starts or ends.
SECONDS = 20.0


class Hosting:
    """One cloud with guests. boot: a guest, not yet booted, from what the cloud was told of a machine."""

    def __init__(self, world: World, portal: str, boot: Callable[[Any, str], Guest]) -> None:
        self.world, self._boot, self.backend_name = world, boot, world.name
        self.backend = world.backend
        self.backend.common = replace(self.backend.common, portal=portal)
        self.guests: dict[str, Guest] = {}
        self.booted: list[str] = []
        self.logs: dict[str, str] = {}

    def tick(self) -> None:
        there = self.world.machines()
        on = [machine for machine in there if self.backend._look(machine) is Sight.RUNNING]
        if len(on) < len(there) or (self.world.left() and not on):
            self.world.fake.pass_time(SECONDS)
        for machine in on:
            if machine not in self.guests and machine not in self.logs:
                self.guests[machine] = guest = self._boot(self.world, machine)
                self.booted.append(machine)
                guest.boot()
        for machine in [m for m in self.guests if m not in there]:
            self._off(machine)

    def _off(self, machine: str) -> None:
        guest = self.guests.pop(machine)
        guest.kill()
        self.logs[machine] = guest.log.read_text()
        guest.destroy()

    def close(self) -> None:
        for machine in list(self.guests):
            self._off(machine)
        self.world.fake.close()


def google_machine(signer: Signer) -> Callable[[Any, str], Guest]:
    def boot(world: GcpWorld, machine: str) -> Guest:
        instance = world.fake.instances[machine]
        items = {item["key"]: item["value"] for item in instance.body["metadata"]["items"]}
        number = str(int.from_bytes(hashlib.sha256(machine.encode()).digest()[:6], "big"))
        return google_guest(items, signer, instance=number)

    return boot


def container_group(world: AciWorld, machine: str) -> Guest:
    """The hardware vouches for the policy that the portal sent: its hash is in the report."""
    body = world.fake.resources["Microsoft.ContainerInstance/containerGroups", machine].body["properties"]
    (container,) = body["containers"]
    variables = {v["name"]: v["value"] for v in container["properties"]["environmentVariables"]}
    policy = base64.b64decode(body["confidentialComputeProperties"]["ccePolicy"])
    good = replace(amd.ACI_REPORT, host_data=hashlib.sha256(policy).digest())
    return container_guest(
        variables, world.token_of(machine), lambda data: replace(good, report_data=data).sign(), policy
    )


def told_to_pod(world: KubernetesWorld, machine: str) -> tuple[dict[str, str], str, dict[str, bytes]]:
    """The variables of a pod's container, where it mounts its Secret, and the Secret's entries."""
    spec = world.fake.objects["jobs", machine]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (mounted,) = [v for v in spec["volumes"] if "secret" in v]
    (at,) = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == mounted["name"]]
    data = world.fake.objects["secrets", mounted["secret"]["secretName"]]["data"]
    variables = {v["name"]: v["value"] for v in container["env"]}
    return variables, at, {name: base64.b64decode(value) for name, value in data.items()}


def pod(world: KubernetesWorld, machine: str) -> Guest:
    return pod_guest(*told_to_pod(world, machine))


# What firmware and boot loader of the runner's disk image extend, and the PCRs that follow.
MEASURED = {number: hashlib.sha256(b"boot" + bytes([number])).digest() for number in (4, 7, 11)}
GOLDEN = {str(n): hashlib.sha256(bytes(32) + digest).hexdigest() for n, digest in MEASURED.items()}


def azure_vm(world: AzureWorld, machine: str) -> Guest:
    body = world.fake.resources["Microsoft.Compute/virtualMachines", machine].body["properties"]
    return vm_guest(body["userData"], MEASURED)
