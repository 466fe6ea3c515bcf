"""The whole road by actions alone, from nothing to a released package."""

from __future__ import annotations

from tests.factories import World


def test_the_road_to_a_released_package(w: World) -> None:
    release = w.released()
    assert (release.state, release.run.state) == ("released", "succeeded")
    assert release.package_sha256 and release.first_checker_id != release.second_checker_id
