"""Sealing, proving and verifying the log, and every way of tampering with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction

from apps.audit import queries, sequencer
from apps.audit.actions import entry_document, record
from apps.audit.models import Checkpoint, Entry, Tile
from apps.audit.sequencer import LogBroken, log_verifier, seal_log
from apps.audit.verifier import verify_log
from apps.core.actors import System
from apps.core.errors import Conflict
from strongroom import translog
from strongroom.errors import LogError
from strongroom.signing import SigningKey

pytestmark = pytest.mark.django_db


def fill(count: int) -> list[Entry]:
    return [
        record(
            event="thing.done",
            by=System("test"),
            object_type="thing",
            object_id=n,
            data={"n": n, "text": "é<>"},
        )
        for n in range(count)
    ]


def by_hand(sql: str, *values: object) -> None:
    """What somebody with the database's own password can do."""
    with connection.cursor() as cursor:
        for table in ("audit_entry", "audit_checkpoint"):
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(sql, values)
        for table in ("audit_entry", "audit_checkpoint"):
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "BATCH", 100)


@pytest.fixture
def sealed(small_batches: None) -> list[Entry]:
    """600 entries: three tiles of level 0, one of level 1, six checkpoints, and one entry not sealed yet."""
    fill(300)
    seal_log()
    fill(300)
    seal_log()
    fill(1)
    rows = list(Entry.objects.filter(index__isnull=False).order_by("index"))
    assert len(rows) == 600
    return rows


def test_record_needs_an_actor():
    with pytest.raises(ValueError, match="actor"):
        record(event="a.b", by=None, object_type="x", object_id=1)
    with pytest.raises(LogError):
        record(event="a.b", by=System("test"), object_type="x", object_id=1, data={"n": float("nan")})


def test_sealing_in_order_and_in_batches(small_batches):
    entries = fill(257)
    assert seal_log() == 257
    assert seal_log() == 0
    expected = sorted(entries, key=lambda e: (e.at, e.id))
    assert [e.id for e in Entry.objects.order_by("index")] == [e.id for e in expected]
    assert list(Checkpoint.objects.order_by("size").values_list("size", flat=True)) == [100, 200, 257]
    assert {(t.level, t.index): len(bytes(t.hashes)) // 32 for t in Tile.objects.all()} == {
        (0, 0): 256,
        (0, 1): 1,
        (1, 0): 1,
    }
    head = Checkpoint.objects.get(size=257)
    leaves = [bytes(e.leaf_hash) for e in expected]
    opened = translog.open_checkpoint(head.note.encode(), log_verifier())
    assert (opened.origin, opened.size, opened.root) == (
        settings.PORTAL_ID,
        257,
        translog.root_from_leaves(leaves),
    )


def test_proof_verifies_offline(sealed):
    for entry in (sealed[0], sealed[255], sealed[599]):
        made = queries.inclusion_proof(entry)
        opened = translog.parse_entry_file(queries.entry_file(entry))
        head = translog.verify_proof(made.proof, opened.leaf_data, log_verifier())
        assert (head.size, made.index, made.size) == (600, entry.index, 600)
        assert made.checkpoint in made.proof
    with pytest.raises(LogError):
        translog.verify_proof(
            made.proof,
            translog.leaf_data({**entry_document(sealed[599]), "event": "x"}, bytes(32)),
            log_verifier(),
        )


def test_proof_of_a_fresh_entry_seals_first():
    (entry,) = fill(1)
    with pytest.raises(Conflict) as error:
        queries.proof_of(entry)
    assert error.value.code == "not_sealed_yet"
    assert queries.inclusion_proof(entry).index == 0


def test_a_good_log_verifies(sealed):
    report = verify_log()
    assert (report.ok, report.entries, report.unsealed, report.checkpoints) == (True, 600, 1, 6)


def test_an_empty_log_verifies():
    assert verify_log().ok


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_entry SET event = 'x'",
        "UPDATE audit_entry SET index = index + 1000",
        "UPDATE audit_entry SET index = NULL",
        "DELETE FROM audit_entry",
        "UPDATE audit_checkpoint SET note = 'x'",
        "DELETE FROM audit_checkpoint",
    ],
)
def test_the_database_refuses_changes(sealed, sql):
    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)


