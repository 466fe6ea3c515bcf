"""The shared kernel beside lifecycles: objects by name, keys by name, work left for later, errors as answers, forms."""

from __future__ import annotations

import io
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from django import forms
from django.contrib.auth.models import AnonymousUser
from django.contrib.messages.storage.fallback import FallbackStorage
from django.db import transaction
from django.http import Http404
from django.test import RequestFactory
from rest_framework import exceptions

from apps.accounts.models import Organisation, User
from apps.core import outbox
from apps.core.actors import Runner, System, require_actor
from apps.core.api import exception_handler
from apps.core.errors import Conflict, Denied, DomainError, GateClosed, Invalid, NotFound
from apps.core.keys import HPKE, SIGNING, hpke_key, key_file, signing_key
from apps.core.models import Outbox
from apps.core.objects import FileStore, chunks_of, put_bytes, sha256_of, store
from apps.core.views import act, page_of

# Objects


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a..b",
        "A",
        "a b",
        "a\x00",
        "a\n",
        ".hidden",
        "é",
        "a" * 300,
        "~",
        "a\\b",
        "-x",
    ],
)
def test_names_that_are_no_object_names(files: FileStore, name: str) -> None:
    for act_ in (
        files.open,
        files.size,
        files.delete,
        lambda n: files.put(n, iter([b"x"])),
        lambda n: files.append(n, 0, iter([b"x"]), limit=9),
    ):
        with pytest.raises(ValueError, match="not an object name"):
            act_(name)
    assert list(files.root.iterdir()) == []


def test_put_is_whole_or_not_at_all(files: FileStore, tmp_path: Path) -> None:
    digest, size = files.put("a/b", iter([b"one", b"two"]))
    assert (size, files.open("a/b").read()) == (6, b"onetwo")
    assert len(digest) == 64 and stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o600

    def broken() -> Any:
        yield b"half"
        raise OSError("the line went dead")

    with pytest.raises(OSError, match="went dead"):
        files.put("a/b", broken())
    assert files.open("a/b").read() == b"onetwo" and [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_append(files: FileStore) -> None:
    assert files.append("x", 0, iter([b"abc"]), limit=6) == 3
    with pytest.raises(ValueError, match="3 bytes are there"):
        files.append("x", 2, iter([b"d"]), limit=6)
    assert files.append("x", 3, iter([b"def"]), limit=6) == 6
    with pytest.raises(OverflowError):
        files.append("x", 6, iter([b"g"]), limit=6)
    assert files.open("x").read() == b"abcdef" and files.size("x") == 6


def test_of_two_at_one_offset_one_writes(files: FileStore) -> None:
    """Both begin before either has written, and send their pieces in turns."""
    ready, results = threading.Barrier(2), dict[str, object]()

    def send(letter: str) -> None:
        def pieces() -> Any:
            for _ in range(200):
                if not ready.broken:
                    try:
                        ready.wait(0.2)
                    except threading.BrokenBarrierError:
                        pass  # the other one has been refused
                yield letter.encode() * 1000

        try:
            results[letter] = files.append("x", 0, pieces(), limit=1 << 20)
        except ValueError as error:
            results[letter] = error
            ready.abort()

    senders = [threading.Thread(target=send, args=(letter,)) for letter in "ab"]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(30)
    (winner,) = [letter for letter, result in results.items() if result == 200_000]
    assert len([r for r in results.values() if isinstance(r, ValueError)]) == 1
    assert files.open("x").read() == winner.encode() * 200_000


def test_a_sender_that_waits_for_the_network_keeps_nobody_out(files: FileStore) -> None:
    def pieces() -> Any:
        yield b"abc"
        assert files.append("x", 3, iter([b"def"]), limit=9) == 6
        yield b"ghi"

    with pytest.raises(ValueError, match="offset 3 given, 6 bytes are there"):
        files.append("x", 0, pieces(), limit=9)
    assert files.open("x").read() == b"abcdef"


def test_absent(files: FileStore) -> None:
    assert files.size("gone") == 0
    files.delete("gone")
    with pytest.raises(FileNotFoundError):
        files.open("gone")


def test_store_of_the_settings(settings: Any, tmp_path: Path) -> None:
    settings.OBJECT_STORE = {"backend": "files", "root": str(tmp_path)}
    assert put_bytes("a", b"x" * 3) == sha256_of("a")
    assert list(chunks_of(io.BytesIO(b"abcde"), 2)) == [b"ab", b"cd", b"e"]
    settings.OBJECT_STORE = {"backend": "tape", "root": ""}
    with pytest.raises(ValueError, match="tape"):
        store()


# Keys


def test_keys_are_made_once(settings: Any, tmp_path: Path) -> None:
    settings.KEY_DIRECTORY = tmp_path / "keys"
    contents: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: contents.append(key_file("log").read_bytes())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(contents)) == 1 and len(contents) == 8
    assert (
        stat.S_IMODE(key_file("log").stat().st_mode) == 0o600
        and stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    )
    assert [p.name for p in (tmp_path / "keys").iterdir()] == ["log.key"]


def test_each_key_for_its_use(settings: Any, tmp_path: Path) -> None:
    settings.KEY_DIRECTORY = tmp_path
    raw = {signing_key(n).private_bytes_raw() for n in SIGNING} | {
        hpke_key(n).private_bytes_raw() for n in HPKE
    }
    assert len(raw) == len(SIGNING) + len(HPKE)
    for wrong in (
        lambda: signing_key("broker"),
        lambda: hpke_key("log"),
        lambda: key_file("other"),
        lambda: key_file("../log"),
    ):
        with pytest.raises(ValueError):
            wrong()


