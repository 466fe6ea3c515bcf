"""Where a run's machine comes from. Each backend answers launch, observe, destroy and sweep (base.py).

A cloud's client is imported only where its backend is switched on: pip installs it by the extra of the same name.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from workers.backends.base import Backend
from workers.backends.local import LocalBackend

# Name -> (module, class, extra of pyproject.toml).
CLOUDS = {
    "azure": ("workers.backends.azure", "AzureBackend", "azure"),
    "azure-aci": ("workers.backends.azure_aci", "AciBackend", "azure"),
    "gcp": ("workers.backends.gcp", "GcpBackend", "gcp"),
    "kubernetes": ("workers.backends.kubernetes", "KubernetesBackend", "kubernetes"),
}
KINDS = frozenset({"local", *CLOUDS})


def install(register: Callable[[str, Backend], None]) -> None:
    """Make every backend of the settings known.

    Raises LookupError for one that does not exist, ImproperlyConfigured for one whose settings or packages are missing.
    """
    for name in settings.RUN_BACKENDS:
        if name not in KINDS:
            raise LookupError(f"RUN_BACKENDS names {name!r}; this version has: {', '.join(sorted(KINDS))}")
        register(name, _make(name))


def _make(name: str) -> Backend:
    if name == "local":
        return LocalBackend.from_settings()
    module, kind, extra = CLOUDS[name]
    try:
        found = getattr(importlib.import_module(module), kind)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"The backend {name!r} needs a package that is not installed ({error.name}): "
            f"pip install 'strongroom-portal[{extra}]'."
        ) from error
    backend: Backend = found.from_settings()
    return backend


def prepare(backends: Iterable[Backend]) -> None:
    """Let each backend that has something to do once for each worker do it, beside the worker's own start."""
    for backend in backends:
        if isinstance(backend, LocalBackend):
            threading.Thread(target=backend.prepare, name="prepare", daemon=True).start()
