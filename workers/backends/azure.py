"""Azure confidential VMs: one VM per run, without a public address, without an agent, with the disk gone when it goes.

    <machine>                       the VM
    <machine>-nic                   its network interface, in a subnet that lets out to portal and object store only
    <machine>-<installation>-os     its disk: made by the VM, so its name carries whose it is

User data carries the portal's address, the run and the one-time token. Which program runs is decided by the image: an
exact version, whose PCR values the custodian's policy names.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, cast

from azure.core import MatchConditions
from azure.core import exceptions as core
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute import models as compute
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.network import models as network
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from apps.jobs.models import Run
from apps.jobs.sizes import Size
from workers.backends import arm
from workers.backends.base import BackendError, Sight, unreadable
from workers.backends.cloud import CloudBackend, Common, Found, present

ENCRYPTIONS = ("DiskWithVMGuestState", "NonPersistedTPM")
_GALLERY = re.compile(r"/subscriptions/.+/galleries/[^/]+/images/[^/]+/versions/\d+\.\d+\.\d+")
_MARKET = re.compile(r"[^:/]+:[^:/]+:[^:/]+:\d[\w.]*")


@dataclass(frozen=True)
class Config:
    """`image`: a gallery image version's resource id, or publisher:offer:sku:version. `subnet`: its resource id."""

    subscription: str
    resource_group: str
    location: str
    subnet: str
    image: str
    encryption: str = "DiskWithVMGuestState"
    disk_gib: int = 32
    spot: bool = False

    def __post_init__(self) -> None:
        arm.require_place(self)
        if self.encryption not in ENCRYPTIONS:
            raise ImproperlyConfigured(f"STRONGROOM_AZURE_ENCRYPTION is one of {', '.join(ENCRYPTIONS)}.")
        if not (_GALLERY.fullmatch(self.image) or _MARKET.fullmatch(self.image)):
            raise ImproperlyConfigured(
                "STRONGROOM_AZURE_IMAGE names one image for good: a gallery image version's resource id, or "
                "publisher:offer:sku:version with a number as version. “latest” changes by itself."
            )


@dataclass
class Clients:
    """The provider's clients. `options`: endpoint and authentication, where not the usual ones."""

    subscription: str
    credential: Any
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options = {**arm.client_options(), **self.options}
        self.compute = ComputeManagementClient(self.credential, self.subscription, **options)
        self.network = NetworkManagementClient(self.credential, self.subscription, **options)


