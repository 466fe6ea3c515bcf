"""A cloud on loopback: an HTTP server with a clock of its own and a schedule of faults.

Time passes only when a test says so (`pass_time`): operations end when their moment has come. Faults are taken from a
list, each by the first request that it fits: a refusal, a connection dropped before the act or after it, the same
request delivered twice, an operation that is accepted and fails later, or an answer that cannot be read.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """What goes wrong with the next request that fits.

    kind: `answer` (a refusal), `drop_before`, `drop_after`, `twice`, `operation` (accepted, then failed with `code`), or
    `body`: done, and answered with what BODIES[code] makes of the answer; with a `status`, that one, and nothing is done.
    """

    kind: str
    status: int = 0
    code: str = ""
    message: str = "a fault of the schedule"
    methods: tuple[str, ...] = ("GET", *WRITES)
    part: str = ""  # of the path
    headers: dict[str, str] = field(default_factory=dict)  # of an `answer` or a `body`
    later: int = 0  # requests that fit and are let pass before

    def fits(self, request: Request) -> bool:
        return request.method in self.methods and self.part in request.path


PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>Welcome to the guest network.</body></html>"


def _without(whole: Any, kind: Callable[[Any], Any]) -> bytes:
    """Each member of the answer, or of each entry of a list's page, as `kind` makes it."""
    if not isinstance(whole, dict):
        return json.dumps(whole).encode()
    entries = [name for name in ("value", "items") if isinstance(whole.get(name), list)]
    if entries:
        return json.dumps({**whole, entries[0]: [7]}).encode()
    return json.dumps({name: kind(value) for name, value in whole.items()}).encode()


# What may come back instead of an answer, from the answer's own object: (content type, bytes).
BODIES: dict[str, Callable[[Any], tuple[str, bytes]]] = {
    "html": lambda whole: ("text/html; charset=utf-8", PAGE),
    "html as json": lambda whole: ("application/json", PAGE),
    "binary": lambda whole: ("application/octet-stream", bytes(range(128, 160))),
    "bytes as json": lambda whole: ("application/json; charset=utf-8", bytes(range(128, 160))),
    "half": lambda whole: ("application/json", json.dumps(whole).encode()[: len(json.dumps(whole)) // 2]),
    "short": lambda whole: (
        "application/json",
        json.dumps(whole).encode(),
    ),  # the connection ends before it does
    "nothing": lambda whole: ("application/json", b""),
    "null": lambda whole: ("application/json", b"null"),
    "a list": lambda whole: ("application/json", b"[]"),
    "a text": lambda whole: ("application/json", b'"ok"'),
    "an empty object": lambda whole: ("application/json", b"{}"),
    "an error": lambda whole: ("application/json", b'{"error": {"message": "upstream"}}'),
    "no members": lambda whole: ("application/json", _without(whole, lambda value: None)),
    "other types": lambda whole: ("application/json", _without(whole, lambda value: 7)),
    "deep": lambda whole: ("application/json", b"[" * 100_000 + b"]" * 100_000),
}


class Refused(Exception):
    """The cloud answers with an error."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class BadRequest(AssertionError):
    """Our client sent what the real cloud does not accept: kept in `Fake.mistakes`, which every test ends by checking."""


class Fake:
    """The server. A subclass says what a request does (`act`) and how an error looks (`error`)."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
        self.faults: list[Fault] = []
        self.taken: Counter[str] = Counter()  # faults that a request has met, by kind
        self.requests: list[Request] = []
        self.mistakes: list[str] = []
        self.lock = threading.RLock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body go out together: with two packets, delayed acknowledgements cost 40 ms a request.
            wbufsize = -1
            disable_nagle_algorithm = True

            def handle_one(self) -> None:
                fake._serve(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    # For tests.

    def clock(self) -> datetime:
        return self.now

    def pass_time(self, seconds: float) -> None:
        with self.lock:
            self.now += timedelta(seconds=seconds)
            self.settle()

    def fault(self, kind: str, **options: Any) -> None:
        self.faults.append(Fault(kind, **options))

    def writes(self) -> list[Request]:
        return [r for r in self.requests if r.method in WRITES]

    # For subclasses.

    def act(self, request: Request) -> Answer:
        raise NotImplementedError

    def error(self, status: int, code: str, message: str) -> Any:
        raise NotImplementedError

    def settle(self) -> None:
        """Let end whatever is due at `self.now`."""

    def take(self, kind: str, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.kind == kind and fault.fits(request):
                if fault.later:
                    fault.later -= 1
                    return None
                self.faults.remove(fault)
                self.taken[kind] += 1
                return fault
        return None

    # The wire.

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        raw = handler.rfile.read(length)
        request = Request(
            handler.command,
            parts.path,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            json.loads(raw) if raw else None,
            {k.lower(): v for k, v in handler.headers.items()},
        )
        with self.lock:
            self.requests.append(request)
            if self.take("drop_before", request):
                return self._drop(handler)
            garbled = self.take("body", request)
            if request.path == "/login":  # where a proxy sends one that follows it
                garbled = Fault("body", status=200, code="html")
            answer = Answer(garbled.status) if garbled and garbled.status else self._answer(request)
            if self.take("drop_after", request):
                return self._drop(handler)
        kind, payload = "application/json", b"" if answer.body is None else json.dumps(answer.body).encode()
        short = 0
        if garbled and answer.status != 204:  # which has no body
            kind, payload = BODIES[garbled.code](answer.body)
            short = 10 if garbled.code == "short" else 0
            answer.headers = {**answer.headers, **garbled.headers}
        self._send(handler, answer, kind, payload, short)

    def _send(
        self, handler: BaseHTTPRequestHandler, answer: Answer, kind: str, payload: bytes, short: int
    ) -> None:
        handler.send_response_only(answer.status)
        headers = {
            "Date": handler.date_time_string(), **answer.headers,
            "Content-Type": kind, "Content-Length": str(len(payload) + short),
        }  # fmt: skip
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(payload)
        handler.wfile.flush()
        if short:
            self._drop(handler)

    def _answer(self, request: Request) -> Answer:
        try:
            if fault := self.take("answer", request):
                raise Refused(fault.status, fault.code, fault.message, fault.headers)
            twice = self.take("twice", request)
            self.settle()
            answer = self.act(request)
            return self.act(request) if twice else answer
        except Refused as refused:
            body = self.error(refused.status, refused.code, refused.message)
            return Answer(refused.status, body, refused.headers)
        except BadRequest as mistake:
            self.mistakes.append(f"{request.method} {request.path}: {mistake}")
            return Answer(400, self.error(400, "invalid", str(mistake)))
        except Exception as error:
            self.mistakes.append(f"{request.method} {request.path}: {type(error).__name__}: {error}")
            raise

    @staticmethod
    def _drop(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.close()


Check = Callable[[Request], None]
