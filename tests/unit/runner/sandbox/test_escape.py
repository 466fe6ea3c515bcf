"""Programs that try to get out. Each attempt is also made without a sandbox, where it must work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import DRIVER, SECRET, Lab

EPERM, ENOENT, EACCES, ENOSYS, EROFS = 1, 2, 13, 38, 30


def test_network(lab: Lab) -> None:
    code = """
    port, datagram_port, name, path = json.loads(ARGUMENT)
    def tcp():
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    def udp():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect(("127.0.0.1", datagram_port))
            s.send(b"x")
            s.send(b"x")
    def unix(address):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(address)
    def unix_datagram():
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        pair[0].sendto(b"x", path + ".datagram")
    tell({"tcp": attempt(tcp), "udp": attempt(udp), "abstract": attempt(unix, "\\0" + name), "path": attempt(unix, path),
          "datagram": attempt(unix_datagram)})
    """
    folder = lab.folder("sockets", 0o777)
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram,
    ):
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        abstract.bind("\0" + lab.marker)
        for listener, path in ((named, folder / "s"), (datagram, folder / "s.datagram")):
            listener.bind(str(path))
            path.chmod(0o777)
        datagram.setblocking(False)
        abstract.listen()
        named.listen()
        argument = json.dumps([tcp.getsockname()[1], udp.getsockname()[1], lab.marker, str(folder / "s")])
        assert set(lab.plainly(code, argument).values()) == {"done"}
        udp.recv(9)
        datagram.recv(9)
        while _pending(udp):
            udp.recv(9)
        told = lab.run(code, argument).told
        assert "done" not in told.values()
        assert not _pending(udp) and not _pending(datagram)


def _pending(waiting: socket.socket) -> bool:
    try:
        waiting.recv(9, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return True


def test_odd_sockets(two_labs: Lab) -> None:
    code = """
    kinds = {"diagnosis": (16, 3, 4), "events": (16, 3, 15), "packet": (17, 3, 0), "vsock": (40, 1, 0),
             "crypto": (38, 5, 0), "raw": (2, 3, 1)}
    tell({name: attempt(socket.socket, *kind) for name, kind in kinds.items()})
    """
    assert set(two_labs.run(code).told.values()) == {EPERM}
    assert two_labs.plainly(code)["events"] == "done"


def test_loopback_is_its_own(lab: Lab) -> None:
    """With namespaces a program may talk to itself, as a notebook kernel does; without, it has no sockets."""
    code = """
    def talk():
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            client.send(b"x")
    def pair():
        a, b = socket.socketpair()
        a.send(b"x")
        assert b.recv(1) == b"x"
    tell([attempt(talk), attempt(pair)])
    """
    assert lab.run(code).told == ["done" if lab.kind == "bubblewrap" else EPERM, "done"]


def test_reading_outside(lab: Lab) -> None:
    canary = lab.folder("elsewhere", 0o755) / "canary"
    canary.write_text("host")
    canary.chmod(0o644)
    code = """
    places = [ARGUMENT, str(Path(ARGUMENT).parent), "/proc/1/root" + ARGUMENT, "/proc/self/cwd/../../.." + ARGUMENT,
              f"/proc/{os.getppid()}/root" + ARGUMENT]
    os.symlink(ARGUMENT, OUT / "link")
    places.append(str(OUT / "link"))
    tell([attempt(os.listdir if os.path.isdir(place) else open, place) for place in places])
    """
    told = lab.run(code, str(canary)).told
    assert "done" not in told and len(told) == 6
    plain = lab.plainly(code, str(canary))
    assert plain[:2] == ["done", "done"] and plain[-1] == "done"


def test_host_system_files(two_labs: Lab) -> None:
    code = """
    tell([attempt(open, path) for path in ("/etc/shadow", "/etc/hostname", "/etc/machine-id", "/var/log", "/root/.bashrc",
                                           "/sys/kernel/notes", "/proc/kcore", "/dev/mem", "/dev/kmsg", "/dev/sev-guest")])
    """
    assert "done" not in two_labs.run(code).told
    assert "done" in two_labs.plainly(code)


def test_writing_outside(lab: Lab) -> None:
    open_folder = lab.folder("open", 0o777)
    code = """
    places = [ARGUMENT, "/", "/usr", "/etc", "/dev", "/run", "/var/tmp", "/bin", os.environ["STRONGROOM_INPUTS"],
              os.path.dirname(sys.argv[0]), sys.base_prefix]
    tell([attempt(open, place + "/written", "w") for place in places])
    """
    told = lab.run(code, str(open_folder)).told
    assert "done" not in told
    assert list(open_folder.iterdir()) == []
    assert lab.plainly(code, str(open_folder))[0] == "done"


def test_inputs_cannot_be_changed(lab: Lab) -> None:
    code = """
    data = os.path.join(os.environ["STRONGROOM_INPUTS"], "data.csv")
    tell([attempt(open, data, "a"), attempt(os.truncate, data, 0), attempt(os.unlink, data), attempt(os.rename, data, "x"),
          attempt(os.link, data, "hard"), attempt(os.chmod, data, 0o777) if ARGUMENT == "chmod" else 1])
    """
    told = lab.run(code, "chmod" if lab.uid or lab.kind == "bubblewrap" else "").told
    assert "done" not in told
    assert lab.plainly(code)[0] == "done"


def test_environment_of_the_parent(lab: Lab) -> None:
    code = """
    found = [dict(os.environ)]
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found.append(path.read_text())
        except OSError:
            pass
    text = json.dumps(found)
    tell({"names": sorted(os.environ), "secret": "the-session" + "-token" in text})
    """
    told = lab.run(code).told
    assert told["secret"] is False
    expected = "GIVEN HOME LANG LOGNAME PATH STRONGROOM_INPUTS STRONGROOM_OUTPUTS TMPDIR USER"
    assert [name for name in told["names"] if name not in ("PWD", "LC_CTYPE")] == expected.split()
    assert lab.plainly(code)["secret"] is True and SECRET


def test_no_file_handle_is_inherited(two_labs: Lab) -> None:
    code = """
    def is_open(fd):
        try:
            os.fstat(fd)
            return True
        except OSError:
            return False
    tell([fd for fd in range(4096) if is_open(fd)])
    """
    assert two_labs.run(code).told == [0, 1, 2]


def test_other_processes(lab: Lab) -> None:
    """Neither signal nor see nor slow down a process of the same user."""
    code = """
    import resource
    pid = int(ARGUMENT)
    tell({"kill": attempt(os.kill, pid, 0), "limit": attempt(resource.prlimit, pid, resource.RLIMIT_NOFILE),
          "see": attempt(os.listdir, f"/proc/{pid}"), "nice": attempt(os.setpriority, os.PRIO_PROCESS, pid, 19),
          "policy": attempt(os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0)),
          "affinity": attempt(os.sched_setaffinity, pid, {0}),
          "handle": attempt(lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 0))})
    """
    with lab.popen(["/bin/sleep", "60"]) as victim:
        try:
            told = lab.run(code, str(victim.pid)).told
            assert "done" not in told.values(), told
            assert set(lab.plainly(code, str(victim.pid)).values()) == {"done"}
        finally:
            victim.kill()


def test_signals_to_the_supervisor(lab: Lab) -> None:
    code = """
    for sig in (signal.SIGTERM, signal.SIGKILL):
        for pid in (os.getppid(), 1, *json.loads(ARGUMENT)):
            attempt(os.kill, pid, sig)
    tell("alive")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    attempt(os.kill, -1, signal.SIGTERM)
    time.sleep(0.1)
    """
    with lab.popen(["/bin/sleep", "60"]) as bystander:
        try:
            outcome = lab.run(code, json.dumps([bystander.pid]))
            assert bystander.poll() is None
        finally:
            bystander.kill()
    assert outcome.told == "alive"
    assert outcome.exit_class == "succeeded"


def test_tracing(lab: Lab) -> None:
    code = """
    child = os.fork()
    if child == 0:
        time.sleep(1)
        os._exit(0)
    ptrace, readv = (101, 310) if os.uname().machine == "x86_64" else (117, 270)
    area = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(area), 8)
    tell([call(ptrace, 0x4206, child, 0, 0), call(readv, child, vector, 1, vector, 1, 0)])
    os.kill(child, 9)
    """
    assert lab.run(code).told == [EPERM, EPERM]
    assert lab.plainly(code) == [0, 0]


def test_namespaces_mounts_and_the_kernel(lab: Lab) -> None:
    code = """
    x86 = os.uname().machine == "x86_64"
    unshare, mount, keyctl, bpf, clone = (272, 165, 250, 321, 56) if x86 else (97, 40, 219, 280, 220)
    def spawn(flags):
        pid = libc.syscall(*map(ctypes.c_long, (clone, flags | 17, 0, 0, 0, 0)))
        if pid == 0:
            os._exit(0)
        if pid < 0:
            return ctypes.get_errno()
        os.waitpid(pid, 0)
        return 0
    tell({"plain clone": spawn(0), "user": spawn(0x10000000), "net": spawn(0x40000000), "unshare": call(unshare, 0x10000000),
          "mount": call(mount, b"x", b"/tmp", b"tmpfs", 0, 0), "keyctl": call(keyctl, 0, -3, 0), "bpf": call(bpf, 0, 0, 0),
          "clone3": call(435, 0, 0), "io_uring": call(425, 1, 0), "unknown": call(500), "hide": call(157 if x86 else 167, 4, 0)})
    """
    told = lab.run(code).told
    assert told.pop("plain clone") == 0
    assert {told.pop(name) for name in ("clone3", "io_uring", "unknown")} == {ENOSYS}
    assert set(told.values()) == {EPERM}
    plain = lab.plainly(code)
    assert (plain["user"], plain["keyctl"], plain["hide"]) == (0, 0, 0)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="other call tables exist on x86_64 only")
@pytest.mark.parametrize("table", ["i386", "x32"])
def test_other_call_tables_are_shut(two_labs: Lab, table: str) -> None:
    """Both would give other numbers to the calls that the filter names."""
    code = """
    area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # mov eax, 20 (getpid); int 0x80; ret      or      mov eax, 0x40000027 (getpid); syscall; ret
    area.write(bytes.fromhex("b814000000cd80c3" if ARGUMENT == "i386" else "b8270000400f05c3"))
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(area)))
    tell(function() == os.getpid())
    """
    outcome = two_labs.run(code, table)
    assert outcome.signal == signal.SIGSYS and outcome.told is None
    if table == "i386":
        try:
            assert two_labs.plainly(code, table) is True
        except AssertionError:
            pytest.skip("this kernel has no i386 calls: nothing to compare with")


def test_setuid_programs_gain_nothing(lab: Lab) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a setuid program")
    folder = Path(lab.base, "setuid")
    folder.mkdir(mode=0o755)
    shutil.copy("/usr/bin/id", folder / "id")
    (folder / "id").chmod(0o4755)
    if lab.uid:
        with lab.popen([str(folder / "id"), "-u"], stdout=-1) as outside:
            assert outside.communicate()[0] == b"0\n"  # outside it does make root
    code = """
    import subprocess
    try:
        answer = subprocess.run([ARGUMENT, "-u"], capture_output=True, text=True).stdout.strip()
    except OSError as error:
        answer = str(error.errno)
    tell([answer, os.getuid(), os.getresuid()])
    """
    spec, home = lab.prepare(code, str(folder / "id"), {})
    spec["read_only"].append(str(folder))
    with lab.popen([lab.python, str(DRIVER), json.dumps(spec)], stdout=-1) as driver:
        answer = json.loads(driver.communicate(timeout=20)[0])
    assert answer.get("exit_class") == "succeeded", answer
    identity, uid, all_three = json.loads((home / "outputs/answer").read_text())
    assert identity == str(uid) != "0"
    assert all_three == [uid] * 3


def test_files_of_the_same_user_cannot_be_touched(lab: Lab) -> None:
    """Landlock lets these calls pass, so something else must stop them."""
    mine = lab.folder("mine") / "file"
    mine.write_text("x")
    os.chown(mine, lab.uid, lab.uid)
    os.utime(mine, (1, 1))
    code = """
    tell([attempt(os.chmod, ARGUMENT, 0o777), attempt(os.utime, ARGUMENT), attempt(os.truncate, ARGUMENT, 0),
          attempt(os.unlink, ARGUMENT), attempt(os.setxattr, ARGUMENT, "user.x", b"1"),
          attempt(os.chown, ARGUMENT, os.getuid(), os.getgid())])
    """
    assert "done" not in lab.run(code, str(mine)).told
    status = mine.stat()
    assert (status.st_mode & 0o777, status.st_mtime, status.st_size) == (0o644, 1, 1)
    assert lab.plainly(code, str(mine))[:4] == ["done"] * 4


def test_the_program_dies_with_its_supervisor(lab: Lab) -> None:
    code = """
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
    for _ in range(1000):
        (OUT / "beat").write_text(str(time.time()))
        time.sleep(0.02)
    """
    spec, home = lab.prepare(code, "", {})
    with lab.popen([lab.python, str(DRIVER), json.dumps(spec)], stdout=subprocess.DEVNULL) as driver:
        _until(lambda: (home / "outputs/beat").exists())
        _until(lambda: len(lab.survivors()) >= 2)
        driver.kill()
    _until(lambda: not lab.survivors())


def _until(condition: object, seconds: float = 3) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
