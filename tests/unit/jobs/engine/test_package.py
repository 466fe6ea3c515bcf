"""From approved outputs to a released package that verifies offline against the portal's keys."""

from __future__ import annotations

import json
import uuid
import zipfile

import pytest

from apps.core.actors import System
from apps.core.lifecycle import transition
from apps.core.objects import store
from apps.jobs import engine
from apps.jobs.engine.packages import PackageBroken, portal_keys
from apps.jobs.gate import Condition
from apps.jobs.models import OutputRelease
from strongroom import package
from tests.unit.jobs.engine.world import person

pytestmark = pytest.mark.django_db


@pytest.fixture
def approved(world, backend, runner_for):
    run = engine.create_run(
        by=world.user, kind="research", project=world.project, program=world.program, inputs=[(world.version, None)],
        submission=uuid.uuid4().hex,
    )  # fmt: skip
    engine.advance(run.pk)
    runner = runner_for(run)
    runner.until_running()
    assert (
        runner.deliver({"table.csv": b"a,b\n1,2\n", "deep/text.txt": b"hello\n", "empty": b""}).status == 200
    )
    engine.open_outputs(run.pk)
    release = OutputRelease.objects.get(run=run)
    tester = System("test")
    transition(release, "approved_once", by=tester, set_fields={"first_checker": person("one")})
    transition(release, "approved", by=tester, set_fields={"second_checker": person("two")})
    return release


def test_package_verifies_with_pinned_keys(approved, tmp_path):
    for _ in range(2):
        engine.build_package(approved.pk)
    approved.refresh_from_db()
    assert (approved.state, approved.package_object) == ("released", f"packages/{approved.pk}.zip")
    path = tmp_path / "package.zip"
    with store().open(approved.package_object) as reader:
        path.write_bytes(reader.read())
    report = package.verify_package(path, trust=portal_keys())
    assert report.ok, [c for c in report.checks if c.outcome.value == "fail"]
    assert approved.package_size == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        assert archive.read("outputs/table.csv") == b"a,b\n1,2\n"
        assert json.loads(archive.read("manifest.json"))["run"] == str(approved.run_id)


def test_gate_closed_in_the_meantime_keeps_the_outputs_inside(approved, gate):
    gate.append(Condition("access_not_active", "There is no access in force.", "Ask.", "custodian"))
    engine.build_package(approved.pk)
    approved.refresh_from_db()
    assert (approved.state, approved.package_object) == ("rejected", "")


def test_an_output_changed_in_the_store_is_not_released(approved):
    output = approved.run.outputs.get(path="table.csv")
    store().put(output.object_name, iter([b"a,b\n1,3\n"]))
    with pytest.raises(PackageBroken, match="outputs"):
        engine.build_package(approved.pk)
    approved.refresh_from_db()
    assert approved.state == "approved"
