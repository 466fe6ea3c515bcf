"""Programs that take too much: each is ended soon, and the end has its right name."""

from __future__ import annotations

import signal
import time

from .conftest import Lab

MIB = 2**20


def test_a_good_program_succeeds(lab: Lab) -> None:
    code = """
    import subprocess
    assert Path.cwd().samefile(".") and os.environ["GIVEN"] == "yes"
    Path("scratch").write_text("x")
    Path(os.environ["TMPDIR"], "more").write_text("x")
    for _ in range(5):
        if os.fork() == 0:
            os._exit(0)
    tell(Path(os.environ["STRONGROOM_INPUTS"], "data.csv").read_text())
    print("hello")
    """
    outcome = lab.run(code)
    assert outcome.exit_class == "succeeded", outcome.log
    assert (outcome.return_code, outcome.signal, outcome.reason) == (0, None, "")
    assert outcome.told == "a\n1\n"
    assert outcome.log == b"hello\n"
    assert outcome.files_written >= 2


def test_a_program_that_raises_has_failed(two_labs: Lab) -> None:
    outcome = two_labs.run("raise KeyError('secret')")
    assert (outcome.exit_class, outcome.return_code, outcome.reason) == ("failed", 1, "")
    assert b"KeyError" in outcome.log


def test_a_signal_is_told_from_a_return_code(two_labs: Lab) -> None:
    outcome = two_labs.run("signal.raise_signal(signal.SIGSEGV)")
    assert (outcome.exit_class, outcome.return_code, outcome.signal) == ("failed", None, signal.SIGSEGV)
    assert two_labs.run("sys.exit(3)").return_code == 3


def test_fork_bomb(lab: Lab) -> None:
    outcome = lab.run("while True:\n    attempt(os.fork)", cpu_seconds=3)
    assert (outcome.exit_class, outcome.reason) == ("failed", "processes")
    assert outcome.wall_seconds < 3  # well under one on an idle machine
    assert lab.survivors() == []


def test_fork_bomb_that_detaches(lab: Lab) -> None:
    code = """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in range(1, 65):
        attempt(signal.signal, number, signal.SIG_IGN)
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            pass
    """
    outcome = lab.run(code, cpu_seconds=3)
    assert (outcome.exit_class, outcome.reason) == ("failed", "processes")
    assert outcome.wall_seconds < 3  # well under one on an idle machine
    assert lab.survivors() == []


def test_threads_count_as_well(two_labs: Lab) -> None:
    code = """
    import threading
    for _ in range(30):
        threading.Thread(target=time.sleep, args=(0.5,)).start()
    """
    assert two_labs.run(code, processes=60).exit_class == "succeeded"
    assert two_labs.run(code, processes=20).reason == "processes"


MEMORY = """
kept = []
for _ in range(15):
    kept.append(b"x" * (10 * 2**20))
    time.sleep(0.01)
time.sleep(0.3)
"""


def test_memory(lab: Lab) -> None:
    outcome = lab.run(MEMORY, memory_bytes=60 * MIB)
    assert (outcome.exit_class, outcome.reason) == ("out_of_memory", "memory_bytes")
    assert outcome.peak_memory > 60 * MIB
    assert lab.run(MEMORY, memory_bytes=300 * MIB).exit_class == "succeeded"


def test_memory_of_several_processes_is_added_up_once(two_labs: Lab) -> None:
    code = """
    block = bytearray(b"x" * (60 * 2**20))
    for _ in range(4):
        if os.fork() == 0:
            if ARGUMENT == "touch":
                block[::4096] = b"y" * len(block[::4096])
            time.sleep(0.6)
            os._exit(0)
    for _ in range(4):
        os.wait()
    """
    assert two_labs.run(code, memory_bytes=180 * MIB).exit_class == "succeeded"
    assert two_labs.run(code, "touch", memory_bytes=180 * MIB).exit_class == "out_of_memory"


def test_an_absurd_reservation_fails_at_once(two_labs: Lab) -> None:
    outcome = two_labs.run("bytearray(2**40)", memory_bytes=100 * MIB)
    assert outcome.exit_class == "failed" and b"MemoryError" in outcome.log


def test_shared_memory_counts(two_labs: Lab) -> None:
    code = """
    area = mmap.mmap(-1, 150 * 2**20)
    for place in range(0, len(area), 4096):
        area[place] = 1
    time.sleep(0.5)
    """
    assert two_labs.run(code, memory_bytes=60 * MIB).exit_class == "out_of_memory"
    assert two_labs.run(code, memory_bytes=300 * MIB).exit_class == "succeeded"


def test_files_in_memory_count(lab: Lab) -> None:
    """Anonymous files would be memory that nobody sees; /tmp is memory of a bounded size, or a folder of the run's."""
    code = """
    outcome = attempt(os.memfd_create, "x")
    n = 0
    try:
        for n in range(100):
            Path(os.environ["TMPDIR"], str(n)).write_bytes(b"x" * 2**20)
    except OSError as error:
        tell([outcome, error.errno, n])
        raise
    time.sleep(60)  # else it may be over before anybody looks
    """
    outcome = lab.run(code, memory_bytes=60 * MIB, disk_bytes=20 * MIB)
    if lab.kind == "bubblewrap":
        assert outcome.told[:2] == [38, 28] and outcome.told[2] <= 20  # ENOSYS, ENOSPC
    assert outcome.exit_class in ("disk_full", "out_of_memory", "failed")
    assert outcome.exit_class != "failed" or lab.kind == "bubblewrap"


def test_cpu(two_labs: Lab) -> None:
    outcome = two_labs.run("while True: pass", cpu_seconds=1)
    assert (outcome.exit_class, outcome.reason) == ("timed_out", "cpu_seconds")
    assert 0.7 < outcome.cpu_seconds < 2


