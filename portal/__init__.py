"""The Django project: settings, addresses, the Celery application. No domain code."""

from portal.celery import app as celery_app

__all__ = ["celery_app"]
