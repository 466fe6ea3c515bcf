"""For an installation that holds real data. Refuses to start while anything insecure is the default."""

import os

from django.core.exceptions import ImproperlyConfigured

from .base import *  # noqa: F403
from .base import DEFAULT_BACKEND, PORTAL_URL, SECRET_KEY

if len(SECRET_KEY) < 40:
    raise ImproperlyConfigured("Set STRONGROOM_SECRET_KEY to at least 40 random characters.")
if not PORTAL_URL.startswith("https://"):
    raise ImproperlyConfigured(
        "Set STRONGROOM_URL to the portal's https:// address: sessions must not travel in the clear."
    )
if "DATABASE_URL" not in os.environ or "REDIS_URL" not in os.environ:
    raise ImproperlyConfigured("Set DATABASE_URL and REDIS_URL to the production services.")
if DEFAULT_BACKEND == "local":
    raise ImproperlyConfigured(
        "The local backend has software evidence, which protects nothing. Set DEFAULT_BACKEND to a backend with "
        "hardware evidence before holding real data."
    )

SECURE_HSTS_SECONDS = 31_536_000
SECURE_SSL_REDIRECT = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
