"""The portal's WSGI application with points at which one run's machine can be made to wait, before or after an answer.

A point is `before-<call>.<run's hex>` or `after-...`, where the call is the last word of the runner protocol's address; a
phase is told by its name, as `phase-running`. As in worker.py, the points are files.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable
from typing import Any

from portal.wsgi import application as portal
from tests.integration.runs.pauses import wait_here

BASE = "/api/runner/v1/"


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if not path.startswith(BASE):
        return portal(environ, start_response)
    run = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ").partition(".")[0]
    call = path.removeprefix(BASE).partition("/")[0]
    if call == "outputs":
        call += f"-{environ['REQUEST_METHOD'].lower()}"
    if call == "phase":
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            call += f"-{json.loads(body)['phase']}"
    wait_here(f"before-{call}.{run}")
    answer = list(portal(environ, start_response))
    wait_here(f"after-{call}.{run}")
    return answer


assert os.environ["STRONGROOM_TEST_PAUSES"]