class AzureBackend(CloudBackend[Config, Clients]):
    """Confidential VMs in one resource group of their own."""

    @classmethod
    def from_settings(cls) -> AzureBackend:
        return cls(
            Common.from_settings("azure", cls.first_call), Config(**cast(dict[str, Any], settings.AZURE))
        )

    def _connect(self) -> Clients:
        return Clients(self.config.subscription, arm.credential())

    def _answers(self) -> AbstractContextManager[None]:
        return arm.answers()

    def _create(self, run: Run, machine: str, token: str) -> None:
        there = self._vm(machine)
        if there is not None:
            self._require_ours(machine, there.tags)
            return
        size = self._size(run)
        tags = self._tags(run)
        nic = self._interface(machine, tags)
        try:
            self.clients.compute.virtual_machines.begin_create_or_update(
                self.config.resource_group, machine, self._machine(run, machine, token, size, nic, tags),
                match_condition=MatchConditions.IfMissing, polling=False,
            )  # fmt: skip
        except core.HttpResponseError as error:
            if error.status_code != 412:
                raise
            # It is there: this call is a repetition.

    def _interface(self, machine: str, tags: dict[str, str]) -> network.NetworkInterface:
        """The machine's interface: the one that is there, else a new one. Making has no precondition, so it is looked for."""
        group, name, interfaces = (
            self.config.resource_group,
            f"{machine}-nic",
            self.clients.network.network_interfaces,
        )
        there = arm.or_none(lambda: interfaces.get(group, name))
        if there is not None:
            self._require_ours(machine, there.tags)
            return there
        return interfaces.begin_create_or_update(group, name, self._nic(tags), polling=False).result()

    def _nic(self, tags: dict[str, str]) -> network.NetworkInterface:
        private = network.NetworkInterfaceIPConfiguration(
            name="private",
            properties=network.NetworkInterfaceIPConfigurationPropertiesFormat(
                subnet=network.Subnet(id=self.config.subnet), private_ip_allocation_method="Dynamic"
            ),
        )
        return network.NetworkInterface(
            location=self.config.location,
            tags=tags,
            properties=network.NetworkInterfacePropertiesFormat(ip_configurations=[private]),
        )

    def _machine(
        self,
        run: Run,
        machine: str,
        token: str,
        size: Size,
        nic: network.NetworkInterface,
        tags: dict[str, str],
    ) -> compute.VirtualMachine:
        config = self.config
        encryption = size.options.get("encryption", config.encryption)
        disk = compute.OSDisk(
            name=self._disk_name(machine),
            create_option="FromImage",
            delete_option="Delete",
            disk_size_gb=config.disk_gib,
            managed_disk=compute.ManagedDiskParameters(
                storage_account_type="Premium_LRS",
                security_profile=compute.VMDiskSecurityProfile(security_encryption_type=encryption),
            ),
        )
        made = compute.VirtualMachineProperties(
            hardware_profile=compute.HardwareProfile(vm_size=size.machine),
            security_profile=compute.SecurityProfile(
                security_type="ConfidentialVM",
                uefi_settings=compute.UefiSettings(secure_boot_enabled=True, v_tpm_enabled=True),
            ),
            storage_profile=compute.StorageProfile(image_reference=self._image(), os_disk=disk),
            os_profile=_os_profile(machine),
            network_profile=compute.NetworkProfile(
                network_interfaces=[
                    compute.NetworkInterfaceReference(
                        id=nic.id,
                        properties=compute.NetworkInterfaceReferenceProperties(
                            primary=True, delete_option="Delete"
                        ),
                    )
                ]
            ),
            diagnostics_profile=compute.DiagnosticsProfile(
                boot_diagnostics=compute.BootDiagnostics(enabled=False)
            ),
            user_data=self._user_data(run, token),
        )
        if config.spot:
            # Deallocated rather than deleted, so that the next look can tell an eviction from a fault.
            made.priority, made.eviction_policy = "Spot", "Deallocate"
            made.billing_profile = compute.BillingProfile(max_price=-1)
        return compute.VirtualMachine(location=config.location, tags=tags, properties=made)

    def _image(self) -> compute.ImageReference:
        if self.config.image.startswith("/"):
            return compute.ImageReference(id=self.config.image)
        publisher, offer, sku, version = self.config.image.split(":")
        return compute.ImageReference(publisher=publisher, offer=offer, sku=sku, version=version)

    def _user_data(self, run: Run, token: str) -> str:
        told = {"portal": self.common.portal, "run": str(run.pk), "token": token}
        return base64.b64encode(json.dumps(told, sort_keys=True).encode()).decode()

    def _disk_name(self, machine: str) -> str:
        return f"{machine}-{self.common.installation}-os"

    def _look(self, machine: str) -> Sight:
        vm = self._vm(machine)
        if vm is None:
            return Sight.ABSENT
        self._require_ours(machine, vm.tags)
        statuses = (vm.instance_view.statuses if vm.instance_view else None) or []
        match vm.provisioning_state:
            case "Failed":
                raise _why_failed(statuses)
            case "Deleting":
                return Sight.GONE
            case "Creating":
                return Sight.STARTING
        power = {(status.code or "").lower() for status in statuses}
        if "powerstate/running" in power:
            return Sight.RUNNING
        if power & {"powerstate/deallocated", "powerstate/deallocating"}:
            return Sight.EVICTED if vm.priority == "Spot" else Sight.GONE
        if power & {"powerstate/stopped", "powerstate/stopping"}:
            return Sight.GONE
        if power & {"powerstate/creating", "powerstate/starting"}:
            return Sight.STARTING
        # "Unknown" is a state of Azure's own: the provider could not find out.
        raise unreadable(f"{machine} is {vm.provisioning_state}, and whether it is on is not said: {power}.")

    def _vm(self, machine: str) -> compute.VirtualMachine | None:
        return arm.or_none(
            lambda: self.clients.compute.virtual_machines.get(
                self.config.resource_group, machine, expand="instanceView"
            )
        )

    def _remove(self, machine: str, again: bool) -> bool:
        group, vm = self.config.resource_group, self._vm(machine)
        if vm is not None and self._removable(machine, vm.tags):
            if again or vm.provisioning_state != "Deleting":
                arm.or_none(
                    lambda: self.clients.compute.virtual_machines.begin_delete(
                        group, machine, force_deletion=True, polling=False
                    )
                )
            return False
        # What the VM should have taken along, or never came to have.
        interfaces, disks = self.clients.network.network_interfaces, self.clients.compute.disks
        gone = True
        nic = arm.or_none(lambda: interfaces.get(group, f"{machine}-nic"))
        if nic is not None and self._removable(f"{machine}-nic", nic.tags):
            gone = False
            if again or nic.provisioning_state != "Deleting":
                arm.or_none(lambda: interfaces.begin_delete(group, f"{machine}-nic", polling=False))
        if arm.or_none(lambda: disks.get(group, self._disk_name(machine))) is not None:
            gone = False
            arm.or_none(lambda: disks.begin_delete(group, self._disk_name(machine), polling=False))
        return gone

    def _ours(self) -> Iterable[Found]:
        group = self.config.resource_group
        machines = arm.listed(self.clients.compute.virtual_machines.list(group))
        yield from present(self._found(v.name or "", v.tags) for v in machines if self._is_ours(v.tags))
        nics = arm.listed(self.clients.network.network_interfaces.list(group))
        yield from present(self._found(n.name or "", n.tags) for n in nics if self._is_ours(n.tags))
        for disk in arm.listed(self.clients.compute.disks.list_by_resource_group(group)):
            # A disk is as old as it says itself: it may not have its machine's tags, but it has our name.
            found = self._found(disk.name or "", disk.tags)
            if found is not None and disk.name == self._disk_name(found.machine):
                yield Found(found.machine, found.started or disk.time_created, found.expires)


def _os_profile(machine: str) -> compute.OSProfile:
    """No agent, no extensions, no password, and a key whose other half is thrown away here: nobody logs in."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    public = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return compute.OSProfile(
        computer_name=machine,
        admin_username="nobody-logs-in",
        allow_extension_operations=False,
        linux_configuration=compute.LinuxConfiguration(
            disable_password_authentication=True,
            provision_vm_agent=False,
            ssh=compute.SshConfiguration(
                public_keys=[
                    compute.SshPublicKey(path="/home/nobody-logs-in/.ssh/authorized_keys", key_data=public)
                ]
            ),
        ),
    )


def _why_failed(statuses: Iterable[compute.InstanceViewStatus]) -> BackendError:
    """A machine whose making failed keeps the reason: ProvisioningState/failed/<code>."""
    for status in statuses:
        code = (status.code or "").split("/")
        if len(code) >= 2 and code[:2] == ["ProvisioningState", "failed"]:
            name = code[2] if len(code) > 2 else ""
            text = f"{name}: {status.message}"
            return arm.from_code(name, text) or BackendError("launch_failed", text)
    return BackendError("launch_failed", "The making of the machine failed without a reason.")