# Actors and work


def test_actors() -> None:
    assert require_actor(System("sweeper")) == "system:sweeper" and require_actor(Runner("x")) == "runner:x"
    for nobody in (None, AnonymousUser(), "user:x", 0):
        with pytest.raises(ValueError, match="actor"):
            require_actor(nobody)


@pytest.mark.django_db
def test_the_same_work_twice_is_once(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    kicks: list[int] = []
    monkeypatch.setattr(outbox, "kick", lambda: kicks.append(1))
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        outbox.enqueue("advance_run", "1")
        first = Outbox.objects.get()
        Outbox.objects.update(attempts=7)
        outbox.enqueue("advance_run", "1")
        outbox.enqueue("advance_run", "2")
        assert kicks == []
    assert Outbox.objects.count() == 2 and len(kicks) == 3
    again = Outbox.objects.get(key="1")
    assert again.attempts == 0 and again.due_at >= first.due_at, "it is due anew"


@pytest.mark.django_db(transaction=True)
def test_work_belongs_to_the_change_that_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "kick", lambda: None)
    with pytest.raises(RuntimeError, match="inside the transaction"):
        outbox.enqueue("advance_run", "1")
    with pytest.raises(KeyError), transaction.atomic():
        outbox.enqueue("advance_run", "1")
        raise KeyError
    assert not Outbox.objects.exists()


def test_a_broker_that_is_down_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from portal.celery import app

    def down(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(app, "send_task", down)
    outbox.kick()


# Errors as answers


@pytest.mark.parametrize(
    ("error", "status", "more"),
    [
        (Denied("no", "No.", "Ask."), 403, {}),
        (Conflict("late", "Late.", "Reload."), 409, {}),
        (Conflict("offset_mismatch", "At 3.", "Go on.", offset=3), 409, {"offset": 3}),
        (Invalid("bad", "Bad.", "Mend.", fields={"a": ["b"]}), 422, {"fields": {"a": ["b"]}}),
        (NotFound("run"), 404, {}),
        (GateClosed([{"detail": "x"}]), 403, {"conditions": [{"detail": "x"}]}),
    ],
)
def test_domain_errors(error: DomainError, status: int, more: dict[str, Any]) -> None:
    response = exception_handler(error, {})
    assert response is not None and response.status_code == status
    assert response.data == {"code": error.code, "detail": error.detail, "remedy": error.remedy, **more}


def test_other_errors() -> None:
    def answer(error: Exception) -> Any:
        return exception_handler(error, {})

    assert answer(Http404()).status_code == 404
    invalid = answer(exceptions.ValidationError({"name": ["Too long."]}))
    assert (invalid.status_code, invalid.data["code"], invalid.data["fields"]) == (
        422,
        "invalid",
        {"name": ["Too long."]},
    )
    for error, status in (
        (exceptions.NotAuthenticated(), 401),
        (exceptions.PermissionDenied("No scope."), 403),
        (exceptions.Throttled(3), 429),
        (exceptions.ParseError(), 400),
    ):
        response = answer(error)
        assert (
            response.status_code == status
            and set(response.data) == {"code", "detail", "remedy"}
            and response.data["detail"]
        )
    assert answer(KeyError("a secret")) is None, "a fault stays a fault, with nothing told"


# Pages


class Note(forms.Form):
    name = forms.CharField()


def request_of(user: User) -> Any:
    request: Any = RequestFactory().post("/", {"name": "x"})
    request.user, request.session = user, {}
    request._messages = FallbackStorage(request)
    return request


def test_act_puts_errors_where_they_belong() -> None:
    request = request_of(User(name="Ada"))

    def refusing(error: Exception) -> Any:
        def action(*, by: User) -> None:
            raise error

        return action

    def ask(error: Exception) -> Note:
        form = Note({"name": "x"})
        assert form.is_valid() and act(request, form, refusing(error), done="Done.") is None
        return form

    assert ask(Invalid("a", "A.", fields={"name": ["Enter another"]})).errors == {"name": ["Enter another"]}
    assert ask(Invalid("a", "A.", fields={"other": ["Enter another"]})).errors == {
        "__all__": ["Enter another"]
    }
    assert ask(Invalid("a", "A thing.", "Mend it.")).errors == {"__all__": ["A thing. Mend it."]}
    with pytest.raises(Denied):
        act(request, Note({"name": "x"}), refusing(Denied("no", "No.")))
    assert list(request._messages) == []


def test_act_tells_what_was_done() -> None:
    request = request_of(User(name="Ada"))
    assert act(request, Note(), lambda *, by, n: n + 1, done="Done.", n=1) == 2
    assert act(request, Note(), lambda *, by: None) is True
    assert [str(m) for m in request._messages] == ["Done."]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("asked", "number"),
    [("", 1), ("2", 2), ("x", 1), ("-1", 2), ("0", 2), ("99", 2), ("\x00", 1), ("²", 1), ("9" * 5000, 1)],
)
def test_page_of(asked: str, number: int) -> None:
    for n in range(3):
        Organisation.objects.create(slug=f"o{n}", name=f"O{n}", kind="university")
    page = page_of(RequestFactory().get("/", {"page": asked}), Organisation.objects.order_by("name"), 2)
    assert page.number == number and len(page.object_list) == (2 if number == 1 else 1)
