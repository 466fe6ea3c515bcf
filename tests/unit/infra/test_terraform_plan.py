"""Terraform itself validates and plans our files, with a stand-in for the provider that has the provider's own schema and no cloud.

Needs the program `terraform`; without it these tests are left out. What this shows: names, types, blocks, references, functions and
variables are right, for each version of the schema. What it does not: what the provider checks by itself, and what Google accepts.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc", reason="pip install grpcio (comes with google-cloud-kms in the dev list)")
pytest.importorskip("hcl2", reason="pip install python-hcl2 (in the dev list)")
if shutil.which("terraform") is None:
    pytest.skip("terraform is not installed", allow_module_level=True)

from tests.unit.infra.provider_schema import SCHEMAS
from tests.unit.infra.standin_provider import UNKNOWN, packed, serving, unpacked
from tests.unit.infra.terraform_files import MODULES
from tests.unit.infra.terraform_mistakes import MISTAKES, Mistake

VERSIONS = sorted(SCHEMAS.glob("google-*.json"))
PORTAL = ["203.0.113.10/32", "203.0.113.64/28"]
GIVEN = {
    "terraform": {
        "project": "runs", "region": "europe-west2", "portal_cidrs": PORTAL, "portal_service_account": "workers@runs.example",
    },
    "custodian": {
        "project": "theirs", "location": "europe-west2", "broker_service_account": "broker@theirs.example",
        "key_maker": "user:name@example.org",
    },
}  # fmt: skip


class Terraform:
    """One version of the provider, and a folder for copies of our files."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment

    def module(self, texts: dict[str, str]) -> Path:
        place = self.folder / f"module-{len(list(self.folder.iterdir()))}"
        place.mkdir()
        for name, text in texts.items():
            (place / name).write_text(text)
        return place

    def run(self, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["terraform", *arguments], cwd=place, env=self.environment, text=True, capture_output=True, check=False
        )  # fmt: skip

    def plan(self, place: Path, given: dict[str, Any]) -> dict[str, Any]:
        """What would be made. Raises ValueError with Terraform's words."""
        (place / "terraform.tfvars.json").write_text(json.dumps(given))
        for arguments in (("init", "-no-color"), ("plan", "-no-color", "-input=false", "-out=plan")):
            done = self.run(place, *arguments)
            if done.returncode:
                raise ValueError(done.stderr)
        told: dict[str, Any] = json.loads(self.run(place, "show", "-json", "plan").stdout)
        return told


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda path: path.stem)
def terraform(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Terraform]:
    folder = tmp_path_factory.mktemp("tf")
    with serving(request.param, folder) as environment:
        yield Terraform(folder, environment)


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    folder = tmp_path_factory.mktemp("tf")
    with serving(VERSIONS[-1], folder) as environment:
        yield Terraform(folder, environment)


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.tf")}


def made(plan: dict[str, Any], kind: str) -> dict[Any, dict[str, Any]]:
    """By name and key: the values of each thing of a kind."""
    return {
        (one["name"], one["index"]) if "index" in one else one["name"]: one["values"]
        for one in plan["planned_values"]["root_module"]["resources"]
        if one["type"] == kind
    }


@pytest.mark.parametrize("folder", MODULES, ids=lambda folder: folder.name)
def test_terraform_accepts_and_plans_our_files(terraform: Terraform, folder: Path):
    place = terraform.module(texts(folder))
    checked = json.loads(terraform.run(place, "validate", "-json").stdout)
    assert (checked["valid"], checked["diagnostics"]) == (True, [])
    plan = terraform.plan(place, GIVEN[folder.name])
    assert {tuple(change["change"]["actions"]) for change in plan["resource_changes"]} == {("create",)}
    assert plan["errored"] is False and len(plan["resource_changes"]) > 4


def test_our_files_are_in_terraforms_own_style():
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-recursive", "-diff", str(MODULES[0])], text=True, capture_output=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_the_plan_lets_machines_reach_what_was_given_and_nothing_else(newest: Terraform):
    plan = newest.plan(newest.module(texts(MODULES[0])), GIVEN["terraform"])
    rules = made(plan, "google_compute_firewall")
    assert sorted(rules["portal_out"]["destination_ranges"]) == sorted([*PORTAL, "199.36.153.4/30"])
    assert (rules["portal_out"]["direction"], rules["portal_out"]["allow"]) == (
        "EGRESS", [{"protocol": "tcp", "ports": ["443"]}],
    )  # fmt: skip
    routes = made(plan, "google_compute_route")
    assert sorted(route["dest_range"] for route in routes.values()) == sorted([*PORTAL, "199.36.153.4/30"])
    names = [route["name"] for route in routes.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names)
    assert len(made(plan, "google_project_service")) == 6
    outputs = plan["planned_values"]["outputs"]
    assert (
        outputs["STRONGROOM_GCP_SUBNET"]["value"]
        == "projects/runs/regions/europe-west2/subnetworks/strongroom-runs"
    )
    assert outputs["repository"]["value"] == "europe-west2-docker.pkg.dev/runs/strongroom"


@pytest.mark.parametrize("cidrs", [[], ["0.0.0.0/0"], [*PORTAL, "0.0.0.0/0"]], ids=str)
def test_a_portal_that_is_everywhere_is_refused(newest: Terraform, cidrs: list[str]):
    with pytest.raises(ValueError, match="machines must not reach everything"):
        newest.plan(newest.module(texts(MODULES[0])), GIVEN["terraform"] | {"portal_cidrs": cidrs})


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_terraform_says_the_same_of_what_is_wrong(newest: Terraform, mistake: Mistake):
    done = newest.run(newest.module(mistake.texts()), "validate", "-no-color")
    said = re.sub(r"[\s│]+", " ", done.stderr)
    if mistake.terraform:
        assert done.returncode == 1 and " ".join(mistake.terraform.split()) in said, done.stderr
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", [
    None, True, False, 0, -1, -200, 127, 128, 2**40, 1.5, "", "a" * 40, "ü" * 300, "x" * 70000, [], [1, [None]] * 20,
    {"a": {"b": [True]}}, {str(n): n for n in range(40)}, {"unknown": UNKNOWN}, b"",
], ids=lambda value: repr(value)[:20])  # fmt: skip
def test_values_survive_the_way_to_terraform_and_back(value: Any):
    if value == b"":
        with pytest.raises(TypeError):
            packed(value)
        return
    assert unpacked(packed(value)) == value
