"""What the portal does with a custodian's broker that is slow, broken or hostile. Nothing of it is believed."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from apps.attestation import brokers
from apps.attestation.brokers import BrokerRefused, ServiceUnavailable
from strongroom import shapes

DATASET = str(uuid.uuid4())
GRANT = {"dataset": DATASET, "version": 1}
KEY = {**GRANT, "wrapped": shapes.b64_encode(b"x" * 80), "suite": "x25519"}
LOG = {"index": 0, "hash": "0" * 64}
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked += 1
                outer.answer(self)

        self.asked = 0
        self.answer: Answer = said(200, {})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def said(status: int, body: Any, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


@pytest.fixture
def server(settings: Any) -> Iterator[Server]:
    made = Server()
    settings.KEY_BROKERS = {"b": made.url}
    yield made
    made.http.shutdown()
    made.http.server_close()


def release() -> Any:
    return brokers.release("b", authorisation={}, context={}, evidence={}, grants=[GRANT])


def test_a_good_answer(server: Server) -> None:
    server.answer = said(200, {"keys": [KEY], "log": LOG, "more": "ignored"})
    assert release().keys == [KEY] and release().log == LOG
    server.answer = said(200, {"challenge": "A" * 43})
    assert brokers.challenge("b", {}) == "A" * 43


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'{"a":1,"a":2}', {}, {"keys": [], "log": LOG}, {"keys": [KEY]}, {"keys": [KEY, KEY], "log": LOG},
        {"keys": [{**KEY, "dataset": str(uuid.uuid4())}], "log": LOG}, {"keys": [{**KEY, "version": 2}], "log": LOG},
        {"keys": [{**KEY, "suite": "rot13"}], "log": LOG}, {"keys": [{**KEY, "wrapped": "!"}], "log": LOG},
        {"keys": [{**KEY, "key": "x"}], "log": LOG}, {"keys": [KEY], "log": {"index": -1, "hash": "x"}}, b"x" * (3 << 20),
    ],
)  # fmt: skip
def test_nonsense_is_a_refusal(server: Server, body: Any) -> None:
    server.answer = said(200, body)
    with pytest.raises(BrokerRefused) as refused:
        release()
    assert refused.value.code == "broker_malformed"
    with pytest.raises(BrokerRefused):
        brokers.challenge("b", {})


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.answer = said(302, b"", Location=f"{server.url}/elsewhere")
    with pytest.raises(BrokerRefused):
        release()
    assert server.asked == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_errors_of_its_own_may_pass(server: Server, status: int) -> None:
    server.answer = said(status, {"code": "x", "detail": "y"})
    with pytest.raises(ServiceUnavailable):
        release()


def test_its_sentences_are_cut_to_what_a_page_can_take(server: Server) -> None:
    checks = [{"id": "i" * 500, "detail": "d\n\x00" * 900}] * 99 + [5, {"id": 5}]
    server.answer = said(403, {"code": "c" * 500, "detail": "line\nline\x00" + "x" * 9000, "checks": checks})
    with pytest.raises(BrokerRefused) as refused:
        release()
    said_ = refused.value
    assert len(said_.code) == 60 and len(said_.sentence) == 1000 and said_.sentence.startswith("line line ")
    assert len(said_.checks) == 50 and all(
        len(c["detail"]) <= 500 and "\x00" not in c["detail"] for c in said_.checks
    )
    for body in ({}, {"detail": 5, "checks": 5}, {"detail": ""}):
        server.answer = said(403, body)
        with pytest.raises(BrokerRefused, match="refused"):
            release()


def test_one_that_is_silent_or_drips_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(brokers, "WHOLE_SECONDS", 0.6)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        try:
            for _ in range(400):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass

    for answer in (drip, lambda handler: time.sleep(1)):
        server.answer = answer
        began = time.monotonic()
        with pytest.raises(ServiceUnavailable):
            release()
        assert time.monotonic() - began < 15


def test_only_what_the_operator_admitted_is_asked(server: Server) -> None:
    with pytest.raises(BrokerRefused) as refused:
        brokers.challenge("127.0.0.1", {})
    assert refused.value.code == "broker_unknown" and server.asked == 0


RUN = uuid.uuid4()
PERMITTED = {"run": str(RUN), "attempt": 1, "standing": "permitted", "code": "", "detail": ""}


def standing() -> Any:
    return brokers.standing("b", [(RUN, 1)])


def test_whether_keys_still_stand(server: Server) -> None:
    server.answer = said(200, {"runs": [PERMITTED], "more": "ignored"})
    assert standing()[RUN, 1].standing == "permitted"
    stopped = {**PERMITTED, "standing": "withdrawn", "code": "stopped", "detail": "Why."}
    server.answer = said(200, {"runs": [stopped]})
    assert (standing()[RUN, 1].standing, standing()[RUN, 1].detail) == ("withdrawn", "Why.")


@pytest.mark.parametrize(
    "answer",
    [
        said(200, b""), said(200, b"null"), said(200, b"[" * 100_000), said(200, {"runs": None}), said(200, {"runs": {}}),
        said(200, {"runs": [{**PERMITTED, "standing": "stopped"}]}),
        said(200, {"runs": [{**PERMITTED, "standing": True}]}),
        said(200, {"runs": [{**PERMITTED, "attempt": "1"}]}),
        said(200, {"runs": [{**PERMITTED, "attempt": True}]}),
        said(200, {"runs": [{**PERMITTED, "run": str(RUN).upper()}]}),
        said(200, {"runs": [{**PERMITTED, "detail": "x" * 2001}]}),
        said(200, {"runs": [{**PERMITTED, "standing": "withdrawn", "detail": "a\u0000b"}]}),
        said(200, {"runs": [PERMITTED, {**PERMITTED, "standing": "withdrawn"}]}),
        said(200, {"runs": [PERMITTED] * 1001}),
        said(200, {"runs": []}), said(200, {"runs": [{**PERMITTED, "attempt": 2}]}),
        said(200, {"runs": [{**PERMITTED, "standing": "withdrawn", "run": str(uuid.uuid4())}]}),
        said(404, {"code": "not_found", "detail": "An older one."}), said(403, {"code": "stopped"}), said(500, {}),
        said(302, {}, Location="http://127.0.0.1:1/"),
    ],
)  # fmt: skip
def test_whatever_else_it_says_is_no_withdrawal(server: Server, answer: Answer) -> None:
    server.answer = answer
    assert standing() == {} and server.asked == 1


def test_one_that_is_away_or_off_the_list_has_withdrawn_nothing(server: Server, settings: Any) -> None:
    settings.KEY_BROKERS = {"b": "http://127.0.0.1:1"}
    assert standing() == {}
    settings.KEY_BROKERS = {}
    assert standing() == {} and server.asked == 0
