"""What the two Azure backends share: how the resource manager is called, and what its answers mean."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from azure.core import exceptions as core
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import RetryPolicy, SansIOHTTPPolicy
from django.core.exceptions import ImproperlyConfigured

from workers.backends.base import BackendError, Unsettled, unreadable
from workers.backends.cloud import TIMEOUT, bounded

T = TypeVar("T")

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
# Refusals that stay until somebody changes the account, whatever their status. The second is a lock on the resource.
SET_UP = {"MissingSubscriptionRegistration", "RequestDisallowedByPolicy"}
DENIED = {"ReadOnlyDisabledSubscription", "ScopeLocked"}
_ADDRESS = re.compile(r".*/providers/[^/]+/[^/]+(?:/(?P<name>[^/]+))?")


class Readable(SansIOHTTPPolicy[Any, Any]):
    """Lets through an answer of success only in the resource manager's form, and the clients to no other host.

    The clients themselves take a page of HTML or an empty object for a machine without members, or for an empty list.
    Form: "Resource Manager REST API", resources (name, properties.provisioningState) and lists (value, nextLink).
    """

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:
        asked, answer = request.http_request, response.http_response
        if answer.status_code not in (200, 201) or asked.method not in ("GET", "PUT"):
            return  # what DELETE says is not built on: the next look shows whether it goes
        raw = answer.read() if hasattr(answer, "read") else answer.body()
        try:
            body = json.loads(raw)
        except ValueError as error:
            raise unreadable(f"{asked.method} was answered with no JSON: {error}") from None
        _check_form(asked.url, body)


def _check_form(url: str, body: Any) -> None:
    """Raises Unsettled (cloud_unreadable) for what is not the resource, or not a page of the list, at `url`."""
    match = _ADDRESS.fullmatch(urlsplit(url).path)
    name = unquote(match["name"]) if match and match["name"] else None
    if not isinstance(body, dict):
        raise unreadable("An answer is no object.")
    if name is not None:
        _check_resource(body, name)
        return
    if not isinstance(body.get("value"), list):
        raise unreadable("An answer is no page of a list.")
    for one in body["value"]:
        _check_resource(one)
    link = body.get("nextLink")
    if link and (not isinstance(link, str) or _host(link) != _host(url)):
        # The client would go there with its access token.
        raise unreadable(f"The next page of a list is said to be elsewhere: {str(link)[:200]!r}.")


def _check_resource(body: Any, name: str | None = None) -> None:
    try:
        found, state = body["name"], body["properties"]["provisioningState"]
    except (TypeError, LookupError):
        raise unreadable("A resource has no name or no state.") from None
    if not isinstance(found, str) or not isinstance(state, str) or not state:
        raise unreadable("A resource's name or state is no text.")
    if name is not None and found.lower() != name.lower():
        raise unreadable(f"{name} was asked for, and the answer is about {found[:80]!r}.")


def _host(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def client_options() -> dict[str, Any]:
    """The engine owns every retry, so the client makes none; each call has its own end.

    The resource manager redirects nobody. A proxy does, to a page of its own.
    """
    return {
        "retry_policy": RetryPolicy.no_retries(),
        "permit_redirects": False,
        "per_call_policies": [Readable()],
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


def require_place(config: Any) -> None:
    """Raises ImproperlyConfigured where a setting of both backends is missing, or `subnet` is no subnet's resource id."""
    for name in ("subscription", "resource_group", "location"):
        if not getattr(config, name):
            raise ImproperlyConfigured(f"Set STRONGROOM_AZURE_{name.upper()}.")
    if not re.fullmatch(
        r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Network/virtualNetworks/[^/]+/subnets/[^/]+",
        config.subnet,
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
    code = _code(error)
    text, status = f"{error.status_code} {code}: {error.message}", error.status_code
    if isinstance(error, core.ClientAuthenticationError) and status is None:
        return BackendError("cloud_denied", text)
    if isinstance(error, core.DecodeError) and not isinstance(error, core.IncompleteReadError):
        if status is None or status < 400:
            return unreadable(text)
    if status is None or isinstance(error, core.IncompleteReadError):
        return Unsettled("cloud_unreachable", text)
    if status == 429:
        return Unsettled("cloud_throttled", text)
    known = from_code(code, text)
    if known is not None:
        return known
    if status == 408 or status >= 500:
        return Unsettled("cloud_unreachable", text)
    if status == 412:
        return Unsettled("cloud_busy", text)
    if status < 400 or not code:
        return unreadable(text)  # a proxy's, or nobody's
    if status == 409:
        return Unsettled("cloud_busy", text)
    return BackendError("cloud_denied" if status in (401, 403) else "cloud_rejected", text)


def _code(error: core.HttpResponseError) -> str:
    """The resource manager's own word for the error; "" where the answer is not in its form."""
    return str(getattr(error.error, "code", "") or "")


def from_code(code: str, text: str) -> BackendError | None:
    """What a code of the resource manager means, wherever it stands; None for one that says no more than its status."""
    if code in QUOTA or (code == "OperationNotAllowed" and "quota" in text.lower()):
        return BackendError("quota_exceeded", text)
    if code in CAPACITY and not text.startswith("503 "):
        return BackendError("capacity_missing", text)
    if code in BUSY:
        return Unsettled("cloud_busy", text)
    if code in SET_UP:
        return BackendError("cloud_rejected", text)
    return BackendError("cloud_denied", text) if code in DENIED else None


def or_none(ask: Callable[[], T]) -> T | None:
    """What `ask` gives; None where the resource manager itself says that there is nothing of that name.

    A 404 in another form is a proxy's. That of a subscription is about the account, and about no machine.
    """
    try:
        return ask()
    except core.HttpResponseError as error:
        code = _code(error)
        if error.status_code == 404 and code.endswith("NotFound") and code != "SubscriptionNotFound":
            return None
        raise


def listed(pager: Any) -> Iterable[Any]:
    """Every entry of a list, page after page."""
    for page in bounded(pager.by_page()):
        yield from page
