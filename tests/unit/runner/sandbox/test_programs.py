"""What research programs really use works inside: numerical libraries, several processes, a notebook kernel."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from workers.runner.sandbox import Kind, Limits, RunSpec, run
from workers.runner.sandbox.start import base_python

VENV = Path(__file__).parents[4] / ".venv-programs"

NUMERICAL = """
import math, os, shutil, tempfile
from concurrent.futures import ProcessPoolExecutor
import numpy, pandas
with ProcessPoolExecutor(2) as pool:
    assert list(pool.map(math.sqrt, [1, 4])) == [1, 2]
pandas.DataFrame({"a": numpy.arange(3)}).to_parquet("x.parquet")
shutil.copy("x.parquet", os.environ["STRONGROOM_OUTPUTS"])
tempfile.NamedTemporaryFile().close()
"""
NOTEBOOK = """
import nbclient, nbformat
cells = [nbformat.v4.new_code_cell("print(6 * 7)"), nbformat.v4.new_code_cell("1 / 0")]
book = nbformat.v4.new_notebook(cells=cells)
try:
    nbclient.NotebookClient(book, timeout=30).execute()
except nbclient.exceptions.CellExecutionError as error:
    print(book.cells[0].outputs[0].text.strip(), error.ename)
"""


@pytest.mark.skipif(not VENV.exists(), reason="the programs' environment is not built")
@pytest.mark.parametrize(("code", "said"), [(NUMERICAL, ""), (NOTEBOOK, "42 ZeroDivisionError")])
def test_research_programs(code: str, said: str) -> None:
    base = Path(tempfile.mkdtemp(prefix="strongroom-lab-"))
    base.chmod(0o711)
    try:
        for name in ("work", "inputs", "outputs", "program"):
            (base / name).mkdir()
        (base / "program/program.py").write_text(code)
        spec = RunSpec(
            argv=[str(VENV / "bin/python"), str(base / "program/program.py")],
            workdir=base / "work",
            inputs=base / "inputs",
            outputs=base / "outputs",
            log_path=base / "log",
            read_only=[VENV, base_python()[1], base / "program"],
        )
        outcome = run(spec, Limits(60, 60, 2**31, 2**27, 2**26, 200), kind=Kind.BUBBLEWRAP)
        log = (base / "log").read_text()
        assert outcome.exit_class == "succeeded", log
        assert said in log
    finally:
        shutil.rmtree(base)
