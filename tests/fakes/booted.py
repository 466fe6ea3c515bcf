"""A machine that boots the runner's own disk image, in qemu, from what the cloud was told of it, with a TPM at Azure's indices.

Nothing of it reaches a network: whatever leaves the machine goes to one of two ports on loopback. What is made up: the
hardware's report and the cloud's services. Firmware, kernel, root file system, PCRs, quote and runner are the real ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from infra.runner.disk import trial
from tests.fakes import relay, vtpm
from tests.fakes.launcher import Metadata
from tests.fakes.security_context import thim
from workers.runner.attesters import azure_cvm, metadata

# All in one subnet, because qemu forwards from addresses of the machine's own subnet only.
SUBNET, OWN, HOST, NAMES = "168.0.0.0/7", "168.0.0.15", "168.0.0.2", "168.0.0.3"
PORTAL, METADATA = "168.0.0.80", "169.254.169.254"
_SET_DATA_CHANNEL = 0x10
_NV_WRITE = 0x137


class Crossing:
    """Between qemu and the software TPM: after the machine wrote its user data, the paravisor makes its report.

    qemu's side: tpm_ioctl.h of swtpm. A TPM serves one connection at a time, so each exchange has its own.
    """

    def __init__(self, machine: vtpm.Machine, at: Path) -> None:
        self._machine = machine
        self._data, self._control = machine.folder / "s", machine.folder / "s.ctrl"
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(at))
        self._listening.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            qemu, _ = self._listening.accept()
            with qemu:
                while True:
                    asked, fds, _, _ = socket.recv_fds(qemu, 4096, 1)
                    if not asked:
                        return
                    if int.from_bytes(asked[:4], "big") == _SET_DATA_CHANNEL:
                        channel = socket.socket(fileno=fds[0])
                        threading.Thread(target=self._commands, args=(channel,), daemon=True).start()
                        qemu.sendall(bytes(4))
                    else:
                        qemu.sendall(self._exchange(self._control, asked))

    def _commands(self, channel: socket.socket) -> None:
        with channel, contextlib.suppress(OSError, EOFError):
            while True:
                command = _message(channel)
                answer = self._exchange(self._data, command)
                index = int.from_bytes(command[14:18], "big")
                if int.from_bytes(command[6:10], "big") == _NV_WRITE and index == azure_cvm.USER_DATA_INDEX:
                    self._machine.report(self._machine.tpm.read(index))
                channel.sendall(answer)

    def _exchange(self, at: Path, message: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(at))
            connection.sendall(message)
            return _message(connection) if at == self._data else connection.recv(4096)


def _message(connection: socket.socket) -> bytes:
    """One TPM command or response: its size is in its header. Raises EOFError."""
    message, size = b"", 10
    while len(message) < size:
        piece = connection.recv(size - len(message))
        if not piece:
            raise EOFError
        message += piece
        if len(message) == 10:
            size = int.from_bytes(message[2:6], "big")
    return message


class Tls:
    """The portal as machines reach it: TLS, before a port on loopback."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._context, self._to = context, port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(connection, server_side=True) as tls,
            socket.create_connection(("127.0.0.1", self._to), timeout=60) as there,
        ):
            while True:
                ready, _, _ = select.select([tls, there], [], [], 600)
                for source, into in ((tls, there), (there, tls)):
                    if source in ready:
                        piece = source.recv(relay.PIECE)
                        # What OpenSSL has read already wakes no select.
                        while isinstance(source, ssl.SSLSocket) and source.pending():
                            piece += source.recv(relay.PIECE)
                        if not piece:
                            return
                        into.sendall(piece)
                if not ready:
                    return


class DiskGuest:
    """One machine; the face of `tests.fakes.guest.Guest`. portal: a port on loopback that speaks TLS."""

    def __init__(self, disk: Path, user_data: str, portal: int) -> None:
        self._stack = contextlib.ExitStack()
        try:
            self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sr-b-")))
            (self.folder / "tpm").mkdir()
            self.machine = vtpm.Machine(self.folder / "tpm")
            self._stack.callback(self.machine.close)
            self.crossing = Crossing(self.machine, self.folder / "control")
            self._stack.callback(self.crossing.close)
            pages = {azure_cvm.THIM: json.dumps(thim()), metadata.USER_DATA: user_data}
            self.imds = self._stack.enter_context(Metadata(pages, ("Metadata", "true")))
        except BaseException:
            self._stack.close()
            raise
        self._disk, self._portal = disk, portal
        self.log = self.folder / "console.log"
        self._child: subprocess.Popen[bytes] | None = None

    def _network(self) -> Sequence[str]:
        metadata_port = int(self.imds.url.rpartition(":")[2])
        to = {f"{METADATA}:80": metadata_port, f"{PORTAL}:443": self._portal}
        command = f"{sys.executable} -S -E {relay.__file__}"
        forwards = "".join(f",guestfwd=tcp:{place}-cmd:{command} {port}" for place, port in to.items())
        user = f"user,id=net,restrict=on,net={SUBNET},dhcpstart={OWN},host={HOST},dns={NAMES}"
        return "-netdev", user + forwards, "-device", "virtio-net-pci,netdev=net"

    def boot(self) -> None:
        self.log.touch()
        shutil.copy(trial.VARIABLES, self.folder / "variables.fd")
        command = trial.command(self._disk, self.folder, trial.FIRMWARE, self._network())
        with (self.folder / "qemu.log").open("wb") as output:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"PATH": os.environ["PATH"]},
            )

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait(10)

    def destroy(self) -> None:
        self.kill()
        self._stack.close()
