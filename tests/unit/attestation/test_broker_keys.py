"""`manage.py broker_keys`: the operator's door to the keys of the portal's own broker."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from apps.audit.models import Entry
from apps.core.keys import key_store
from strongroom import seal
from tests.unit.jobs.engine.world import make_world

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, settings: Any) -> None:
    settings.KEY_DIRECTORY = str(tmp_path / "keys")


def said(*arguments: str) -> str:
    out = StringIO()
    call_command("broker_keys", *arguments, stdout=out)
    return out.getvalue()


def test_rotate_and_retire() -> None:
    world = make_world()  # sealed to the X25519 key
    hybrid, classic = key_store().public_keys()
    assert f"{classic.id}  x25519  current" in said() and "private" not in said()
    assert "opens" in said("check")
    said("rotate", "x25519")
    assert f"{classic.id}  x25519  old" in said()
    header = seal.parse_seal_header(world.version.seal)
    info = seal.info_data_key(header.dataset, header.version)
    assert key_store().unwrap(header.recipient, header.wrapped_key, info)
    with pytest.raises(CommandError, match=f"{world.dataset.slug} version 1"):
        said("retire", classic.id)
    said("rotate", hybrid.suite)
    said("retire", hybrid.id)
    assert f"{hybrid.id}  {hybrid.suite}  retired" in said()
    assert {e.event for e in Entry.objects.filter(object_type="broker_key")} == {
        "broker_key.rotated",
        "broker_key.retired",
    }
    for wrong in (("retire", "0" * 16), ("retire", key_store().public_keys()[0].id)):
        with pytest.raises(CommandError):
            said(*wrong)


def test_a_store_that_others_may_read_is_refused(tmp_path: Path) -> None:
    said()
    (tmp_path / "keys" / "broker.json").chmod(0o640)
    with pytest.raises(CommandError, match="closed to everybody else"):
        said("check")
