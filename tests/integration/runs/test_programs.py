"""Programs that fail, cheat and attack, each through a real rehearsal: ended, named, cleaned up, and nothing else hurt."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass, field
from typing import Any

import pytest

from apps.jobs import codes
from tests.integration.runs.portal import Portal

ROOT_SECRETS = "secret-key"


@dataclass(frozen=True)
class Case:
    """What a program does and how its run must end."""

    name: str
    source: str
    code: str = "program_failed"
    exception: tuple[str, int | None, str] = ("", None, "")
    outputs: list[str] = field(default_factory=list)
    in_log: str = ""


def nb(*cells: str) -> bytes:
    return json.dumps({
        "nbformat": 4, "nbformat_minor": 5, "metadata": {},
        "cells": [{"cell_type": "code", "id": f"c{n}", "metadata": {}, "outputs": [], "execution_count": None, "source": c} for n, c in enumerate(cells)],
    }).encode()  # fmt: skip


def py(text: str) -> bytes:
    return (
        "import os, sys, time, signal, socket, json, pathlib, strongroom\n" + textwrap.dedent(text)
    ).encode()


RAISED = "program.py"
CASES = [
    Case("raises", "x = 1\nraise ValueError('the message')", exception=("ValueError", 3, RAISED), in_log="the message"),
    Case("raises in a function of pandas", "strongroom.load('words')['no such column']", exception=("KeyError", 2, RAISED)),
    Case("a class whose name spells data", "raise type('Smith_J_1950', (Exception,), {})()", exception=("ProgramDefinedError", 2, RAISED)),
    Case(
        "a class that lies about its name",
        "class Meta(type):\n    __name__ = property(lambda self: 1/0)\nclass E(Exception, metaclass=Meta):\n    pass\nraise E",
    ),
    Case("exits 3", "sys.exit(3)", exception=("SystemExit", 2, RAISED)),
    Case("exits with words", "sys.exit('words of mine')", exception=("SystemExit", 2, RAISED), in_log="words of mine"),
    Case("ends at once, content", "os._exit(0)", code="succeeded"),
    Case("ends at once, not content", "os._exit(7)"),
    Case("a fault of memory", "os.kill(os.getpid(), signal.SIGSEGV)"),
    Case("eats memory", "a = []\nwhile True: a.append(bytearray(8 << 20))", code="out_of_memory"),
    Case(
        "eats memory in children",
        "for _ in range(6):\n    if not os.fork():\n        a = bytearray(b'x' * (100 << 20)); time.sleep(60)\nos.wait()",
        code="out_of_memory",
    ),
    Case("fills the disk", "for n in range(99):\n    pathlib.Path(f'{n}').write_bytes(os.urandom(20 << 20))", code="disk_full"),
    Case("writes 10 GB", "f = open(strongroom.outputs() / 'big', 'wb')\nwhile True: f.write(bytes(1 << 20))", code="disk_full", exception=("OSError|", 3, RAISED)),
    Case("a hole of 10 GB", "os.truncate(os.open(strongroom.outputs() / 'big', os.O_CREAT | os.O_WRONLY), 10 << 30)", code="disk_full", exception=("OSError", 2, RAISED)),
    Case("forks without end", "while True:\n    try: os.fork()\n    except OSError: pass"),
    Case("a symbolic link", "os.symlink('/etc/passwd', strongroom.outputs() / 'a')", code="outputs_not_a_file"),
    Case(
        "a link as a folder",
        "(strongroom.outputs() / 'a').mkdir()\nos.symlink(strongroom.outputs() / 'a', strongroom.outputs() / 'b')",
        code="outputs_not_a_file",
    ),
    Case("a hard link", "p = strongroom.outputs() / 'a'\np.write_text('x')\nos.link(p, strongroom.outputs() / 'b')", code="outputs_hard_link"),
    Case("a pipe", "os.mkfifo(strongroom.outputs() / 'a')", code="outputs_not_a_file"),
    Case("a closed file", "p = strongroom.outputs() / 'a'\np.write_text('x')\np.chmod(0)\nstrongroom.outputs().chmod(0o500)", code="succeeded|outputs_unreadable", outputs=["a"]),
    Case("outputs taken away", "os.rename(strongroom.outputs(), '/tmp/x')", exception=("OSError|PermissionError", 2, RAISED)),
    Case("a name of HTML", "(strongroom.outputs() / '<img src=x onerror=alert(1)>\"&.csv').write_text('a\\n<script>alert(2)</script>\\n')", code="succeeded", outputs=["<img src=x onerror=alert(1)>\"&.csv"]),
    Case("a name with a line end", "(strongroom.outputs() / 'a\\nb').write_text('x')", code="outputs_unsafe_name"),
    Case("a name turned round", "(strongroom.outputs() / 'a\\u202eb').write_text('x')", code="outputs_unsafe_name"),
    Case("a name that is no text", "open(os.fsencode(strongroom.outputs()) + b'/\\xff', 'w')", code="outputs_unsafe_name"),
    Case("a name for another system", "(strongroom.outputs() / 'C:notes.txt').write_text('x')", code="outputs_unsafe_name"),
    Case("5,000 files", "for n in range(5000): (strongroom.outputs() / f'{n}').touch()", code="outputs_too_many"),
    Case("folders without end", "p = strongroom.outputs()\nfor n in range(40):\n    p = p / 'd'\n    p.mkdir()\n(p / 'f').touch()", code="outputs_too_many"),
    Case("says 100 MB", "for _ in range(100): sys.stdout.write('y' * (1 << 20))\nprint()\nprint('the end')", code="succeeded"),
    Case("kills its parent", "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(30)", exception=("PermissionError|", 2, RAISED)),
    Case("kills everybody", "os.kill(-1, signal.SIGKILL)\ntime.sleep(30)", exception=("ProcessLookupError|PermissionError|", 2, RAISED)),
    Case(
        "forges its report",
        "json.dump({'exception_type': 'Smith_J', 'line': 10**6, 'file': '/etc/passwd', 'more': 1}, open('.strongroom-exit', 'w'))\nos._exit(1)",
        exception=("ProgramDefinedError", None, ""),
    ),
    Case("forges a report of another", "open('.strongroom-exit', 'wb').write(b'[' * 10**6)\nos._exit(1)"),
    Case("its report is a link", "os.symlink('/etc/passwd', '.strongroom-exit')\nos._exit(1)"),
    Case("its report is a pipe", "os.mkfifo('.strongroom-exit')\nos._exit(1)"),
    Case("says that it succeeded, and raises", "print('status: succeeded')\nos.write(1, b'0')\nraise OSError(28, 'full')", code="disk_full", exception=("OSError", 4, RAISED)),
    Case("goes on without its output", "os.close(1); os.close(2)\ntime.sleep(1)\n(strongroom.outputs() / 'late.txt').write_text('late')", code="succeeded", outputs=["late.txt"]),
    Case(
        "leaves a daemon",
        """
        out = strongroom.outputs()
        (out / 'early.txt').write_text('early')
        if not os.fork():
            os.setsid()
            if not os.fork():
                while True:
                    (out / 'late.txt').write_text(str(time.time()))
            os._exit(0)
        os.wait()
        """,
        code="succeeded",
        outputs=["early.txt", "late.txt?"],
    ),
    Case("writes to its inputs", "open(os.environ['STRONGROOM_INPUTS'] + '/words.csv', 'a')", exception=("PermissionError|OSError", 2, RAISED)),
    Case("waits for somebody to type", "input()", exception=("EOFError", 2, RAISED)),
]  # fmt: skip


def check(portal: Portal, case: Case, program: dict[str, Any]) -> dict[str, Any]:
    run = portal.ended(program["rehearsal"])
    assert run["code"] in case.code.split("|"), run
    assert run["state"] == ("succeeded" if run["code"] == "succeeded" else "failed")
    assert run["attempt"] == 1
    name, line, file = case.exception
    assert run["exception_type"] in name.split("|"), run
    where = (run["exception_line"], run["exception_file"])
    assert where == (line, file) or (not run["exception_type"] and where == (None, "")), run
    seen = portal.api("member").get(f"/runs/{program['rehearsal']}")
    there = {output["path"] for output in seen["outputs"]}
    if run["code"] == "succeeded":
        assert (
            {path for path in case.outputs if not path.endswith("?")}
            <= there
            <= {path.rstrip("?") for path in case.outputs}
        )
    elif run["code"].startswith("outputs_"):
        assert not there
    words = codes.describe(run["code"])
    assert seen["standing"]["sentence"] == f"{words.sentence} {words.remedy}".strip()
    page = portal.at("member")
    page.open(f"/runs/{program['rehearsal']}")
    assert "<img" not in page.text and "<script>alert" not in page.text
    log = portal.api("member").http.get(f"/runs/{program['rehearsal']}/log").content
    assert len(log) <= 1 << 20
    assert case.in_log in log.decode(errors="replace")
    return run


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_rehearsal(portal: Portal, case: Case) -> None:
    check(portal, case, portal.submit(py(case.source), "program.py"))


def test_what_never_ends(portal: Portal) -> None:
    """All at once, because each takes the whole time allowed."""
    sources = {
        "sleeps.py": py("time.sleep(600)"),
        "stops.py": py("os.kill(os.getpid(), signal.SIGSTOP)"),
        "refuses.py": py(
            "for s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\ntime.sleep(600)"
        ),
        "cell.ipynb": nb("x = 1", "import time\nwhile True:\n    time.sleep(0.1)", "open('never', 'w')"),
    }
    programs = [portal.submit(content, name) for name, content in sources.items()]
    for program in programs:
        run = portal.ended(program["rehearsal"])
        assert (run["state"], run["code"], run["exit_class"]) == ("failed", "timed_out", "timed_out"), run


def test_spins(portal: Portal) -> None:
    """Four threads of work use up the processor time before the clock does."""
    source = "for _ in range(3):\n    if not os.fork(): break\nwhile True: pass"
    run = portal.ended(portal.submit(py(source))["rehearsal"])
    assert (run["state"], run["code"]) == ("failed", "timed_out")


def test_notebook_that_fails_at_its_second_cell(portal: Portal) -> None:
    cells = (
        "import strongroom\n(strongroom.outputs() / 'one.txt').write_text('1')",
        "x = 1\nraise ZeroDivisionError('in words')",
        "(strongroom.outputs() / 'three.txt').write_text('3')",
    )
    program = portal.submit(nb(*cells), "book.ipynb")
    run = portal.ended(program["rehearsal"])
    assert (run["state"], run["code"]) == ("failed", "program_failed")
    assert (run["exception_type"], run["exception_line"], run["exception_file"]) == (
        "ZeroDivisionError",
        2,
        "cell 2",
    )
    seen = portal.api("member").get(f"/runs/{program['rehearsal']}")
    assert {output["path"] for output in seen["outputs"]} == {"one.txt", "book.executed.ipynb"}


def test_notebook_to_its_end(portal: Portal) -> None:
    book = nb(
        "import strongroom\nd = strongroom.load('words')\nlen(d)",
        "%matplotlib inline\nprint(d.visits.mean())",
        "await __import__('asyncio').sleep(0)\n(strongroom.outputs() / 'n.txt').write_text(str(len(d)))",
    )
    program = portal.submit(book, "book.ipynb")
    run = portal.ended(program["rehearsal"])
    assert (run["state"], run["code"]) == ("succeeded", "succeeded"), (
        portal.api("member").http.get(f"/runs/{program['rehearsal']}/log").text
    )


def test_sees_nothing_of_the_machine(portal: Portal) -> None:
    """Files of the portal, of other runs and of the system; processes; every kind of socket."""
    hidden = [
        str(portal.var), str(portal.var / "keys"), str(portal.var / "secrets"), str(portal.var / "secret-key"), str(portal.var / "objects"),
        str(portal.var / "runs"), str(portal.var / "postgres"), "/etc/shadow", "/root", "/home", "/proc/1/environ", "/var/log", "/work/../root",
        "/proc/1/root/etc/shadow", "/proc/1/cwd",
    ]  # fmt: skip
    port = int(portal.url.rpartition(":")[2])
    source = f"""
        found = []
        for path in {hidden!r}:
            try:
                found.append([path, os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(80).decode('latin-1')])
            except OSError:
                pass
        def attempt(name, act):
            try:
                act()
                found.append([name, 'open'])
            except Exception:
                pass
        for address in ('127.0.0.1', '10.0.0.1', '169.254.169.254', '1.1.1.1'):
            attempt(address, lambda: socket.create_connection((address, {port}), timeout=2))
        attempt('udp', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53)))
        attempt('ipv6', lambda: socket.create_connection(('::1', {port}), timeout=2))
        attempt('names', lambda: socket.getaddrinfo('example.org', 80))
        attempt('listen', lambda: socket.create_server(('127.0.0.1', {port})) and socket.create_connection(('127.0.0.1', {port}), timeout=2) and 1/0)
        attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
        me = pathlib.Path('/proc/self/status').read_text()
        found += [['processes', p] for p in os.listdir('/proc') if p.isdigit() and b'workers.runner' in open(f'/proc/{{p}}/cmdline', 'rb').read()]
        environment = [name for name in os.environ if 'URL' in name or 'TOKEN' in name or 'SECRET' in name]
        open(strongroom.outputs() / 'found.json', 'w').write(json.dumps([found, environment, os.getuid() == 0 and 'CapEff:\\t0000000000000000' not in me, os.listdir('/dev/shm') if os.path.isdir('/dev/shm') else []]))
    """
    program = portal.submit(py(source))
    run = portal.ended(program["rehearsal"])
    assert run["state"] == "succeeded", (
        portal.api("member").http.get(f"/runs/{program['rehearsal']}/log").text
    )
    (output,) = portal.api("member").get(f"/runs/{program['rehearsal']}")["outputs"]
    answer = portal.api("member").http.get(f"/runs/{program['rehearsal']}/outputs/{output['id']}").json()
    found, environment, capable, memory = answer
    # The base folder of Python may lie in somebody's home: then the way to it is seen, and nothing beside it.
    assert [item for item in found if item[1] not in ([], [".pyenv"], [".cache"])] == []
    assert environment == [] and capable is False and memory == []


def test_another_run_goes_on_beside_an_attack(portal: Portal) -> None:
    """Two runs at once: one is attacked by the other and notices nothing."""
    quiet = portal.submit(py("time.sleep(3)\n(strongroom.outputs() / 'ok.txt').write_text('ok')"))
    loud = portal.submit(
        py(
            "for p in range(1, 70000):\n    try: os.kill(p, 9)\n    except OSError: pass\n    except BaseException: pass"
        )
    )
    assert portal.ended(loud["rehearsal"])["state"] in ("succeeded", "failed")
    assert portal.ended(quiet["rehearsal"])["state"] == "succeeded"
    assert portal.workers[0].returncode() is None
