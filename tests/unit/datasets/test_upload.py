"""Sealed uploads: resumed, raced, cut, finished twice; the check; what the profiling run found."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from apps.core import keys
from apps.core.errors import Conflict, Denied, Invalid
from apps.core.models import Outbox
from apps.core.objects import store
from apps.datasets import actions, queries
from apps.datasets.models import DatasetVersion
from strongroom import seal as sealing

from .conftest import CSV, PORTAL, PROFILE, REPORT, World, accepted, sealed, uploaded

SIZE = sealing.ciphertext_size(len(CSV))


def started(world: World, size: int | None = SIZE) -> DatasetVersion:
    return actions.start_upload(
        by=world.ada, dataset=world.dataset, media_type="text/csv", announced_size=size
    )


def send(world: World, version: DatasetVersion, offset: int, *chunks: bytes) -> int:
    return actions.receive_chunk(by=world.ada, version=version, offset=offset, chunks=chunks)


def test_a_whole_upload_opens_again_only_with_the_brokers_key(world: World) -> None:
    version = uploaded(world)
    assert (
        version.state == "uploaded"
        and Outbox.objects.filter(topic="check_upload", key=str(version.pk)).exists()
    )
    private = sealing.PrivateKey("x25519", keys.hpke_key("broker").private_bytes_raw())
    header = sealing.parse_seal_header(version.seal)
    dataset = str(world.dataset.pk)
    key = sealing.unwrap_key(header.wrapped_key, private, sealing.info_data_key(dataset, 1))
    out = io.BytesIO()
    with store().open(version.object_name) as reader:
        sealing.unseal_stream(reader, out, key, sealing.aad_dataset(dataset, 1))
    assert out.getvalue() == CSV


def test_a_broken_connection_loses_nothing(world: World) -> None:
    version = started(world)
    data, header = sealed(version)

    def breaks() -> Iterator[bytes]:
        yield data[:1000]
        yield data[1000:1500]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        actions.receive_chunk(by=world.ada, version=version, offset=0, chunks=breaks())
    assert queries.received(version) == 1500
    with pytest.raises(Conflict) as error:
        send(world, version, 1000, data[1000:])
    assert error.value.code == "offset_mismatch" and error.value.extra["offset"] == 1500
    assert send(world, version, 1500, data[1500:]) == SIZE
    actions.finish_upload(by=world.ada, version=version, seal=header)
    assert actions.verify_upload(by=PORTAL, version=version) == "profiling"


def test_a_crash_between_append_and_commit_is_caught_up(world: World) -> None:
    version = started(world)
    data, _ = sealed(version)
    store().append(version.object_name, 0, iter([data[:700]]), limit=SIZE)  # the row still says 0
    assert queries.received(version) == 700
    with pytest.raises(Conflict):
        send(world, version, 0, data[:700])
    assert send(world, version, 700, data[700:]) == SIZE
    version.refresh_from_db()
    assert version.received_size == SIZE


def test_the_announced_size_is_the_limit(world: World) -> None:
    version = started(world)
    data, _ = sealed(version)
    send(world, version, 0, data)
    with pytest.raises(Invalid, match="More bytes than"):
        send(world, version, SIZE, b"x")
    for size in (0, 55, 10**18, True, "7"):
        with pytest.raises(Invalid):
            started(world, size)  # type: ignore[arg-type]


def test_size_may_be_said_later_and_once(world: World, settings: Any) -> None:
    version = started(world, None)
    actions.announce_size(by=world.ada, version=version, size=SIZE)
    actions.announce_size(by=world.ada, version=version, size=SIZE)
    with pytest.raises(Conflict):
        actions.announce_size(by=world.ada, version=version, size=SIZE + 1)
    settings.MAX_DATASET_BYTES = 100
    other = started(world, None)
    with pytest.raises(Invalid):
        send(world, other, 0, b"x" * 101)


def test_a_start_sent_twice_starts_once(world: World) -> None:
    first = started(world)
    assert started(world) == first
    send(world, first, 0, b"x")
    assert started(world).number == 2


def test_the_dictionary_is_frozen_at_the_start(world: World) -> None:
    version = started(world)
    actions.update_dataset(
        by=world.ada, dataset=world.dataset, dictionary={"fields": [{"name": "only", "type": "string"}]}
    )
    version.refresh_from_db()
    assert len(version.dictionary["fields"]) == 3


def test_no_upload_without_a_dictionary(world: World) -> None:
    bare = actions.register_dataset(
        by=world.ada, custodian=world.rand, slug="bare", title="Bare", summary="s", personal_data=False
    )
    with pytest.raises(Invalid, match="no data dictionary"):
        actions.start_upload(by=world.ada, dataset=bare, media_type="text/csv", announced_size=100)
    with pytest.raises(Invalid):
        actions.start_upload(by=world.ada, dataset=world.dataset, media_type="text/html", announced_size=100)


def changed(header: dict[str, Any], **parts: dict[str, Any] | Any) -> dict[str, Any]:
    return {**header, **{k: {**header[k], **v} if isinstance(v, dict) else v for k, v in parts.items()}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "another dataset or version"),
        ({"dataset": "00000000-0000-4000-8000-000000000000"}, "another dataset or version"),
        ({"ciphertext": {"size": SIZE + 1}, "plaintext": {"size": len(CSV) + 1}}, "were received"),
        ({"wrapped_key": {"recipient": "0" * 16}}, "another recipient"),
        ({"wrapped_key": {"suite": "mlkem768x25519"}}, "another recipient"),
        ({"wrapped_key": {"data": "AAAA"}}, "must have 80 bytes"),
        ({"plaintext": {"media_type": "text/html"}}, "media_type"),
        ({"plaintext": {"size": 1}}, "contradicts itself"),
        ({"ciphertext": {"sha256": "A" * 64}}, "SHA-256"),
        ({"note": "x"}, "does not know"),
        ({"v": 2}, "must be 1"),
    ],
)
def test_a_seal_header_that_does_not_fit_is_refused(world: World, change: dict[str, Any], words: str) -> None:
    version = started(world)
    data, header = sealed(version)
    send(world, version, 0, data)
    with pytest.raises(Invalid, match=words) as error:
        actions.finish_upload(by=world.ada, version=version, seal=changed(header, **change))
    assert error.value.code == "seal_refused"
    version.refresh_from_db()
    assert version.state == "uploading"


def test_a_half_upload_cannot_be_finished(world: World) -> None:
    version = started(world)
    data, header = sealed(version)
    send(world, version, 0, data[:-1])
    with pytest.raises(Invalid, match="were received"):
        actions.finish_upload(by=world.ada, version=version, seal=header)
    for odd in (b"", b"{", b'{"v": 1, "v": 1}', b"x" * 20_000):
        with pytest.raises(Invalid):
            actions.finish_upload(by=world.ada, version=version, seal=odd)


def test_finishing_again_and_adding_after(world: World) -> None:
    version = uploaded(world)
    assert actions.finish_upload(by=world.ada, version=version, seal=version.seal).state == "uploaded"
    _, other = sealed(version)  # another key: another header
    with pytest.raises(Conflict):
        actions.finish_upload(by=world.ada, version=version, seal=other)
    with pytest.raises(Conflict, match="finished"):
        send(world, version, SIZE, b"x")
    with pytest.raises(Conflict):
        actions.give_up_upload(by=world.ada, version=version, reason="Late.")


def test_giving_up_deletes_what_came(world: World, django_capture_on_commit_callbacks: Any) -> None:
    version = started(world)
    send(world, version, 0, b"x" * 500)
    with pytest.raises(Invalid):
        actions.give_up_upload(by=world.ada, version=version, reason="")
    with django_capture_on_commit_callbacks(execute=True):
        actions.give_up_upload(by=world.ada, version=version, reason="Wrong file.")
    assert store().size(version.object_name) == 0 and version.state == "refused"
    with pytest.raises(Conflict):
        send(world, version, 500, b"x")


def test_damaged_and_missing_bytes_are_found(world: World, django_capture_on_commit_callbacks: Any) -> None:
    version = uploaded(world)
    path = store()._path(version.object_name)  # type: ignore[attr-defined]
    raw = bytearray(path.read_bytes())
    raw[100] ^= 1
    path.write_bytes(bytes(raw))
    with django_capture_on_commit_callbacks(execute=True):
        assert actions.verify_upload(by=PORTAL, version=version) == "refused"
    assert "damaged" in queries.last_reason(version) and store().size(version.object_name) == 0
    lost = uploaded(world)
    store().delete(lost.object_name)
    assert actions.verify_upload(by=PORTAL, version=lost) == "refused"
    assert actions.verify_upload(by=PORTAL, version=lost) == "refused"  # again: nothing more happens


def test_accepted_is_suppressed_and_refused_publishes_nothing(world: World) -> None:
    version = accepted(world)
    assert version.state == "accepted" and version.rows == 496
    assert version.profile is not None and version.profile["columns"][0]["histogram"]["counts"] == [
        300,
        None,
        None,
    ]
    assert queries.current_version(world.dataset) == version
    bad = uploaded(world)
    actions.verify_upload(by=PORTAL, version=bad)
    report = {
        **REPORT,
        "ok": False,
        "problems": [
            {
                "code": "out_of_range",
                "column": "mdvis",
                "rows": [3, 8],
                "count": 2,
                "sentence": "2 values are above 200.",
            }
        ],
    }
    with pytest.raises(Invalid):
        actions.record_profile(by=PORTAL, version=bad, ok=True, rows=496, profile=PROFILE, report=report)
    actions.record_profile(by=PORTAL, version=bad, ok=False, rows=496, profile=PROFILE, report=report)
    assert bad.profile is None and bad.state == "refused" and "1 problem" in queries.last_reason(bad)
    assert queries.current_version(world.dataset) == version


def test_a_failed_profiling_run_may_be_tried_again(world: World) -> None:
    version = uploaded(world)
    actions.verify_upload(by=PORTAL, version=version)
    with pytest.raises(Conflict):
        actions.check_again(by=world.ada, version=version)
    with pytest.raises(Invalid):
        actions.record_profile(by=PORTAL, version=version, ok=True, rows=1, profile={"v": 9}, report=REPORT)
    actions.profile_failed(by=PORTAL, version=version, reason="The machine went away.")
    Outbox.objects.all().delete()
    actions.check_again(by=world.ada, version=version)
    assert Outbox.objects.get().topic == "check_upload"
    assert actions.verify_upload(by=PORTAL, version=version) == "profiling"


def test_no_person_reports_what_a_run_found(world: World) -> None:
    version = uploaded(world)
    for call in (
        lambda: actions.verify_upload(by=world.ada, version=version),
        lambda: actions.upload_checked(by=world.ada, version=version),
        lambda: actions.upload_broken(by=world.ada, version=version, reason="x"),
        lambda: actions.record_profile(
            by=world.ada, version=version, ok=True, rows=1, profile=PROFILE, report=REPORT
        ),
        lambda: actions.profile_failed(by=world.ada, version=version, reason="x"),
        lambda: actions.upload_checked(by=None, version=version),
    ):
        with pytest.raises(Denied):
            call()


@pytest.mark.parametrize("who", ["bea", "cyd", "eve"])
def test_no_stranger_uploads(world: World, who: str) -> None:
    version, by = started(world), getattr(world, who)
    data, header = sealed(version)
    for call in (
        lambda: actions.receive_chunk(by=by, version=version, offset=0, chunks=[data]),
        lambda: actions.finish_upload(by=by, version=version, seal=header),
        lambda: actions.give_up_upload(by=by, version=version, reason="x"),
        lambda: actions.restart_upload(by=by, version=version),
        lambda: actions.announce_size(by=by, version=version, size=SIZE),
        lambda: actions.check_again(by=by, version=version),
    ):
        with pytest.raises(Denied):
            call()
    assert store().size(version.object_name) == 0


def race(*calls: Any) -> list[Any]:
    """Run the calls in threads of their own, at once; their results or errors in order."""
    barrier, out = threading.Barrier(len(calls)), [None] * len(calls)

    def run(index: int, call: Any) -> None:
        barrier.wait()
        try:
            out[index] = call()
        except Exception as error:
            out[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


@pytest.mark.django_db(transaction=True)
def test_two_writers_cannot_interleave(world: World) -> None:
    version = started(world)
    data, header = sealed(version)
    small = [data[n : n + 400] for n in range(0, len(data), 400)]
    fresh = [DatasetVersion.objects.select_related("dataset__custodian").get(pk=version.pk) for _ in range(2)]
    results = race(
        *(lambda v=v: actions.receive_chunk(by=world.ada, version=v, offset=0, chunks=small) for v in fresh)
    )
    errors = [r for r in results if isinstance(r, Conflict)]
    assert len(errors) >= 1 and all(isinstance(r, Conflict) or r == SIZE for r in results)
    position = queries.received(version)
    if position < SIZE:  # each stopped the other; whoever goes on finishes it
        send(world, version, position, data[position:])
    with store().open(version.object_name) as reader:
        assert reader.read() == data
    finished = race(*(lambda v=v: actions.finish_upload(by=world.ada, version=v, seal=header) for v in fresh))
    assert [f.state for f in finished] == ["uploaded", "uploaded"]
    assert Outbox.objects.filter(topic="check_upload").count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_different_finishers_one_wins(world: World) -> None:
    version = started(world)
    data, header = sealed(version)
    send(world, version, 0, data)
    _, other = sealed(version)
    fresh = [DatasetVersion.objects.select_related("dataset__custodian").get(pk=version.pk) for _ in range(2)]
    results = race(
        lambda: actions.finish_upload(by=world.ada, version=fresh[0], seal=header),
        lambda: actions.finish_upload(by=world.ada, version=fresh[1], seal=other),
    )
    assert sorted(type(r).__name__ for r in results) == ["Conflict", "DatasetVersion"]


@pytest.mark.django_db(transaction=True)
def test_two_starts_get_two_numbers_or_one_version(world: World) -> None:
    a, b = race(lambda: started(world), lambda: started(world))
    assert a == b
    numbers = race(lambda: started(world, 300), lambda: started(world, 400))
    assert sorted(v.number for v in numbers) == [2, 3]
