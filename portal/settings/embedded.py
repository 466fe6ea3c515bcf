"""One machine, everything from pip, for trying Strongroom out and for development. Says so on every page."""

from .base import *  # noqa: F403
from .base import VAR

DEBUG = False


def _secret() -> str:
    """The installation's secret: made once, kept in var/ with mode 0600."""
    import os
    import secrets

    path = VAR / "secret-key"
    if not path.exists():
        VAR.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as f:
            f.write(secrets.token_urlsafe(48))
    return path.read_text().strip()


SECRET_KEY = _secret()
