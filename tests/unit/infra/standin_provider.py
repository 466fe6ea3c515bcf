"""A stand-in for Terraform's Google provider: it knows the schema and no cloud. With it the real `terraform` validates and plans.

It answers Terraform's plugin protocol (tfplugin5.proto) over a Unix socket, to which Terraform is led by TF_REATTACH_PROVIDERS. In a plan
everything that only the provider sets is unknown; nothing is ever made, read or changed. What the provider itself would refuse
(names, ranges, attributes that exclude each other) is not known here.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.unit.infra.provider_schema import ADDRESS

NESTING = {"single": 1, "list": 2, "set": 3, "map": 4, "group": 5}


class Unknown:
    """A value that is known only after the thing is made."""


UNKNOWN = Unknown()


@contextmanager
def serving(schema: Path, folder: Path) -> Iterator[dict[str, str]]:
    """The environment with which `terraform` takes this process for its provider."""
    import grpc

    provider = Provider(json.loads(schema.read_text()))
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([provider.handlers()])
    socket = folder / "provider.sock"
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    attach = {
        ADDRESS: {
            "Protocol": "grpc", "ProtocolVersion": 5, "Pid": os.getpid(), "Test": True,
            "Addr": {"Network": "unix", "String": str(socket)},
        }
    }  # fmt: skip
    (folder / "terraform.rc").write_text("")
    try:
        yield {
            "PATH": os.environ["PATH"], "HOME": str(folder), "TF_REATTACH_PROVIDERS": json.dumps(attach),
            "TF_CLI_CONFIG_FILE": str(folder / "terraform.rc"), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1",
        }  # fmt: skip
    finally:
        server.stop(None).wait()


class Provider:
    """The calls of the protocol that validating and planning something new need."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.schemas = told["provider_schemas"][ADDRESS]

    def handlers(self) -> Any:
        import grpc

        calls = {
            "GetSchema": self.get_schema,
            "PrepareProviderConfig": lambda asked: field(1, asked.get(1, b"")),
            "ValidateResourceTypeConfig": lambda asked: b"",
            "ValidateDataSourceConfig": lambda asked: b"",
            "Configure": lambda asked: b"",
            "PlanResourceChange": self.plan,
            "Stop": lambda asked: b"",
        }
        return grpc.method_handlers_generic_handler(
            "tfplugin5.Provider",
            {
                name: grpc.unary_unary_rpc_method_handler(lambda asked, _, call=call: call(fields(asked)))
                for name, call in calls.items()
            },
        )

    def get_schema(self, asked: dict[int, bytes]) -> bytes:
        told = field(1, _schema(self.schemas["provider"]))
        for number, sort in ((2, "resource_schemas"), (3, "data_source_schemas")):
            for kind, schema in self.schemas[sort].items():
                told += field(number, field(1, kind) + field(2, _schema(schema)))
        return told

    def plan(self, asked: dict[int, bytes]) -> bytes:
        """What is proposed, with everything unknown that the provider sets. Older providers' rules for values apply."""
        block = self.schemas["resource_schemas"][asked[1].decode()]["block"]
        proposed = unpacked(fields(asked[3])[1])
        return field(1, field(1, packed(_planned(block, proposed)))) + field(5, True)


