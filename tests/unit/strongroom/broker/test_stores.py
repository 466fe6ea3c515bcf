"""Key stores: the same promises of each of the four, against moto's KMS and HTTP fakes; and what each must refuse."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from strongroom import seal, shapes, strictjson
from strongroom.broker import stores
from strongroom.broker.errors import KeyStoreError
from strongroom.broker.stores import KeyStore, Protector
from strongroom.broker.stores.local import LocalFile
from strongroom.errors import SealError
from strongroom.seal.keys import MLKEM768X25519, X25519, PrivateKey
from tests.fakes.gkms import GoogleKmsServer
from tests.fakes.keyvault import Credential, KeyVault

INFO = seal.info_data_key("11111111-1111-4111-8111-111111111111", 1)
G_KEY = "projects/p/locations/europe-west2/keyRings/r/cryptoKeys/k"


@dataclass
class Kind:
    """One kind of store. `secrets`: its private halves must never stand in the file in clear, except for local."""

    name: str
    make: Callable[[], Protector]
    deny: Callable[[], None] | None = None
    fault: Callable[[Any], None] | None = None
    away: tuple[Any, ...] = ()


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def _forgotten(endpoint: str) -> Callable[[], None]:
    """moto does not hold a disabled key to be disabled; a key that is not there is refused as it should be."""
    return lambda: httpx.post(f"{endpoint}/moto-api/reset").raise_for_status() and None


@pytest.fixture(params=["local", "aws", "azure", "gcp"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    match request.param:
        case "local":
            yield Kind("local", LocalFile)
        case "aws":
            endpoint = request.getfixturevalue("moto")
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            monkeypatch.delenv("AWS_PROFILE", raising=False)
            import boto3

            client = boto3.client("kms", region_name="eu-west-2", endpoint_url=endpoint)
            key = client.create_key()["KeyMetadata"]["Arn"]
            options = {
                "key": key,
                "region": "eu-west-2",
                "endpoint": endpoint,
                "context": {"custodian": "archive"},
            }
            yield Kind(
                "aws",
                lambda: stores.protector("aws", options),
                _forgotten(endpoint),
            )
        case "azure":
            with KeyVault(tmp_path) as vault:
                address = vault.add("broker")
                from strongroom.broker.stores.azure import AzureKeyVault

                options = {"verify_challenge_resource": False, "retry_total": 0}
                yield Kind(
                    "azure",
                    lambda: AzureKeyVault(
                        address, credential=Credential(), ca_file=str(vault.ca_file), options=options
                    ),
                    lambda: vault.disabled.add("broker"),
                    lambda fault: setattr(vault, "fault", fault),
                    ((503, "ServerBusy"), (429, "Throttled"), "drop"),
                )
        case _:
            with GoogleKmsServer() as kms:
                kms.add(G_KEY)
                from google.auth.credentials import AnonymousCredentials

                from strongroom.broker.stores.gcp import GoogleKms

                yield Kind(
                    "gcp",
                    lambda: GoogleKms(G_KEY, endpoint=kms.url, credentials=AnonymousCredentials()),
                    lambda: kms.denied.add(G_KEY),
                    lambda fault: setattr(kms, "fault", fault),
                    (503, 429, "drop"),
                )


def wrapped_for(public: seal.PublicKey) -> tuple[bytes, bytes]:
    key = seal.generate_data_key()
    return key, seal.wrap_key(key, public, INFO)


def test_create_open_unwrap_rotate_retire(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "broker.json"
    store = KeyStore.create(path, kind.make())
    hybrid, classic = store.public_keys()
    assert (hybrid.suite, classic.suite) == (MLKEM768X25519, X25519)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for public in (hybrid, classic):
        key, wrapped = wrapped_for(public)
        assert KeyStore.open(path, kind.make()).unwrap(public.id, wrapped, INFO) == key
        with pytest.raises(SealError):
            store.unwrap(public.id, wrapped, seal.info_data_key("11111111-1111-4111-8111-111111111111", 2))
    key, wrapped = wrapped_for(hybrid)
    newer = store.rotate(MLKEM768X25519)
    assert newer.id != hybrid.id and store.public_keys()[0] == newer
    assert store.unwrap(hybrid.id, wrapped, INFO) == key
    again, second = wrapped_for(newer)
    assert store.unwrap(newer.id, second, INFO) == again
    with pytest.raises(KeyStoreError, match="Rotate its suite first"):
        store.retire(newer.id)
    store.retire(hybrid.id)
    with pytest.raises(KeyStoreError) as refused:
        store.unwrap(hybrid.id, wrapped, INFO)
    assert refused.value.code == "retired"
    assert store.unwrap(newer.id, second, INFO) == again
    store.check()


def test_private_halves_stand_nowhere(
    kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the file (of a cloud's store), in no log at any level, in no repr, in no error."""
    pairs: list[PrivateKey] = []
    real = seal.generate_key_pair
    monkeypatch.setattr(
        seal, "generate_key_pair", lambda suite=MLKEM768X25519: pairs.append(real(suite)) or pairs[-1]
    )
    with caplog.at_level(logging.DEBUG):
        store = KeyStore.create(tmp_path / "broker.json", kind.make())
        key, wrapped = wrapped_for(store.public_keys()[0])
        store.unwrap(store.public_keys()[0].id, wrapped, INFO)
        with pytest.raises(SealError) as error:
            store.unwrap(store.public_keys()[0].id, wrapped[:-1] + bytes([wrapped[-1] ^ 1]), INFO)
    assert len(pairs) == 2
    # `extra` members too: Google's client puts its payload there
    records = "".join(str(vars(record)) for record in caplog.records if not record.name.startswith("moto"))
    shown = (
        caplog.text
        + records
        + repr(store)
        + str(store)
        + repr(store.list_keys())
        + repr(kind.make())
        + str(error.value)
    )
    for secret in (key, *(p.raw for p in pairs), *(p.raw[-32:] for p in pairs)):
        for form in (shapes.b64_encode(secret), secret.hex(), shapes.b64url_encode(secret), repr(secret)):
            assert form not in shown
            if kind.name != "local":
                assert form not in (tmp_path / "broker.json").read_text()


