"""Which requests our backends make: read from their code, then made with the real clients and stopped before they leave."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[3]
BACKENDS = ROOT / "workers" / "backends"
_ACTS = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete", "POST": "action"}


class Stopped(Exception):
    """Carries the request that would have gone out."""

    def __init__(self, method: str, url: str) -> None:
        super().__init__(f"{method} {url}")
        self.method, self.url = method, url


def calls(path: Path, groups: dict[str, type]) -> set[tuple[str, str]]:
    """(group, method) of each call of a client. `groups`: how the code names a client's operations, and their class.

    Raises ValueError for a call of such a method on something that is not understood: nothing is passed over.
    """
    methods = {name for kind in groups.values() for name in vars(kind) if not name.startswith("_")}
    found = set()
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef):
            continue
        known = dict(_shorthands(function, groups))
        for node in ast.walk(function):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            method, owner = node.func.attr, node.func.value
            group = (
                owner.attr if isinstance(owner, ast.Attribute) else known.get(getattr(owner, "id", ""), "")
            )
            if group in groups and hasattr(groups[group], method):
                found.add((group, method))
            elif group in groups or (
                method in methods and (method != "get" or "client" in ast.unparse(owner))
            ):
                # A `get` of what is no client is a dictionary's.
                raise ValueError(f"{path.name}:{node.lineno}: {ast.unparse(node.func)} is not understood")
    return found


def _shorthands(function: ast.FunctionDef, groups: dict[str, type]) -> Iterator[tuple[str, str]]:
    """Names that stand for a client's operations: disks = self.clients.compute.disks."""
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            pairs = (
                zip(target.elts, node.value.elts, strict=True)
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                else [(target, node.value)]
            )
            for name, value in pairs:
                if isinstance(name, ast.Name) and isinstance(value, ast.Attribute) and value.attr in groups:
                    yield name.id, value.attr


def keywords(path: Path) -> set[tuple[str, str]]:
    """(class, keyword) of each thing that is built with keywords: what the requests' bodies have."""
    return {
        (node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id, keyword.arg)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)
        for keyword in node.keywords
        if keyword.arg
    }


# Azure


def azure_clients() -> dict[str, tuple[Path, dict[str, Any]]]:
    """By backend: its file, and the real clients' operations by the names that the code gives them."""
    from azure.core.pipeline.transport import HttpTransport
    from azure.mgmt.compute import ComputeManagementClient
    from azure.mgmt.containerinstance import ContainerInstanceManagementClient
    from azure.mgmt.network import NetworkManagementClient

    class Stop(HttpTransport):  # type: ignore[type-arg]
        def send(self, request: Any, **_: Any) -> Any:
            raise Stopped(request.method, request.url)

        def open(self) -> None: ...
        def close(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    class Credential:
        def get_token(self, *_: str, **__: Any) -> Any:
            from azure.core.credentials import AccessToken

            return AccessToken("token", 2**40)

    def made(client: Any) -> Any:
        return client(Credential(), "subscription", transport=Stop())

    compute, network, containers = map(
        made, (ComputeManagementClient, NetworkManagementClient, ContainerInstanceManagementClient)
    )
    return {
        "azure": (BACKENDS / "azure.py", {
            "virtual_machines": compute.virtual_machines, "disks": compute.disks,
            "network_interfaces": network.network_interfaces,
        }),
        "azure-aci": (BACKENDS / "azure_aci.py", {"groups": containers.container_groups}),
    }  # fmt: skip


def azure_actions() -> set[str]:
    """The action of each request, as Azure's access control names it: PROVIDER/type/read, write or delete."""
    found = set()
    for path, clients in azure_clients().values():
        for group, method in calls(path, {name: type(client) for name, client in clients.items()}):
            found.add(_action(_stopped(getattr(clients[group], method))))
    return found


def _action(request: Stopped) -> str:
    path = urlsplit(request.url).path
    kind = re.search(r"/providers/(Microsoft\.\w+/\w+)(?:/[^/]+(/\w+)?)?$", path)
    if kind is None:
        raise ValueError(f"{request}: not understood")
    return f"{kind[1]}{kind[2] or ''}/{_ACTS[request.method]}"


def _stopped(call: Any) -> Stopped:
    """The request of a call whose arguments are their own names."""
    needed = {
        parameter.name: {}
        if parameter.name in ("parameters", "resource", "container_group")
        else parameter.name
        for parameter in inspect.signature(call).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    try:
        answer = call(**needed, **({"polling": False} if call.__name__.startswith("begin_") else {}))
        next(iter(answer))
    except Stopped as stopped:
        return stopped
    raise ValueError(f"{call} made no request")


# Google


def google_methods() -> set[str]:
    """The id of each method that is called, as the discovery document names it, e.g. compute.instances.insert."""
    compute = importlib.import_module("google.cloud.compute_v1")
    clients = {
        "instances": compute.InstancesClient, "disks": compute.DisksClient, "operations": compute.ZoneOperationsClient,
    }  # fmt: skip
    resources = {"instances": "instances", "disks": "disks", "operations": "zoneOperations"}
    return {
        f"compute.{resources[group]}.{method.removesuffix('_unary')}"
        for group, method in calls(BACKENDS / "gcp.py", clients)
    }
