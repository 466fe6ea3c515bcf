"""Inside bubblewrap, when root started it: become the unprivileged user for good, then start the program.

Run as a script by the base Python (-I -S), so it imports nothing of ours:  drop.py UID FOLDER ARGV...
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522


def become(uid: int) -> None:
    """Give up every group, capability and way back. Raises OSError if anything of root would be left."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails past the last one that this kernel has
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(
        uid, uid, uid
    )  # from 0 to another: the kernel clears all capabilities but the inheritable ones
    if libc.capset(struct.pack("=Ii", _CAPABILITY_VERSION, 0), struct.pack("=6I", 0, 0, 0, 0, 0, 0)):
        raise OSError(ctypes.get_errno(), "capset")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (uid,) * 3 or os.getgroups():
        raise OSError("The privileges of root could not be given up.")


if __name__ == "__main__":
    become(int(sys.argv[1]))
    os.umask(0o077)
    os.chdir(sys.argv[2])
    os.execv(sys.argv[3], sys.argv[3:])  # noqa: S606 that is what we are for
