"""A runner without a sandbox: it speaks the whole protocol with strongroom's primitives, and can be made to lie."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from apps.core.keys import key_file
from strongroom import contexts, seal, shapes, statement, strictjson
from strongroom.evidence import software
from strongroom.signing import SigningKey

BASE = "/api/runner/v1"


@dataclass
class Answer:
    status: int
    body: Any


@dataclass
class FakeRunner:
    """One attempt. `twice`: send every POST a second time and take the second answer."""

    client: Any
    token: str
    twice: bool = False
    signer: SigningKey = field(default_factory=SigningKey.generate)
    hpke: seal.PrivateKey = field(default_factory=seal.generate_key_pair)
    instance: str = "test-instance"
    boot: datetime = field(default_factory=lambda: datetime.now(UTC))
    image: str = ""
    session: str = ""
    claimed: dict[str, Any] = field(default_factory=dict)
    e1: str | None = None
    plain: dict[str, bytes] = field(default_factory=dict)
    keys_answer: list[Any] = field(default_factory=list)

    def call(
        self, method: str, path: str, body: Any = None, raw: bytes | None = None, **headers: str
    ) -> Answer:
        if self.session:
            headers["Authorization"] = f"Bearer {self.session}"
        data = raw if raw is not None else (strictjson.canonical(body) if body is not None else b"")
        for _ in range(2 if self.twice and method == "POST" else 1):
            response = self.client.generic(
                method, BASE + path, data, content_type="application/octet-stream", headers=headers
            )
        if response.streaming:
            return Answer(response.status_code, b"".join(response.streaming_content))
        return Answer(response.status_code, response.json() if response.content else None)

    @property
    def manifest(self) -> dict[str, Any]:
        return self.claimed["manifest"]

    def claim(self) -> Answer:
        answer = self.call("POST", "/claim", {"token": self.token})
        if answer.status == 200:
            self.claimed = answer.body
            self.session = answer.body["session"]
            self.image = self.image or answer.body["manifest"]["image"]
        return answer

    def phase(self, name: str, done: int = 0, total: int = 0) -> Answer:
        return self.call("POST", "/phase", {"phase": name, "done": done, "total": total, "detail_code": ""})

    def evidence(self, nonce: str, **changes: Any) -> dict[str, Any]:
        made = {
            "key": SigningKey(key_file("software-attester").read_bytes()),
            "nonce": nonce,
            "image": self.image,
            "host": "test-host",
            "instance": self.instance,
            "boot": self.boot,
            "now": datetime.now(UTC),
            **changes,
        }
        return strictjson.loads(software.make(made.pop("key"), **made))

    def c1(self, **changes: Any) -> dict[str, Any]:
        sealed = [e for e in self.manifest["inputs"] if e["sealed"]]
        members = {
            "run": self.manifest["run"],
            "portal": self.claimed["portal"],
            "challenge": self.claimed["challenge"],
            "manifest": self.claimed["manifest_sha256"],
            "image": self.image,
            "inputs": [
                {"dataset": e["dataset"], "version": e["version"], "ciphertext": e["sha256"]} for e in sealed
            ],
            "approvals": self.manifest["approvals"],
            "sign_pub": self.signer.public,
            "hpke_pub": self.hpke.public,
            **changes,
        }
        return contexts.key_release_context(**members)

    def ask_keys(
        self, context: dict[str, Any] | None = None, evidence: dict[str, Any] | None = None
    ) -> Answer:
        context = context or self.c1()
        evidence = evidence or self.evidence(contexts.n1(context))
        answer = self.call("POST", "/keys", {"context": context, "evidence": evidence})
        if answer.status == 200:
            self.e1 = hashlib.sha256(strictjson.canonical(evidence)).hexdigest()
            self.keys_answer = answer.body["keys"]
            for released in self.keys_answer:
                info = seal.info_run_key(
                    self.manifest["run"], released["dataset"], released["version"], contexts.n1(context)
                )
                key = seal.unwrap_key(shapes.b64_decode(released["wrapped"], "wrapped"), self.hpke, info)
                self.open_input(released["dataset"], released["version"], key)
        return answer

    def open_input(self, dataset: str, version: int, key: bytes) -> None:
        stored = self.call("GET", f"/inputs/{dataset}")
        assert stored.status == 200
        out = io.BytesIO()
        seal.unseal_stream(io.BytesIO(stored.body), out, key, seal.aad_dataset(dataset, version))
        self.plain[dataset] = out.getvalue()

    def seal_outputs(self, files: dict[str, bytes]) -> tuple[bytes, dict[str, Any]]:
        tar_bytes = io.BytesIO()
        with tarfile.open(fileobj=tar_bytes, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path, data in sorted(files.items()):
                info = tarfile.TarInfo(path)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        key, run, sealed = seal.generate_data_key(), self.manifest["run"], io.BytesIO()
        made = seal.seal_stream(io.BytesIO(tar_bytes.getvalue()), sealed, key, seal.aad_outputs(run))
        egress = seal.PublicKey.from_json(self.manifest["egress"])
        wrapped = seal.wrap_key(key, egress, seal.info_egress_key(run))
        return sealed.getvalue(), {
            "wrapped_key": {
                "suite": egress.suite,
                "recipient": egress.id,
                "data": shapes.b64_encode(wrapped),
            },
            "sha256": made.ciphertext_sha256,
            "size": made.ciphertext_size,
        }

    def upload(self, sealed: bytes, piece: int = 1 << 16) -> None:
        offset = self.call("GET", "/outputs").body["offset"]
        while offset < len(sealed):
            answer = self.call("PUT", f"/outputs?offset={offset}", raw=sealed[offset : offset + piece])
            assert answer.status == 200, answer
            offset = answer.body["offset"]

    def result_body(
        self,
        files: dict[str, bytes],
        sealed: dict[str, Any],
        *,
        exit_class: str = "succeeded",
        log: bytes | None = None,
        context: dict[str, Any] | None = None,
        predicate: dict[str, Any] | None = None,
        statement_signer: SigningKey | None = None,
        evidence: dict[str, Any] | None = None,
        evidence_changes: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        outputs = [
            {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for path, data in files.items()
        ]
        raised = exit_class == "failed"
        told = {
            "class": exit_class,
            "exception_type": "ValueError" if raised else None,
            "line": 3 if raised else None,
        }
        stamp = shapes.format_time(datetime.now(UTC).replace(microsecond=0))
        inputs = [
            {
                "dataset": e["dataset"],
                "version": e["version"],
                "stage": e["stage"],
                "ciphertext": e["sha256"] if e["sealed"] else None,
                "plaintext": e["plaintext"],
            }
            for e in self.manifest["inputs"]
        ]
        members = {
            "run": self.manifest["run"],
            "portal": self.claimed["portal"],
            "project": self.manifest["project"],
            "kind": self.manifest["kind"],
            "manifest": self.claimed["manifest_sha256"],
            "program": {"sha256": self.manifest["program"]["sha256"]},
            "inputs": inputs,
            "exit": told,
            "started": stamp,
            "ended": stamp,
            "image": self.image,
            "backend": self.manifest["backend"],
            "evidence": "software",
            "protection": "Software evidence: no hardware protected this run.",
            **(predicate or {}),
        }
        envelope = statement.sign(
            statement.run_statement(outputs, members), [statement_signer or self.signer]
        )
        c2 = contexts.result_context(
            **{
                "run": self.manifest["run"],
                "portal": self.claimed["portal"],
                "challenge2": self.claimed["challenge2"],
                "e1": self.e1,
                "manifest": self.claimed["manifest_sha256"],
                "inputs": [{"dataset": i["dataset"], "plaintext": i["plaintext"]} for i in inputs],
                "outputs": outputs,
                "statement": statement.digest(envelope),
                "exit": told,
                "started": stamp,
                "ended": stamp,
                "sign_pub": self.signer.public,
                **(context or {}),
            }
        )
        body = {
            "context": c2,
            "evidence": evidence or self.evidence(contexts.n2(c2), **(evidence_changes or {})),
            "statement": strictjson.loads(envelope),
            "sealed": sealed,
            "exit": {
                **told,
                "exception_type": told["exception_type"] or "",
                "file": "main.py" if raised else "",
            },
        }
        if log is not None:
            body["log"] = shapes.b64_encode(log)
        return body

    def until_running(self) -> None:
        assert self.claim().status == 200
        if any(e["sealed"] for e in self.manifest["inputs"]):
            assert self.phase("attesting").body["continue"]
            answer = self.ask_keys()
            assert answer.status == 200, answer
        else:
            for e in self.manifest["inputs"]:
                self.plain[e["dataset"]] = self.call("GET", f"/inputs/{e['dataset']}").body
        assert self.phase("running").body["continue"]

    def deliver(self, files: dict[str, bytes], **options: Any) -> Answer:
        sealed, parcel = self.seal_outputs(options.pop("tar_files", files))
        self.upload(sealed)
        return self.call("POST", "/result", self.result_body(files, parcel, **options))
