"""The configuration of a custodian's key broker: one TOML file, read strictly (docs/reference/broker.md).

    id = "broker.archive.example"          # its name, which the portal's operator admits and C1 carries
    listen = "127.0.0.1:8440"
    state = "broker.sqlite"                # challenges, decisions, the log; 0600
    anchors = "anchors"                    # optional: the custodian's own trust anchors in place of the shipped ones

    [portal]
    keys = "portal.json"                   # the portal's public keys, got by another way than from the portal

    [store]
    kind = "local"                         # or aws, azure, gcp, with their options
    path = "broker.json"

    [datasets."11111111-1111-4111-8111-111111111111"]
    policy = "policy.json"                 # read anew at each request: an edit counts at once
    personal_data = true
    programs = ["9f86d0..."]               # optional: only these programs, by SHA-256

Paths are relative to the file. A member that is not known is refused, never ignored.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom import contexts, shapes, strictjson
from strongroom.broker.errors import Refusal
from strongroom.broker.release import SOFTWARE, Asked
from strongroom.broker.stores import KINDS, KeyStore, Unopened, open_store, protector
from strongroom.errors import FormatError
from strongroom.evidence import Policy, Trust
from strongroom.evidence.trust import read as read_anchors
from strongroom.package.portal import MAX_PORTAL_BYTES, PortalKeys

MAX_CONFIG_BYTES = 1 << 20
MAX_POLICY_BYTES = 64 << 10
_PATH = shapes.text(1000)
_DATASET: dict[str, shapes.Checker] = {"policy": _PATH, "personal_data": shapes.boolean}
_DATASET_MORE: dict[str, shapes.Checker] = {"programs": shapes.list_of(shapes.sha256, 1000)}


@dataclass(frozen=True, slots=True)
class Held:
    """A dataset whose key this broker holds. `programs`: None for any that the portal's custodians approved."""

    policy: Path
    personal_data: bool
    programs: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Config:
    """A parsed configuration. `store`: options of the key store without its kind and path."""

    id: str
    host: str
    port: int
    state: Path
    portal: PortalKeys
    trust: Trust
    store_kind: str
    store_path: Path
    store: Mapping[str, Any]
    datasets: Mapping[str, Held]

    def open_store(self) -> KeyStore:
        return open_store(self.store_path, self.store_kind, self.store)

    def store_unopened(self) -> KeyStore:
        """For what touches no key: stopping must work when the key service is away, or its file is damaged."""
        return KeyStore(self.store_path, Unopened(self.store_kind))

    def create_store(self) -> KeyStore:
        return KeyStore.create(self.store_path, protector(self.store_kind, self.store))

    def asked(self, dataset: str, version: int) -> Asked:
        """The dataset with the policy in force at this moment. Raises Refusal: dataset_unknown, policy_unreadable."""
        held = self.datasets.get(dataset)
        if held is None:
            raise Refusal(
                403, "dataset_unknown", f"This key broker does not hold the keys of dataset {dataset}."
            )
        try:
            with held.policy.open("rb") as file:
                policy = Policy.parse(file.read(MAX_POLICY_BYTES + 1))
        except (OSError, FormatError):
            sentence = (
                f"The release policy of dataset {dataset} cannot be read, so nothing is released under it."
            )
            raise Refusal(403, "policy_unreadable", sentence) from None
        if held.personal_data and SOFTWARE in policy.types:
            sentence = (
                f"The release policy of dataset {dataset} accepts software evidence, which protects nothing, for "
                "real personal data. Nothing is released under it."
            )
            raise Refusal(403, "policy_unreadable", sentence)
        return Asked(dataset, version, policy, held.personal_data)


def load(path: Path) -> Config:
    """Read a configuration. Raises FormatError with the place of what is wrong, OSError."""
    with path.open("rb") as file:
        raw = file.read(MAX_CONFIG_BYTES + 1)
    if len(raw) > MAX_CONFIG_BYTES:
        raise FormatError(f"{path} is longer than {MAX_CONFIG_BYTES:,} bytes.")
    try:
        value = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeError) as error:
        raise FormatError(f"{path} is not TOML: {error}") from None
    return parse(value, path.parent)


def parse(value: Any, folder: Path) -> Config:
    """From a parsed document; paths in it are relative to `folder`. Raises FormatError, OSError."""
    where = "The configuration"
    document = shapes.fields(
        value,
        where,
        {
            "id": contexts.broker_id,
            "listen": shapes.text(200),
            "state": _PATH,
            "portal": lambda item, at: shapes.fields(item, at, {"keys": _PATH}),
            "store": shapes.mapping,
            "datasets": shapes.mapping,
        },
        {"anchors": _PATH},
    )
    store = dict(document["store"])
    kind = shapes.one_of(*KINDS)(store.pop("kind", None), f"{where}.store.kind")
    store_path = _PATH(store.pop("path", None), f"{where}.store.path")
    with (folder / document["portal"]["keys"]).open("rb") as file:
        portal = PortalKeys.parse(_inner(file.read(MAX_PORTAL_BYTES + 1)))
    host, port = _address(document["listen"])
    datasets = {}
    for name, item in document["datasets"].items():
        at = f"{where}.datasets.{name}"
        shapes.uuid_text(name, at)
        found = shapes.fields(item, at, _DATASET, _DATASET_MORE)
        programs = tuple(found["programs"]) if "programs" in found else None
        datasets[name] = Held(folder / found["policy"], found["personal_data"], programs)
    return Config(
        id=document["id"],
        host=host,
        port=port,
        state=folder / document["state"],
        portal=portal,
        trust=_trust(portal, folder / document["anchors"] if "anchors" in document else None),
        store_kind=kind,
        store_path=folder / store_path,
        store=store,
        datasets=datasets,
    )


def _inner(raw: bytes) -> dict[str, Any]:
    """portal.json itself, or what a portal serves at /.well-known/strongroom.json, which holds it."""
    document = shapes.mapping(
        strictjson.loads(raw, max_bytes=MAX_PORTAL_BYTES, what="portal.json"), "portal.json"
    )
    return shapes.mapping(document.get("keys", document), "portal.json")


def _trust(portal: PortalKeys, anchors: Path | None) -> Trust:
    """Software evidence counts only of this portal's installations, and only where a policy names it."""
    if anchors is None:
        return Trust.of(software_keys=portal.software_attesters)
    return Trust.of(software_keys=portal.software_attesters, anchors=read_anchors(anchors))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise FormatError(
            f"The configuration's listen must be an address and a port such as 127.0.0.1:8440, not {text!r}."
        )
    return host.strip("[]"), int(port)