def test_cpu_of_many_short_processes(two_labs: Lab) -> None:
    """None of them lives long enough for its own limit, and nobody waits for them."""
    code = """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        if os.fork() == 0:
            end = time.monotonic() + 0.2
            while time.monotonic() < end:
                pass
            os._exit(0)
        time.sleep(0.1)
    """
    outcome = two_labs.run(code, cpu_seconds=1, wall_seconds=15)
    assert (outcome.exit_class, outcome.reason) == ("timed_out", "cpu_seconds")


def test_wall(two_labs: Lab) -> None:
    outcome = two_labs.run("time.sleep(60)", wall_seconds=0.5)
    assert (outcome.exit_class, outcome.reason) == ("timed_out", "wall_seconds")
    assert outcome.wall_seconds < 1.5


def test_10_gb_file(two_labs: Lab) -> None:
    code = """
    def sparse():
        with open(OUT / "large", "wb") as file:
            file.seek(10 * 2**30)
            file.write(b"x")
    def grown():
        with open(OUT / "large", "wb") as file:
            file.truncate(10 * 2**30)
    tell([attempt(sparse), attempt(grown)])
    """
    assert two_labs.run(code).told == [27, 27]  # EFBIG
    assert two_labs.plainly(code) == ["done", "done"]


def test_a_file_beyond_its_bound_is_disk_full(two_labs: Lab) -> None:
    plain = """
    with open(OUT / "large", "wb") as file:
        while True:
            file.write(b"x" * 2**20)
    """
    assert two_labs.run(plain, file_bytes=3 * MIB).exit_class == "disk_full"
    by_signal = two_labs.run(
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        + "\n".join(line[4:] for line in plain.splitlines()),
        file_bytes=3 * MIB,
    )
    assert (by_signal.exit_class, by_signal.signal) == ("disk_full", signal.SIGXFSZ)


def test_disk_in_all(two_labs: Lab) -> None:
    code = """
    for n in range(30):
        (OUT / str(n)).write_bytes(b"x" * 2**20)
    time.sleep(float(ARGUMENT))
    """
    outcome = two_labs.run(code, "20", disk_bytes=10 * MIB)
    assert (outcome.exit_class, outcome.reason) == ("disk_full", "disk_bytes")
    assert two_labs.run(code, "0.3", disk_bytes=60 * MIB).exit_class == "succeeded"


def test_files_without_a_name_count(two_labs: Lab) -> None:
    code = """
    kept = []
    for n in range(30):
        kept.append(open("x", "wb", buffering=0))
        kept[-1].write(b"x" * 2**20)
        os.unlink("x")
    time.sleep(float(ARGUMENT))
    """
    assert two_labs.run(code, "20", disk_bytes=10 * MIB).reason == "disk_bytes"
    assert two_labs.run(code, "0.3", disk_bytes=60 * MIB).exit_class == "succeeded"


def test_a_million_small_files(two_labs: Lab) -> None:
    code = """
    for n in range(1_000_000):
        os.close(os.open(f"{ARGUMENT}/{n}", os.O_CREAT))
    """
    for place in (".", "/tmp" if two_labs.kind == "bubblewrap" else ".tmp"):
        outcome = two_labs.run(code, place, files=2_000)
        assert (outcome.exit_class, outcome.reason) == ("disk_full", "files")
        assert outcome.wall_seconds < 8


def test_folders_without_end(two_labs: Lab) -> None:
    code = """
    while True:
        os.mkdir("x")
        os.chdir("x")
    """
    assert two_labs.run(code).reason == "files"


def test_a_closed_folder_hides_nothing(two_labs: Lab) -> None:
    code = """
    os.mkdir("x")
    Path("x/y").write_bytes(b"x" * 2**20)
    os.chmod("x", 0)
    time.sleep(10)
    """
    if two_labs.kind == "landlock" and two_labs.uid:
        assert two_labs.run(code).return_code == 1  # chmod is refused there
    elif two_labs.uid:
        assert two_labs.run(code).reason == "files"
    else:
        assert two_labs.run(code, disk_bytes=MIB // 2).reason == "disk_bytes"


def test_background_daemon(lab: Lab) -> None:
    code = """
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            with open(OUT / "beat", "a") as file:
                file.write("x")
            time.sleep(0.01)
    time.sleep(0.2)
    """
    outcome = lab.run(code)
    assert outcome.exit_class == "succeeded"
    size = (outcome.outputs / "beat").stat().st_size
    assert size > 3  # it did run
    time.sleep(0.1)
    assert (outcome.outputs / "beat").stat().st_size == size
    assert lab.survivors() == []


def test_closed_output_is_not_an_end(two_labs: Lab) -> None:
    outcome = two_labs.run("for fd in (0, 1, 2): os.close(fd)\ntime.sleep(0.4)\ntell('still here')")
    assert outcome.exit_class == "succeeded" and outcome.told == "still here"
    assert outcome.wall_seconds >= 0.4
    assert (
        two_labs.run("os.close(1); os.close(2); time.sleep(60)", wall_seconds=0.4).exit_class == "timed_out"
    )


def test_a_gigabyte_of_output(two_labs: Lab) -> None:
    code = """
    os.write(1, b"first line\\n")
    block = b"x" * 2**20
    for _ in range(1024):
        os.write(1, block)
    os.write(2, b"\\nlast line\\n")
    """
    outcome = two_labs.run(code)
    assert outcome.exit_class == "succeeded"
    assert outcome.log.startswith(b"first line\n") and outcome.log.endswith(b"\nlast line\n")
    assert b"bytes of output left out here]" in outcome.log
    assert len(outcome.log) < MIB + 100
    assert outcome.wall_seconds < 10
