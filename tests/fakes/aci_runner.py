"""The real runner in a confidential container whose guest device is a socket of the test: `aci_runner.py SOCKET ...`.

The socket takes 64 bytes of REPORT_DATA and gives a report by the test's own AMD. Everything else is the runner.
"""

from __future__ import annotations

import socket
import sys

from workers.runner.__main__ import main
from workers.runner.attesters import azure_aci


def report_from(path: str, report_data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as device:
        device.connect(path)
        device.sendall(report_data)
        answer = b""
        while piece := device.recv(4096):
            answer += piece
    return azure_aci.read_response(answer)


if __name__ == "__main__":
    path = sys.argv[1]
    azure_aci.guest_report = lambda data: report_from(path, data)  # type: ignore[assignment,misc]
    sys.exit(main(sys.argv[2:]))
