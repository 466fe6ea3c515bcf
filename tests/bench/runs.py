"""(a) What a run on the local backend costs beyond the program itself: from the request to outputs under review.

A whole stack in a folder of its own; the world is made through pages, command line and API, as the demo does; then the
same approved program is run N times, one run after the other, asked for through the API. The end of a run is when
the database says that its outputs are in review. The program's own time is the same file, on the same plaintext, by
the same Python without a sandbox: started as the supervisor starts it, alternating with the runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

from infra.demo.story import Demo
from infra.demo.tools import ROOT
from infra.demo.world import OPERATOR, PASSWORD
from infra.embedded.layout import Layout
from infra.embedded.stack import Stack
from tests.bench.table import Row, judged, median

AIM_SECONDS = 2.0
SMALL_PROGRAM = """import csv, strongroom
path = strongroom.outputs() / "means.csv"
rows = strongroom.load("rand-hie")
path.write_text(f"rows,visits\\n{len(rows)},{rows['mdvis'].mean()}\\n")
"""


@dataclass
class Timeline:
    """Moments of one run (seconds since the epoch) by name, and how long it took from the request to the review."""

    total: float
    at: dict[str, float] = field(default_factory=dict)


# (name in the table, from, to): moments as `Bench._moments` names them.
STEPS = (
    ("queue and launch", "asked", "launched"),
    ("supervisor start, imports", "launched", "loaded"),
    ("claim", "loaded", "claimed"),
    ("folders, sandbox proof", "claimed", "attesting"),
    ("attest, key release", "attesting", "fetching"),
    ("fetch, open, check inputs", "fetching", "running"),
    ("sandbox and program", "running", "checking"),
    ("collect outputs", "checking", "sealing"),
    ("seal", "sealing", "uploading"),
    ("upload, sign, hand in, verify", "uploading", "ended"),
    ("open outputs, into review", "ended", "review"),
)


class Bench:
    """The stack, the world in it, and the clock."""

    def __init__(self, stack: Stack, var: Path) -> None:
        self.stack, self.var = stack, var
        self.demo = Demo(stack.url, var / "demo", stack.env["STRONGROOM_PROGRAMS_PYTHON"])
        self.database = psycopg.connect(stack.env["DATABASE_URL"], autocommit=True)
        self._logs: dict[str, Any] = {}
        self._over = threading.Event()

    def build(self, say: Callable[[str], None]) -> None:
        """People, datasets, project, access, stand-in data: the demo's own steps."""
        (self.var / "demo").mkdir()
        subprocess.run(
            [os.fspath(ROOT / ".venv" / "bin" / "python"), "manage.py", "create_operator", "--email", OPERATOR.email,
             "--name", OPERATOR.name, "--organisation", "Portal Operations"],
            cwd=ROOT, env={**self.stack.env, "STRONGROOM_OPERATOR_PASSWORD": PASSWORD}, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        demo = self.demo
        for step in (
            demo.organisations_and_people, demo.export, demo.register, demo.upload, demo.apply, demo.ethics, demo.access,
            demo.sign, demo.stand_in,
        ):  # fmt: skip
            began = time.monotonic()
            step()
            say(f"    {step.__name__.replace('_', ' ')} {time.monotonic() - began:.1f} s")

    def approved(self, name: str, source: str) -> str:
        """Submit a program, wait for its rehearsal, have it approved. Returns its id."""
        colleague = self.demo.machine("colleague")
        (colleague.home / name).write_text(source)
        said = colleague.run("submit", name, "--project", self.demo.ref, "--dataset", "rand-hie")
        self.demo.program = re.findall(r"Program ([0-9a-f-]{36})", said)[0]
        self.demo.approve_program()
        return self.demo.program

    def bare(self, name: str) -> float:
        """Seconds of the same program by the programs' Python, without portal or sandbox."""
        folder = Path(tempfile.mkdtemp(prefix="bare-", dir=self.var))
        (folder / "outputs").mkdir()
        index = {
            "rand-hie": {
                "path": str(self.demo.data / "rand-hie.csv"),
                "media_type": "text/csv",
                "dictionary": self._dictionary(),
            }
        }
        (folder / "index.json").write_text(json.dumps(index))
        env = {
            "STRONGROOM_INPUTS": str(folder), "STRONGROOM_OUTPUTS": str(folder / "outputs"), "STRONGROOM_STAGE": "2",
            "HOME": str(folder), "TMPDIR": str(folder), "MPLCONFIGDIR": str(folder), "MPLBACKEND": "agg", "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/local/bin:/usr/bin:/bin", "STRONGROOM_PARAMETERS": "{}",
        }  # fmt: skip
        env |= {
            key: os.environ[key] for key in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if key in os.environ
        }
        command = [self.demo.programs_python, str(self.demo.machine("colleague").home / name)]
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, timeout=300)
        return time.perf_counter() - began

    def _dictionary(self) -> Any:
        query = "SELECT v.dictionary FROM datasets_datasetversion v JOIN datasets_dataset d ON d.id = v.dataset_id WHERE d.slug = 'rand-hie'"
        row = self.database.execute(query).fetchone()
        assert row is not None
        return row[0]

    def run(self, program: str) -> Timeline:
        """One run, from the request to the review. Raises RuntimeError if it ends in any other way."""
        credentials = json.loads(
            (self.demo.machine("colleague").home / ".config/strongroom/credentials.json").read_text()
        )
        with httpx.Client(
            base_url=self.stack.url,
            trust_env=False,
            timeout=30,
            headers={"Authorization": f"Bearer {credentials['token']}"},
        ) as http:
            http.get("/api/v1/whoami").raise_for_status()
            asked = time.time()
            answer = http.post(f"/api/v1/programs/{program}/runs", json={"submission": uuid.uuid4().hex})
            answer.raise_for_status()
            pk = answer.json()["id"]
        query = "SELECT r.state, r.code, o.state FROM jobs_run r LEFT JOIN jobs_outputrelease o ON o.run_id = r.id WHERE r.id = %s"
        while True:
            row = self.database.execute(query, [pk]).fetchone()
            seen = time.time()
            if row is not None and row[2] == "in_review":
                break
            if row is None or row[0] in ("failed", "cancelled") or seen - asked > 120:
                raise RuntimeError(f"the run did not get into review: {row}")
            self._open_logs()
            time.sleep(0.01)
        return Timeline(seen - asked, {"asked": asked, "review": seen, **self._moments(pk)})

    def _open_logs(self) -> None:
        """Keep the supervisors' logs open: their folders go when the run ends, their bytes with the last handle."""
        for path in (self.var / "runs").glob("sr-*/runner.log"):
            if path.parent.name not in self._logs:
                self._logs[path.parent.name] = path.open()

    def _moments(self, pk: str) -> dict[str, float]:
        query = "SELECT to_state, extract(epoch FROM at)::float8 FROM core_statechange WHERE object_id = %s"
        states = dict(self.database.execute(query, [pk]).fetchall())
        found = {"launched": states["launching"], "ended": states["succeeded"]}
        for name in [n for n in self._logs if n.startswith(f"sr-{uuid.UUID(pk).hex[:12]}-")]:
            for line in self._logs.pop(name).read().splitlines():
                moment, _, phase = line.partition(" ")
                if re.fullmatch(r"\d+\.\d+", moment):
                    found.setdefault({"decrypting": "fetching"}.get(phase, phase), float(moment))
        return found


