"""A portal whose certificate is of a private authority: the image names the authority, and then no other is trusted."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from workers.runner import __main__ as start
from workers.runner.client import Portal, private_authority


class Authority:
    """A certificate authority of its own. `pem`: its certificate."""

    def __init__(self, name: str) -> None:
        self._key, self._name = ec.generate_private_key(ec.SECP256R1()), name
        self.pem = self._made(name, self._key.public_key(), (x509.BasicConstraints(True, 0), True))

    def _made(
        self, name: str, key: ec.EllipticCurvePublicKey, extension: tuple[x509.ExtensionType, bool]
    ) -> str:
        moment = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name.from_rfc4514_string(f"CN={name}"))
            .issuer_name(x509.Name.from_rfc4514_string(f"CN={self._name}"))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - timedelta(hours=1))
            .not_valid_after(moment + timedelta(hours=1))
            .add_extension(extension[0], critical=extension[1])
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def server(self, folder: Path) -> ssl.SSLContext:
        """For a server on 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "server.pem").write_text(
            private.decode() + self._made("portal", key.public_key(), (names, False))
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        return context


class Phases(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"continue": true}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("Hospital")


@pytest.fixture
def portal(authority, tmp_path) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Phases)
    server.socket = authority.server(tmp_path).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def folder(path: Path, *pems: str) -> Path:
    path.mkdir()
    for number, pem in enumerate(pems):
        (path / f"{number}.pem").write_text(pem)
    return path


def test_the_named_authority_is_trusted(portal, authority, tmp_path):
    trust = private_authority(folder(tmp_path / "a", Authority("Another").pem, authority.pem))
    Portal(portal, trust=trust).phase("loading")


def test_no_other_is(portal, tmp_path):
    for trust in (None, private_authority(folder(tmp_path / "a", Authority("Hospital").pem))):
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            Portal(portal, trust=trust, patience=0).phase("loading")


def test_public_authorities_are_not_trusted_beside_it(authority, tmp_path):
    trust = private_authority(folder(tmp_path / "a", authority.pem))
    assert trust is not None and len(trust.get_ca_certs()) == 1
    assert (trust.verify_mode, trust.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_an_empty_folder_names_none(tmp_path):
    assert private_authority(None) is None
    assert private_authority(folder(tmp_path / "a")) is None


@pytest.mark.parametrize(
    "text", ["", "certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_a_certificate_starts_nothing(text, tmp_path, capsys):
    """Trusting everybody instead would be the way in."""
    place = folder(tmp_path / "a", text)
    code = start.main(["--environment", "gcp", "--workdir", str(tmp_path / "w"), "--authorities", str(place)])
    assert code == start.REFUSED and "cannot take a run" in capsys.readouterr().err
