"""Azure Key Vault's keys as far as the key store uses them, over TLS: get, wrapkey, unwrapkey, the bearer challenge.

https://learn.microsoft.com/rest/api/keyvault/keys (7.6). `fault`: what to answer instead while it is set: a
(status, code) pair, or "drop" for a broken connection.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

TOKEN = "a-token-of-the-tests"  # not a credential of anything
OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


class Credential:
    """What azure-identity would be: gives the one token that the fake takes."""

    def get_token(self, *scopes: str, **_: Any) -> Any:
        from azure.core.credentials import AccessToken

        assert scopes == ("https://vault.azure.net/.default",)
        return AccessToken(TOKEN, 2**31)

    def close(self) -> None: ...


class KeyVault:
    """A vault with RSA keys: {name: {version: key}}. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.keys: dict[str, dict[str, rsa.RSAPrivateKey]] = {}
        self.disabled: set[str] = set()
        self.calls: list[str] = []
        self.bodies: list[bytes] = []
        self.fault: Any = None
        self.ca_file = folder / "vault-ca.pem"
        certificate, key = _certificate(folder)
        self.ca_file.write_bytes(certificate.read_bytes())
        fake = self

        class Handler(_Handler):
            vault = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}"

    def add(self, name: str, version: str = "0" * 32) -> str:
        """A key; returns its address without a version."""
        self.keys.setdefault(name, {})[version] = rsa.generate_private_key(
            public_exponent=65537, key_size=2048
        )
        return f"{self.url}/keys/{name}"

    def __enter__(self) -> KeyVault:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    vault: KeyVault
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self._answer("GET", b"")

    def do_POST(self) -> None:
        self._answer("POST", self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, method: str, body: bytes) -> None:
        vault = self.vault
        if (fault := vault.fault) is not None:
            if fault == "drop":
                self.close_connection = True
                self.connection.close()
                return
            return self._json(fault[0], {"error": {"code": fault[1], "message": "no"}})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json(
                401,
                {"error": {"code": "Unauthorized", "message": "AKV10000"}},
                {
                    "WWW-Authenticate": 'Bearer authorization="https://login.example/tenant", resource="https://vault.azure.net"'
                },
            )
        path, _, query = self.path.partition("?")
        assert query.startswith("api-version=")
        parts = path.strip("/").split("/")
        vault.calls.append(f"{method} {path}")
        vault.bodies.append(body)
        versions = vault.keys.get(parts[1]) if parts[0] == "keys" and len(parts) >= 2 else None
        if versions is None:
            return self._json(404, {"error": {"code": "KeyNotFound", "message": "no"}})
        operation = parts.pop() if parts[-1] in ("wrapkey", "unwrapkey") else ""
        version = parts[2] if len(parts) > 2 and parts[2] else next(reversed(versions))
        if version not in versions:
            return self._json(404, {"error": {"code": "KeyNotFound", "message": "no"}})
        key, kid = versions[version], f"{vault.url}/keys/{parts[1]}/{version}"
        if method == "GET" and not operation:
            numbers = key.public_key().public_numbers()
            jwk = {
                "kid": kid,
                "kty": "RSA",
                "key_ops": ["wrapKey", "unwrapKey"],
                "n": _b64(_int(numbers.n)),
                "e": _b64(_int(numbers.e)),
            }
            return self._json(200, {"key": jwk, "attributes": {"enabled": parts[1] not in vault.disabled}})
        if parts[1] in vault.disabled:
            return self._json(403, {"error": {"code": "Forbidden", "message": "KeyDisabled"}})
        sent = json.loads(body)
        assert set(sent) == {"alg", "value"} and sent["alg"] == "RSA-OAEP-256"
        value = base64.urlsafe_b64decode(sent["value"] + "==")
        try:
            out = (
                key.public_key().encrypt(value, OAEP) if operation == "wrapkey" else key.decrypt(value, OAEP)
            )
        except ValueError:
            return self._json(400, {"error": {"code": "BadParameter", "message": "no"}})
        return self._json(200, {"kid": kid, "value": _b64(out)})

    def _json(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _int(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    out = folder / "vault.pem", folder / "vault.key"
    out[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    out[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return out
