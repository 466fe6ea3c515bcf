"""Runs a researcher's untrusted program on sensitive data so that nothing leaves but its output folder.

`choose()` finds what this machine can hold and proves it, `proved()` remembers that in a file; `run()` runs one program to its end; `collect_outputs()`
looks at what it left. Standard library only; never a run without a sandbox.
"""

from .model import (
    ExitClass,
    Kind,
    Limits,
    Probe,
    Reason,
    RunSpec,
    Sandbox,
    SandboxRefused,
    SandboxResult,
    Tick,
    View,
)
from .outputs import OutputFile, OutputRefused, collect_outputs, wipe
from .proof import prove, proved
from .selftest import choose, self_test
from .supervise import run, view

__all__ = [
    "ExitClass",
    "Kind",
    "Limits",
    "OutputFile",
    "OutputRefused",
    "Probe",
    "Reason",
    "RunSpec",
    "Sandbox",
    "SandboxRefused",
    "SandboxResult",
    "Tick",
    "View",
    "choose",
    "collect_outputs",
    "prove",
    "proved",
    "run",
    "self_test",
    "view",
    "wipe",
]
