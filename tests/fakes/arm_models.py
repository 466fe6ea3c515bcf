"""Bodies to Azure checked against the models of the very packages that our client uses: unknown members are refused."""

from __future__ import annotations

import datetime
import enum
import functools
import importlib
import types
import typing
from typing import Any

from tests.fakes.server import BadRequest


def check(model: type, body: Any, where: str = "") -> None:
    """Raises BadRequest for a member that the model does not have, a value of another type, or one for answers only."""
    where = where or model.__name__
    if not isinstance(body, dict):
        raise BadRequest(f"{where}: {body!r} is no object")
    if hasattr(model, "_attribute_map"):
        return _check_tree(_tree(model), body, where)
    fields = _fields(model)
    for name, value in body.items():
        if name not in fields:
            raise BadRequest(f"{where}: unknown member {name!r}")
        kind, readonly = fields[name]
        if readonly:
            raise BadRequest(f"{where}.{name}: is for answers only")
        _check_hint(kind, value, f"{where}.{name}")


@functools.cache
def _fields(model: type) -> dict[str, tuple[Any, bool]]:
    """Of today's generated models: rest name -> (type, whether for answers only)."""
    names = importlib.import_module(model.__module__)
    scope = {**vars(names), "_models": importlib.import_module(model.__module__.rpartition(".")[0])}
    hints = typing.get_type_hints(model, globalns=scope)
    instance = model()
    return {
        field._rest_name: (hints[attribute], field._visibility == ["read"])
        for attribute, field in instance._attr_to_rest_field.items()
    }


def _check_hint(hint: Any, value: Any, where: str) -> None:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        options = [a for a in arguments if a is not type(None)]
        if value is None and len(options) < len(arguments):
            return
        enums = [a for a in options if isinstance(a, type) and issubclass(a, enum.Enum)]
        if enums:
            if enums[0].__name__ in _OPEN:
                return
            if value not in {member.value for member in enums[0]}:
                raise BadRequest(f"{where}: {value!r} is not one of {enums[0].__name__}")
            return
        if len(options) == 1:
            return _check_hint(options[0], value, where)
        return
    if origin is list:
        if not isinstance(value, list):
            raise BadRequest(f"{where}: {value!r} is no list")
        for number, one in enumerate(value):
            _check_hint(arguments[0], one, f"{where}[{number}]")
        return
    if origin is dict:
        if not isinstance(value, dict):
            raise BadRequest(f"{where}: {value!r} is no map")
        for key, one in value.items():
            _check_hint(arguments[1], one, f"{where}.{key}")
        return
    if isinstance(hint, type) and hasattr(hint, "_validation") is False and hint in _PLAIN:
        if not isinstance(value, _PLAIN[hint]) or (hint is not bool and isinstance(value, bool)):
            raise BadRequest(f"{where}: {value!r} is no {hint.__name__}")
        return
    if isinstance(hint, type) and hint is not object:
        check(hint, value, where)


# By its own description not the whole list: sizes come and go, and differ between regions.
_OPEN = {"VirtualMachineSizeTypes"}
_PLAIN: dict[Any, Any] = {
    str: str, int: int, bool: bool, float: (int, float), datetime.datetime: str, bytes: str,
}  # fmt: skip


@functools.cache
def _tree(model: type) -> dict[str, Any]:
    """Of the older generated models: the wire's names as a tree, leaves (type, answers only)."""
    tree: dict[str, Any] = {}
    readonly = {name for name, rule in model._validation.items() if rule.get("readonly")}  # type: ignore[attr-defined]
    models = importlib.import_module(model.__module__.rpartition(".")[0])
    for attribute, entry in model._attribute_map.items():  # type: ignore[attr-defined]
        *above, last = entry["key"].split(".")
        place = tree
        for name in above:
            place = place.setdefault(name, {})
        place[last] = (entry["type"], attribute in readonly, models)
    return tree


def _check_tree(tree: dict[str, Any], body: Any, where: str) -> None:
    if not isinstance(body, dict):
        raise BadRequest(f"{where}: {body!r} is no object")
    for name, value in body.items():
        if name not in tree:
            raise BadRequest(f"{where}: unknown member {name!r}")
        if isinstance(tree[name], dict):
            _check_tree(tree[name], value, f"{where}.{name}")
            continue
        kind, readonly, models = tree[name]
        if readonly:
            raise BadRequest(f"{where}.{name}: is for answers only")
        _check_old(kind, value, f"{where}.{name}", models)


def _check_old(kind: str, value: Any, where: str, models: Any) -> None:
    if kind.startswith("["):
        if not isinstance(value, list):
            raise BadRequest(f"{where}: {value!r} is no list")
        for number, one in enumerate(value):
            _check_old(kind[1:-1], one, f"{where}[{number}]", models)
    elif kind.startswith("{"):
        if not isinstance(value, dict):
            raise BadRequest(f"{where}: {value!r} is no map")
        for key, one in value.items():
            _check_old(kind[1:-1], one, f"{where}.{key}", models)
    elif hasattr(models, kind) and issubclass(getattr(models, kind), enum.Enum):
        if value not in {member.value for member in getattr(models, kind)}:
            raise BadRequest(f"{where}: {value!r} is not one of {kind}")
    elif hasattr(models, kind):
        check(getattr(models, kind), value, where)
    else:
        plain: dict[str, Any] = {
            "str": str, "int": int, "bool": bool, "float": (int, float), "iso-8601": str, "object": object,
        }  # fmt: skip
        if not isinstance(value, plain[kind]):
            raise BadRequest(f"{where}: {value!r} is no {kind}")