def test_a_key_that_is_denied_or_away(kind: Kind, tmp_path: Path) -> None:
    if kind.name == "local":
        pytest.skip("the local file asks no service")
    store = KeyStore.create(tmp_path / "broker.json", kind.make())
    public = store.public_keys()[0]
    key, wrapped = wrapped_for(public)
    for fault in kind.away:
        assert kind.fault is not None
        kind.fault(fault)
        with pytest.raises(KeyStoreError) as away:
            store.unwrap(public.id, wrapped, INFO)
        assert away.value.code == "unreachable", fault
        kind.fault(None)
    assert store.unwrap(public.id, wrapped, INFO) == key
    assert kind.deny is not None
    kind.deny()
    with pytest.raises(KeyStoreError) as denied:
        store.unwrap(public.id, wrapped, INFO)
    assert denied.value.code == "refused"
    with pytest.raises(KeyStoreError):
        store.rotate(X25519)
    assert store.public_keys()[0] == public  # nothing half written


def test_a_private_half_is_bound_to_its_own_key(kind: Kind, tmp_path: Path) -> None:
    """Boxes exchanged between two keys of one file open nothing; neither does a box of another store."""
    path = tmp_path / "broker.json"
    store = KeyStore.create(path, kind.make())
    store.rotate(X25519)
    document = json.loads(path.read_bytes())
    one, two = [k for k in document["keys"] if k["suite"] == X25519]
    one["box"], two["box"] = two["box"], one["box"]
    path.write_bytes(strictjson.canonical(document))
    for entry in (one, two):
        public = seal.PublicKey.from_json({m: entry[m] for m in ("suite", "public", "id")})
        _, wrapped = wrapped_for(public)
        with pytest.raises(KeyStoreError) as refused:
            store.unwrap(public.id, wrapped, INFO)
        assert refused.value.code in ("malformed", "refused")


