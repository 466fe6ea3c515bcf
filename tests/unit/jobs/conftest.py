"""A world in which access is in force, made by the actions themselves, once for each file of tests."""

from __future__ import annotations

from tests.factories import World, fixtures

_world, w = fixtures(World.with_access)
