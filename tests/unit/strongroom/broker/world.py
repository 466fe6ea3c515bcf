"""A custodian's broker in a folder, a portal that signs, and a machine that attests: real formats, software evidence."""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from strongroom import contexts, seal, shapes, strictjson, translog
from strongroom.broker import authorisation, config
from strongroom.broker.service import Broker
from strongroom.evidence import software
from strongroom.package import PortalKeys
from strongroom.signing import SigningKey

PORTAL, ID = "portal.example", "broker.archive.example"
IMAGE = "sha256:" + "a" * 64
PROGRAM = "c" * 64
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@dataclass
class Machine:
    """What the runner holds: two keys of its own, and an attester."""

    attester: SigningKey
    signer: SigningKey = field(default_factory=SigningKey.generate)
    hpke: seal.PrivateKey = field(default_factory=seal.generate_key_pair)
    instance: str = "machine-1"

    def evidence(self, nonce: str, now: datetime, **changes: Any) -> dict[str, Any]:
        made = {
            "key": self.attester,
            "nonce": nonce,
            "image": IMAGE,
            "host": "h",
            "instance": self.instance,
            "boot": now,
            "now": now,
            **changes,
        }
        return dict(strictjson.loads(software.make(made.pop("key"), **made)))


class World:
    """`datasets`: ids. Everything is at `self.now`, which tests move."""

    def __init__(self, folder: Path, datasets: int = 1, now: datetime = NOW) -> None:
        self.folder, self.now = folder, now
        self.portal, self.attester = SigningKey.generate(), SigningKey.generate()
        self.datasets = [str(uuid.uuid4()) for _ in range(datasets)]
        keys = PortalKeys(
            PORTAL,
            translog.Verifier.parse(translog.vkey("log.example", SigningKey.generate().public)),
            self.portal.public,
            (self.attester.public,),
        )
        (folder / "portal.json").write_bytes(keys.to_bytes())
        self.set_policy()
        self.write_config()
        self.config = config.load(folder / "broker.toml")
        self.store = self.config.create_store()
        self.broker = Broker(self.config, clock=lambda: self.now)
        self.machine = Machine(self.attester)
        self.data_keys: dict[str, bytes] = {}
        self.headers = [self.sealed(dataset) for dataset in self.datasets]

    def write_config(self, more: str = "", listen: str = "127.0.0.1:0") -> None:
        text = f'id = "{ID}"\nlisten = "{listen}"\nstate = "broker.sqlite"\n[portal]\nkeys = "portal.json"\n[store]\nkind = "local"\npath = "keys.json"\n'
        for dataset in self.datasets:
            text += f'[datasets."{dataset}"]\npolicy = "policy.json"\npersonal_data = false\n{more}\n'
        (self.folder / "broker.toml").write_text(text)

    def set_policy(self, **changes: Any) -> None:
        document = {"v": 1, "types": ["software"], "images": [IMAGE], "max_age_seconds": 600, **changes}
        (self.folder / "policy.json").write_text(json.dumps(document))

    def sealed(self, dataset: str, version: int = 1, suite: int = 0) -> dict[str, Any]:
        """A seal header for the broker; the data key is kept."""
        public, key, out = self.store.public_keys()[suite], seal.generate_data_key(), io.BytesIO()
        result = seal.seal_stream(io.BytesIO(b"a,b\n1,2\n"), out, key, seal.aad_dataset(dataset, version))
        self.data_keys[dataset] = key
        wrapped = seal.wrap_key(key, public, seal.info_data_key(dataset, version))
        return seal.seal_header(
            dataset=dataset,
            version=version,
            suite=public.suite,
            recipient=public.id,
            wrapped_key=wrapped,
            result=result,
            media_type="text/csv",
        ).to_json()

    def manifest(self, run: str, **changes: Any) -> dict[str, Any]:
        inputs = [
            {
                "dataset": h["dataset"],
                "version": h["version"],
                "sha256": h["ciphertext"]["sha256"],
                "sealed": True,
                "broker": ID,
            }
            for h in self.headers
        ]
        return {
            "v": 1,
            "run": run,
            "portal": PORTAL,
            "image": IMAGE,
            "approvals": "b" * 64,
            "program": {"sha256": PROGRAM},
            "inputs": inputs,
            **changes,
        }

    def word(
        self,
        run: str,
        *,
        attempt: int = 1,
        key: SigningKey | None = None,
        manifest: dict[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, str]:
        manifest = manifest or self.manifest(run)
        members = {
            "portal": PORTAL,
            "broker": ID,
            "run": run,
            "attempt": attempt,
            "manifest": manifest,
            "inputs": [
                {"dataset": i["dataset"], "version": i["version"], "ciphertext": i["sha256"]}
                for i in manifest["inputs"]
            ],
            "now": self.now,
            **changes,
        }
        return authorisation.sign(key or self.portal, **members)

    def c1(self, run: str, challenge: str, **changes: Any) -> dict[str, Any]:
        manifest = changes.pop("manifest_document", None) or self.manifest(run)
        members: dict[str, Any] = {
            "run": run,
            "portal": PORTAL,
            "broker": ID,
            "challenge": challenge,
            "manifest": strictjson.digest(manifest),
            "image": IMAGE,
            "inputs": [
                {"dataset": i["dataset"], "version": i["version"], "ciphertext": i["sha256"]}
                for i in manifest["inputs"]
            ],
            "approvals": manifest["approvals"],
            "sign_pub": self.machine.signer.public,
            "hpke_pub": self.machine.hpke.public,
            **changes,
        }
        return contexts.key_release_context(**members)

    def challenge(self, run: str, attempt: int = 1) -> str:
        return str(self.broker.challenge({"authorisation": self.word(run, attempt=attempt)})["challenge"])

    def request(
        self,
        run: str,
        challenge: str,
        *,
        context: dict[str, Any] | None = None,
        evidence: dict[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        context = context or self.c1(run, challenge)
        return {
            "authorisation": self.word(run),
            "context": context,
            "evidence": evidence or self.machine.evidence(contexts.n1(context), self.now),
            "grants": self.headers,
            **changes,
        }

    def opened(
        self, run: str, context: dict[str, Any], answer: dict[str, Any], machine: Machine | None = None
    ) -> dict[str, bytes]:
        """The data keys, as the machine opens them."""
        hpke = (machine or self.machine).hpke
        return {
            k["dataset"]: seal.unwrap_key(
                shapes.b64_decode(k["wrapped"], "wrapped"),
                hpke,
                seal.info_run_key(run, k["dataset"], k["version"], contexts.n1(context)),
            )
            for k in answer["keys"]
        }

    def later(self, **delta: float) -> None:
        self.now += timedelta(**delta)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for _, raw in self.broker.state.entries()]
