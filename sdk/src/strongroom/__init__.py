"""Strongroom: what a researcher, a custodian and an auditor hold in their hands.

`strongroom.load(name)` and `strongroom.outputs()` are the whole of what a research program needs; both are
loaded on first use, so that `import strongroom.evidence` stays light and touches no network code.

The other parts: `strongroom.seal` (encryption of datasets and outputs), `strongroom.contexts` (what a run is
bound to), `strongroom.statement` (signed results), `strongroom.evidence` (proof of where a run ran),
`strongroom.translog` (the public log) and `strongroom.package` (checking a whole output package offline).
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load", "outputs"]

_FROM_DATA = frozenset({"load", "outputs"})


def __getattr__(name: str) -> Any:
    if name in _FROM_DATA:
        from strongroom import data

        return getattr(data, name)
    raise AttributeError(f"module 'strongroom' has no attribute {name!r}")
