"""Services for every test that needs them: a real PostgreSQL and a real broker, started once and stopped after."""

from __future__ import annotations

import os
import tempfile

import pytest

os.environ.setdefault("STRONGROOM_VAR", tempfile.mkdtemp(prefix="strongroom-test-"))


def _needs_services(config: pytest.Config) -> bool:
    return "DATABASE_URL" not in os.environ and not config.getoption("--collect-only")


def pytest_configure(config: pytest.Config) -> None:
    """Start the embedded services before Django reads its settings (xdist workers inherit the addresses)."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings.test")
    if (
        hasattr(config, "workerinput")
        or not _needs_services(config)
        or config.getoption("-p") == ["no:django"]
    ):
        return
    from infra.embedded.services import Services

    folder = tempfile.mkdtemp(prefix="strongroom-services-")
    services = Services(folder)
    services.__enter__()
    config.add_cleanup(lambda: services.__exit__(None, None, None))
    os.environ["DATABASE_URL"] = services.database_url
    os.environ["REDIS_URL"] = services.redis_url
    _point_django_at(services.database_url, services.redis_url)


def _point_django_at(database_url: str, redis_url: str) -> None:
    """pytest-django may have read the settings already, with no services to name: tell them where the services are.

    Processes of pytest-xdist are started later and read the addresses from the environment.
    """
    import dj_database_url
    from django.conf import settings

    settings.DATABASES["default"].update(dj_database_url.parse(database_url))
    settings.CACHES["default"]["LOCATION"] = redis_url
    settings.REDIS_URL = settings.CELERY_BROKER_URL = redis_url
