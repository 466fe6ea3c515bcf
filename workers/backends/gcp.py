"""Google Confidential Space: a confidential VM per run that boots one container image, named by its digest.

instance <machine>     the VM; its boot disk has the same name and goes with it
metadata               tee-image-reference, tee-env-*: measured, and shown in the attestation token;
                       strongroom-token: the one-time launch token. It is neither, because environment variables are
                       printed in every token. The runner reads it from the metadata server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, cast

import requests
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud import compute_v1 as compute
from google.protobuf import json_format  # type: ignore[import-untyped]

from apps.jobs.models import Run
from apps.jobs.sizes import Size
from workers.backends.base import BackendError, Sight, Unsettled, unreadable
from workers.backends.cloud import INSTALLATION, TIMEOUT, CloudBackend, Common, Found, bounded, present

T = TypeVar("T")
TYPES = ("SEV", "SEV_SNP", "TDX")
TOKEN = "strongroom-token"  # noqa: S105  the key's name
_EXACT_IMAGE = re.compile(r"projects/[a-z0-9.:-]+/global/images/[a-z0-9-]+")

# Error codes of operations and of answers (Compute Engine: "Troubleshooting resource errors", "API errors").
_CAPACITY = {
    "ZONE_RESOURCE_POOL_EXHAUSTED", "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "RESOURCE_POOL_EXHAUSTED",
    "UNSUPPORTED_OPERATION_RESOURCE_POOL", "STOCKOUT",
}  # fmt: skip
_QUOTA = {"QUOTA_EXCEEDED", "quotaExceeded", "limitExceeded"}
_THROTTLED = {
    "rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED", "CONCURRENT_OPERATIONS_QUOTA_EXCEEDED",
}  # fmt: skip
_BUSY = {
    "resourceNotReady", "RESOURCE_NOT_READY", "resourceInUseByAnotherResource", "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
    "operationInProgress",
}  # fmt: skip
_THERE = {"alreadyExists", "RESOURCE_ALREADY_EXISTS"}
_INTERNAL = {"INTERNAL_ERROR", "backendError", "internalError", "RESOURCE_OPERATION_RATE_EXCEEDED"}


@dataclass(frozen=True)
class Config:
    """`source_image`: the Confidential Space image by its exact name. `subnet`: projects/.../subnetworks/NAME."""

    project: str
    zone: str
    subnet: str
    source_image: str
    service_account: str
    confidential_type: str
    min_cpu_platform: str = ""
    disk_gib: int = 20
    disk_type: str = "pd-balanced"
    spot: bool = False

    def __post_init__(self) -> None:
        if self.confidential_type not in TYPES:
            raise ImproperlyConfigured(f"GCP_CONFIDENTIAL_TYPE is one of {', '.join(TYPES)}.")
        if not _EXACT_IMAGE.fullmatch(self.source_image):
            raise ImproperlyConfigured(
                "GCP_SOURCE_IMAGE names one image: projects/confidential-space-images/global/images/NAME. A family's "
                "newest image changes by itself."
            )
        if "debug" in self.source_image:
            raise ImproperlyConfigured(
                "GCP_SOURCE_IMAGE is a debug image: whoever may log in to it sees the data."
            )
        for name in ("project", "zone", "subnet", "service_account"):
            if not getattr(self, name):
                raise ImproperlyConfigured(f"Set STRONGROOM_GCP_{name.upper()}.")


@dataclass
class Clients:
    """The provider's clients, made once for a worker. `options`: credentials and endpoint, where not the usual ones."""

    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.instances = compute.InstancesClient(transport="rest", **self.options)
        self.disks = compute.DisksClient(transport="rest", **self.options)
        self.operations = compute.ZoneOperationsClient(transport="rest", **self.options)


