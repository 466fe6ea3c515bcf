"""A whole portal of its own for the browser: started by the embedded stack in an empty folder, stopped afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

ROOT = Path(__file__).resolve().parents[2]
# What the test suite sets for itself; a portal on its own must not see it.
NOT_FOR_IT = ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE", "STRONGROOM_URL", "PYTEST_CURRENT_TEST")
PASSWORD = "correct-horse-battery"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def running(var: Path, *, seconds: float = 120) -> Iterator[str]:
    """The portal's address, with one operator (operator@demo.example). Raises RuntimeError if it does not start."""
    env = {name: value for name, value in os.environ.items() if name not in NOT_FOR_IT}
    env |= {"STRONGROOM_VAR": str(var), "STRONGROOM_PORT": str(free_port())}
    said = var.parent / f"{var.name}.log"
    with said.open("wb") as log:
        stack = subprocess.Popen(
            [sys.executable, "-m", "infra.embedded", "up"], cwd=ROOT, env=env, stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + seconds
        while not (url := _ready(var)):
            if stack.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"The portal did not start:\n{said.read_text()[-3000:]}")
            time.sleep(0.2)
        own = json.loads((var / "run" / "stack.json").read_text())["env"]
        subprocess.run(
            [sys.executable, "manage.py", "create_operator", "--email", "operator@demo.example", "--name", "Demo Operator", "--organisation", "Portal Operations"],
            cwd=ROOT, env={**env, **own, "STRONGROOM_OPERATOR_PASSWORD": PASSWORD}, check=True, stdout=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        yield url
    finally:
        if stack.poll() is None:
            stack.send_signal(signal.SIGTERM)
        try:
            stack.wait(90)
        except subprocess.TimeoutExpired:  # its children die with it (infra/embedded/launch.py)
            stack.kill()
            stack.wait(10)


def _ready(var: Path) -> str:
    try:
        url = str(json.loads((var / "run" / "stack.json").read_text()).get("url", ""))
        if url:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                url + "/health/ready", timeout=5
            ):
                return url
    except (OSError, ValueError, URLError):
        pass
    return ""
