"""Google Compute Engine, as much of it as is used: instances, boot disks, zone operations."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.fakes.discovery import check
from tests.fakes.server import Answer, BadRequest, Fake, Refused, Request

PREEMPTED = "compute.instances.preempted"


@dataclass
class Operation:
    name: str
    kind: str
    target: str
    asked: datetime
    ends: datetime
    error: tuple[str, str] | None = None
    done: bool = False
    user: bool = True


@dataclass
class Instance:
    name: str
    zone: str
    body: dict[str, Any]
    created: datetime
    status: str = "PROVISIONING"
    boots: int = 0


@dataclass
class Disk:
    name: str
    zone: str
    labels: dict[str, str]
    created: datetime
    auto_delete: bool
    status: str = "READY"
    users: set[str] = field(default_factory=set)


class ComputeFake(Fake):
    """One project. `boot` and `end`: seconds that an insert and a delete take."""

    boot, end = 40.0, 30.0

    def __init__(self, project: str = "trial", zone: str = "europe-west2-a") -> None:
        super().__init__()
        self.project, self.zone = project, zone
        self.instances: dict[str, Instance] = {}
        self.disks: dict[str, Disk] = {}
        self.operations: list[Operation] = []
        self.leave_disk = False  # the next failed insert forgets its disk
        self.stuck = False  # removals are accepted, and nothing goes
        self.endless = False  # every page of a list has a next one

    def error(self, status: int, code: str, message: str) -> Any:
        return {
            "error": {
                "code": status,
                "message": message,
                "errors": [{"message": message, "domain": "global", "reason": code}],
            }
        }

    def act(self, request: Request) -> Answer:
        method, path = check(request)
        if path["project"] != self.project:
            raise Refused(404, "notFound", f"The resource 'projects/{path['project']}' was not found")
        match method:
            case "compute.instances.insert":
                return self._insert(path["zone"], request)
            case "compute.instances.get":
                return Answer(body=self._instance(self._found(self.instances, path["instance"], "instances")))
            case "compute.instances.delete":
                return self._delete(path["instance"], request)
            case "compute.instances.list":
                items = [self._instance(i) for i in self.instances.values()]
                return self._list(request, items, "compute#instanceList")
            case "compute.disks.get":
                return Answer(body=self._disk(self._found(self.disks, path["disk"], "disks")))
            case "compute.disks.delete":
                return self._delete_disk(path["disk"])
            case "compute.disks.list":
                return self._list(request, [self._disk(d) for d in self.disks.values()], "compute#diskList")
            case "compute.zoneOperations.list":
                return self._list(
                    request, [self._operation(o) for o in self.operations], "compute#operationList"
                )
            case _:
                raise BadRequest(f"the fake does not know {method}")

    def _found(self, among: dict[str, Any], name: str, kind: str) -> Any:
        if name not in among:
            raise Refused(404, "notFound", f"The resource '{kind}/{name}' was not found")
        return among[name]

    def _insert(self, zone: str, request: Request) -> Answer:
        body = request.body
        name = body.get("name", "")
        if zone != self.zone:
            raise Refused(404, "notFound", f"The zone '{zone}' was not found")
        for needed in ("name", "machineType", "disks", "networkInterfaces"):
            if not body.get(needed):
                raise BadRequest(f"{needed} is required")
        _check_labels(body.get("labels", {}))
        if name in self.instances:
            raise Refused(409, "alreadyExists", f"The resource 'instances/{name}' already exists")
        operation = self._begin("insert", name, self.boot)
        if fault := self.take("operation", request):
            operation.error = (fault.code, fault.message)
        parameters = body["disks"][0]["initializeParams"]
        if parameters["diskName"] in self.disks:
            operation.error = ("RESOURCE_ALREADY_EXISTS", f"The resource 'disks/{name}' already exists")
            return Answer(body=self._operation(operation))
        self.instances[name] = Instance(name, zone, body, self.now)
        _check_labels(parameters.get("labels", {}))
        self.disks[parameters["diskName"]] = Disk(
            parameters["diskName"], zone, parameters.get("labels", {}), self.now, body["disks"][0]["autoDelete"],
            users={name},
        )  # fmt: skip
        return Answer(body=self._operation(operation))

    def _delete(self, name: str, request: Request) -> Answer:
        instance = self._found(self.instances, name, "instances")
        for operation in self.operations:
            if operation.kind == "delete" and operation.target == name and not operation.done:
                return Answer(body=self._operation(operation))
        operation = self._begin("delete", name, self.end)
        if fault := self.take("operation", request):
            operation.error = (fault.code, fault.message)
        else:
            instance.status = "STOPPING"
        return Answer(body=self._operation(operation))

    def _delete_disk(self, name: str) -> Answer:
        disk = self._found(self.disks, name, "disks")
        if disk.users:
            raise Refused(400, "resourceInUseByAnotherResource", f"The disk {name} is in use")
        disk.status = "DELETING"
        return Answer(body=self._operation(self._begin("delete-disk", name, self.end)))

    def preempt(self, name: str) -> None:
        """Take a spot machine back, as its termination action says."""
        with self.lock:
            self._begin(PREEMPTED, name, 0.0, user=False)
            self._terminate(name)
            self.settle()

    def _terminate(self, name: str) -> None:
        if self.instances[name].body["scheduling"].get("instanceTerminationAction") == "DELETE":
            self._gone(name)
        else:
            self.instances[name].status = "TERMINATED"

    def _begin(self, kind: str, target: str, seconds: float, *, user: bool = True) -> Operation:
        made = Operation(
            f"operation-{len(self.operations)}", kind, target, self.now, self.now + timedelta(seconds=seconds),
            user=user,
        )  # fmt: skip
        self.operations.append(made)
        return made

    def settle(self) -> None:
        for operation in self.operations:
            if operation.done or operation.ends > self.now or (self.stuck and "delete" in operation.kind):
                continue
            operation.done = True
            match operation.kind:
                case "insert" if operation.error is None:
                    if (
                        operation.target in self.instances
                        and self.instances[operation.target].status != "STOPPING"
                    ):
                        self.instances[operation.target].status = "RUNNING"
                        self.instances[operation.target].boots += 1
                case "insert" if operation.error[0] != "RESOURCE_ALREADY_EXISTS":  # type: ignore[index]
                    self._gone(operation.target, keep_disk=self.leave_disk)
                    self.leave_disk = False
                case "delete" if operation.error is None:
                    self._gone(operation.target)
                case "delete-disk":
                    self.disks.pop(operation.target, None)
        for name, instance in list(self.instances.items()):
            limit = instance.body.get("scheduling", {}).get("maxRunDuration", {}).get("seconds")
            if limit is not None and self.now >= instance.created + timedelta(seconds=int(limit)):
                self._terminate(name)

    def _gone(self, name: str, *, keep_disk: bool = False) -> None:
        self.instances.pop(name, None)
        for disk in list(self.disks.values()):
            if name in disk.users:
                disk.users.discard(name)
                if disk.auto_delete and not keep_disk:
                    del self.disks[disk.name]

    def _instance(self, instance: Instance) -> dict[str, Any]:
        return {
            **instance.body,
            "kind": "compute#instance",
            "id": "1",
            "status": instance.status,
            "creationTimestamp": instance.created.isoformat(),
        }

    def _disk(self, disk: Disk) -> dict[str, Any]:
        return {
            "kind": "compute#disk", "id": "2", "name": disk.name, "labels": disk.labels, "status": disk.status,
            "users": [f"instances/{u}" for u in disk.users], "creationTimestamp": disk.created.isoformat(),
        }  # fmt: skip

    def _operation(self, operation: Operation) -> dict[str, Any]:
        link = f"{self.url}/compute/v1/projects/{self.project}/zones/{self.zone}/instances/{operation.target}"
        found = {
            "kind": "compute#operation",
            "id": "3",
            "name": operation.name,
            "operationType": "delete" if operation.kind == "delete-disk" else operation.kind,
            "targetLink": link.replace("/instances/", "/disks/") if operation.kind == "delete-disk" else link,
            "status": "DONE" if operation.done else "RUNNING",
            "insertTime": operation.asked.isoformat() + f".{self.operations.index(operation):06d}",
            "progress": 100 if operation.done else 0,
        }
        if operation.done and operation.error:
            code, message = operation.error
            found["error"] = {"errors": [{"code": code, "message": message}]}
        return found

    def _list(self, request: Request, items: list[dict[str, Any]], kind: str) -> Answer:
        """Two entries a page, whatever is asked for: a client that reads one page only is found out."""
        chosen = [item for item in items if _filtered(request.query.get("filter", ""), item)]
        start = int(request.query.get("pageToken") or 0)
        body: dict[str, Any] = {"kind": kind, "id": "list", "items": chosen[start : start + 2]}
        if start + 2 < len(chosen):
            body["nextPageToken"] = str(start + 2)
        if self.endless:
            body["nextPageToken"] = "0"
        return Answer(body=body)


def _filtered(text: str, item: dict[str, Any]) -> bool:
    if not text:
        return True
    if match := re.fullmatch(r'targetLink eq "(.+)"', text):
        return bool(re.fullmatch(match.group(1), item["targetLink"]))
    if match := re.fullmatch(r"labels\.([a-z-]+)=([a-z0-9_-]+)", text):
        return item.get("labels", {}).get(match.group(1)) == match.group(2)
    raise BadRequest(f"the fake does not know the filter {text!r}")


def _check_labels(labels: dict[str, str]) -> None:
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            raise BadRequest(f"label {key}={value} is not allowed")
