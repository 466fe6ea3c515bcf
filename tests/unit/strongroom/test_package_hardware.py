"""Packages of runs in trusted environments: verified with the policies that the portal judged under."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from strongroom import strictjson
from strongroom.evidence import Policy
from strongroom.evidence.protection import PROTECTION
from strongroom.package import PackageReport, verify_package
from tests.unit.strongroom import factory as factory_module
from tests.unit.strongroom.evidence import authority_tokens as authority

GCP = "gcp-confidential-space"


@pytest.fixture(scope="module")
def factory() -> ModuleType:
    return factory_module


@pytest.fixture(scope="module")
def google() -> authority.Google:
    return authority.Google(label="package", ca_bits=2048)


def environment(factory: ModuleType, google: authority.Google, *policies: Policy, **changes: Any) -> Any:
    """A run in Confidential Space, under the given policies (default: one that pins what affirming needs)."""

    def make(nonce: str, now: datetime) -> bytes:
        claims = authority.google_claims(now - timedelta(seconds=5), eat_nonce=nonce, **changes)
        return authority.wrap(
            GCP, google.pki(authority.changed(claims, "submods/container/image_digest", image)), now
        )

    image = factory.IMAGE
    default = Policy((GCP,), (image,), 600, audiences=(authority.AUDIENCE,))
    return factory.Environment(
        GCP, "affirming", PROTECTION[GCP], make, policies or (default,), tuple(google.anchors)
    )


def verified(factory: ModuleType, keys: Any, path: Path, **more: Any) -> PackageReport:
    factory.make_package(path, keys, **more)
    now = factory.NOW + timedelta(days=400)  # long after the token has ended
    return verify_package(path, trust=keys.portal, anchors=keys.environment.anchors, now=now)


def failed(report: PackageReport) -> set[str]:
    return {check.id for check in report.checks if check.outcome.value == "fail"}


def test_a_result_from_confidential_space(
    factory: ModuleType, google: authority.Google, tmp_path: Path
) -> None:
    keys = factory.Keys(environment(factory, google))
    report = verified(factory, keys, tmp_path / "p.zip")
    assert report.ok and report.tier.value == "affirming", failed(report)
    assert report.protection == PROTECTION[GCP]


def test_each_of_two_custodians_policies_counts(
    factory: ModuleType, google: authority.Google, tmp_path: Path
) -> None:
    base = Policy((GCP,), (factory.IMAGE,), 600, audiences=(authority.AUDIENCE,))
    good = factory.Keys(environment(factory, google, base, replace(base, zones=("europe-west4-a",))))
    assert verified(factory, good, tmp_path / "p.zip").ok
    bad = factory.Keys(environment(factory, google, base, replace(base, zones=("us-central1-a",))))
    report = verified(factory, bad, tmp_path / "q.zip")
    assert {"e1.place", "e2.place", "e2-verdict"} <= failed(report)


def test_without_the_makers_root_nothing_is_shown(
    factory: ModuleType, google: authority.Google, tmp_path: Path
) -> None:
    keys = factory.Keys(environment(factory, google))
    factory.make_package(tmp_path / "p.zip", keys)
    report = verify_package(tmp_path / "p.zip", trust=keys.portal, now=factory.NOW + timedelta(days=1))
    assert {"e1.trust-anchor", "e2.trust-anchor"} <= failed(report) and "not known" in report.protection


def test_a_debug_machine_is_refused_whatever_the_verdict_says(
    factory: ModuleType, google: authority.Google, tmp_path: Path
) -> None:
    keys = factory.Keys(environment(factory, google, dbgstat="enabled"))
    assert {"e1.debug", "e2.debug", "e2-verdict"} <= failed(verified(factory, keys, tmp_path / "p.zip"))


def test_evidence_of_another_image(factory: ModuleType, google: authority.Google, tmp_path: Path) -> None:
    other = "sha256:" + "cd" * 32
    policy = Policy((GCP,), (), 600, audiences=(authority.AUDIENCE,))
    made = environment(factory, google, policy)

    def make(nonce: str, now: datetime) -> bytes:
        claims = authority.google_claims(now - timedelta(seconds=5), eat_nonce=nonce)
        return authority.wrap(
            GCP, google.pki(authority.changed(claims, "submods/container/image_digest", other)), now
        )

    keys = factory.Keys(replace(made, make=make, tier="warning"))
    assert {"e1.runner-image", "e2.runner-image"} <= failed(verified(factory, keys, tmp_path / "p.zip"))


def _drop(files: dict[str, bytes]) -> None:
    del files[next(name for name in files if name.startswith("policies/"))]


def _add(files: dict[str, bytes]) -> None:
    more = Policy.any()
    files[f"policies/{more.sha256}.json"] = strictjson.canonical(more.to_json())


def _weaken(files: dict[str, bytes]) -> None:
    name = next(name for name in files if name.startswith("policies/"))
    files[name] = strictjson.canonical(Policy.any().to_json())


@pytest.mark.parametrize(
    ("change", "check"), [(_drop, "policies"), (_add, "policies"), (_weaken, "policies-form")]
)
def test_the_policies_are_those_of_the_verdict(
    factory: ModuleType,
    google: authority.Google,
    tmp_path: Path,
    change: Callable[[dict[str, bytes]], None],
    check: str,
) -> None:
    keys = factory.Keys(environment(factory, google))
    assert check in failed(verified(factory, keys, tmp_path / "p.zip", change_files=change))
