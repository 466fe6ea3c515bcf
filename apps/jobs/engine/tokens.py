"""A machine's launch token and a runner's session: both name their run, and only their digests are stored.

They are derived from the installation's secret, so that a worker killed between recording an attempt and starting its
machine can start it again with the same token, and a runner whose answer was lost can ask again.
"""

from __future__ import annotations

import hashlib
import hmac
from uuid import UUID

from django.utils.crypto import salted_hmac

from apps.jobs.models import Run


def launch_token(run: Run) -> str:
    """The one-time token of the run's present attempt."""
    return _make("strongroom.launch", run, "")


def session_token(run: Run, token: str) -> str:
    """The session that the launch token of the present attempt opens."""
    return _make("strongroom.session", run, token)


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def matches(token: str, stored: str) -> bool:
    """Whether `token` is the one whose digest is stored; an empty digest matches nothing."""
    return bool(stored) and hmac.compare_digest(digest(token), stored)


def run_of(token: str) -> UUID | None:
    """The run that a token names, believed only after `matches`."""
    name, dot, rest = token.partition(".")
    if len(token) > 200 or len(name) != 32 or not dot or not rest or not token.isascii():
        return None
    try:
        return UUID(hex=name)
    except ValueError:
        return None


def _make(purpose: str, run: Run, more: str) -> str:
    mac = salted_hmac(purpose, f"{run.pk}:{run.attempt}:{more}", algorithm="sha256").hexdigest()
    return f"{run.pk.hex}.{mac}"
