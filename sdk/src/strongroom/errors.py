"""The errors of this package. Each message says what happened, why, and what to do next."""

from __future__ import annotations


class StrongroomError(Exception):
    """Anything that this package refuses or fails to do."""


class FormatError(StrongroomError, ValueError):
    """Bytes or a document that do not have the required shape."""


class SealError(StrongroomError):
    """A sealed file, a wrapped key or a seal header that cannot be opened or made."""


class StatementError(StrongroomError):
    """A signed statement whose envelope, signature or content is not acceptable."""


class LogError(StrongroomError):
    """A log proof, checkpoint or tile that does not hold."""


class PackageError(StrongroomError):
    """An output package that cannot be built, or whose file is not exactly in the required form."""
