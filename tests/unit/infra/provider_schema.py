"""Writes the schemas that our Terraform files are checked against, in the format of `terraform providers schema -json`.

    .venv/bin/python -m tests.unit.infra.provider_schema FOLDER     FOLDER/lib/<kind>/index.js

Source: the generated classes of CDK for Terraform, whose generator read the provider's own schema. Only the kinds that our
files name are taken. Whoever has the provider can compare: `terraform providers schema -json` after `terraform init`.

What those classes do not say stays out: sensitive, deprecated, limits other than "at most one"; and, in packages made for
6.x, which optional attributes the provider fills in. Of descriptions, only the list of possible values is kept. Terraform's and the provider's own rules (names, ranges, which of two
attributes may be set) are in no schema.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from tests.unit.infra.terraform_files import FILES, kinds

SCHEMAS = Path(__file__).with_name("schemas")
ADDRESS = "registry.terraform.io/hashicorp/google"
_SIMPLE: dict[str, Any] = {"string": "string", "number": "number", "boolean": "bool"}
_GETTERS: dict[str, Any] = {
    "getStringAttribute": "string", "getNumberAttribute": "number", "getBooleanAttribute": "bool",
    "getListAttribute": ["list", "string"], "getNumberListAttribute": ["list", "number"],
    "getStringMapAttribute": ["map", "string"], "getNumberMapAttribute": ["map", "number"], "getBooleanMapAttribute": ["map", "bool"],
}  # fmt: skip
# // name - computed: true, optional: false, required: false, and what stands under it
_COMMENT = re.compile(
    r"// (\w+) - computed: (true|false), optional: (true|false), required: (?:true|false)\n(?=((?:.*\n){1,4}))"
)
# name: { value: ..., isBlock: false, type: "simple", storageClassType: "string" }
_ENTRY = re.compile(
    r'^ +(\w+): \{\n +value: (.*)\n +isBlock: (true|false),\n +type: "(\w+)",\n +storageClassType: "(\w+)"',
    re.M,
)


def package(folder: Path) -> dict[str, Any]:
    """The schemas of the kinds that we use. Raises ValueError for a kind that the provider does not have."""
    provider = Module(folder / "lib" / "provider" / "index.js")
    found: dict[str, Any] = {
        "format_version": "1.0",
        "provider": {"version": provider.version, "package": _name(folder)},
        "provider_schemas": {
            ADDRESS: {
                "provider": {"version": 0, "block": provider.main()},
                "resource_schemas": _blocks(folder, "resource", ""),
                "data_source_schemas": _blocks(folder, "data", "data-google-"),
            }
        },
    }
    return found


def _name(folder: Path) -> str:
    told = json.loads((folder / "package.json").read_text())
    return f"{told['name']} {told['version']}"


def _blocks(folder: Path, sort: str, prefix: str) -> dict[str, Any]:
    found = {}
    for kind in sorted(kinds(FILES, sort)):
        path = folder / "lib" / (prefix + kind.removeprefix("google_").replace("_", "-")) / "index.js"
        if not path.exists():
            raise ValueError(f"The provider has no {sort} {kind}.")
        module = Module(path)
        if module.kind != kind:
            raise ValueError(f"{path} is of {module.kind}, not of {kind}.")
        found[kind] = {"version": 0, "block": module.main()}
    return found


class Module:
    """One kind: index.js, which has the class of the kind and those of its blocks, and index.d.ts, which has the types."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        self.classes = dict(re.findall(r"^class (\w+) extends (.*?)^}", self.text, re.M | re.S))
        declared = path.with_name("index.d.ts").read_text()
        self.interfaces = dict(re.findall(r"^export interface (\w+) (.*?)^}", declared, re.M | re.S))
        self.kind = _one(r'tfResourceType = "(\w+)"', self.text)
        self.version = _one(r"providerVersion: '([\d.]+)'", self.text)

    def main(self) -> dict[str, Any]:
        (name,) = [n for n, body in self.classes.items() if "synthesizeHclAttributes" in body]
        body = self.classes[name]
        return self._block(f"{name}Config", body, _body_of(body, r"synthesizeHclAttributes\(\) \{"))

    def _part(self, name: str) -> dict[str, Any]:
        function = name[0].lower() + name[1:] + "ToHclTerraform"
        settable = (
            _body_of(self.text, rf"^function {function}\(struct\) \{{") if function in self.text else ""
        )
        return self._block(name, self.classes.get(f"{name}OutputReference", ""), settable)

    def _block(self, interface: str, body: str, settable: str) -> dict[str, Any]:
        attributes, blocks = {}, {}
        comments = {match[1]: match for match in _COMMENT.finditer(body)}
        for name, value, nested, nesting, stored in _ENTRY.findall(settable):
            need, description = self._declared(interface, name)
            if nested == "true":
                limits = {} if "listMapperHcl(" in value or nesting == "struct" else {"max_items": 1}
                limits |= {"min_items": 1} if need == "required" else {}
                inner = self._part(stored.removesuffix("List"))
                nesting = "single" if nesting == "struct" else nesting
                blocks[name] = {"nesting_mode": nesting, "block": inner} | limits
                continue
            attributes[name] = {"type": _type(nesting, stored), need: True} | description
            if name in comments and comments[name][2] == "true":
                attributes[name]["computed"] = True
        for name, match in comments.items():
            if match[2] == "true" and match[3] == "false":
                attributes[name] = {"type": self._answer(name, match[4]), "computed": True}
        return {"attributes": attributes} | ({"block_types": blocks} if blocks else {})

    def _declared(self, interface: str, name: str) -> tuple[str, dict[str, str]]:
        """Whether it must be given, and of its description the sentence that lists what it may be."""
        declared = self.interfaces[interface]
        found = re.search(rf"#{name} \w+#{name}\}}(?:(?!readonly)[\s\S])*readonly \w+(\??):", declared)
        if found is None:
            raise ValueError(f"{interface}.{name}: not found")
        comment = declared[declared.rindex("/**", 0, found.start()) : found.start()]
        listed = re.search(r"Possible values: \[[^\]]*\]", " ".join(re.sub(r"\n\s*\*", " ", comment).split()))
        return ("optional" if found[1] else "required"), ({"description": listed[0]} if listed else {})

    def _answer(self, name: str, lines: str) -> Any:
        """The type of what only the provider sets."""
        if plain := re.search(rf"\bthis\.(get\w+Attribute)\(['\"]{name}['\"]\)", lines):
            found = _GETTERS[plain[1]]
            return ["set", found[1]] if "Fn.tolist(" in lines else found
        if mapped := re.search(rf'new cdkt[fn]\.(String|Number|Boolean)(Map|List)\(this, "{name}"', lines):
            return [mapped[2].lower(), _SIMPLE[mapped[1].lower()]]
        made = re.search(rf'new (\w+)\(this, "{name}"(?:, (true|false))?', lines)
        if made is None:
            raise ValueError(f"{self.kind}.{name}: not understood: {lines}")
        inner = self._part(re.sub("(OutputReference|List|Map)$", "", made[1]))
        members = {key: value["type"] for key, value in inner["attributes"].items()}
        return ["set" if made[2] == "true" else "list", ["object", members]]


