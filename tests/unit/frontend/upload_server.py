"""A small server that keeps one resumable upload and misbehaves on demand. Loopback only."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Upload:
    """What the server holds, and what it is told to do wrong. `faults` is consumed, one for each PATCH."""

    def __init__(
        self, faults: list[str] | None = None, *, stale: bytes = b"", can_delete: bool = True
    ) -> None:
        self.data = bytearray(stale)
        self.faults = list(faults or [])
        self.can_delete = can_delete
        self.header: dict[str, Any] | None = None
        self.refuse_finish: str | None = None
        self.seen: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.url = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upload: Upload

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, status: int, body: dict[str, Any] | None = None, **headers: str) -> None:
        payload = b"" if body is None or self.command == "HEAD" else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_HEAD(self) -> None:
        self.upload.seen.append(("HEAD", ""))
        self._answer(200, Upload_Offset=str(len(self.upload.data)))

    def do_DELETE(self) -> None:
        self.upload.seen.append(("DELETE", ""))
        if self.upload.can_delete:
            self.upload.data.clear()
        self._answer(204 if self.upload.can_delete else 405)

    def do_PATCH(self) -> None:
        upload = self.upload
        offset = int(self.headers["Upload-Offset"])
        upload.tokens.add(self.headers.get("X-CSRFToken"))
        fault = upload.faults.pop(0) if upload.faults else ""
        upload.seen.append(("PATCH", fault))
        if fault == "cut":  # half of the part arrives, then the line goes dead
            upload.data += self.rfile.read(int(self.headers["Content-Length"]) // 2)
            self.close_connection = True
            self.connection.close()
            return
        body = self._body()
        if fault == "deaf":  # everything arrives, the answer does not
            upload.data += body
            self.close_connection = True
            self.connection.close()
        elif fault == "503":
            self._answer(503, {"detail": "busy"})
        elif fault == "lose":  # the server forgets what it had acknowledged
            upload.data.clear()
            self._answer(503, {"detail": "busy"})
        elif fault == "refuse":
            self._answer(422, {"detail": "The file is larger than was announced."})
        elif offset != len(upload.data):
            self._answer(409, {"detail": "offset"}, Upload_Offset=str(len(upload.data)))
        else:
            upload.data += body
            self._answer(204, Upload_Offset=str(len(upload.data)))

    def do_POST(self) -> None:
        body = self._body()
        if self.upload.refuse_finish:
            self._answer(422, {"detail": self.upload.refuse_finish})
            return
        self.upload.header = json.loads(body)
        self._answer(200, {"next": "/done.html"})

    def do_GET(self) -> None:
        self._answer(404, {})


@contextmanager
def serve(upload: Upload, handler: type[Handler] = Handler) -> Iterator[Upload]:
    """Serve `upload` on a free port of the loopback address; its `url` is set."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler,), {"upload": upload}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    upload.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield upload
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
