"""Terraform files against a provider's schema: what `terraform validate` says of arguments, blocks and names, without Terraform.

Values are compared as far as they are literals: their type, and the words that the provider's description lists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.unit.infra.provider_schema import ADDRESS
from tests.unit.infra.terraform_files import Module, is_block, plain

# Terraform's own arguments, which every resource has.
META = {"count", "for_each", "depends_on", "lifecycle", "provider"}
INSIDE = ("__is_block__", "__comments__")


def problems(module: Module, told: dict[str, Any]) -> list[str]:
    """One sentence for each thing that is wrong; `told` is a file of schemas/."""
    schemas = told["provider_schemas"][ADDRESS]
    found = list(_of_references(module, schemas))
    for sort in ("resource", "data"):
        known = schemas["resource_schemas" if sort == "resource" else "data_source_schemas"]
        for address, body in module.resources(sort).items():
            kind = address.removeprefix("data.").split(".")[0]
            if kind not in known:
                found.append(f"{address}: the provider has no {kind}")
                continue
            inner = {name: value for name, value in body.items() if name not in META}
            found += _of_block(known[kind]["block"], inner, address)
    for block in module.told.get("provider", []):
        for name, body in block.items():
            found += _of_block(schemas["provider"]["block"], body, f"provider {plain(name)}")
    return found


def _of_block(schema: dict[str, Any], body: dict[str, Any], where: str) -> Iterator[str]:
    attributes, nested = schema["attributes"], schema.get("block_types", {})
    for name, value in body.items():
        if name in INSIDE:
            continue
        if name in nested:
            yield from _of_nested(nested[name], value, f"{where}.{name}")
        elif name not in attributes:
            yield f"{where}.{name}: unknown"
        elif not attributes[name].get("required") and not attributes[name].get("optional"):
            yield f"{where}.{name}: only the provider sets it"
        elif isinstance(value, list) and any(map(is_block, value)):
            yield f"{where}.{name}: is an argument, not a block"
        else:
            yield from _of_value(attributes[name], plain(value), f"{where}.{name}")
    for name, attribute in attributes.items():
        if attribute.get("required") and name not in body:
            yield f"{where}.{name}: missing"
    for name, block in nested.items():
        if block.get("min_items", 0) and name not in body:
            yield f"{where}.{name}: missing"


def _of_nested(schema: dict[str, Any], value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, list) or not all(map(is_block, value)):
        yield f"{where}: is a block, not an argument"
        return
    if len(value) > schema.get("max_items", len(value)):
        yield f"{where}: more than {schema['max_items']}"
    for one in value:
        yield from _of_block(schema["block"], one, where)


def _of_value(attribute: dict[str, Any], value: Any, where: str) -> Iterator[str]:
    if isinstance(value, str) and "${" in value:
        return
    kind = attribute["type"]
    if not _fits(kind, value):
        yield f"{where}: {value!r} is no {kind if isinstance(kind, str) else ' of '.join(map(str, kind))}"
        return
    listed = attribute.get("description", "").removeprefix("Possible values: ")
    for one in value if isinstance(value, list) else [value]:
        if listed and one not in json.loads(listed):
            yield f"{where}: {one!r} is none of {listed}"


def _fits(kind: Any, value: Any) -> bool:
    """Whether Terraform would take it; it makes texts of numbers and numbers of texts."""
    if isinstance(value, str) and "${" in value:
        return True
    match kind:
        case "bool":
            return value in (True, False, "true", "false")
        case "number":
            return (
                not isinstance(value, bool | list | dict)
                and re.fullmatch(r"-?[\d.]+", str(value)) is not None
            )
        case "string":
            return not isinstance(value, list | dict)
        case ["list" | "set", inner]:
            return isinstance(value, list) and all(_fits(inner, one) for one in value)
        case ["map", inner]:
            return isinstance(value, dict) and all(_fits(inner, one) for one in value.values())
    raise ValueError(f"type {kind!r}")


def _of_references(module: Module, schemas: dict[str, Any]) -> Iterator[str]:
    declared, resources = module.declared(), {**module.resources(), **module.resources("data")}
    used = module.used()
    for name in sorted(used):
        first, second, *rest = name.split(".")
        if first == "each":
            continue
        if first in ("var", "local"):
            if f"{first}.{second}" not in declared:
                yield f"{first}.{second}: not declared"
            continue
        sort = "data_source_schemas" if first == "data" else "resource_schemas"
        kind, place = (
            (second, f"data.{second}.{rest[0]}") if first == "data" else (first, f"{first}.{second}")
        )
        if place not in resources:
            yield f"{name}: no such resource"
            continue
        asked = rest[1:] if first == "data" else rest
        block = schemas[sort].get(kind, {}).get("block", {"attributes": {}})
        if asked and asked[0] not in {**block["attributes"], **block.get("block_types", {})}:
            yield f"{name}: {kind} has no {asked[0]}"
    for name in sorted(declared - {".".join(one.split(".")[:2]) for one in used}):
        yield f"{name}: is not used"
