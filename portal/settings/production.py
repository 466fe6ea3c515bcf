"""For an installation that holds real data. Refuses to start while anything insecure is the default."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from strongroom.errors import FormatError
from strongroom.evidence.trust import read as read_anchors

from .base import *  # noqa: F403
from .base import DEFAULT_BACKEND, PORTAL_URL, SECRET_KEY, SOFTWARE_BACKENDS, TRUST_DIRECTORY

if len(SECRET_KEY) < 40:
    raise ImproperlyConfigured("Set STRONGROOM_SECRET_KEY to at least 40 random characters.")
if not PORTAL_URL.startswith("https://"):
    raise ImproperlyConfigured(
        "Set STRONGROOM_URL to the portal's https:// address: sessions must not travel in the clear."
    )
if "DATABASE_URL" not in os.environ or "REDIS_URL" not in os.environ:
    raise ImproperlyConfigured("Set DATABASE_URL and REDIS_URL to the production services.")
if DEFAULT_BACKEND in SOFTWARE_BACKENDS:
    raise ImproperlyConfigured(
        f"The backend {DEFAULT_BACKEND!r} has software evidence, which protects nothing. Set STRONGROOM_BACKEND to one with "
        "hardware evidence before holding real data."
    )
if TRUST_DIRECTORY:
    # Read now: a trust store that cannot be read, or holds a test authority, must not show only at a run's evidence.
    try:
        read_anchors(Path(TRUST_DIRECTORY))
    except FormatError as error:
        raise ImproperlyConfigured(f"STRONGROOM_TRUST_DIRECTORY: {error}") from None

SECURE_HSTS_SECONDS = 31_536_000
SECURE_SSL_REDIRECT = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
