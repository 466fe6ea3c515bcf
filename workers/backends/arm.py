"""What the two Azure backends share: how the resource manager is called, and what its errors mean."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from azure.core import exceptions as core
from azure.core.pipeline.policies import RetryPolicy
from django.core.exceptions import ImproperlyConfigured

from workers.backends.base import BackendError, Unsettled
from workers.backends.cloud import TIMEOUT

# A worker's log is not the place for every request of every look.
logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)

# "Troubleshoot Azure Resource Manager errors", "Allocation failures", "Container Instances troubleshooting".
CAPACITY = {
    "AllocationFailed", "ZonalAllocationFailed", "OverconstrainedAllocationRequest",
    "OverconstrainedZonalAllocationRequest", "SkuNotAvailable", "SpotVMNotAvailable", "ServiceUnavailable",
}  # fmt: skip
QUOTA = {
    "QuotaExceeded", "ResourceQuotaExceeded", "ContainerGroupQuotaReached", "SubnetIsFull", "NetworkInterfaceCountLimitReached",
}  # fmt: skip
BUSY = {
    "NicInUse", "NicReservedForAnotherVm", "InUseSubnetCannotBeUpdated", "AnotherOperationInProgress", "RetryableError",
    "OperationPreempted", "ContainerGroupTransitioning", "ContainerGroupDeploymentInProgress",
}  # fmt: skip


def client_options() -> dict[str, Any]:
    """The engine owns every retry, so the client makes none; each call has its own end."""
    return {
        "retry_policy": RetryPolicy.no_retries(),
        "connection_timeout": TIMEOUT[0],
        "read_timeout": TIMEOUT[1],
    }


def credential() -> Any:
    """The worker's own identity: a managed identity, a workload identity or a service principal of its environment."""
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(
        exclude_interactive_browser_credential=True,
        retry_total=0,
        connection_timeout=TIMEOUT[0],
        read_timeout=TIMEOUT[1],
    )


def require_subnet(subnet: str) -> None:
    """Raises ImproperlyConfigured for anything but a subnet's resource id."""
    if not re.fullmatch(
        r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Network/virtualNetworks/[^/]+/subnets/[^/]+",
        subnet,
    ):
        raise ImproperlyConfigured(
            "STRONGROOM_AZURE_SUBNET is a subnet's whole resource id: /subscriptions/..."
        )


@contextmanager
def answers() -> Iterator[None]:
    """Turn the clients' exceptions into what the engine understands."""
    try:
        yield
    except core.HttpResponseError as error:
        raise from_answer(error) from error
    except (core.AzureError, OSError) as error:
        # No whole answer: refused, dropped, timed out, or cut short. Whether it was done is not known.
        raise Unsettled("cloud_unreachable", f"{type(error).__name__}: {error}") from error


def from_answer(error: core.HttpResponseError) -> BackendError:
    """An error answer as code and outcome. An error without a status is one of credentials."""
    code = str(getattr(error.error, "code", "") or "")
    text, status = f"{error.status_code} {code}: {error.message}", error.status_code
    if isinstance(error, core.ClientAuthenticationError) and status is None:
        return BackendError("cloud_denied", text)
    if status is None:
        return Unsettled("cloud_unreachable", text)
    known = from_code(code, text)
    if known is not None:
        return known
    if status in (401, 403):
        return BackendError("cloud_denied", text)
    if status in (409, 412, 429):
        return Unsettled("cloud_busy", text)
    if status == 408 or status >= 500 or status < 400:
        return Unsettled("cloud_unreachable", text)
    return BackendError("cloud_rejected", text)


def from_code(code: str, text: str) -> BackendError | None:
    """What a code of the resource manager means, wherever it stands; None for one that says no more than its status."""
    if code in QUOTA or (code == "OperationNotAllowed" and "quota" in text.lower()):
        return BackendError("quota_exceeded", text)
    if code in CAPACITY and not text.startswith("503 "):
        return BackendError("capacity_missing", text)
    if code in BUSY:
        return Unsettled("cloud_busy", text)
    return None


def is_missing(error: core.HttpResponseError) -> bool:
    return error.status_code == 404
