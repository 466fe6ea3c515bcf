"""The launcher of a Confidential Space machine and the machine's metadata server, as the runner meets them.

The launcher speaks as Google's does (google/go-tpm-tools launcher/teeserver/tee_server.go): a unix socket, POST
/v1/token with JSON whose unknown members are refused, errors as text with the status 400. Its tokens have the shape of
real ones and are signed by a made-up authority with a root of its own.
"""

from __future__ import annotations

import base64
import json
import socketserver
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from strongroom.evidence import Anchor
from tests.unit.strongroom.evidence.authority_tokens import Google, google_claims

NONCES = (10, 74)  # bytes of one nonce, as the service accepts them
MEMBERS = {"audience", "token_type", "nonces"}


class Signer(Protocol):
    """Whoever signs tokens, with the root to trust."""

    root: Anchor

    def token(self, claims: dict[str, Any]) -> str: ...


class Authority:
    """A made-up Confidential Space authority, whose certificates began yesterday."""

    def __init__(self) -> None:
        self._google = Google(start=datetime.now(UTC) - timedelta(days=1))
        self.root = self._google.anchors[0]

    def token(self, claims: dict[str, Any]) -> str:
        return self._google.pki(claims).decode()


def trust_folder(folder: Path, *anchors: Anchor, test: bool = True) -> Path:
    """A trust directory that holds these anchors, marked as what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, anchor in enumerate(anchors):
        entry: dict[str, Any] = {
            "purpose": anchor.purpose, "name": anchor.name, "sha256": anchor.sha256, "source": "the test suite",
        }  # fmt: skip
        if anchor.product:
            entry["product"] = anchor.product
        if anchor.data:
            entry["file"] = f"{number}.pem"
            pem = base64.encodebytes(anchor.data).decode()
            text = f"-----BEGIN CERTIFICATE-----\n{pem}-----END CERTIFICATE-----\n"
            (folder / entry["file"]).write_text(text)
        entries.append(entry | ({"test": True} if test else {}))
    (folder / "anchors.json").write_text(json.dumps({"v": 1, "anchors": entries}))
    return folder


@dataclass
class Workload:
    """What the launcher knows of the container and the machine, in the words of the token."""

    image: str  # sha256:<hex>
    env_override: dict[str, str] = field(default_factory=dict)
    instance: str = "4051200219"
    zone: str = "europe-west2-a"
    project: str = "strongroom-test"
    service_account: str = "runner@strongroom-test.iam.gserviceaccount.com"
    changes: dict[str, Any] = field(default_factory=dict)  # claims that are to be otherwise

    def claims(self, audience: str, nonces: list[str]) -> dict[str, Any]:
        claims = google_claims(
            datetime.now(UTC), aud=audience, google_service_accounts=[self.service_account]
        )
        claims["eat_nonce"] = nonces[0] if len(nonces) == 1 else nonces
        claims["submods"]["container"] |= {
            "image_reference": f"registry.example/strongroom/runner@{self.image}",
            "image_digest": self.image,
            "env": {"PATH": "/usr/bin", **self.env_override},
            **({"env_override": dict(self.env_override)} if self.env_override else {}),
        }
        claims["submods"]["gce"] |= {
            "zone": self.zone, "project_id": self.project, "instance_id": self.instance,
        }  # fmt: skip
        return {**claims, **self.changes}


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Launcher:
    """`with Launcher(folder, signer, workload) as launcher:` listens at `launcher.socket`.

    asked: every request, as (method, path, body). faults: answers to give instead, oldest first, as (status, text).
    """

    def __init__(self, folder: Path, signer: Signer, workload: Workload) -> None:
        self.socket = folder / "teeserver.sock"
        self.signer, self.workload = signer, workload
        self.asked: list[tuple[str, str, Any]] = []
        self.faults: list[tuple[int, str]] = []
        launcher = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, text = launcher.answer(self.command, self.path, body)
                self.send_response(status)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PUT = _do

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *_: object) -> None:
                pass

        self._server = _UnixServer(str(self.socket), Handler)
        self.socket.chmod(0o777)  # as on the real machine
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Launcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.socket.unlink(missing_ok=True)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        try:
            asked = json.loads(body) if body else None
        except ValueError:
            asked = body
        self.asked.append((method, path, asked))
        if self.faults:
            return self.faults.pop(0)
        if path == "/v1/intel/token":
            return 412, "no ITA verifier client present - ensure ITA Region and Key are defined in metadata"
        if path != "/v1/token":
            return 404, "404 page not found\n"
        if method == "GET":
            return 200, self.signer.token(self.workload.claims("https://sts.googleapis.com", []))
        if method != "POST":
            return 400, f"TEE server received an invalid HTTP method: {method}"
        return self._custom(asked)

    def _custom(self, asked: Any) -> tuple[int, str]:
        if not isinstance(asked, dict):
            return 400, "failed to parse POST body as TokenOptions: invalid character"
        for name in asked:
            if name not in MEMBERS:
                return 400, f'failed to parse POST body as TokenOptions: json: unknown field "{name}"'
        if not asked.get("token_type"):
            return 400, "token_type is a required parameter"
        if asked["token_type"] != "PKI":
            return 400, f"this fake signs PKI tokens only, not {asked['token_type']}"
        if not asked.get("audience"):
            return 400, "use GET request for the default identity token"
        nonces = asked.get("nonces") or []
        if len(nonces) > 6 or not all(NONCES[0] <= len(nonce.encode()) <= NONCES[1] for nonce in nonces):
            return 400, "INVALID_ARGUMENT: nonces must be between 10 and 74 bytes"
        return 200, self.signer.token(self.workload.claims(asked["audience"], nonces))


class Metadata:
    """A metadata server on loopback. pages: path (with its query) to content; `header` must come with every request."""

    def __init__(self, pages: Mapping[str, str | Callable[[bytes], str]], header: tuple[str, str]) -> None:
        self.asked: list[str] = []
        metadata = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                metadata.asked.append(self.path)
                page = pages.get(self.path)
                if self.headers.get(header[0]) != header[1]:
                    self.send_error(403, f"Missing {header[0]}:{header[1]} header.")
                elif page is None:
                    self.send_error(404)
                else:
                    text = (page if isinstance(page, str) else page(body)).encode()
                    self.send_response(200)
                    self.send_header(*header)
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)

            do_GET = do_POST = _do

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Metadata:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def google_metadata(token: str) -> Metadata:
    path = "/computeMetadata/v1/instance/attributes/strongroom-token"
    return Metadata({path: token}, ("Metadata-Flavor", "Google"))