def test_a_place_is_given_without_touching_the_rest(db):
    fill(1)
    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute("UPDATE audit_entry SET index = 0, event = 'x'")


def test_altered_row_is_found(sealed):
    by_hand("UPDATE audit_entry SET data = '{\"n\": 7}' WHERE index = 300")
    report = verify_log()
    assert [f.where for f in report.findings] == [f"entry {sealed[300].id}"]
    assert "changed" in report.findings[0].sentence


@pytest.mark.parametrize(
    "column, value",
    [
        ("actor", "user:x"),
        ("event", "other.done"),
        ("scope", "project:1"),
        ("object_id", "9"),
        ("at", "2020-01-01T00:00:00Z"),
        ("salt", b"\0" * 32),
        ("leaf_hash", b"\0" * 32),
    ],
)
def test_every_column_is_covered(sealed, column, value):
    by_hand(f"UPDATE audit_entry SET {column} = %s WHERE index = 42", value)
    assert verify_log().findings[0].where == f"entry {sealed[42].id}"


def test_altered_row_with_its_commitment_made_new_is_found(sealed):
    entry = sealed[300]
    entry.event = "other.done"
    leaf = translog.leaf_hash(translog.leaf_data(entry_document(entry), bytes(entry.salt)))
    by_hand("UPDATE audit_entry SET event = 'other.done', leaf_hash = %s WHERE index = 300", leaf)
    report = verify_log()
    assert report.findings[0].where == f"entry {entry.id}"
    assert report.findings[0].what == "entry"


def test_altered_row_and_all_tiles_made_new_is_found(sealed):
    """Everything but the signatures is made to fit again."""
    entry = sealed[300]
    entry.event = "other.done"
    leaves = [bytes(e.leaf_hash) for e in sealed]
    leaves[300] = translog.leaf_hash(translog.leaf_data(entry_document(entry), bytes(entry.salt)))
    by_hand("UPDATE audit_entry SET event = 'other.done', leaf_hash = %s WHERE index = 300", leaves[300])
    for (level, index, _), data in translog.append(0, leaves, lambda *a: b"").items():
        Tile.objects.filter(level=level, index=index).update(hashes=data)
    report = verify_log()
    assert report.findings[0].what == "checkpoint"
    assert "from 300 to 399" in report.findings[0].sentence


def test_deleted_row_is_found(sealed):
    by_hand("DELETE FROM audit_entry WHERE index = 123")
    report = verify_log()
    assert [f.where for f in report.findings] == ["place 123"]
    assert "removed" in report.findings[0].sentence


def test_deleted_last_row_is_found(sealed):
    by_hand("DELETE FROM audit_entry WHERE index = 599")
    assert [f.where for f in verify_log().findings] == ["place 599"]


def test_swapped_rows_are_found(sealed):
    by_hand("UPDATE audit_entry SET index = CASE index WHEN 10 THEN -1 ELSE -2 END WHERE index IN (10, 20)")
    by_hand("UPDATE audit_entry SET index = CASE index WHEN -1 THEN 20 ELSE 10 END WHERE index < 0")
    report = verify_log()
    assert [f.where for f in report.findings] == [f"entry {sealed[20].id}", f"entry {sealed[10].id}"]
    assert "place 10" in report.findings[0].sentence


@pytest.mark.parametrize("level, index", [(0, 0), (0, 2), (1, 0)])
def test_rewritten_tile_is_found(sealed, level, index):
    tile = Tile.objects.get(level=level, index=index)
    data = bytearray(tile.hashes)
    data[3] ^= 1
    Tile.objects.filter(pk=tile.pk).update(hashes=bytes(data))
    finding = verify_log().findings[0]
    assert (finding.what, finding.where) == ("tile", translog.tile_path(level, index))


