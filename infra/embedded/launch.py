"""Last step before a child's own program: run as a script, prepares the process and becomes the program.

Usage: python -I -S launch.py PARENT SIGNAL UID GID CAPABILITY PROGRAM [ARGUMENT ...]

PARENT is the pid that must still be the parent; SIGNAL is sent to the program when the starting thread ends (0: none),
so that nothing outlives a manager that was killed; UID and GID are taken on (-1: stay); CAPABILITY is kept across that
change (-1: none). A script and not a `preexec_fn`, because that is not safe in a process with threads.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 28, 47, 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522


def take_on(uid: int, gid: int, capability: int) -> None:
    """Become another user for good, keeping at most one capability."""
    libc = ctypes.CDLL(None, use_errno=True)
    if capability >= 0:
        _check(libc, libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities")
        # access(2) looks through the eyes of the real user and drops what we keep, unless told not to; initdb asks it
        # whether its own program can be read.
        _check(libc, libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "set securebits")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if capability >= 0:
        low, high = (1 << capability) & 0xFFFFFFFF, (1 << capability) >> 32
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        data = (ctypes.c_uint32 * 6)(low, low, low, high, high, high)
        _check(libc, libc.capset(header, data), "set capabilities")
        _check(libc, libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0), "raise a capability")


def _check(libc: ctypes.CDLL, result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"could not {what}")


def main() -> None:
    parent, sig, uid, gid, capability = (int(value) for value in sys.argv[1:6])
    command = sys.argv[6:]
    if uid >= 0:
        take_on(uid, gid, capability)
    if sig:
        # After the change of user, which clears it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, sig, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the process that asked for this one is gone")
    os.execv(command[0], command)  # noqa: S606  # becoming the program is the whole point


if __name__ == "__main__":
    main()
