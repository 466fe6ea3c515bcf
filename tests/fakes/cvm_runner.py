"""The real runner on an Azure VM whose TPM is a software one: `cvm_runner.py TCTI SOCKET ...`.

The socket takes the 64 bytes of user data and gives the paravisor's report, made by the test's own AMD. Meanwhile the
runner waits, as it does on the real machine.
"""

from __future__ import annotations

import socket
import sys

from workers.runner.__main__ import main
from workers.runner.attesters import azure_cvm
from workers.runner.attesters.tpm import Tpm

HEAD = 32  # of an answer: status, size, reserved


def paravisor(tpm: Tpm, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as device:
        device.connect(path)
        device.sendall(tpm.read(azure_cvm.USER_DATA_INDEX))
        answer = b""
        while piece := device.recv(4096):
            answer += piece
    tpm.write(azure_cvm.REPORT_INDEX, answer[HEAD:])


if __name__ == "__main__":
    tpm = Tpm(sys.argv[1])
    azure_cvm.Tpm = lambda: tpm  # type: ignore[assignment,misc]
    azure_cvm.VtpmAttester.__init__.__kwdefaults__["sleep"] = lambda _: paravisor(tpm, sys.argv[2])
    sys.exit(main(sys.argv[3:]))
