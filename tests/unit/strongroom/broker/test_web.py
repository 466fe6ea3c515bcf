"""`strongroom broker` as its custodian runs it: a process of its own, asked over HTTP, stopped from another one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from strongroom import strictjson
from tests.unit.strongroom.broker.world import ID, World


@dataclass
class Service:
    w: World
    url: str
    process: subprocess.Popen[bytes]

    def post(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(self.url + path, content=strictjson.canonical(body), timeout=20)

    def cli(self, *arguments: str) -> str:
        return cli(self.w.folder, *arguments)


def cli(folder: Path, *arguments: str, fails: bool = False) -> str:
    command = [
        sys.executable,
        "-m",
        "strongroom.cli",
        "broker",
        arguments[0],
        "--config",
        str(folder / "broker.toml"),
        *arguments[1:],
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("broker")
    w = World(folder, now=datetime.now(UTC))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    w.write_config(listen=f"127.0.0.1:{port}")
    command = [
        sys.executable,
        "-m",
        "strongroom.cli",
        "broker",
        "serve",
        "--config",
        str(folder / "broker.toml"),
    ]
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.05)
    else:
        raise AssertionError((folder / "out").read_text())
    yield Service(w, url, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def release(s: Service) -> tuple[str, dict[str, Any]]:
    s.w.now = datetime.now(UTC)
    run = str(uuid.uuid4())
    answer = s.post("/v1/challenge", {"authorisation": s.w.word(run)})
    assert answer.status_code == 200, answer.text
    return run, s.w.request(run, answer.json()["challenge"])


def test_keys_are_released_over_http(service: Service) -> None:
    run, body = release(service)
    answer = service.post("/v1/release", body)
    assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store"
    assert service.w.opened(run, body["context"], answer.json()) == service.w.data_keys
    assert httpx.get(f"{service.url}/v1/keys").json() == json.loads(service.cli("keys")) | {"v": 1}
    assert f"  {run}" in service.cli("log") and "unbroken chain" in service.cli("log")


def test_stop_from_another_process(service: Service) -> None:
    _, body = release(service)
    service.cli("stop", "--reason", "Asked for by the ethics board.")
    answer = service.post("/v1/release", body)
    assert answer.status_code == 403 and answer.json()["code"] == "stopped"
    assert "Asked for by the ethics board." in answer.json()["detail"]
    assert httpx.get(f"{service.url}/health").json() == {"ok": True, "stopped": True}
    status = json.loads(service.cli("status", "--json"))
    assert status["stopped"]["reason"] == "Asked for by the ethics board." and status["id"] == ID
    assert "STOPPED" in service.cli("status")
    service.cli("start")
    assert service.post("/v1/release", body).status_code == 200
    assert "private" not in service.cli("status", "--json")


def test_huge_and_broken_bodies(service: Service) -> None:
    url = service.url
    assert httpx.post(f"{url}/v1/release", content=b"x" * ((8 << 20) + 2), timeout=20).status_code == 413
    assert (
        httpx.post(f"{url}/v1/release", content=iter([b"x" * (1 << 20)] * 10), timeout=20).status_code == 413
    )
    for raw in (b"", b"{", b"[" * 100_000, b'{"a":1,"a":1}', b"\xff", b"null", b'{"authorisation":{}}'):
        answer = httpx.post(f"{url}/v1/challenge", content=raw)
        assert answer.status_code == 400 and answer.json()["code"] == "malformed", raw[:20]
    assert httpx.get(f"{url}/v1/release").status_code == 405
    assert httpx.post(f"{url}/health").status_code == 405
    assert httpx.get(f"{url}/v1/").status_code == 404
    assert httpx.get(f"{url}/../keys.json").status_code == 404
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as raw_socket:
        raw_socket.sendall(b"POST /v1/release HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n")
        assert b" 400 " in raw_socket.recv(200).split(b"\r\n")[0] + b" "
    _, body = release(service)
    assert service.post("/v1/release", body).status_code == 200  # and it lives


def test_what_the_service_prints_holds_no_body(service: Service) -> None:
    run, body = release(service)
    service.post("/v1/release", body)
    printed = (service.w.folder / "out").read_text()
    assert "/v1/release 200" in printed
    for secret in (
        run,
        body["context"]["challenge"],
        body["context"]["hpke_pub"]["public"],
        service.w.headers[0]["wrapped_key"]["data"],
    ):
        assert secret not in printed


def test_rotation_without_a_restart(service: Service) -> None:
    before = httpx.get(f"{service.url}/v1/keys").json()["keys"][0]["id"]
    service.cli("rotate", "mlkem768x25519")
    after = httpx.get(f"{service.url}/v1/keys").json()["keys"][0]["id"]
    assert after != before
    _, body = release(service)  # sealed to the key of before
    assert service.post("/v1/release", body).status_code == 200


def test_serve_refuses_keys_that_others_may_read(tmp_path: Path) -> None:
    World(tmp_path)
    os.chmod(tmp_path / "keys.json", 0o644)
    assert "closed to everybody else" in cli(tmp_path, "serve", fails=True)
    os.chmod(tmp_path / "keys.json", 0o600)
    assert "already" in cli(tmp_path, "init", fails=True)
    (tmp_path / "keys.json").unlink()
    assert "make it: strongroom broker init" in cli(tmp_path, "serve", fails=True)
    assert "Keep a copy" in cli(tmp_path, "init")
