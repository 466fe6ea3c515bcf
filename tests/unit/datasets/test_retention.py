"""The sealed file of a refused upload is kept for some days, and deleted on the record."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import time_machine
from django.test import Client

from apps.audit.models import Entry
from apps.core.clock import now
from apps.core.errors import Denied
from apps.core.objects import store
from apps.datasets import actions
from apps.datasets.models import DatasetVersion
from workers import sweep

from .conftest import PORTAL, REPORT, World, accepted, uploaded

DELETED = "dataset_version.ciphertext_deleted"


def refused(world: World) -> DatasetVersion:
    version = uploaded(world)
    actions.verify_upload(by=PORTAL, version=version)
    report = {**REPORT, "ok": False, "problems": [{"code": "type", "column": "mdvis"}]}
    return actions.record_profile(by=PORTAL, version=version, ok=False, rows=3, profile=None, report=report)


def later(days: float) -> Any:
    return time_machine.travel(now() + dt.timedelta(days=days), tick=True)


def test_deleted_after_a_week(world: World) -> None:
    version = refused(world)
    name, size = version.object_name, store().size(version.object_name)
    browser = Client()
    browser.force_login(world.ada, "django.contrib.auth.backends.ModelBackend")
    address = f"/my-datasets/versions/{version.pk}"
    assert size > 0 and "deleted 7 days after" in browser.get(address).content.decode()
    with later(6.9):
        assert actions.remove_refused_ciphertext(by=PORTAL) == 0 and store().size(name) == size
    with later(7.1):
        sweep.sweep_expiries()
        assert store().size(name) == 0
        entry = Entry.objects.get(event=DELETED)
        assert (entry.object_id, entry.data) == (str(version.pk), {"bytes": size, "days": 7})
        assert entry.scope == f"dataset:{world.dataset.pk}" and entry.actor.startswith("system:")
        assert actions.remove_refused_ciphertext(by=PORTAL) == 0, "once"
        version.refresh_from_db()
        assert version.object_name == "" and version.report and version.ciphertext_sha256
    assert "Its sealed file is deleted." in browser.get(address).content.decode()


def test_days_are_a_setting(world: World, settings: Any) -> None:
    settings.REFUSED_CIPHERTEXT_DAYS = 30
    version = refused(world)
    with later(29):
        assert actions.remove_refused_ciphertext(by=PORTAL) == 0
    settings.REFUSED_CIPHERTEXT_DAYS = 0
    assert actions.remove_refused_ciphertext(by=PORTAL) == 1
    assert store().size(version.object_name) == 0


def test_what_was_not_refused_stays(world: World) -> None:
    kept = [uploaded(world), accepted(world)]
    with later(400):
        assert actions.remove_refused_ciphertext(by=PORTAL) == 0
    assert all(store().size(version.object_name) for version in kept)


def test_an_upload_given_up_was_deleted_at_once(
    world: World, django_capture_on_commit_callbacks: Any
) -> None:
    version = actions.start_upload(
        by=world.ada, dataset=world.dataset, media_type="text/csv", announced_size=700
    )
    actions.receive_chunk(by=world.ada, version=version, offset=0, chunks=[b"x" * 100])
    with django_capture_on_commit_callbacks(execute=True):
        actions.give_up_upload(by=world.ada, version=version, reason="Wrong file.")
    with later(8):
        assert actions.remove_refused_ciphertext(by=PORTAL) == 0
    assert not Entry.objects.filter(event=DELETED).exists()


def test_one_whose_deletion_was_lost_is_deleted_after_all(world: World) -> None:
    version = actions.start_upload(
        by=world.ada, dataset=world.dataset, media_type="text/csv", announced_size=700
    )
    actions.receive_chunk(by=world.ada, version=version, offset=0, chunks=[b"x" * 100])
    actions.give_up_upload(by=world.ada, version=version, reason="Wrong file.")  # and the process dies
    assert store().size(version.object_name) == 100
    with later(8):
        assert actions.remove_refused_ciphertext(by=PORTAL) == 1
    assert store().size(version.object_name) == 0


def test_no_person_does_it(world: World) -> None:
    with pytest.raises(Denied):
        actions.remove_refused_ciphertext(by=world.ada)
