"""Azure Resource Manager, as much of it as is used: VMs, disks, network interfaces, container groups, one group."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.fakes.arm_models import check
from tests.fakes.server import Answer, BadRequest, Fake, Fault, Refused, Request

ROOT = re.compile(
    r"/subscriptions/(?P<sub>[^/]+)/resourceGroups/(?P<group>[^/]+)/providers/"
    r"(?P<kind>Microsoft\.\w+/\w+)(?:/(?P<name>[^/]+))?"
)
VM, DISK = "Microsoft.Compute/virtualMachines", "Microsoft.Compute/disks"
NIC, CONTAINERS = "Microsoft.Network/networkInterfaces", "Microsoft.ContainerInstance/containerGroups"


@dataclass
class Resource:
    kind: str
    name: str
    body: dict[str, Any]
    created: datetime
    state: str = "Creating"
    power: str = ""
    failure: tuple[str, str] | None = None
    due: datetime | None = None
    parts: list[tuple[str, str]] = field(default_factory=list)
    user: str = ""  # the VM that a NIC or a disk belongs to
    boots: int = 0
    stays: bool = False  # its removal was accepted, and will fail


class ArmFake(Fake):
    """`boot`, `end`, `small`: seconds that making and removing a machine take, and removing a part."""

    boot, end, small = 50.0, 40.0, 10.0

    def __init__(
        self, subscription: str = "11111111-2222-3333-4444-555555555555", group: str = "runs"
    ) -> None:
        super().__init__()
        self.subscription, self.group = subscription, group
        self.resources: dict[tuple[str, str], Resource] = {}
        self.leave_parts: set[str] = set()  # kinds of parts that the next machine removed forgets
        self.operations = 0
        self.stuck = False  # removals are accepted, and nothing goes
        self.elsewhere = ""  # the host of the next page of a list
        self.endless = False  # every page of a list has a next one

    def error(self, status: int, code: str, message: str) -> Any:
        return {"error": {"code": code, "message": message}}

    def act(self, request: Request) -> Answer:
        if "api-version" not in request.query:
            raise BadRequest("api-version is missing")
        if not request.headers.get("authorization", "").startswith("Bearer "):
            raise Refused(401, "AuthenticationFailed", "The access token is missing")
        match = ROOT.fullmatch(request.path)
        if match is None:
            raise BadRequest("no such address")
        if match["sub"] != self.subscription:
            raise Refused(404, "SubscriptionNotFound", "The subscription could not be found.")
        if match["group"] != self.group:
            raise Refused(404, "ResourceGroupNotFound", "The resource group could not be found.")
        kind, name = match["kind"], match["name"]
        if kind not in (VM, DISK, NIC, CONTAINERS):
            raise BadRequest(f"the fake does not know {kind}")
        if name is None:
            return self._list(kind, request)
        match request.method:
            case "GET":
                return Answer(
                    body=self._show(
                        self._found(kind, name), "instanceView" in request.query.get("$expand", "")
                    )
                )
            case "PUT":
                return self._put(kind, name, request)
            case "DELETE":
                return self._delete(kind, name, request)
            case _:
                raise BadRequest(f"{request.method} is not for {kind}")

    def _found(self, kind: str, name: str) -> Resource:
        if (kind, name) not in self.resources:
            raise Refused(404, "ResourceNotFound", f"The Resource '{kind}/{name}' was not found.")
        return self.resources[kind, name]

    def _put(self, kind: str, name: str, request: Request) -> Answer:
        check(_model(kind), request.body)
        there = self.resources.get((kind, name))
        if there is not None and kind != CONTAINERS and request.headers.get("if-none-match") == "*":
            raise Refused(412, "PreconditionFailed", "The resource exists already.")
        if there is not None and there.state == "Deleting":
            raise Refused(409, "Conflict", "The resource is being deleted.")
        if not request.body.get("location"):
            raise BadRequest("location is required")
        for tag, value in request.body.get("tags", {}).items():
            if len(tag) > 512 or len(value) > 256 or re.search(r"[<>%&\\?/]", tag):
                raise BadRequest(f"tag {tag}={value} is not allowed")
        if there is not None and kind == CONTAINERS and there.body != request.body:
            # No precondition is heeded here: another body restarts the group.
            there.state, there.power, there.due = "Creating", "", self.now + timedelta(seconds=self.boot)
        resource = there or Resource(kind, name, request.body, self.now)
        resource.body = request.body
        fault = self.take("operation", request)
        makers: dict[str, Callable[[Resource, Fault | None], None]] = {
            VM: self._make_vm, NIC: self._make_nic, CONTAINERS: self._make_group,
        }  # fmt: skip
        if kind not in makers:
            raise BadRequest(f"{kind} is not made by itself here")
        if there is None:
            makers[kind](resource, fault)
            self.resources[kind, name] = resource
        return Answer(200 if there else 201, self._show(resource), self._operation())

    def _make_vm(self, vm: Resource, fault: Fault | None) -> None:
        properties = vm.body["properties"]
        reference = properties["networkProfile"]["networkInterfaces"][0]["id"]
        nic = self.resources.get((NIC, reference.rpartition("/")[2]))
        if nic is None:
            raise Refused(404, "NotFound", f"Resource {reference} not found.")
        if nic.user:
            raise Refused(400, "NicInUse", "The network interface is used by another machine.")
        if "osProfile" not in properties:
            raise Refused(400, "InvalidParameter", "Required parameter 'osProfile' is missing (null).")
        disk_name = properties["storageProfile"]["osDisk"]["name"]
        if (DISK, disk_name) in self.resources:
            raise Refused(409, "Conflict", f"Disk {disk_name} already exists.")
        nic.user = vm.name
        # As the real one may: the disk does not have its machine's tags.
        disk = Resource(
            DISK, disk_name, {"location": vm.body["location"]}, self.now, "Succeeded", user=vm.name
        )
        self.resources[DISK, disk_name] = disk
        vm.parts = [(NIC, nic.name), (DISK, disk_name)]
        vm.due = self.now + timedelta(seconds=self.boot)
        vm.failure = (fault.code, fault.message) if fault else None

    def _make_nic(self, nic: Resource, fault: Fault | None) -> None:
        nic.state = "Succeeded"
        for one in nic.body["properties"]["ipConfigurations"]:
            if one["properties"].get("publicIPAddress"):
                raise Refused(403, "RequestDisallowedByPolicy", "No public addresses here.")

    def _make_group(self, group: Resource, fault: Fault | None) -> None:
        group.due = self.now + timedelta(seconds=self.boot)
        group.failure = (fault.code, fault.message) if fault else None

    def _delete(self, kind: str, name: str, request: Request) -> Answer:
        if (kind, name) not in self.resources:
            return Answer(204)
        resource = self.resources[kind, name]
        if kind in (NIC, DISK) and resource.user:
            code = "NicInUse" if kind == NIC else "OperationNotAllowed"
            raise Refused(400 if kind == NIC else 409, code, f"{name} is attached to {resource.user}.")
        if resource.state != "Deleting" or resource.due is None:
            resource.state = "Deleting"
            resource.due = self.now + timedelta(seconds=self.end if kind in (VM, CONTAINERS) else self.small)
            resource.stays = self.take("operation", request) is not None
        if self.stuck:
            resource.due = None
        return Answer(202, headers=self._operation())

    def _operation(self) -> dict[str, str]:
        self.operations += 1
        where = f"{self.url}/subscriptions/{self.subscription}/providers/operations/{self.operations}"
        return {"Azure-AsyncOperation": where, "Location": where, "Retry-After": "10"}

    def evict(self, name: str) -> None:
        with self.lock:
            self.resources[VM, name].power = "deallocated"

    def stop(self, name: str) -> None:
        """The container has ended, or the machine has switched itself off."""
        with self.lock:
            for kind in (VM, CONTAINERS):
                if (kind, name) in self.resources:
                    self.resources[kind, name].power = "stopped"

    def settle(self) -> None:
        for key, resource in list(self.resources.items()):
            if resource.due is None or resource.due > self.now:
                continue
            resource.due = None
            if resource.state == "Deleting" and resource.stays:
                resource.state, resource.failure = (
                    "Failed",
                    ("InternalExecutionError", "It could not be removed."),
                )
            elif resource.state == "Deleting":
                self._end(key, resource)
            elif resource.failure:
                resource.state = "Failed"
            else:
                resource.state, resource.power = "Succeeded", "running"
                resource.boots += 1

    def _end(self, key: tuple[str, str], resource: Resource) -> None:
        self.resources.pop(key, None)
        for part in resource.parts:
            kept = self.resources.get(part)
            if kept is not None:
                kept.user = ""
                if part[0] not in self.leave_parts and _delete_option(resource, part[0]) == "Delete":
                    del self.resources[part]
        if resource.parts:
            self.leave_parts = set()

    def _show(self, resource: Resource, view: bool = False) -> dict[str, Any]:
        address = f"/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers/{resource.kind}/{resource.name}"
        properties = {**resource.body.get("properties", {}), "provisioningState": resource.state}
        if resource.kind == VM:
            properties.pop("userData", None)
            properties["timeCreated"] = resource.created.isoformat()
            if view:
                properties["instanceView"] = {"statuses": _statuses(resource)}
        if resource.kind == DISK:
            properties["timeCreated"] = resource.created.isoformat()
        if resource.kind == CONTAINERS:
            properties["instanceView"] = {"state": _group_state(resource), "events": []}
            if resource.failure and resource.state == "Failed":
                properties["instanceView"]["events"] = [
                    {
                        "name": resource.failure[0],
                        "message": resource.failure[1],
                        "type": "Warning",
                        "count": 1,
                    }
                ]
        return {
            **resource.body,
            "id": address,
            "name": resource.name,
            "type": resource.kind,
            "properties": properties,
        }

    def _list(self, kind: str, request: Request) -> Answer:
        """Two entries a page: a client that reads one page only is found out."""
        items = [self._show(r) for (k, _), r in self.resources.items() if k == kind]
        start = int(request.query.get("$skiptoken") or 0)
        body: dict[str, Any] = {"value": items[start : start + 2]}
        if start + 2 < len(items):
            version = request.query["api-version"]
            body["nextLink"] = (
                f"{self.elsewhere or self.url}{request.path}?api-version={version}&%24skiptoken={start + 2}"
            )
        if self.endless:
            body["nextLink"] = f"{self.url}{request.path}?api-version={request.query['api-version']}"
        return Answer(body=body)


def _delete_option(vm: Resource, kind: str) -> str:
    properties = vm.body["properties"]
    if kind == DISK:
        return str(properties["storageProfile"]["osDisk"].get("deleteOption"))
    reference = properties["networkProfile"]["networkInterfaces"][0]
    return str(reference.get("properties", {}).get("deleteOption"))


def _statuses(vm: Resource) -> list[dict[str, Any]]:
    if vm.state == "Failed" and vm.failure:
        code, message = vm.failure
        return [{"code": f"ProvisioningState/failed/{code}", "level": "Error", "message": message}]
    found = [{"code": f"ProvisioningState/{vm.state.lower()}", "level": "Info"}]
    return [*found, {"code": f"PowerState/{vm.power}", "level": "Info"}] if vm.power else found


def _group_state(group: Resource) -> str:
    if group.state == "Failed":
        return "Failed"
    return {"": "Pending", "running": "Running", "stopped": "Succeeded"}.get(group.power, group.power)


def _model(kind: str) -> type:
    from azure.mgmt.compute.models import VirtualMachine
    from azure.mgmt.containerinstance.models import ContainerGroup
    from azure.mgmt.network.models import NetworkInterface

    return {VM: VirtualMachine, NIC: NetworkInterface, CONTAINERS: ContainerGroup}[kind]
