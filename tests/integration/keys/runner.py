"""The runner of the engine's tests, asking every key broker that the manifest names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from strongroom import contexts, seal, shapes, strictjson
from tests.unit.jobs.engine.fake_runner import Answer, FakeRunner


@dataclass
class KeysRunner(FakeRunner):
    """`shown`: what C2 says of custodians' brokers."""

    shown: list[dict[str, str]] = field(default_factory=list)

    def brokers(self) -> list[str]:
        return sorted({e.get("broker") or "" for e in self.manifest["inputs"] if e["sealed"]})

    def challenge_of(self, broker: str) -> Answer:
        return self.call("POST", "/challenge", {"broker": broker})

    def c1_for(self, broker: str, challenge: str, **changes: Any) -> dict[str, Any]:
        held = [e for e in self.manifest["inputs"] if e["sealed"] and (e.get("broker") or "") == broker]
        inputs = [{"dataset": e["dataset"], "version": e["version"], "ciphertext": e["sha256"]} for e in held]
        return self.c1(**{"challenge": challenge, "inputs": inputs, "broker": broker or None, **changes})

    def ask(self, broker: str, context: dict[str, Any], evidence: dict[str, Any] | None = None) -> Answer:
        """Send C1 and E1 for one broker; keep what C2 must say of it, and open the inputs."""
        nonce = contexts.n1(context)
        evidence = evidence or self.evidence(nonce)
        answer = self.call("POST", "/keys", {"context": context, "evidence": evidence})
        if answer.status == 200:
            digest = hashlib.sha256(strictjson.canonical(evidence)).hexdigest()
            if broker:
                self.shown.append({"broker": broker, "e1": digest})
            else:
                self.e1 = digest
            for released in answer.body["keys"]:
                info = seal.info_run_key(
                    self.manifest["run"], released["dataset"], released["version"], nonce
                )
                key = seal.unwrap_key(shapes.b64_decode(released["wrapped"], "wrapped"), self.hpke, info)
                self.open_input(released["dataset"], released["version"], key)
        return answer

    def ask_all(self) -> None:
        for broker in self.brokers():
            challenge = self.claimed["challenge"]
            if broker:
                got = self.challenge_of(broker)
                assert got.status == 200, got
                challenge = got.body["challenge"]
            answer = self.ask(broker, self.c1_for(broker, challenge))
            assert answer.status == 200, answer

    def until_running(self) -> None:
        assert self.claim().status == 200
        assert self.phase("attesting").body["continue"]
        self.ask_all()
        assert self.phase("running").body["continue"]

    def result_body(self, files: Any, sealed: Any, **options: Any) -> dict[str, Any]:
        context = {"brokers": self.shown, **(options.pop("context", None) or {})}
        return super().result_body(files, sealed, context=context, **options)