def _planned(block: dict[str, Any], value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    planned = dict(value)
    for name, attribute in block["attributes"].items():
        if planned[name] is None and attribute.get("computed"):
            planned[name] = UNKNOWN
    # Every package says of 7.x and later that `id` is computed; those of 6.x do not say what is.
    if "id" in planned and planned["id"] is None:
        planned["id"] = UNKNOWN
    for name, nested in block.get("block_types", {}).items():
        inner = planned[name]
        planned[name] = (
            [_planned(nested["block"], one) for one in inner]
            if isinstance(inner, list)
            else _planned(nested["block"], inner)
        )
    return planned


def _schema(schema: dict[str, Any]) -> bytes:
    return field(1, schema["version"]) + field(2, _block(schema["block"]))


def _block(block: dict[str, Any]) -> bytes:
    told = b""
    for name, attribute in block["attributes"].items():
        told += field(2, b"".join([
            field(1, name), field(2, json.dumps(attribute["type"])),
            *(field(number, attribute.get(key, False)) for number, key in ((4, "required"), (5, "optional"), (6, "computed"))),
        ]))  # fmt: skip
    for name, nested in block.get("block_types", {}).items():
        told += field(3, b"".join([
            field(1, name), field(2, _block(nested["block"])), field(3, NESTING[nested["nesting_mode"]]),
            field(4, nested.get("min_items", 0)), field(5, nested.get("max_items", 0)),
        ]))  # fmt: skip
    return told


# Protocol Buffers: numbers as varints, everything else with its length before it.


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(int(value))
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def fields(data: bytes) -> dict[int, bytes]:
    """The last value of each field that has a length; numbers are passed over."""
    found, place = {}, 0
    while place < len(data):
        key, place = _read_varint(data, place)
        size, place = _read_varint(data, place)
        if key & 7 == 2:
            found[key >> 3] = data[place : place + size]
            place += size
    return found


def _varint(number: int) -> bytes:
    made = b""
    while number > 127:
        made += bytes([number & 127 | 128])
        number >>= 7
    return made + bytes([number])


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place


# MessagePack, as far as Terraform's values need it. Unknown is extension type 0.


def packed(value: Any) -> bytes:
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return b"\xd3" + struct.pack(">q", value)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case str():
            data = value.encode()
            return b"\xdb" + struct.pack(">I", len(data)) + data
        case list():
            return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(packed, value))
        case dict():
            pairs = (packed(key) + packed(one) for key, one in value.items())
            return b"\xdf" + struct.pack(">I", len(value)) + b"".join(pairs)
        case Unknown():
            return b"\xd4\x00\x00"
    raise TypeError(repr(value))


def unpacked(data: bytes) -> Any:
    value, rest = _unpack(data)
    if rest:
        raise ValueError("bytes after the value")
    return value


_FIXED = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
          0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}  # fmt: skip
_SIZED = {0xC4: "b1", 0xC5: "b2", 0xC6: "b4", 0xD9: "s1", 0xDA: "s2", 0xDB: "s4", 0xDC: "a2", 0xDD: "a4", 0xDE: "m2", 0xDF: "m4",
          0xC7: "x1", 0xC8: "x2", 0xC9: "x4"}  # fmt: skip


def _unpack(data: bytes) -> tuple[Any, bytes]:
    head, rest = data[0], data[1:]
    if head < 0x80 or head >= 0xE0:
        return (head if head < 0x80 else head - 256), rest
    if head < 0xC0:
        kind = "m" if head < 0x90 else "a" if head < 0xA0 else "s"
        return _several(kind, head & (31 if kind == "s" else 15), rest)
    if head in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[head], rest
    if head in _FIXED:
        size = struct.calcsize(_FIXED[head])
        return struct.unpack(_FIXED[head], rest[:size])[0], rest[size:]
    if 0xD4 <= head <= 0xD8:
        return UNKNOWN, rest[1 + (1 << (head - 0xD4)) :]
    kind, width = _SIZED[head][0], int(_SIZED[head][1])
    return _several(kind, int.from_bytes(rest[:width], "big"), rest[width:])


def _several(kind: str, size: int, rest: bytes) -> tuple[Any, bytes]:
    if kind == "x":
        return UNKNOWN, rest[1 + size :]
    if kind in "bs":
        return (rest[:size].decode() if kind == "s" else rest[:size]), rest[size:]
    found = []
    for _ in range(size * (2 if kind == "m" else 1)):
        value, rest = _unpack(rest)
        found.append(value)
    return (dict(zip(found[::2], found[1::2], strict=True)) if kind == "m" else found), rest
