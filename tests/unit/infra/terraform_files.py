"""Our Terraform files as values (python-hcl2), with what they refer to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

INFRA = Path(__file__).resolve().parents[3] / "infra"
# Each folder with *.tf is a module of its own; neither calls the other.
MODULES = (INFRA / "terraform", INFRA / "terraform" / "custodian")
FILES = tuple(sorted(path for folder in MODULES for path in folder.glob("*.tf")))
# var.region, local.google, each.value, google_compute_network.runs.id, data.google_project.this.number
_REFERENCE = re.compile(r"(?<![\w.])(var|local|each|data\.\w+|google_\w+)((?:\.\w+)+)")
_BLOCK = "__is_block__"


def parsed(text: str) -> dict[str, Any]:
    """As the parser gives it: texts in their quotation marks, blocks marked as such."""
    import hcl2

    return hcl2.loads(text)


def plain(value: Any) -> Any:
    """Without quotation marks, marks of blocks and comments."""
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items() if k not in (_BLOCK, "__comments__")}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return ast.literal_eval(value)
    return value


def is_block(value: Any) -> bool:
    return isinstance(value, dict) and _BLOCK in value


def blocks(files: Iterable[Path], sort: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(kind, name, body) of every `resource` or `data`."""
    for path in files:
        yield from labelled(plain(parsed(path.read_text())), sort)


def labelled(told: dict[str, Any], sort: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for block in told.get(sort, []):
        for kind, named in block.items():
            for name, body in named.items():
                yield kind, name, body


def kinds(files: Iterable[Path], sort: str) -> set[str]:
    return {kind for kind, _, _ in blocks(files, sort)}


def references(value: Any) -> Iterator[str]:
    """Every name in an expression, e.g. `var.region`; words inside of quoted texts are none."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from references(key)
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)
    elif isinstance(value, str):
        for expression in re.findall(r"\$\{(.*?)\}", value, re.S):
            for first, rest in _REFERENCE.findall(re.sub(r'"[^"$]*"', '""', expression)):
                yield first + rest


class Module:
    """The files of one folder, together: what they declare and what they use."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.told: dict[str, list[Any]] = {}
        for text in texts:
            for sort, several in parsed(text).items():
                self.told.setdefault(sort, []).extend(several)
        self.values: dict[str, Any] = plain(self.told)

    @classmethod
    def of(cls, folder: Path) -> Module:
        return cls(path.read_text() for path in sorted(folder.glob("*.tf")))

    def resources(self, sort: str = "resource") -> dict[str, dict[str, Any]]:
        """By address, e.g. google_compute_network.runs; blocks are marked."""
        prefix = "data." if sort == "data" else ""
        return {
            f"{prefix}{plain(kind)}.{plain(name)}": body for kind, name, body in labelled(self.told, sort)
        }

    def declared(self) -> set[str]:
        names = {f"var.{name}" for block in self.values.get("variable", []) for name in block}
        return names | {f"local.{name}" for block in self.values.get("locals", []) for name in block}

    def used(self) -> set[str]:
        """Everything that is referred to, a variable's rule for itself left out."""
        return set(references({k: v for k, v in self.told.items() if k != "variable"}))

    def depends(self, address: str) -> set[str]:
        """The resources that must be there before: those that are named, and in turn what those name."""
        found: set[str] = set()
        todo = [address]
        while todo:
            for name in references(self.resources()[todo.pop()]):
                other = ".".join(name.split(".")[:2])
                if other in self.resources() and other not in found:
                    found.add(other)
                    todo.append(other)
        return found
