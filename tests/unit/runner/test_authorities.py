"""A portal whose certificate is of a private authority: the image names the authority, and then no other is trusted."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from tests.fakes.tls import Authority
from workers.runner import __main__ as start
from workers.runner.client import Portal, private_authority


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
    return Authority.make("Hospital")


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
    trust = private_authority(folder(tmp_path / "a", Authority.make("Another").pem, authority.pem))
    Portal(portal, trust=trust).phase("loading")


def test_no_other_is(portal, tmp_path):
    for trust in (None, private_authority(folder(tmp_path / "a", Authority.make("Hospital").pem))):
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
    "text", ["", "certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\0\xff"]
)
@pytest.mark.parametrize("beside_a_good_one", [True, False])
def test_a_file_without_a_certificate_starts_nothing(text, beside_a_good_one, authority, tmp_path, capsys):
    """Trusting everybody instead would be the way in."""
    place = folder(tmp_path / "a", *([authority.pem] if beside_a_good_one else []), text)
    code = start.main(["--environment", "gcp", "--workdir", str(tmp_path / "w"), "--authorities", str(place)])
    said = capsys.readouterr().err
    assert code == start.REFUSED and "cannot take a run" in said
    assert f"{int(beside_a_good_one)}.pem holds no certificate" in said
