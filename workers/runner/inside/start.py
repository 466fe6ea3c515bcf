"""Start a program inside the sandbox and report how it ended.

Usage: start.py KIND ENTRY REPORT [--keep-notebook], REPORT a file that the supervisor reads afterwards. Runs as the program itself, so nothing it says is believed
beyond what workers.runner.exits allows: an exception's type and line from an allow-list, never a message.

Exit status: 0 the program ended normally, 1 it raised, 75 out of memory (MemoryError), else its own.
"""

from __future__ import annotations

import errno
import json
import os
import runpy
import sys
import traceback
from types import TracebackType
from typing import Any

OUT_OF_MEMORY = 75
DISK_FULL = 76


def main() -> int:
    kind, entry, report = sys.argv[1], sys.argv[2], os.path.abspath(sys.argv[3])
    keep = "--keep-notebook" in sys.argv
    sys.argv = [entry]
    sys.path.insert(0, os.path.dirname(os.path.abspath(entry)) or os.getcwd())
    try:
        if kind == "ipynb":
            return _notebook(entry, report, keep)
        runpy.run_path(entry, run_name="__main__")
        return 0
    except SystemExit as stop:
        if stop.code in (None, 0):
            return 0
        if not isinstance(stop.code, int):
            print(stop.code, file=sys.stderr)  # as Python itself does
        _report(report, "SystemExit", stop.__traceback__, entry)
        return stop.code if isinstance(stop.code, int) and 0 < stop.code < 75 else 1
    except BaseException as error:  # the program's failure, whatever it is
        return _failed(error, report, entry)


def _failed(error: BaseException, report: str, entry: str) -> int:
    _report(report, type(error).__name__, error.__traceback__, entry)
    traceback.print_exception(error)
    return _status(error)


def _status(error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC):
        return DISK_FULL
    return OUT_OF_MEMORY if isinstance(error, MemoryError) else 1


def _report(report: str, name: str, trace: TracebackType | None, entry: str, cell: int | None = None) -> None:
    """Tell the supervisor the exception's type and the last line of the program's own files."""
    home = os.path.dirname(os.path.abspath(entry))
    line, file = None, ""
    for frame in traceback.extract_tb(trace):
        if os.path.abspath(frame.filename).startswith(home + os.sep) and frame.filename != __file__:
            line, file = frame.lineno, os.path.relpath(os.path.abspath(frame.filename), home)
    if cell is not None:
        file = f"cell {cell}"
        own = [
            f.lineno
            for f in traceback.extract_tb(trace)
            if "ipython-input" in f.filename or "/ipykernel_" in f.filename
        ]
        line = own[-1] if own else line
    message = json.dumps({"exception_type": name, "line": line, "file": file}).encode()
    try:
        with open(report, "wb") as f:
            f.write(message[:2000])
    except OSError:
        pass


def _notebook(entry: str, report: str, keep: bool) -> int:
    """Run the code cells in order in one interpreter, and end at the first that raises.

    In-process, not through a kernel: a kernel needs sockets, which the sandbox closes.
    """
    os.environ.setdefault("IPYTHONDIR", os.path.join(os.environ.get("TMPDIR", os.getcwd()), "ipython"))
    os.environ.setdefault("MPLBACKEND", "agg")
    import nbformat
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output
    from traitlets.config import Config

    with open(entry, encoding="utf-8") as f:
        notebook: Any = nbformat.read(f, as_version=4)
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "NoColor"

    class Shell(InteractiveShell):  # a shell without windows
        def enable_gui(self, gui: str | None = None) -> None:
            """There is no window; `%matplotlib inline` asks for one by the name of none."""

    shell = Shell.instance(config=config)
    status, number = 0, 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        number += 1
        with capture_output() as captured:
            result = shell.run_cell(cell.source, store_history=True)
        cell.execution_count = number
        cell.outputs = []
        for name, text in (("stdout", captured.stdout), ("stderr", captured.stderr)):
            if text:
                cell.outputs.append(nbformat.v4.new_output("stream", name=name, text=text))
        for shown in captured.outputs:
            cell.outputs.append(
                nbformat.v4.new_output("display_data", data=shown.data, metadata=shown.metadata or {})
            )
        print(f"--- cell {number} ---\n{captured.stdout}{captured.stderr}", flush=True)
        error = result.error_before_exec or result.error_in_exec
        if isinstance(error, SystemExit) and error.code in (None, 0):
            break
        if error is not None:
            name = type(error).__name__
            cell.outputs.append(nbformat.v4.new_output("error", ename=name, evalue=str(error), traceback=[]))
            _report(report, name, error.__traceback__, entry, cell=number)
            status = _status(error)
            break
    if keep:
        target = os.path.join(
            os.environ["STRONGROOM_OUTPUTS"], os.path.basename(entry)[:-6] + ".executed.ipynb"
        )
        with open(target, "w", encoding="utf-8") as f:
            nbformat.write(notebook, f)
    return status


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a program's leftover non-daemon threads must not keep a finished run alive.
    os._exit(code)
