"""Our Bicep file as values (pycep), with what it refers to, and held against the models of Azure's own clients.

pycep does not tell a quoted word from a name: a word that is a parameter's or a resource's name is taken for that.
"""

from __future__ import annotations

import importlib
import json
import re
import typing
from collections.abc import Iterator
from typing import Any

from tests.fakes import arm_models
from tests.fakes.server import BadRequest
from tests.unit.infra.azure_schema import TARGET, api_version
from tests.unit.infra.terraform_files import INFRA

BICEP = sorted((INFRA / "azure").glob("*.bicep"))
# Types whose package is among our dependencies: builder of the request that makes one, and model of what is sent.
INSTALLED = {
    "Microsoft.Network/networkSecurityGroups": ("build_network_security_groups_create_or_update_request", "NetworkSecurityGroup"),
    "Microsoft.Network/virtualNetworks": ("build_virtual_networks_create_or_update_request", "VirtualNetwork"),
}  # fmt: skip
# Bicep's own members of a resource.
META = {"name", "scope", "parent", "dependsOn"}
# What stands for a parameter that has no default, and for whatever an expression gives.
GIVEN = {"location": "uksouth", "portalCidrs": ["203.0.113.10/32"]}
SAMPLE = "an expression"
GROUP = {"id", "name", "location"}
_INSIDE = re.compile(r"\$\{([^}]*)\}")


def parsed(text: str) -> dict[str, Any]:
    import pycep

    return pycep.BicepParser().parse(text=text)


class File:
    """One file. `problems()` is what is wrong with it."""

    def __init__(self, text: str) -> None:
        self.told = parsed(text)
        self.resources: dict[str, Any] = self.told["resources"]
        self.parameters: dict[str, Any] = self.told["parameters"]
        self.extracted: dict[str, Any] = json.loads(TARGET.read_text())

    def config(self, name: str) -> dict[str, Any]:
        """Of a resource, or of one that is made on a condition."""
        config: dict[str, Any] = self.resources[name]["config"]
        inner: dict[str, Any] = config["config"] if "condition" in config else config
        return inner

    def value(self, told: Any) -> Any:
        """With parameters and expressions filled in, as far as types need it."""
        if isinstance(told, list):
            return [self.value(one) for one in told]
        if isinstance(told, dict):
            if "operator" in told or "function" in told:
                return SAMPLE
            return {name: self.value(one) for name, one in told.items()}
        if isinstance(told, str) and told in self.parameters:
            default = self.parameters[told]["default"]
            return GIVEN.get(told, default)
        return _INSIDE.sub(SAMPLE, told) if isinstance(told, str) else told

    def body(self, name: str) -> dict[str, Any]:
        return {key: self.value(told) for key, told in self.config(name).items() if key not in META}

    def problems(self) -> list[str]:
        found = list(self._of_references())
        for name, resource in self.resources.items():
            try:
                version = self._version(resource["type"])
            except KeyError:
                found.append(f"{name}: no model of {resource['type']}")
                continue
            if resource["api_version"] != version:
                found.append(
                    f"{name}: {resource['type']}@{resource['api_version']} is not {version}, which was looked at"
                )
            if "name" not in self.config(name):
                found.append(f"{name}.name: missing")
            if not resource["existing"]:
                found += [f"{name}: {one}" for one in self._of_body(resource["type"], self.body(name))]
        return found

    def _version(self, kind: str) -> str:
        if kind in INSTALLED:
            operations = importlib.import_module("azure.mgmt.network.operations._operations")
            return api_version(getattr(operations, INSTALLED[kind][0]), kind)
        return str(self.extracted[kind]["apiVersion"])

    def _of_body(self, kind: str, body: dict[str, Any]) -> Iterator[str]:
        if kind in INSTALLED:
            model = getattr(importlib.import_module("azure.mgmt.network.models"), INSTALLED[kind][1])
            try:
                arm_models.check(model, body)
            except BadRequest as refused:
                yield str(refused)
            yield from _missing(model, body, "")
        else:
            import jsonschema

            for error in jsonschema.Draft202012Validator(self.extracted[kind]["body"]).iter_errors(body):
                yield f"{error.json_path}: {error.message}"

    def references(self) -> Iterator[tuple[str, str]]:
        """(name, property with dots) of everything that is used; "resourceGroup()" for the group."""
        yield from self._names(self.told["resources"])
        yield from self._names(self.told["outputs"])
        yield from self._names([parameter["default"] for parameter in self.parameters.values()])

    def _names(self, told: Any) -> Iterator[tuple[str, str]]:
        if isinstance(told, list):
            for one in told:
                yield from self._names(one)
        elif isinstance(told, dict):
            if told.get("operator", {}).get("type") == "property_accessor":
                first, *rest = _chain(told)
                yield first, ".".join(rest)
            else:
                for one in told.values():
                    yield from self._names(one)
        elif isinstance(told, str):
            if told in self.parameters or told in self.resources:
                yield told, ""
            for expression in _INSIDE.findall(told):
                first, _, rest = expression.partition(".")
                yield first, rest

    def _of_references(self) -> Iterator[str]:
        used = set(self.references())
        for name, path in sorted(used):
            if name == "resourceGroup()":
                if path not in GROUP:
                    yield f"resourceGroup().{path}: unknown"
            elif name in self.resources:
                if path and path not in self._answer(self.resources[name]["type"]):
                    yield f"{name}.{path}: unknown"
            elif name not in self.parameters:
                yield f"{name}: not declared"
        for name in sorted(set(self.parameters) - {name for name, _ in used}):
            yield f"{name}: is not used"

    def _answer(self, kind: str) -> set[str]:
        if kind not in INSTALLED:
            return set(self.extracted.get(kind, {}).get("answer", ()))
        model = getattr(importlib.import_module("azure.mgmt.network.models"), INSTALLED[kind][1])
        return set(arm_models._fields(model))


def _chain(told: Any) -> Iterator[str]:
    """a.b.c as a, b, c."""
    if isinstance(told, str):
        yield told
    elif told.get("function", {}).get("type") == "resource_group":
        yield "resourceGroup()"
    elif told.get("operator", {}).get("type") == "property_accessor":
        for one in told["operator"]["operands"].values():
            yield from _chain(one)
    else:
        raise ValueError(f"not understood: {told}")


def _missing(model: type, body: Any, where: str) -> Iterator[str]:
    """What a model needs and a body does not have. Members whose type allows no None are needed."""
    for name, (hint, readonly) in arm_models._fields(model).items():
        options = typing.get_args(hint)
        if name not in body:
            if not readonly and type(None) not in options:
                yield f"{where}{name}: missing"
            continue
        inner = [one for one in options if one is not type(None)] or [hint]
        many = typing.get_origin(inner[0]) is list
        kind = typing.get_args(inner[0])[0] if many else inner[0]
        if isinstance(kind, type) and hasattr(kind, "_attr_to_rest_field"):
            for one in body[name] if many else [body[name]]:
                yield from _missing(kind, one, f"{where}{name}.")