class GcpBackend(CloudBackend[Config, Clients]):
    """Confidential Space machines in one zone of one project."""

    # The engine owns every retry, so the client makes none; each call has its own end.
    _call: ClassVar[dict[str, Any]] = {"retry": None, "timeout": TIMEOUT[1]}

    @classmethod
    def from_settings(cls) -> GcpBackend:
        return cls(Common.from_settings("gcp", cls.first_call), Config(**cast(dict[str, Any], settings.GCP)))

    def _connect(self) -> Clients:
        return Clients()

    @property
    def _place(self) -> dict[str, str]:
        return {"project": self.config.project, "zone": self.config.zone}

    def _create(self, run: Run, machine: str, token: str) -> None:
        instance = self._instance(run, machine, token, self._size(run))
        try:
            operation = self.clients.instances.insert_unary(
                compute.InsertInstanceRequest(**self._place, instance_resource=instance), **self._call
            )
        except api.Conflict as conflict:
            if not _reasons(conflict) & _THERE:
                raise
            return  # it is there: this call is a repetition, or the next look finds whose it is
        _raise_failed(_checked(operation))

    def _instance(self, run: Run, machine: str, token: str, size: Size) -> compute.Instance:
        config, tags = self.config, self._tags(run)
        disk = compute.AttachedDisk(
            boot=True,
            auto_delete=True,
            initialize_params=compute.AttachedDiskInitializeParams(
                disk_name=machine,
                source_image=config.source_image,
                disk_size_gb=config.disk_gib,
                disk_type=f"zones/{config.zone}/diskTypes/{config.disk_type}",
                labels=tags,
            ),
        )
        made = compute.Instance(
            name=machine,
            machine_type=f"zones/{config.zone}/machineTypes/{size.machine}",
            labels=tags,
            disks=[disk],
            # No access configuration: no external address.
            network_interfaces=[compute.NetworkInterface(subnetwork=config.subnet, nic_type="GVNIC")],
            confidential_instance_config=compute.ConfidentialInstanceConfig(
                enable_confidential_compute=True,
                confidential_instance_type=size.options.get("confidential_type", config.confidential_type),
            ),
            shielded_instance_config=compute.ShieldedInstanceConfig(
                enable_secure_boot=True, enable_vtpm=True, enable_integrity_monitoring=True
            ),
            # The second line of expiry: the cloud itself removes a machine that everybody has forgotten.
            scheduling=compute.Scheduling(
                on_host_maintenance="TERMINATE",
                automatic_restart=False,
                provisioning_model="SPOT" if config.spot else "STANDARD",
                max_run_duration=compute.Duration(seconds=int(self.common.lifetime.total_seconds())),
                instance_termination_action="DELETE",
            ),
            service_accounts=[
                compute.ServiceAccount(
                    email=config.service_account, scopes=["https://www.googleapis.com/auth/cloud-platform"]
                )
            ],
            metadata=compute.Metadata(
                items=[compute.Items(key=k, value=v) for k, v in self._metadata(run, token, size).items()]
            ),
            can_ip_forward=False,
        )
        if config.min_cpu_platform:
            made.min_cpu_platform = config.min_cpu_platform
        return made

    def _metadata(self, run: Run, token: str, size: Size) -> dict[str, str]:
        found = {
            "tee-image-reference": self.common.image,
            "tee-restart-policy": "Never",
            # Opened data lie in /dev/shm, which has 64 MiB unless more is asked for: half of the memory.
            "tee-dev-shm-size-kb": str(size.memory_gib * 1024 * 1024 // 2),
            "tee-container-log-redirect": "false",
            "tee-env-STRONGROOM_PORTAL": self.common.portal,
            "tee-env-STRONGROOM_RUN": str(run.pk),
            "block-project-ssh-keys": "true",
            TOKEN: token,
        }
        return found | ({"tee-install-gpu-driver": "true"} if size.gpus else {})

    def _look(self, machine: str) -> Sight:
        instance = self._get(machine)
        if instance is None:
            return self._look_at_operations(machine)
        self._require_ours(machine, instance.labels)
        match instance.status:
            case "PROVISIONING" | "STAGING" | "REPAIRING" | "PENDING":
                return Sight.STARTING
            case "RUNNING":
                return Sight.RUNNING
            case status if status in _OFF:
                preempted = any(op.operation_type == PREEMPTED for op in self._operations(machine))
                return Sight.EVICTED if preempted else Sight.GONE
            case status:
                raise unreadable(f"{machine} has the state {status!r}.")

    def _look_at_operations(self, machine: str) -> Sight:
        """Nothing by that name: its operations say why, the newest first."""
        in_the_way = False
        for operation in self._operations(machine):
            if operation.operation_type == PREEMPTED:
                return Sight.EVICTED
            if operation.operation_type == "insert":
                if operation.status != compute.Operation.Status.DONE:
                    return Sight.STARTING
                if {error.code for error in operation.error.errors} & _THERE:
                    in_the_way = True  # of a repetition: the one before it says more, if there is one
                    continue
                _raise_failed(operation)
                return Sight.GONE
        if not in_the_way:
            return Sight.ABSENT
        disk = self._disk(machine)
        if disk is not None:
            self._require_ours(machine, disk.labels)
        raise BackendError("launch_failed", f"{machine}: a disk of its name was there already.")

    def _operations(self, machine: str) -> list[compute.Operation]:
        request = compute.ListZoneOperationsRequest(
            **self._place, filter=f'targetLink eq ".*/instances/{machine}"', max_results=100
        )
        found = list(_entries(self.clients.operations.list(request, **self._call), "compute#operationList"))
        if not all(op.name and op.operation_type and op.status for op in found):
            raise unreadable(f"An operation on {machine} has no name, no kind or no state.")
        return sorted(found, key=lambda op: op.insert_time, reverse=True)

    def _get(self, machine: str) -> compute.Instance | None:
        """The instance, whosever it is."""
        request = compute.GetInstanceRequest(**self._place, instance=machine)
        return _or_none(lambda: _checked(self.clients.instances.get(request, **self._call), machine))

    def _disk(self, machine: str) -> compute.Disk | None:
        """The disk of that name, whosever it is."""
        request = compute.GetDiskRequest(**self._place, disk=machine)
        return _or_none(lambda: _checked(self.clients.disks.get(request, **self._call), machine))

    def _remove(self, machine: str, again: bool) -> bool:
        instance = self._get(machine)
        if instance is not None and self._removable(machine, instance.labels):
            if again or instance.status != "STOPPING":
                gone = compute.DeleteInstanceRequest(**self._place, instance=machine)
                self._delete(lambda: self.clients.instances.delete_unary(gone, **self._call))
            return False
        disk = self._disk(machine)
        if disk is None or not self._removable(machine, disk.labels):
            return True
        if again or disk.status != "DELETING":
            freed = compute.DeleteDiskRequest(**self._place, disk=machine)
            self._delete(lambda: self.clients.disks.delete_unary(freed, **self._call))
        return False

    def _delete(self, ask: Callable[[], Any]) -> None:
        """None where somebody else was quicker."""
        operation = _or_none(ask)
        if operation is not None:
            _raise_failed(operation)

    def _ours(self) -> Iterable[Found]:
        mine, clients = f"labels.{INSTALLATION}={self.common.installation}", self.clients
        instances = clients.instances.list(
            compute.ListInstancesRequest(**self._place, filter=mine), **self._call
        )
        disks = clients.disks.list(compute.ListDisksRequest(**self._place, filter=mine), **self._call)
        for pager, kind in ((instances, "compute#instanceList"), (disks, "compute#diskList")):
            found = (one for one in _entries(pager, kind) if self._is_ours(one.labels))
            yield from present(self._found(one.name, one.labels) for one in found)

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except api.GoogleAPICallError as error:
            raise _from_answer(error) from error
        except (auth.RefreshError, auth.DefaultCredentialsError) as error:
            if getattr(error, "retryable", False):
                raise Unsettled("cloud_unreachable", f"No access token: {error}") from error
            raise BackendError("cloud_denied", f"No access token: {error}") from error
        except json_format.ParseError as error:
            raise unreadable(str(error)) from error
        except (requests.RequestException, auth.TransportError, api.RetryError, OSError) as error:
            raise Unsettled("cloud_unreachable", f"{type(error).__name__}: {error}") from error


PREEMPTED = "compute.instances.preempted"
# Its memory is lost or about to be, and it is never started again. "Instance life cycle".
_OFF = {"PENDING_STOP", "STOPPING", "STOPPED", "SUSPENDING", "SUSPENDED", "TERMINATED", "DEPROVISIONING"}


def _checked(answer: Any, name: str = "") -> Any:
    """An answer that is what was asked for: an empty object would parse as well. Raises Unsettled (cloud_unreadable)."""
    if not answer.kind.startswith("compute#") or not answer.name or (name and answer.name != name):
        raise unreadable(f"{name or 'An operation'} was asked for, and the answer is {str(answer)[:200]!r}.")
    return answer


def _entries(pager: Any, kind: str) -> Iterator[Any]:
    """Every entry of a list, page after page, each page being one of that kind of list."""
    for page in bounded(pager.pages):
        if page.kind != kind:
            raise unreadable(f"A page of {kind} was asked for, and the answer is {str(page)[:200]!r}.")
        yield from page.items


def _or_none(ask: Callable[[], T]) -> T | None:
    """What `ask` gives; None where the cloud itself says that there is nothing of that name. Another 404 is a proxy's."""
    try:
        return ask()
    except api.NotFound as error:
        if _is_the_clouds(error):
            return None
        raise


def _is_the_clouds(error: api.GoogleAPICallError) -> bool:
    """Whether an error answer has the cloud's own form; one that the client made up without an answer counts as such."""
    if error.response is None:
        return True
    try:
        return bool(error.response.json()["error"]["code"] == error.code)
    except (ValueError, TypeError, LookupError):
        return False


def _reasons(error: api.GoogleAPICallError) -> set[str]:
    """The words by which an error answer names its cause; two formats are in use."""
    found = {str(e.get("reason") or e.get("code") or "") for e in error.errors if isinstance(e, dict)}
    if error.reason:
        found.add(str(error.reason))
    return found


def _from_answer(error: api.GoogleAPICallError) -> BackendError:
    reasons, text = _reasons(error), f"{error.code}: {error.message}"
    if reasons & _THROTTLED or error.code == 429:
        return Unsettled("cloud_throttled", text)
    if reasons & _CAPACITY or any(word in text for word in _CAPACITY):
        return BackendError("capacity_missing", text)
    if error.code == 408 or error.code is None or int(error.code) >= 500:
        return Unsettled("cloud_unreachable", text)
    if not _is_the_clouds(error):
        return unreadable(text)
    if reasons & _BUSY:
        return Unsettled("cloud_busy", text)
    if reasons & _QUOTA or any(word in text for word in ("QUOTA_EXCEEDED", "Quota '")):
        return BackendError("quota_exceeded", text)
    if error.code in (401, 403):
        return BackendError("cloud_denied", text)
    if error.code in (409, 412):
        return Unsettled("cloud_busy", text)
    return BackendError("cloud_rejected", text)


def _raise_failed(operation: Any) -> None:
    """Raise what a finished operation failed with; return if it did not fail, or is not finished."""
    operation = cast(compute.Operation, operation)
    if operation.status != compute.Operation.Status.DONE:
        return
    for error in operation.error.errors:
        text = f"{error.code}: {error.message}"
        if error.code in _CAPACITY:
            raise BackendError("capacity_missing", text)
        if error.code in _QUOTA:
            raise BackendError("quota_exceeded", text)
        if error.code in _THERE:
            return
        if error.code in _THROTTLED:
            raise Unsettled("cloud_throttled", text)
        if error.code in _BUSY:
            raise Unsettled("cloud_busy", text)
        if error.code in _INTERNAL:
            raise BackendError("launch_failed", text)
        raise BackendError("cloud_rejected", text)
