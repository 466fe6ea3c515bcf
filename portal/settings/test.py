"""For the test suite: real PostgreSQL and a real broker from the environment, cheap password hashing."""

import os
import tempfile
from pathlib import Path

if "STRONGROOM_VAR" not in os.environ:
    os.environ["STRONGROOM_VAR"] = tempfile.mkdtemp(prefix="strongroom-test-")

from .base import *  # noqa: F403
from .base import MIDDLEWARE, STORAGES, VAR

SECRET_KEY = "tests-only-" + "x" * 40
ALLOWED_HOSTS = ["*"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
KEY_DIRECTORY = Path(VAR) / "keys"
AXES_ENABLED = True
assert MIDDLEWARE

# What a test publishes must be counted at once.
CATALOGUE_COUNTS_SECONDS = 0