def test_two_that_race_agree(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "broker.json"
    first = KeyStore.create(path, kind.make())
    with pytest.raises(KeyStoreError) as exists:
        KeyStore.create(path, kind.make())
    assert exists.value.code == "exists"
    assert KeyStore.open(path, kind.make()).public_keys() == first.public_keys()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".broker")] == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o602, 0o777])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "broker.json"
    store = KeyStore.create(path, LocalFile())
    path.chmod(mode)
    for act in (
        store.list_keys,
        store.public_keys,
        lambda: store.rotate(X25519),
        lambda: KeyStore.open(path, LocalFile()),
    ):
        with pytest.raises(KeyStoreError) as refused:
            act()
        assert refused.value.code == "permissions"
    path.chmod(0o600)
    store.check()


def test_links_folders_and_damage_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "broker.json"
    with pytest.raises(KeyStoreError) as missing:
        KeyStore.open(path, LocalFile())
    assert missing.value.code == "missing"
    real = tmp_path / "real.json"
    KeyStore.create(real, LocalFile())
    os.symlink(real, path)
    with pytest.raises(KeyStoreError) as link:
        KeyStore.open(path, LocalFile())
    assert link.value.code == "permissions"
    whole = real.read_bytes()
    for damaged in (
        b"",
        b"{}",
        whole[:-1],
        whole.replace(b'"v":1', b'"v":2'),
        whole.replace(b'"local"', b'"azure"'),
        whole.replace(b'"state":"current"', b'"state":"x"'),
    ):
        real.write_bytes(damaged)
        with pytest.raises(KeyStoreError) as wrong:
            KeyStore.open(real, LocalFile())
        assert wrong.value.code == "malformed" and b"private" not in str(wrong.value).encode()[60:]


def test_configuration_is_read_strictly() -> None:
    for kind, options in (
        ("vault", {}),
        ("local", {"key": "x"}),
        ("aws", {}),
        ("gcp", {"key": 5}),
        ("azure", {"key": "http://v/keys/k"}),
        ("aws", {"key": "k", "secret": "s"}),
    ):
        with pytest.raises(KeyStoreError) as refused:
            stores.protector(kind, options)
        assert refused.value.code == "refused"


def test_azure_does_not_follow_a_file_to_another_vault(tmp_path: Path) -> None:
    from strongroom.broker.stores.azure import AzureKeyVault

    with KeyVault(tmp_path) as vault:
        mine, other = vault.add("broker"), vault.add("broker2")
        options = {"verify_challenge_resource": False, "retry_total": 0}
        here, there = (
            AzureKeyVault(k, credential=Credential(), ca_file=str(vault.ca_file), options=options)
            for k in (mine, other)
        )
        about = {"purpose": "p", "key": "k", "suite": "s"}
        box = there.protect(b"x" * 32, about)
        with pytest.raises(KeyStoreError) as refused:
            here.reveal(box, about)
        assert refused.value.code == "refused"
        vault.add("broker", "1" * 32)  # a new version in the vault: what the old one wrapped still opens
        assert there.reveal(box, about) == b"x" * 32
        old = here.protect(b"y" * 32, about)
        assert here.reveal(old, about) == b"y" * 32


def test_google_notices_bytes_changed_on_the_way() -> None:
    from google.auth.credentials import AnonymousCredentials

    from strongroom.broker.stores.gcp import GoogleKms, crc32c

    assert crc32c(b"123456789") == 0xE3069283
    with GoogleKmsServer() as kms:
        kms.add(G_KEY)
        store = GoogleKms(G_KEY, endpoint=kms.url, credentials=AnonymousCredentials())
        about = {"purpose": "p"}
        box = store.protect(b"x" * 96, about)
        assert store.reveal(box, about) == b"x" * 96
        kms.lie = "crc"
        for act in (lambda: store.protect(b"x", about), lambda: store.reveal(box, about)):
            with pytest.raises(KeyStoreError, match="changed on its way"):
                act()
        assert {call.split()[0] for call in kms.calls} == {"encrypt", "decrypt"}


def test_aws_that_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    away = stores.protector("aws", {"key": "k", "region": "eu-west-2", "endpoint": "http://127.0.0.1:9"})
    with pytest.raises(KeyStoreError) as refused:
        KeyStore.create(tmp_path / "broker.json", away)
    assert refused.value.code == "unreachable" and not (tmp_path / "broker.json").exists()
