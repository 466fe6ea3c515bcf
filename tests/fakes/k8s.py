"""A Kubernetes API server with a Job controller and a garbage collector, as much of them as is used.

Bodies are checked against the client's own generated models, as a server does under strict field validation.
"""

from __future__ import annotations

import base64
import copy
import re
from datetime import timedelta
from typing import Any

from tests.fakes.server import Answer, BadRequest, Fake, Refused, Request

ADDRESS = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[a-z.0-9]+/v1))/namespaces/(?P<space>[a-z0-9-]+)/(?P<kind>[a-z]+)(?:/(?P<name>[^/]+))?"
)
KINDS = {"jobs": "V1Job", "secrets": "V1Secret", "networkpolicies": "V1NetworkPolicy", "pods": "V1Pod"}
GROUPS = {"jobs": "batch/v1", "networkpolicies": "networking.k8s.io/v1", "secrets": None, "pods": None}
QUERY = {"labelSelector", "propagationPolicy", "gracePeriodSeconds", "fieldValidation", "limit", "continue"}


class ClusterFake(Fake):
    """`boot`, `end`: seconds until a pod runs and until a Job with its pods is gone."""

    boot, end = 20.0, 25.0

    def __init__(self, namespace: str = "runs") -> None:
        super().__init__()
        self.namespace = namespace
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.due: dict[tuple[str, str], Any] = {}
        self.boots: dict[str, int] = {}
        self.collects = {"secrets", "networkpolicies"}  # kinds that the garbage collector gets round to
        self.room = True  # nodes have room
        self.pull_error = ""
        self.stuck = False  # removals are accepted, and nothing goes: a finalizer, or a node that is lost
        self.endless = False  # every page of a list has a next one
        self._uid = 0

    def error(self, status: int, code: str, message: str) -> Any:
        return {
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": code,
            "message": message,
        }  # fmt: skip

    def act(self, request: Request) -> Answer:
        match = ADDRESS.fullmatch(request.path)
        if match is None or match["kind"] not in KINDS or GROUPS[match["kind"]] != match["group"]:
            raise BadRequest("no such address")
        if unknown := set(request.query) - QUERY:
            raise BadRequest(f"unknown parameters {unknown}")
        if request.headers.get("authorization") != "Bearer fake":
            raise Refused(401, "Unauthorized", "Unauthorized")
        kind, name = match["kind"], match["name"]
        if match["space"] != self.namespace:
            raise Refused(404, "NotFound", f"namespaces {match['space']} not found")
        if name is None:
            return self._make(kind, request) if request.method == "POST" else self._list(kind, request)
        if (kind, name) not in self.objects:
            raise Refused(404, "NotFound", f'{kind} "{name}" not found')
        match request.method:
            case "GET":
                return Answer(body=self.objects[kind, name])
            case "PATCH":
                return self._patch(kind, name, request)
            case "DELETE":
                return self._delete(kind, name, request)
            case _:
                raise BadRequest(f"{request.method} is not for {kind}")

    def _make(self, kind: str, request: Request) -> Answer:
        body = copy.deepcopy(request.body)
        check(KINDS[kind], body, kind)
        meta = body["metadata"]
        name = meta["name"]
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
            raise BadRequest(f"{name} is no name")
        for labels in [meta.get("labels", {}), *_template_labels(body)]:
            for key, value in labels.items():
                if not re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", value):
                    raise BadRequest(f"label {key}={value} is not allowed")
        if (kind, name) in self.objects:
            raise Refused(409, "AlreadyExists", f'{kind} "{name}" already exists')
        self._uid += 1
        body |= {"kind": KINDS[kind][2:], "apiVersion": GROUPS[kind] or "v1"}
        meta |= {"uid": f"uid-{self._uid}", "creationTimestamp": _time(self.now), "namespace": self.namespace}
        if kind == "secrets":
            plain = body.pop("stringData", {})
            body["data"] = body.get("data", {}) | {
                k: base64.b64encode(v.encode()).decode() for k, v in plain.items()
            }
        if kind == "jobs":
            _check_job(body)
            body["status"] = {}
        self.objects[kind, name] = body
        if kind == "jobs" and not body["spec"].get("suspend"):
            self._start(name)
        return Answer(201, body)

    def _patch(self, kind: str, name: str, request: Request) -> Answer:
        if kind != "jobs" or request.body != {"spec": {"suspend": False}}:
            raise BadRequest(f"the fake does not know the patch {request.body}")
        job = self.objects[kind, name]
        if job["spec"]["suspend"] and "deletionTimestamp" not in job["metadata"]:
            job["spec"]["suspend"] = False
            self._start(name)
        return Answer(body=job)

    def _start(self, name: str) -> None:
        """The Job controller makes the one pod."""
        job = self.objects["jobs", name]
        template = job["spec"]["template"]
        pod = f"{name}-x7k2p"
        self.objects["pods", pod] = {
            "kind": "Pod", "apiVersion": "v1", "metadata": {
                "name": pod, "labels": dict(template["metadata"]["labels"]), "uid": f"pod-{name}",
                "creationTimestamp": _time(self.now), "ownerReferences": [
                    {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
                ],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }  # fmt: skip
        job["status"] = {"active": 1, "startTime": _time(self.now)}
        self.due["pods", pod] = self.now + timedelta(seconds=self.boot)

    def _delete(self, kind: str, name: str, request: Request) -> Answer:
        thing = self.objects[kind, name]
        options = {**request.query, **(request.body or {})}
        if kind in ("jobs", "pods"):
            if kind == "jobs" and options.get("propagationPolicy") != "Foreground":
                raise BadRequest("the pods would be left behind")
            if "deletionTimestamp" not in thing["metadata"]:
                thing["metadata"]["deletionTimestamp"] = _time(self.now)
                self.due[kind, name] = self.now + timedelta(seconds=self.end)
        else:
            del self.objects[kind, name]
        return Answer(body=thing if kind == "pods" else self._status_ok())

    @staticmethod
    def _status_ok() -> dict[str, Any]:
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def evict(self, job: str) -> None:
        with self.lock:
            pod = self._pod_of(job)
            pod["status"] = {
                "phase": "Failed",
                "conditions": [
                    {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
                ],
            }
            self._finish(job, "Failed")

    def stop(self, job: str) -> None:
        with self.lock:
            self._pod_of(job)["status"] = {"phase": "Succeeded"}
            self._finish(job, "Complete")

    def _finish(self, job: str, how: str) -> None:
        self.objects["jobs", job]["status"] = {"conditions": [{"type": how, "status": "True"}]}

    def _pod_of(self, job: str) -> dict[str, Any]:
        return self.objects["pods", f"{job}-x7k2p"]

    def settle(self) -> None:
        for key, moment in list(self.due.items()):
            thing = self.objects.get(key)
            going = thing is not None and "deletionTimestamp" in thing["metadata"]
            if moment > self.now or (self.stuck and going):
                continue
            del self.due[key]
            if thing is None:
                continue
            if going:
                del self.objects[key]
                self._collect(thing["metadata"]["uid"], key[0])
            elif key[0] == "pods":
                self._boot(key[1], thing)
        for (kind, name), thing in list(self.objects.items()):
            if kind == "jobs" and "startTime" in thing["status"]:
                started = _moment(thing["status"]["startTime"])
                if self.now - started > timedelta(seconds=thing["spec"]["activeDeadlineSeconds"]):
                    self._pod_of(name)["status"] = {"phase": "Failed"}
                    self._finish(name, "Failed")

    def _boot(self, name: str, pod: dict[str, Any]) -> None:
        if not self.room:
            pod["status"]["conditions"] = [
                {
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "lastTransitionTime": pod["metadata"]["creationTimestamp"], "message": "0/3 nodes are available: insufficient memory.",
                }
            ]  # fmt: skip
            return
        wanted = [v["secret"]["secretName"] for v in pod["spec"]["volumes"] if "secret" in v]
        if self.pull_error or any(("secrets", s) not in self.objects for s in wanted):
            state = {"waiting": {"reason": self.pull_error or "ContainerCreating", "message": "not yet"}}
            pod["status"]["containerStatuses"] = [
                {
                    "name": "runner",
                    "image": "",
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": state,
                }
            ]
            self.due["pods", name] = self.now + timedelta(seconds=5)
            return
        pod["status"] = {"phase": "Running"}
        job = name.rpartition("-")[0]
        self.boots[job] = self.boots.get(job, 0) + 1

    def _collect(self, uid: str, kind: str) -> None:
        """Foreground deletion waits for the pods; what else belonged to it goes by the collector."""
        for key, thing in list(self.objects.items()):
            owners = {o["uid"] for o in thing["metadata"].get("ownerReferences", [])}
            if uid in owners and (key[0] in self.collects or key[0] == "pods"):
                del self.objects[key]

    def _list(self, kind: str, request: Request) -> Answer:
        wanted = dict(
            part.split("=", 1) for part in request.query.get("labelSelector", "").split(",") if part
        )
        items = [
            thing
            for (k, _), thing in self.objects.items()
            if k == kind and all(thing["metadata"].get("labels", {}).get(n) == v for n, v in wanted.items())
        ]
        # Entries have no kind of their own. Two of them a page, where pages are asked for: whoever reads one is found out.
        plain = [{n: v for n, v in item.items() if n not in ("kind", "apiVersion")} for item in items]
        start, meta = int(request.query.get("continue") or 0), {"resourceVersion": "1"}
        end = start + 2 if "limit" in request.query else len(plain)
        if end < len(plain):
            meta["continue"] = str(end)
        if self.endless:
            meta["continue"] = "0"
        name = f"{KINDS[kind][2:]}List"
        version = GROUPS[kind] or "v1"
        return Answer(body={"kind": name, "apiVersion": version, "metadata": meta, "items": plain[start:end]})


def check(model: str, body: Any, where: str) -> None:
    """Unknown members refused, by the client's own models. Raises BadRequest."""
    from kubernetes.client import models

    found = getattr(models, model)
    if not isinstance(body, dict):
        raise BadRequest(f"{where}: {body!r} is no object")
    kinds = {wire: found.openapi_types[name] for name, wire in found.attribute_map.items()}
    for name, value in body.items():
        if name not in kinds:
            raise BadRequest(f"{where}: unknown member {name!r}")
        _check_value(kinds[name], value, f"{where}.{name}")


def _check_value(kind: str, value: Any, where: str) -> None:
    if kind.startswith("list["):
        if not isinstance(value, list):
            raise BadRequest(f"{where}: {value!r} is no list")
        for number, one in enumerate(value):
            _check_value(kind[5:-1], one, f"{where}[{number}]")
    elif kind.startswith("dict("):
        inner = kind[5:-1].partition(", ")[2]
        for key, one in value.items():
            _check_value(inner, one, f"{where}.{key}")
    elif kind.startswith("V1"):
        check(kind, value, where)
    elif kind in _PLAIN and (
        not isinstance(value, _PLAIN[kind]) or (kind != "bool" and isinstance(value, bool))
    ):
        raise BadRequest(f"{where}: {value!r} is no {kind}")


_PLAIN: dict[str, Any] = {"str": str, "int": int, "bool": bool, "datetime": str, "float": (int, float)}


def _check_job(job: dict[str, Any]) -> None:
    spec = job["spec"]["template"]["spec"]
    if spec.get("restartPolicy") not in ("Never", "OnFailure"):
        raise Refused(422, "Invalid", "restartPolicy: Unsupported value")
    volumes = {v["name"] for v in spec.get("volumes", [])}
    for container in spec["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                raise Refused(422, "Invalid", f"volumeMounts.name: Not found: {mount['name']}")


def _template_labels(body: dict[str, Any]) -> list[dict[str, str]]:
    template = body.get("spec", {}).get("template")
    return [template["metadata"].get("labels", {})] if isinstance(template, dict) else []


def _time(moment: Any) -> str:
    return str(moment.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _moment(text: str) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(text.replace("Z", "+00:00"))