def _body_of(text: str, opening: str) -> str:
    """From `opening` (a regular expression) to the line that closes at its depth."""
    found = re.search(opening, text, re.M)
    if found is None:
        raise ValueError(f"{opening}: not found")
    indent = len(text[: found.start()].rpartition("\n")[2])
    rest = text[found.end() :]
    end = re.search(rf"^ {{{indent}}}}}", rest, re.M)
    if end is None:
        raise ValueError(f"{opening}: is not closed")
    return rest[: end.start()]


def _type(nesting: str, stored: str) -> Any:
    if nesting == "simple":
        return _SIMPLE[stored]
    return [nesting, _SIMPLE[re.sub("(List|Map)$", "", stored)]]


def _one(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"{pattern}: not found")
    return found[1]


def written(found: dict[str, Any]) -> str:
    """One kind on a line, so that a change of the provider is a change of few lines."""
    (address, schemas), *_ = found["provider_schemas"].items()

    def line(value: Any) -> str:
        return json.dumps(value, sort_keys=True)

    def lines(several: dict[str, Any]) -> str:
        return "{" + ",".join(f"\n{line(kind)}: {line(schema)}" for kind, schema in several.items()) + "}"

    return (
        f'{{"format_version": {line(found["format_version"])}, "provider": {line(found["provider"])},\n'
        f'"provider_schemas": {{{line(address)}: {{\n"provider": {line(schemas["provider"])},\n'
        f'"resource_schemas": {lines(schemas["resource_schemas"])},\n'
        f'"data_source_schemas": {lines(schemas["data_source_schemas"])}}}}}}}\n'
    )


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m tests.unit.infra.provider_schema", description=__doc__)
    asked.add_argument("folder", type=Path, help="the unpacked package")
    found = package(asked.parse_args().folder)
    target = SCHEMAS / f"google-{found['provider']['version']}.json"
    target.write_text(written(found))
    print(target)


if __name__ == "__main__":
    main()
