"""The runner protocol over HTTP: JSON in and out, a bearer session, no cookies. What is said is checked to the letter.

Each call names its limits. The domain stands in engine/runner.py and engine/result.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from apps.core.errors import Denied, DomainError, Invalid
from apps.core.objects import CHUNK, store
from apps.core.views import public
from apps.jobs.engine import result as results
from apps.jobs.engine import runner
from apps.jobs.engine.runner import Stored
from apps.jobs.models import Run
from strongroom import contexts, shapes, strictjson
from strongroom.errors import FormatError

SMALL = 8 << 10
KEYS = 8 << 20
RESULT = 16 << 20
PIECE = 64 << 20
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?", re.ASCII)

View = Callable[..., HttpResponseBase]


def endpoint(*methods: str) -> Callable[[View], View]:
    """A protocol address: only these methods, errors as JSON, no CSRF token (there are no cookies to protect)."""

    def wrap(view: View) -> View:
        @wraps(view)
        def inner(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
            try:
                if request.method not in methods:
                    raise _Method("method", f"Use {' or '.join(methods)} here.")
                return view(request, **kwargs)
            except DomainError as error:
                return JsonResponse(error.as_dict(), status=error.status)
            except FormatError as error:
                malformed = Invalid("malformed", str(error), "Send the document in its exact form.")
                return JsonResponse(malformed.as_dict(), status=malformed.status)

        return csrf_exempt(public(inner))  # type: ignore[type-var]  # some answers are streams

    return wrap


class _Method(DomainError):
    status = 405


class _Session(DomainError):
    status = 401


@endpoint("POST")
def claim(request: HttpRequest) -> HttpResponse:
    body = _json(request, SMALL, {"token": shapes.text(200)})
    return JsonResponse(runner.claim(body["token"]))


@endpoint("POST")
def challenge(request: HttpRequest) -> HttpResponse:
    run = _session(request)
    body = _json(request, SMALL, {"broker": contexts.broker_id})
    return JsonResponse({"challenge": runner.broker_challenge(run, body["broker"])})


@endpoint("POST")
def keys(request: HttpRequest) -> HttpResponse:
    run = _session(request)
    body = _json(request, KEYS, {"context": shapes.mapping, "evidence": shapes.mapping})
    released = runner.keys(run, context=body["context"], envelope=strictjson.canonical(body["evidence"]))
    return JsonResponse({"keys": released})


@endpoint("GET")
def input_bytes(request: HttpRequest, dataset: UUID) -> HttpResponseBase:
    return _serve(request, runner.input_object(_session(request), dataset))


@endpoint("GET")
def program_bytes(request: HttpRequest) -> HttpResponseBase:
    return _serve(request, runner.program_object(_session(request)))


@endpoint("POST")
def phase(request: HttpRequest) -> HttpResponse:
    run = _session(request)
    shape = {"phase": shapes.text(20), "done": shapes.whole(), "total": shapes.whole()}
    body = _json(request, SMALL, shape, {"detail_code": shapes.text(60, 0)})
    return JsonResponse(runner.phase(run, name=body["phase"], done=body["done"], total=body["total"]))


@endpoint("GET", "PUT")
def outputs(request: HttpRequest) -> HttpResponse:
    run = _session(request)
    if request.method == "GET":
        return JsonResponse({"offset": runner.outputs_offset(run)})
    offset = request.GET.get("offset", "")
    if not (offset.isascii() and offset.isdigit() and len(offset) <= 18):
        raise Invalid(
            "offset_malformed", "The offset must be a whole number.", "Ask with GET where to continue."
        )
    return JsonResponse({"offset": runner.receive_outputs(run, offset=int(offset), chunks=_pieces(request))})


def _null_or(checker: shapes.Checker) -> shapes.Checker:
    """None and "" both say that there is none."""
    return lambda value, where: None if value in (None, "") else checker(value, where)


_LINE = _null_or(shapes.whole(1, 10_000_000))
_TYPE = _null_or(shapes.text(120))


def _exit(value: Any, where: str) -> dict[str, Any]:
    required = {"class": shapes.one_of(*contexts.EXIT_CLASSES), "exception_type": _TYPE, "line": _LINE}
    optional = {"file": _null_or(shapes.text(200)), "refusal": _null_or(shapes.text(40))}
    return {"file": None, "refusal": None, **shapes.fields(value, where, required, optional)}


@endpoint("POST")
def result(request: HttpRequest) -> HttpResponse:
    run = _session(request)
    body = _json(
        request,
        RESULT,
        {
            "context": shapes.mapping,
            "evidence": shapes.mapping,
            "statement": shapes.mapping,
            "sealed": shapes.mapping,
            "exit": _exit,
        },
        {"log": shapes.b64()},
    )
    state = results.accept(
        run,
        context=body["context"],
        envelope=strictjson.canonical(body["evidence"]),
        statement=strictjson.canonical(body["statement"]),
        sealed=body["sealed"],
        exit_=body["exit"],
        log=shapes.b64_decode(body["log"], "log") if "log" in body else None,
    )
    return JsonResponse({"state": state})


@endpoint("POST")
def abandon(request: HttpRequest) -> HttpResponse:
    run = _session(request)
    body = _json(request, SMALL, {"code": shapes.text(60)}, {"exception_type": _TYPE, "line": _LINE})
    state = runner.abandon(
        run, code=body["code"], exception_type=body.get("exception_type"), line=body.get("line")
    )
    return JsonResponse({"state": state})


def _session(request: HttpRequest) -> Run:
    scheme, _, session = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise _Session(
            "session_missing", "Send the session of the attempt as a bearer token.", "Claim the run first."
        )
    try:
        return runner.authenticate(session.strip())
    except Denied as refusal:
        raise _Session(refusal.code, refusal.detail, refusal.remedy) from None


def _json(
    request: HttpRequest,
    limit: int,
    required: dict[str, shapes.Checker],
    optional: dict[str, shapes.Checker] | None = None,
) -> dict[str, Any]:
    """The body as an object of exactly these members. Read here, not by Django, so that each call has its own limit."""
    data = request.read(limit + 1)
    if len(data) > limit:
        raise Invalid("too_large", f"At most {limit:,} bytes are read here.", "Send less.")
    return shapes.fields(
        strictjson.loads(data, max_bytes=limit, what="The request"), "The request", required, optional
    )


def _pieces(request: HttpRequest) -> Iterator[bytes]:
    received = 0
    while chunk := request.read(CHUNK):
        received += len(chunk)
        if received > PIECE:
            raise Invalid(
                "piece_too_large",
                f"At most {PIECE:,} bytes are taken at once.",
                "Continue from the offset with the next piece.",
            )
        yield chunk


def _serve(request: HttpRequest, stored: Stored) -> HttpResponseBase:
    """The object's bytes, or the part that a Range header asks for (RFC 9110 section 14; one range)."""
    first, last, status = 0, stored.size - 1, 200
    asked = request.headers.get("Range")
    if asked is not None:
        match = _RANGE.fullmatch(asked.strip())
        if match is None or int(match[1]) >= stored.size or (match[2] and int(match[2]) < int(match[1])):
            response = HttpResponse(status=416)
            response["Content-Range"] = f"bytes */{stored.size}"
            return response
        first, status = int(match[1]), 206
        last = min(last, int(match[2])) if match[2] else last
    body = StreamingHttpResponse(
        _read(stored.name, first, last), status=status, content_type="application/octet-stream"
    )
    body["Content-Length"] = str(last - first + 1)
    body["Accept-Ranges"] = "bytes"
    if status == 206:
        body["Content-Range"] = f"bytes {first}-{last}/{stored.size}"
    return body


def _read(name: str, first: int, last: int) -> Iterator[bytes]:
    left = last - first + 1
    with store().open(name) as reader:
        reader.seek(first)
        while left > 0 and (chunk := reader.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
