"""Google Cloud KMS as far as the key store uses it, over HTTP: encrypt and decrypt of symmetric keys.

Every request is checked against the discovery document of cloudkms v1 that ships in google-api-python-client: method,
path, and that the body has known members of the right type. `fault`: a status to answer instead while it is set, or "drop".
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.broker.stores.gcp import crc32c

STATUS = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


def discovery() -> dict[str, Any]:
    import googleapiclient

    path = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents" / "cloudkms.v1.json"
    return dict(json.loads(path.read_text()))


class GoogleKmsServer:
    """Keys by full name, each with its versions. Use as a context manager."""

    def __init__(self) -> None:
        self.keys: dict[str, list[bytes]] = {}
        self.denied: set[str] = set()
        self.calls: list[str] = []
        self.fault: Any = None
        self.lie = ""  # "crc": wrong check sums in answers
        document = discovery()
        self.schemas = document["schemas"]
        methods = document["resources"]["projects"]["resources"]["locations"]["resources"]["keyRings"][
            "resources"
        ]["cryptoKeys"]["methods"]
        self.methods = {name: methods[name] for name in ("encrypt", "decrypt")}
        fake = self

        class Handler(_Handler):
            kms = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, name: str) -> str:
        self.keys.setdefault(name, []).append(AESGCM.generate_key(256))
        return name

    def __enter__(self) -> GoogleKmsServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    kms: GoogleKmsServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kms = self.kms
        if (fault := kms.fault) is not None:
            if fault == "drop":
                self.close_connection = True
                self.connection.close()
                return
            return self._error(fault)
        path = self.path.split("?")[0]
        name, _, operation = path.removeprefix("/v1/").rpartition(":")
        method = kms.methods[operation]
        assert method["httpMethod"] == "POST"
        pattern = method["parameters"]["name"]["pattern"]
        assert path == f"/v1/{name}:{operation}" and re.fullmatch(pattern.strip("^$"), name), path
        sent = json.loads(body)
        _fits(sent, kms.schemas[method["request"]["$ref"]])
        kms.calls.append(f"{operation} {name}")
        if name not in kms.keys:
            return self._error(404)
        if name in kms.denied:
            return self._error(403)
        for member in [m for m in sent if m.endswith("Crc32c")]:
            assert int(sent[member]) == crc32c(base64.b64decode(sent[member.removesuffix("Crc32c")]))
        aad = base64.b64decode(sent.get("additionalAuthenticatedData", ""))
        versions = kms.keys[name]
        if operation == "encrypt":
            nonce = os.urandom(12)
            closed = (
                bytes([len(versions)])
                + nonce
                + AESGCM(versions[-1]).encrypt(nonce, base64.b64decode(sent["plaintext"]), aad)
            )
            answer = {
                "name": f"{name}/cryptoKeyVersions/{len(versions)}",
                "ciphertext": base64.b64encode(closed).decode(),
                "ciphertextCrc32c": str(crc32c(closed) ^ (kms.lie == "crc")),
                "verifiedPlaintextCrc32c": True,
                "verifiedAdditionalAuthenticatedDataCrc32c": True,
            }
        else:
            blob = base64.b64decode(sent["ciphertext"])
            try:
                plain = AESGCM(versions[blob[0] - 1]).decrypt(blob[1:13], blob[13:], aad)
            except (InvalidTag, ValueError, IndexError):
                return self._error(400)
            answer = {
                "plaintext": base64.b64encode(plain).decode(),
                "plaintextCrc32c": str(crc32c(plain) ^ (kms.lie == "crc")),
                "usedPrimary": blob[0] == len(versions),
            }
        _fits(answer, kms.schemas[method["response"]["$ref"]])
        self._json(200, answer)

    def _error(self, status: int) -> None:
        self._json(status, {"error": {"code": status, "message": "no", "status": STATUS[status]}})

    def _json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _fits(document: dict[str, Any], schema: dict[str, Any]) -> None:
    """Every member is one of the schema, in the JSON form that the discovery document gives its type and format."""
    for name, value in document.items():
        assert name in schema["properties"], f"{schema['id']} has no {name}"
        kind = schema["properties"][name]
        match kind["type"], kind.get("format"):
            case "string", "byte":
                base64.b64decode(value, validate=True)
            case "string", "int64":
                assert isinstance(value, str) and int(value) >= 0
            case "string", _:
                assert isinstance(value, str)
            case "boolean", _:
                assert isinstance(value, bool)
            case other:
                raise AssertionError(f"{name}: {other}")
