"""Helpers of the tests of the installable package. They need no Django and no service."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors"

settings.register_profile("sdk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sdk")


@pytest.fixture(scope="session")
def factory() -> ModuleType:
    """The module factory.py beside this file, loaded by path so that its name clashes with nothing."""
    name = "strongroom_test_factory"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("factory.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
