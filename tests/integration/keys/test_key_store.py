"""The portal's own key store by settings: what lies where, whose key is preferred, and a key service that is away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.core import keys
from apps.datasets import brokers
from apps.jobs import engine
from strongroom import seal
from strongroom.broker.errors import KeyStoreError
from tests.integration.keys.service import sealed_version
from tests.unit.jobs.engine.world import CSV, World

pytestmark = pytest.mark.django_db


@pytest.fixture
def fresh(tmp_path: Path, settings: Any) -> Path:
    settings.KEY_DIRECTORY = str(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def kms(fresh: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The portal with AWS KMS, which is moto's server."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    key = boto3.client("kms", region_name="eu-west-2", endpoint_url=endpoint).create_key()["KeyMetadata"][
        "Arn"
    ]
    settings.KEY_STORE = "aws"
    settings.KEY_STORE_OPTIONS = {"key": key, "region": "eu-west-2", "endpoint": endpoint}
    yield server
    try:
        server.stop()
    except Exception:
        pass


def test_a_local_store_takes_in_the_key_of_before(fresh: Path) -> None:
    old = keys.hpke_key("broker")
    store = keys.key_store()
    hybrid, classic = store.public_keys()
    assert hybrid.suite == "mlkem768x25519" and classic.raw == old.public_key().public_bytes_raw()
    assert keys.broker_public() == classic
    assert oct((fresh / "broker.json").stat().st_mode & 0o777) == "0o600"
    (fresh / "broker.json").chmod(0o644)
    with pytest.raises(KeyStoreError):
        keys.key_store().public_keys()


def test_browsers_get_x25519_and_the_command_line_the_hybrid(world: World, client: Any) -> None:
    public = client.get("/api/v1/broker-key").json()
    assert (
        public["suite"] == "x25519" and client.get("/.well-known/strongroom.json").json()["broker"] == public
    )
    mine = f"/api/v1/broker-key?dataset={world.dataset.pk}"
    assert client.get(mine).json() == public
    assert client.get(f"{mine}&suite=any").json()["suite"] == "mlkem768x25519"
    assert client.get("/api/v1/broker-key?dataset=00000000-0000-4000-8000-000000000000").status_code == 404
    assert client.get("/api/v1/broker-key?dataset=x").status_code == 404


def test_a_dataset_of_a_custodians_broker_shows_that_brokers_keys(world: World, client: Any) -> None:
    theirs = [seal.generate_key_pair().public]
    type(world.dataset).objects.filter(pk=world.dataset.pk).update(
        key_broker="b", key_broker_keys=[k.to_json() for k in theirs]
    )
    mine = f"/api/v1/broker-key?dataset={world.dataset.pk}"
    assert client.get(f"{mine}&suite=any").json() == theirs[0].to_json()
    assert client.get(mine).status_code == 409  # a browser cannot seal to it
    world.dataset.refresh_from_db()
    for suite in (0, 1):
        foreign = seal.parse_seal_header(
            sealed_version(world.dataset, keys.key_store().public_keys()[suite], world.user, CSV).seal
        )
        assert "another recipient than the key broker b" in brokers.fault_of(world.dataset, foreign)
    good = seal.parse_seal_header(sealed_version(world.dataset, theirs[0], world.user, CSV).seal)
    assert brokers.fault_of(world.dataset, good) == ""


def research(world: World) -> Any:
    return engine.create_run(
        by=world.user,
        kind="research",
        project=world.project,
        program=world.program,
        inputs=[(world.version, None)],
    )


def test_a_run_with_the_key_closed_by_kms(kms: Any, world: World, runner_for: Any, fresh: Path) -> None:
    world.version = sealed_version(world.dataset, keys.key_store().public_keys()[0], world.user, CSV)
    assert "private" not in (fresh / "broker.json").read_text()
    runner = runner_for(research(world))
    runner.until_running()
    assert runner.plain == {str(world.dataset.pk): CSV}
    assert runner.deliver({"a.txt": b"a"}).body == {"state": "succeeded"}


def test_a_key_service_that_is_away_is_waited_for(kms: Any, world: World, runner_for: Any) -> None:
    world.version = sealed_version(world.dataset, keys.key_store().public_keys()[0], world.user, CSV)
    run = research(world)
    runner = runner_for(run)
    runner.claim()
    context = runner.c1_for("", runner.claimed["challenge"])
    kms.stop()
    answer = runner.ask("", context)
    assert (answer.status, answer.body["code"]) == (503, "key_store_unavailable")
    assert "private" not in json.dumps(answer.body)
    run.refresh_from_db()
    assert run.state == "running"
    assert runner.call("POST", "/abandon", {"code": "key_store_unavailable"}).body == {"state": "queued"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KEY_STORE", "vault"),
        ("KEY_STORE_OPTIONS", {"key": 1}),
    ],
)
def test_settings_that_are_wrong_are_refused(fresh: Path, settings: Any, name: str, value: object) -> None:
    setattr(settings, name, value)
    with pytest.raises(KeyStoreError) as refused:
        keys.key_store()
    assert refused.value.code == "refused"