def test_missing_and_extra_tiles_are_found(sealed):
    Tile.objects.filter(level=0, index=1).delete()
    assert verify_log().findings[0].where == translog.tile_path(0, 1)
    Tile.objects.filter(level=1).delete()
    Tile.objects.create(level=5, index=9, hashes=b"\0" * 32)
    assert any("does not have" in f.sentence for f in verify_log().findings)


def test_forged_checkpoint_is_found(sealed):
    other = SigningKey.generate()
    head = translog.Checkpoint(settings.PORTAL_ID, 600, Checkpoint.objects.get(size=600).root and bytes(32))
    by_hand(
        "UPDATE audit_checkpoint SET note = %s WHERE size = 600",
        translog.sign_checkpoint(head, other).decode(),
    )
    assert verify_log().findings[0].where == "checkpoint of size 600"


def test_an_inserted_row_is_found(sealed):
    by_hand("UPDATE audit_entry SET index = 600 WHERE index IS NULL")
    report = verify_log()
    assert [f.what for f in report.findings] == ["entry"]
    assert "no checkpoint covers" in report.findings[0].sentence


def test_a_row_changed_before_sealing_is_found(sealed):
    by_hand("UPDATE audit_entry SET event = 'x.y' WHERE index IS NULL")
    assert "before it was sealed" in verify_log().findings[0].sentence
    seal_log()
    assert not verify_log().ok


def test_a_log_without_its_end_is_found_by_a_saved_checkpoint(sealed):
    saved = Checkpoint.objects.get(size=600).note.encode()
    earlier = Checkpoint.objects.get(size=400).note.encode()
    assert verify_log(saved).ok and verify_log(earlier).ok
    by_hand("DELETE FROM audit_entry WHERE index >= 400 OR index IS NULL")
    by_hand("DELETE FROM audit_checkpoint WHERE size > 400")
    kept = [bytes(e.leaf_hash) for e in sealed[:400]]
    Tile.objects.all().delete()
    for (level, index, _), data in translog.append(0, kept, lambda *a: b"").items():
        Tile.objects.create(level=level, index=index, hashes=data)
    assert (
        verify_log().ok
    )  # from the inside it cannot be seen: the reason why checkpoints are saved elsewhere
    assert verify_log(earlier).ok
    assert "end was removed" in verify_log(saved).findings[0].sentence


@pytest.mark.parametrize(
    "damage",
    [
        lambda: Tile.objects.filter(level=0, index=2).update(hashes=b"\0" * 88 * 32),
        lambda: Tile.objects.filter(level=0, index=2).delete(),
        lambda: by_hand("UPDATE audit_checkpoint SET root = %s WHERE size = 600", b"\0" * 32),
        lambda: by_hand("DELETE FROM audit_checkpoint"),
    ],
)
def test_nothing_is_signed_on_top_of_a_damaged_tree(sealed, damage: Callable[[], object]):
    damage()
    with pytest.raises(LogBroken):
        seal_log()
    assert Entry.objects.filter(index__isnull=True).count() == 1


def test_a_false_proof_never_leaves(sealed):
    by_hand("UPDATE audit_entry SET event = 'x.y' WHERE index = 5")
    with pytest.raises(LogBroken):
        queries.inclusion_proof(Entry.objects.get(index=5))


def test_the_command(sealed, tmp_path):
    out = StringIO()
    call_command("verify_log", stdout=out)
    assert "The log holds" in out.getvalue()
    saved = tmp_path / "checkpoint"
    saved.write_text("not a checkpoint")
    with pytest.raises(CommandError):
        call_command("verify_log", checkpoint=saved, stdout=out)
    by_hand("DELETE FROM audit_entry WHERE index = 3")
    with pytest.raises(SystemExit) as stop:
        call_command("verify_log", stdout=out)
    assert stop.value.code == 1
    assert "BAD place 3" in out.getvalue()


def test_portal_keys():
    keys = queries.portal_keys()
    assert translog.Verifier.parse(keys["keys"]["log"]).name == keys["keys"]["portal"] == settings.PORTAL_ID
    assert keys["broker"]["suite"] == "x25519"
    assert "private" not in json.dumps(keys)
