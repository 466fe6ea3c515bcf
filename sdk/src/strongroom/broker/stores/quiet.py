"""Keeping a cloud library's debug log from printing what it sends and receives: those are private keys here.

botocore logs whole requests and answers at DEBUG (botocore.endpoint, botocore.parsers), Google's clients likewise. The
level of a logger is easily set by somebody else in the process; a filter on each of the library's loggers stays.
"""

from __future__ import annotations

import logging


class _WarningsOnly(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING


_FILTER = _WarningsOnly()


def hush(*libraries: str) -> None:
    """From now on no logger of these libraries says anything below WARNING. Call it when their modules are imported."""
    for name in list(logging.root.manager.loggerDict):
        if any(name == library or name.startswith(f"{library}.") for library in libraries):
            logging.getLogger(name).addFilter(_FILTER)  # the same filter twice counts once
