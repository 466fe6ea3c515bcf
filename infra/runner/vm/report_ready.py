"""Tell Azure's wire server once that this machine has started. It takes nothing back: no keys, no extensions, no commands.

Source: learn.microsoft.com/azure/virtual-machines/linux/no-agent. Standard library only.
"""

from __future__ import annotations

import re
import sys
import time
import urllib.request
from xml.sax.saxutils import escape

WIRE_SERVER = "http://168.63.129.16"
VERSION = "2012-11-30"
PATIENCE_SECONDS, MAX_BYTES = 300, 1 << 16
_READY = (
    '<?xml version="1.0" encoding="utf-8"?><Health><GoalStateIncarnation>{incarnation}</GoalStateIncarnation><Container>'
    "<ContainerId>{container}</ContainerId><RoleInstanceList><Role><InstanceId>{instance}</InstanceId><Health>"
    "<State>Ready</State></Health></Role></RoleInstanceList></Container></Health>"
)


def call(address: str, body: bytes | None = None) -> str:
    headers = {"x-ms-version": VERSION, "x-ms-agent-name": "strongroom"}
    if body is not None:
        headers["Content-Type"] = "text/xml;charset=utf-8"
    request = urllib.request.Request(address, data=body, headers=headers)  # noqa: S310  one fixed http address
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return str(answer.read(MAX_BYTES).decode())


def report(server: str) -> None:
    """One attempt. Raises OSError, ValueError."""
    state = call(f"{server}/machine/?comp=goalstate")
    named = {}
    for name in ("Incarnation", "ContainerId", "InstanceId"):
        found = re.search(rf"<{name}>([^<]{{1,200}})</{name}>", state)
        if found is None:
            raise ValueError(f"the goal state names no {name}")
        named[name] = escape(found[1])
    ready = _READY.format(
        incarnation=named["Incarnation"], container=named["ContainerId"], instance=named["InstanceId"]
    )
    call(f"{server}/machine?comp=health", ready.encode())


def main(server: str = WIRE_SERVER, *, patience: float = PATIENCE_SECONDS, pause: float = 5) -> int:
    deadline = time.monotonic() + patience
    while True:
        try:
            report(server)
            return 0
        except (OSError, ValueError) as error:
            if time.monotonic() > deadline:
                print(f"Azure could not be told that this machine is ready: {error}", file=sys.stderr)
                return 1
            time.sleep(pause)


if __name__ == "__main__":
    sys.exit(main())
