"""Writes the schema of the Azure types that our Bicep file names and whose packages are not among our dependencies.

    pip download --no-deps azure-mgmt-authorization azure-mgmt-msi azure-mgmt-containerregistry     # anywhere but here
    for wheel in *.whl; do unzip -q $wheel -d FOLDER; done
    .venv/bin/python -m tests.unit.infra.azure_schema FOLDER

Each type's body is a JSON Schema (2020-12) of what may be sent; `answer` lists what an answer has, with dots. Source: the models
of Microsoft's own clients, which are made from the interfaces' public specifications.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TARGET = Path(__file__).with_name("schemas") / "azure.json"
# type: (package, module, builder of a request for it, model of what is sent, model of the answer)
TYPES: dict[str, tuple[str, str, str, str, str]] = {
    "Microsoft.Authorization/roleAssignments": (
        "azure-mgmt-authorization", "azure.mgmt.authorization.v2022_04_01",
        "_role_assignments_operations.build_create_request", "RoleAssignmentCreateParameters", "RoleAssignment",
    ),
    "Microsoft.Authorization/roleDefinitions": (
        "azure-mgmt-authorization", "azure.mgmt.authorization.v2022_04_01",
        "_role_definitions_operations.build_create_or_update_request", "RoleDefinition", "RoleDefinition",
    ),
    "Microsoft.ManagedIdentity/userAssignedIdentities": (
        "azure-mgmt-msi", "azure.mgmt.msi.v2024_11_30",
        "_user_assigned_identities_operations.build_create_or_update_request", "Identity", "Identity",
    ),
    # Named only, not made.
    "Microsoft.ContainerRegistry/registries": (
        "azure-mgmt-containerregistry", "azure.mgmt.containerregistry", "_operations.build_registries_get_request", "", "",
    ),
}  # fmt: skip
_JSON = {"str": "string", "int": "integer", "bool": "boolean", "float": "number", "object": "object"}


def schemas(folder: Path) -> dict[str, Any]:
    """Raises ValueError where a package does not have what TYPES says."""
    sys.path.append(str(folder))
    import azure.mgmt

    azure.mgmt.__path__ = [*azure.mgmt.__path__, str(folder / "azure" / "mgmt")]
    return {kind: _schema(folder, kind, *told) for kind, told in TYPES.items()}


def _schema(
    folder: Path, kind: str, package: str, module: str, builder: str, sent: str, answered: str
) -> dict[str, Any]:
    (about,) = folder.glob(package.replace("-", "_") + "-*.dist-info")
    file, _, name = builder.partition(".")
    version = api_version(getattr(importlib.import_module(f"{module}.operations.{file}"), name), kind)
    found: dict[str, Any] = {
        "package": f"{package} {about.name.removesuffix('.dist-info').split('-')[1]}",
        "apiVersion": version,
    }
    if sent:
        models = importlib.import_module(f"{module}.models")
        found["body"] = _body(getattr(models, sent), models)
        found["answer"] = sorted(entry["key"] for entry in getattr(models, answered)._attribute_map.values())
    return found


def api_version(builder: Any, kind: str) -> str:
    """The version that the client's own request for `kind` names. Raises ValueError if the request is for another type."""
    needed = [
        p.name
        for p in inspect.signature(builder).parameters.values()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    url = urlsplit(builder(**{name: name for name in needed}).url)
    if f"/providers/{kind}/" not in url.path:
        raise ValueError(f"{url.path} is not of {kind}")
    return parse_qs(url.query)["api-version"][0]


def _body(model: Any, models: Any) -> dict[str, Any]:
    """What may be sent: members that are for answers only are left out."""
    whole: dict[str, Any] = _object()
    for attribute, entry in model._attribute_map.items():
        rule = model._validation.get(attribute, {})
        if rule.get("readonly"):
            continue
        *above, last = entry["key"].split(".")
        place = whole
        for name in above:
            place = place["properties"].setdefault(name, _object())
        words = re.search(r"_models\.(\w+)", str(inspect.signature(model).parameters[attribute].annotation))
        place["properties"][last] = _type(entry["type"], models, words[1] if words else "")
        if rule.get("required"):
            _require(whole, [*above, last])
    return whole


def _require(whole: dict[str, Any], path: list[str]) -> None:
    place = whole
    for name in path:
        if name not in place["required"]:
            place["required"].append(name)
        place = place["properties"][name]


def _object() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}, "required": []}


def _type(kind: str, models: Any, words: str) -> dict[str, Any]:
    if kind.startswith("["):
        return {"type": "array", "items": _type(kind[1:-1], models, words)}
    if kind.startswith("{"):
        return {"type": "object", "additionalProperties": _type(kind[1:-1], models, "")}
    if kind in _JSON:
        listed = getattr(models, words, None)
        return {"type": _JSON[kind]} | (
            {"enum": [str(one.value) for one in listed]} if listed is not None and kind == "str" else {}
        )
    return _body(getattr(models, kind), models)


def written(found: dict[str, Any]) -> str:
    """One type on a line."""
    return "{" + ",".join(f"\n{json.dumps(kind)}: {json.dumps(told)}" for kind, told in found.items()) + "}\n"


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m tests.unit.infra.azure_schema", description=__doc__)
    asked.add_argument("folder", type=Path, help="where the packages are unpacked")
    TARGET.write_text(written(schemas(asked.parse_args().folder)))
    print(TARGET)


if __name__ == "__main__":
    main()
