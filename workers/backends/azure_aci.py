"""Azure confidential containers: one container group per run, measured with the policy that says what may run in it.

<machine>      the group: SKU Confidential, in a subnet, without an address of its own, never restarted
ccePolicy      fixed by the operator; its hash is in the hardware's report, so it is the same for every run
secret volume  the one-time token as a file: environment variables are shown by the resource manager
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.mgmt.containerinstance import ContainerInstanceManagementClient
from azure.mgmt.containerinstance import models as aci
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from apps.jobs.models import Run
from apps.jobs.sizes import Size
from workers.backends import arm, cce
from workers.backends.base import BackendError, Sight, unreadable
from workers.backends.cloud import CloudBackend, Common, Found, present

TOKEN_FOLDER = "/run/strongroom"  # noqa: S105  a folder


@dataclass(frozen=True)
class Config:
    """`policy`: the text of the enforcement policy. `registry_*`: how the group fetches the image, "" if public."""

    subscription: str
    resource_group: str
    location: str
    subnet: str
    policy: str
    registry_identity: str = ""
    registry_server: str = ""

    def __post_init__(self) -> None:
        arm.require_place(self)


def policy_from(policy_file: str, layers_file: str, image: str, portal: str) -> str:
    """The policy of the operator's file, else one rendered from the operator's layer hashes.

    Raises ImproperlyConfigured where there is neither: without layer hashes there is no honest policy.
    """
    try:
        if policy_file:
            return cce.checked(cce.read(Path(policy_file).read_text()), image)
        if layers_file:
            text = Path(layers_file).read_text()
            return cce.checked(cce.render(cce.containers_from(text, image, portal, TOKEN_FOLDER)), image)
    except OSError as error:
        raise ImproperlyConfigured(
            f"The policy of confidential containers cannot be read: {error}."
        ) from None
    raise ImproperlyConfigured(
        "Set STRONGROOM_AZURE_ACI_CCE_POLICY_FILE to the policy that `az confcom acipolicygen` made for the runner's "
        "image, or STRONGROOM_AZURE_ACI_LAYERS_FILE to its layer hashes."
    )


@dataclass
class Clients:
    """The provider's client. `options`: endpoint and authentication, where not the usual ones."""

    subscription: str
    credential: Any
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options = {**arm.client_options(), **self.options}
        client = ContainerInstanceManagementClient(self.credential, self.subscription, **options)
        self.groups = client.container_groups


class AciBackend(CloudBackend[Config, Clients]):
    """Confidential container groups in one resource group of their own."""

    @classmethod
    def from_settings(cls) -> AciBackend:
        common = Common.from_settings("azure-aci", cls.first_call)
        given: dict[str, Any] = dict(settings.AZURE_ACI)
        policy = policy_from(given.pop("policy_file"), given.pop("layers_file"), common.image, common.portal)
        return cls(common, Config(policy=policy, **given))

    def _connect(self) -> Clients:
        return Clients(self.config.subscription, arm.credential())

    def _answers(self) -> AbstractContextManager[None]:
        return arm.answers()

    def _create(self, run: Run, machine: str, token: str) -> None:
        there = self._group(machine)
        if there is not None:
            self._require_ours(machine, there.tags)
            return
        self.clients.groups.begin_create_or_update(
            self.config.resource_group,
            machine,
            self._body(run, token, self._size(run)),
            polling=False,
        )

    def _body(self, run: Run, token: str, size: Size) -> aci.ContainerGroup:
        told = {
            "STRONGROOM_PORTAL": self.common.portal,
            "STRONGROOM_RUN": str(run.pk),
            "STRONGROOM_TOKEN_FILE": f"{TOKEN_FOLDER}/token",
        }
        cpu, memory = float(size.vcpus), float(size.memory_gib)
        container = aci.Container(
            name="runner",
            image=self.common.image,
            resources=aci.ResourceRequirements(
                requests=aci.ResourceRequests(cpu=cpu, memory_in_gb=memory),
                limits=aci.ResourceLimits(cpu=cpu, memory_in_gb=memory),
            ),
            environment_variables=[aci.EnvironmentVariable(name=k, value=v) for k, v in told.items()],
            volume_mounts=[aci.VolumeMount(name="token", mount_path=TOKEN_FOLDER, read_only=True)],
            security_context=aci.SecurityContextDefinition(
                privileged=False,
                allow_privilege_escalation=False,
                capabilities=aci.SecurityContextCapabilitiesDefinition(add=[], drop=list(cce.DROPPED)),
            ),
        )
        made = aci.ContainerGroup(
            location=self.config.location,
            tags=self._tags(run),
            sku="Confidential",
            confidential_compute_properties=aci.ConfidentialComputeProperties(
                cce_policy=cce.encoded(self.config.policy)
            ),
            os_type="Linux",
            restart_policy="Never",
            containers=[container],
            volumes=[aci.Volume(name="token", secret={"token": base64.b64encode(token.encode()).decode()})],
            subnet_ids=[aci.ContainerGroupSubnetId(id=self.config.subnet)],
        )
        if self.config.registry_identity:
            identity = self.config.registry_identity
            made.identity = aci.ContainerGroupIdentity(
                type="UserAssigned", user_assigned_identities={identity: aci.UserAssignedIdentities()}
            )
            made.image_registry_credentials = [
                aci.ImageRegistryCredential(server=self.config.registry_server, identity=identity)
            ]
        return made

    def _look(self, machine: str) -> Sight:
        group = self._group(machine)
        if group is None:
            return Sight.ABSENT
        self._require_ours(machine, group.tags)
        view = group.instance_view
        match group.provisioning_state:
            case "Failed" | "Unhealthy":
                raise _why_failed(group)
            case "Deleting":
                return Sight.GONE
        match view.state if view else None:
            case "Running":
                return Sight.RUNNING
            case "Succeeded" | "Failed" | "Stopped" | "Terminated":
                return Sight.GONE
            case "Pending" | "Repairing":
                return Sight.STARTING
            case None if group.provisioning_state in ("Accepted", "Creating", "Pending", "Repairing"):
                return Sight.STARTING
            case state:
                raise unreadable(f"{machine} is {group.provisioning_state}, and its state {state!r}.")

    def _group(self, machine: str) -> aci.ContainerGroup | None:
        return arm.or_none(lambda: self.clients.groups.get(self.config.resource_group, machine))

    def _remove(self, machine: str, again: bool) -> bool:
        group = self._group(machine)
        if group is None or not self._removable(machine, group.tags):
            return True
        if again or group.provisioning_state != "Deleting":
            arm.or_none(
                lambda: self.clients.groups.begin_delete(self.config.resource_group, machine, polling=False)
            )
        return False

    def _ours(self) -> Iterable[Found]:
        groups = arm.listed(self.clients.groups.list_by_resource_group(self.config.resource_group))
        return present(self._found(g.name or "", g.tags) for g in groups if self._is_ours(g.tags))


def _why_failed(group: aci.ContainerGroup) -> BackendError:
    """A group whose making failed says why in its events."""
    events: list[aci.Event] = list((group.instance_view.events if group.instance_view else None) or [])
    for event in events:
        text = f"{event.name}: {event.message}"
        if found := arm.from_code(event.name or "", text):
            return found
    return BackendError("launch_failed", "; ".join(f"{e.name}: {e.message}" for e in events)[:1000])
