"""The broker's service over HTTP: a WSGI application of five addresses, and waitress to serve it.

waitress: pure Python, small, kept by the Pylons project, bounds bodies and slow connections by itself. TLS is the
reverse proxy's; what matters here is signed or sealed anyway (docs/how-to/run-your-own-broker.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from strongroom import strictjson
from strongroom.broker.errors import KeyStoreError, Refusal
from strongroom.broker.service import MAX_BODY, Broker
from strongroom.errors import FormatError

log = logging.getLogger(__name__)
StartResponse = Callable[[str, list[tuple[str, str]]], Any]
REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
           411: "Length Required", 413: "Content Too Large", 500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip


def application(broker: Broker) -> Callable[[dict[str, Any], StartResponse], Iterable[bytes]]:
    """The WSGI application. Errors are {"code", "detail", "checks"}."""
    gets: dict[str, Callable[[], Any]] = {"/health": broker.health, "/v1/keys": broker.keys}
    posts: dict[str, Callable[[Any], Any]] = {
        "/v1/challenge": broker.challenge,
        "/v1/release": broker.release,
        "/v1/standing": broker.standing,
    }

    def answer(environ: dict[str, Any]) -> tuple[int, Any]:
        path, method = environ.get("PATH_INFO", ""), environ.get("REQUEST_METHOD", "")
        if path not in gets and path not in posts:
            raise Refusal(404, "not_found", "There is nothing at this address.")
        if method != ("GET" if path in gets else "POST"):
            raise Refusal(405, "method", f"Use {'GET' if path in gets else 'POST'} here.")
        return 200, gets[path]() if path in gets else posts[path](_body(environ))

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        try:
            status, body = answer(environ)
        except Refusal as refusal:
            status = refusal.status
            body = {"code": refusal.code, "detail": str(refusal), "checks": refusal.checks}
        except FormatError as error:
            status, body = 400, {"code": "malformed", "detail": str(error), "checks": []}
        except KeyStoreError as error:
            log.error("%s", error)
            status, body = (
                503,
                {"code": "unavailable", "detail": "The key store cannot be used.", "checks": []},
            )
        except Exception as error:  # whatever it is, nothing is released, and nothing of it is told
            log.error("an error of the broker itself: %s", type(error).__name__)
            status, body = (
                500,
                {"code": "error", "detail": "The key broker met an error of its own.", "checks": []},
            )
        data = strictjson.canonical(body)
        log.info("%s %s %s", environ.get("REQUEST_METHOD"), environ.get("PATH_INFO", "")[:100], status)
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(data))),
            ("Cache-Control", "no-store"),
        ]
        start_response(f"{status} {REASONS[status]}", headers)
        return [data]

    return app


def _body(environ: dict[str, Any]) -> Any:
    length = environ.get("CONTENT_LENGTH") or ""
    if not length.isdigit():
        raise Refusal(411, "length_required", "Say how long the request is (Content-Length).")
    if int(length) > MAX_BODY:
        raise Refusal(413, "too_large", f"At most {MAX_BODY:,} bytes are read here.")
    return strictjson.loads(environ["wsgi.input"].read(int(length)), max_bytes=MAX_BODY, what="The request")


def serve(
    broker: Broker, *, host: str, port: int, ready: Callable[[str], None] = lambda address: None
) -> None:
    """Serve until the process is told to end. Raises KeyStoreError (not_installed) without waitress."""
    try:
        from waitress.server import create_server
    except ImportError:
        raise KeyStoreError(
            "not_installed", "The service needs waitress. Install strongroom[broker]."
        ) from None
    server = create_server(
        application(broker),
        host=host,
        port=port,
        threads=8,
        ident="",
        connection_limit=200,
        channel_timeout=30,
        max_request_body_size=MAX_BODY + 1,
        clear_untrusted_proxy_headers=True,
    )
    ready(f"http://{server.effective_host}:{server.effective_port}")
    server.run()
