"""Requests to Google checked against the discovery document that google-api-python-client ships."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from tests.fakes.server import BadRequest, Request


@functools.cache
def document() -> dict[str, Any]:
    import googleapiclient

    path = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents" / "compute.v1.json"
    return json.loads(path.read_text())


@functools.cache
def _methods() -> list[tuple[str, re.Pattern[str], dict[str, Any]]]:
    found = []
    for resource in document()["resources"].values():
        for method in resource.get("methods", {}).values():
            pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(method["flatPath"]))
            found.append((method["httpMethod"], re.compile(pattern), method))
    return found


def check(request: Request) -> tuple[str, dict[str, str]]:
    """The method's id and the path's arguments. Raises BadRequest for whatever the document does not know."""
    base = "/" + document()["servicePath"]
    if not request.path.startswith(base):
        raise BadRequest(f"{request.path} is not under {base}")
    for verb, pattern, method in _methods():
        match = pattern.fullmatch(request.path[len(base) :])
        if match and verb == request.method:
            _check_parameters(method, match.groupdict(), request.query)
            _check_body(method, request.body)
            return method["id"], match.groupdict()
    raise BadRequest("no such method")


def _check_parameters(method: dict[str, Any], path: dict[str, str], query: dict[str, str]) -> None:
    known = {**document()["parameters"], **method.get("parameters", {})}
    for name, value in {**path, **query}.items():
        if name not in known:
            raise BadRequest(f"{method['id']}: unknown parameter {name!r}")
        parameter = known[name]
        if "pattern" in parameter and not re.fullmatch(parameter["pattern"], value):
            raise BadRequest(f"{method['id']}: {name}={value!r} does not match {parameter['pattern']}")
        if "enum" in parameter and value not in parameter["enum"] and name != "alt":
            raise BadRequest(f"{method['id']}: {name}={value!r} is none of {parameter['enum']}")
        if parameter["type"] == "integer" and not re.fullmatch(r"-?\d+", value):
            raise BadRequest(f"{method['id']}: {name}={value!r} is no integer")
        if parameter["type"] == "boolean" and value not in ("true", "false"):
            raise BadRequest(f"{method['id']}: {name}={value!r} is no boolean")
    for name in method.get("parameterOrder", []):
        if name not in path and name not in query:
            raise BadRequest(f"{method['id']}: {name} is missing")


def _check_body(method: dict[str, Any], body: Any) -> None:
    if "request" not in method:
        if body not in (None, {}):
            raise BadRequest(f"{method['id']}: takes no body")
        return
    if not isinstance(body, dict):
        raise BadRequest(f"{method['id']}: a body is due")
    _check_value(method["request"], body, method["id"])


def _check_value(schema: dict[str, Any], value: Any, where: str) -> None:
    if "$ref" in schema:
        return _check_value(document()["schemas"][schema["$ref"]], value, where)
    kind = schema.get("type")
    if kind == "object":
        if not isinstance(value, dict):
            raise BadRequest(f"{where}: {value!r} is no object")
        for name, inner in value.items():
            if name in schema.get("properties", {}):
                found = schema["properties"][name]
                if found.get("readOnly") or found.get("description", "").startswith("[Output Only]"):
                    raise BadRequest(f"{where}.{name}: is for answers only")
                _check_value(found, inner, f"{where}.{name}")
            elif "additionalProperties" in schema:
                _check_value(schema["additionalProperties"], inner, f"{where}.{name}")
            else:
                raise BadRequest(f"{where}: unknown member {name!r}")
        return
    if kind == "array":
        if not isinstance(value, list):
            raise BadRequest(f"{where}: {value!r} is no list")
        for number, inner in enumerate(value):
            _check_value(schema["items"], inner, f"{where}[{number}]")
        return
    if kind == "string":
        if not isinstance(value, str):
            raise BadRequest(f"{where}: {value!r} is no string")
        if "enum" in schema and value not in schema["enum"]:
            raise BadRequest(f"{where}: {value!r} is none of {schema['enum']}")
        if schema.get("format") in ("int64", "uint64") and not re.fullmatch(r"-?\d+", value):
            raise BadRequest(f"{where}: {value!r} is no 64-bit number")
        if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
            raise BadRequest(f"{where}: {value!r} does not match {schema['pattern']}")
        return
    types = {"integer": int, "boolean": bool, "number": (int, float)}
    if kind in types and (
        not isinstance(value, types[kind]) or (kind != "boolean" and isinstance(value, bool))
    ):
        raise BadRequest(f"{where}: {value!r} is no {kind}")