def measure(*, small: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of part (a)."""
    number = 2 if small else 7
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-", ignore_cleanup_errors=True) as name:
        var = Path(name) / "var"
        with Stack(Layout(var), say=lambda text: say(f"    {text}")) as stack:
            stack.up()
            bench = Bench(stack, var)
            bench.build(say)
            rows = []
            demo_program = (ROOT / "infra/demo/programs/cost_sharing.py").read_text()
            for title, file, source in (
                ("demo's program", "cost_sharing.py", demo_program),
                ("small program", "means.py", SMALL_PROGRAM),
            ):
                program = bench.approved(file, source)
                bench.run(program)  # the first finds everything cold
                runs, bare = [], []
                for _ in range(number):
                    bare.append(bench.bare(file))
                    runs.append(bench.run(program))
                rows += _rows(title, runs, bare)
            bench.database.close()
    return rows


def _rows(title: str, runs: list[Timeline], bare: list[float]) -> list[Row]:
    own = median(bare)
    over = [run.total - own for run in runs]
    rows = [
        Row("a", f"{title}: {len(runs)} runs, total", f"{median(r.total for r in runs):.2f} s median, {max(r.total for r in runs):.2f} max"),
        Row("a", f"{title}: alone", f"{own:.2f} s median, {max(bare):.2f} max"),
        judged("a", f"{title}: overhead", f"{median(over):.2f} s median, {max(over):.2f} max", f"< {AIM_SECONDS:.0f} s median", met=median(over) < AIM_SECONDS),
    ]  # fmt: skip
    for name, start, end in STEPS:
        spans = [run.at[end] - run.at[start] for run in runs if start in run.at and end in run.at]
        if not spans:
            rows.append(Row("a", f"  {name}", "not known"))
        elif name == "sandbox and program":
            rows.append(Row("a", f"  {name}, less the program alone", f"{median(spans) - own:.2f} s"))
        else:
            rows.append(Row("a", f"  {name}", f"{median(spans):.2f} s"))
    return rows
