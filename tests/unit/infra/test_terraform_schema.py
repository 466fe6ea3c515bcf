"""Our Terraform files against the Google provider's schema: that of the oldest version that they allow, and of the newest of each later major.

schemas/README.md says where the schemas come from.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hcl2", reason="pip install python-hcl2 (in the dev list)")

from tests.unit.infra.provider_schema import ADDRESS, SCHEMAS
from tests.unit.infra.terraform_check import problems
from tests.unit.infra.terraform_files import FILES, MODULES, Module, kinds, references
from tests.unit.infra.terraform_mistakes import MISTAKES, Mistake

VERSIONS = sorted(SCHEMAS.glob("google-*.json"))
each_version = pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
each_module = pytest.mark.parametrize("folder", MODULES, ids=lambda folder: folder.name)


def schema(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.read_text())
    return told


@each_version
@each_module
def test_everything_that_we_write_is_in_the_providers_schema(folder: Path, path: Path):
    module = Module.of(folder)
    assert len(module.resources()) > 3
    assert problems(module, schema(path)) == []


@each_version
def test_a_schema_has_every_kind_that_we_use_and_says_its_version(path: Path):
    told = schema(path)
    schemas = told["provider_schemas"][ADDRESS]
    assert set(schemas["resource_schemas"]) == kinds(FILES, "resource")
    assert set(schemas["data_source_schemas"]) == kinds(FILES, "data")
    assert path.stem == f"google-{told['provider']['version']}"
    assert told["provider"]["package"]


@each_module
def test_the_versions_that_we_allow_are_the_ones_that_were_looked_at(folder: Path):
    (terraform,) = Module.of(folder).values["terraform"]
    google = terraform["required_providers"][0]["google"]
    assert google["source"] == ADDRESS.removeprefix("registry.terraform.io/")
    bounds = re.fullmatch(r">= (\d+)\.(\d+), < (\d+)\.0", google["version"])
    assert bounds is not None
    looked_at = [tuple(int(n) for n in schema(p)["provider"]["version"].split(".")) for p in VERSIONS]
    lowest, above = (int(bounds[1]), int(bounds[2])), int(bounds[3])
    assert min(looked_at)[:2] == lowest
    assert sorted({version[0] for version in looked_at}) == list(range(lowest[0], above))


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_what_is_wrong_is_found(mistake: Mistake):
    found = problems(Module(mistake.texts().values()), schema(VERSIONS[-1]))
    assert any(mistake.ours in one for one in found), found


def test_nothing_is_made_before_its_service_is_switched_on():
    """A new project has none of the interfaces switched on, and Terraform makes in parallel what does not depend on each other."""
    for folder in MODULES:
        module = Module.of(folder)
        services = {name for name in module.resources() if name.startswith("google_project_service.")}
        assert services
        for address in set(module.resources()) - services:
            assert module.depends(address) & services, address


def test_words_in_texts_are_no_references():
    text = '${concat([var.a, "var.b"], google_x.y.z)} and var.c'
    assert list(references(text)) == ["var.a", "google_x.y.z"]
