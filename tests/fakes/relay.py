"""`relay.py PORT`: what qemu starts for each connection that leaves the machine: to that port on loopback, and back."""

from __future__ import annotations

import os
import select
import socket
import sys

PIECE = 1 << 16


def relay(incoming: int, outgoing: int, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as there:
        while True:
            ready, _, _ = select.select([incoming, there], [], [], 600)
            if not ready:
                return
            if incoming in ready:
                piece = os.read(incoming, PIECE)
                if not piece:
                    return
                there.sendall(piece)
            if there in ready:
                piece = there.recv(PIECE)
                if not piece:
                    return
                while piece:
                    piece = piece[os.write(outgoing, piece) :]


if __name__ == "__main__":
    relay(0, 1, int(sys.argv[1]))
