"""Services for every test that needs them: a real PostgreSQL and a real broker, started once and stopped after."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from urllib.parse import urlsplit, urlunsplit

import pytest

if "STRONGROOM_VAR" not in os.environ:  # processes of pytest-xdist inherit it
    os.environ["STRONGROOM_VAR"] = tempfile.mkdtemp(prefix="strongroom-test-")
    atexit.register(shutil.rmtree, os.environ["STRONGROOM_VAR"], ignore_errors=True)


def _needs_services(config: pytest.Config) -> bool:
    return "DATABASE_URL" not in os.environ and not config.getoption("--collect-only")


def pytest_configure(config: pytest.Config) -> None:
    """Start the embedded services before Django reads its settings (xdist workers inherit the addresses)."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.test")
    if hasattr(config, "workerinput"):
        _own_broker_database(int(config.workerinput["workerid"].removeprefix("gw")))
        return
    if not _needs_services(config) or config.getoption("-p") == ["no:django"]:
        return
    from infra.embedded.services import Services

    folder = tempfile.mkdtemp(prefix="strongroom-services-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    services = Services(folder)
    services.__enter__()
    config.add_cleanup(lambda: services.__exit__(None, None, None))
    os.environ["DATABASE_URL"] = services.database_url
    os.environ["REDIS_URL"] = services.redis_url
    _point_django_at(services.database_url, services.redis_url)


def _own_broker_database(number: int) -> None:
    """As pytest-django gives each process of pytest-xdist its own PostgreSQL database: emptying a cache empties one's own."""
    address = urlsplit(os.environ.get("REDIS_URL", ""))
    if address.scheme.startswith("redis"):
        # A server has sixteen; the first is the coordinating process's.
        os.environ["REDIS_URL"] = urlunsplit(address._replace(path=f"/{number % 15 + 1}"))
        _point_django_at(os.environ["DATABASE_URL"], os.environ["REDIS_URL"])


def _point_django_at(database_url: str, redis_url: str) -> None:
    """pytest-django may have read the settings already, with no services to name: tell them where the services are.

    Processes of pytest-xdist are started later and read the addresses from the environment.
    """
    import dj_database_url
    from django.conf import settings

    settings.DATABASES["default"].update(dj_database_url.parse(database_url))
    settings.CACHES["default"]["LOCATION"] = redis_url
    settings.REDIS_URL = settings.CELERY_BROKER_URL = redis_url
