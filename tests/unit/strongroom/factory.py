"""A whole valid output package from nothing, with generated keys; and the same with one thing wrong.

Each document can be changed just before it is hashed or signed, so that everything after it is made consistently
with the change: what remains is exactly the contradiction under test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from strongroom import contexts, evidence, seal, statement, strictjson, translog
from strongroom.evidence import Anchor, Policy, Trust, combined, software
from strongroom.package import PortalKeys, build_package
from strongroom.shapes import format_time
from strongroom.signing import SigningKey

Change = Callable[[dict[str, Any]], Any]

RUN = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
DATASET = "0f8fad5b-d9cb-469f-a165-70867728950e"
IMAGE = "sha256:" + "ab" * 32
PORTAL = "portal.example"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
OUTPUTS = {
    "table.csv": b"term,estimate\ncoins,-0.2\n",
    "plots/visits.txt": b"a picture\n",
    "report.md": b"# Report\n",
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Environment:
    """Where the run ran: how its evidence is made (of a nonce and a time), and under which policies it is judged."""

    evidence: str
    tier: str
    protection: str
    make: Callable[[str, datetime], bytes] | None = None  # None: software evidence
    policies: tuple[Policy, ...] = (Policy(("software",), (IMAGE,), 600),)
    anchors: tuple[Anchor, ...] = ()


SOFTWARE = Environment("software", "none", software.NO_PROTECTION)


@dataclass
class Keys:
    """Every private key in the story."""

    environment: Environment = SOFTWARE

    verdict: SigningKey = field(default_factory=SigningKey.generate)
    log: SigningKey = field(default_factory=SigningKey.generate)
    attester: SigningKey = field(default_factory=SigningKey.generate)
    run: SigningKey = field(default_factory=SigningKey.generate)
    hpke: seal.PrivateKey = field(default_factory=seal.generate_key_pair)
    egress: seal.PrivateKey = field(default_factory=lambda: seal.generate_key_pair("x25519"))

    @property
    def portal(self) -> PortalKeys:
        return PortalKeys(
            portal=PORTAL,
            log=translog.Verifier("portal.example/log", self.log.public),
            verdict_key=self.verdict.public,
            software_attesters=(self.attester.public,),
        )


def manifest(keys: Keys, *, sealed: bool = True) -> dict[str, Any]:
    return {
        "v": 1,
        "run": RUN,
        "portal": PORTAL,
        "project": "P-0001",
        "kind": "research",
        "program": {
            "sha256": sha256(b"program"),
            "size": 7,
            "kind": "py",
            "entry": "main.py",
            "parameters": {},
        },
        "inputs": [
            {
                "name": "rand-hie",
                "dataset": DATASET,
                "version": 1,
                "stage": 2 if sealed else 1,
                "media_type": "text/csv",
                "sealed": sealed,
                "sha256": sha256(b"ciphertext"),
                "size": 10,
                "plaintext": sha256(b"plaintext"),
                "dictionary": {"fields": []},
            }
        ],
        "limits": {"cpu_seconds": 60},
        "image": IMAGE,
        "approvals": sha256(b"approvals"),
        "egress": keys.egress.public.to_json(),
        "full_log": False,
    }


def nothing(document: dict[str, Any]) -> None:
    """The change that changes nothing."""


def make_files(
    keys: Keys,
    *,
    sealed: bool = True,
    change_manifest: Change = nothing,
    change_c1: Change = nothing,
    change_statement: Change = nothing,
    change_c2: Change = nothing,
    change_verdict: Change = nothing,
    change_entry: Change = nothing,
    change_evidence: dict[str, dict[str, Any]] | None = None,
    change_files: Callable[[dict[str, bytes]], Any] = nothing,  # type: ignore[assignment]
    sign_statement: SigningKey | None = None,
    outputs: dict[str, bytes] | None = None,
) -> dict[str, bytes]:
    """Every member of the package but package.json. `change_evidence` overrides arguments of software.make."""
    outputs = OUTPUTS if outputs is None else outputs
    files = {f"outputs/{path}": data for path, data in outputs.items()}
    document = manifest(keys, sealed=sealed)
    change_manifest(document)
    files["manifest.json"] = strictjson.canonical(document)
    manifest_sha256 = sha256(files["manifest.json"])
    overrides = change_evidence or {}

    e1 = None
    if sealed:
        e1 = _key_release(keys, files, document, manifest_sha256, change_c1, overrides.get("e1", {}))
    c2 = _result(
        keys, files, document, manifest_sha256, e1, change_statement, change_c2, sign_statement, outputs
    )
    nonce = contexts.n2(c2)
    files["evidence/e2.json"] = make_evidence(keys, nonce, NOW + timedelta(minutes=9), overrides.get("e2"))
    _verdict(keys, files, c2, change_verdict)
    _log(keys, files, change_entry)
    files["portal.json"] = keys.portal.to_bytes()
    change_files(files)
    return files


def make_package(path: Path, keys: Keys | None = None, **changes: Any) -> PortalKeys:
    """Write a package to `path`; returns the portal's keys, to pin."""
    keys = keys or Keys()
    build_package(make_files(keys, **changes), path)
    return keys.portal


def make_evidence(keys: Keys, nonce: str, now: datetime, overrides: dict[str, Any] | None = None) -> bytes:
    if keys.environment.make is not None:
        return keys.environment.make(nonce, now)
    values: dict[str, Any] = {
        "key": keys.attester,
        "nonce": nonce,
        "image": IMAGE,
        "host": "machine.example",
        "instance": "run-7c9e6679-1",
        "boot": NOW,
        "now": now,
        **(overrides or {}),
    }
    return software.make(values.pop("key"), **values)


def _key_release(
    keys: Keys,
    files: dict[str, bytes],
    document: dict[str, Any],
    manifest_sha256: str,
    change: Change,
    overrides: dict[str, Any],
) -> str:
    c1 = contexts.key_release_context(
        run=RUN,
        portal=PORTAL,
        challenge="c" * 43,
        manifest=manifest_sha256,
        image=IMAGE,
        inputs=[{"dataset": DATASET, "version": 1, "ciphertext": sha256(b"ciphertext")}],
        approvals=document["approvals"],
        sign_pub=keys.run.public,
        hpke_pub=keys.hpke.public,
    )
    change(c1)
    files["context/c1.json"] = strictjson.canonical(c1)
    files["evidence/e1.json"] = make_evidence(keys, contexts.n1(c1), NOW + timedelta(minutes=1), overrides)
    return sha256(files["evidence/e1.json"])


def _result(
    keys: Keys,
    files: dict[str, bytes],
    document: dict[str, Any],
    manifest_sha256: str,
    e1: str | None,
    change_statement: Change,
    change_c2: Change,
    sign_statement: SigningKey | None,
    outputs: dict[str, bytes],
) -> dict[str, Any]:
    source = document["inputs"][0]
    exit_record = {"class": "succeeded", "exception_type": None, "line": None}
    started, ended = format_time(NOW + timedelta(minutes=2)), format_time(NOW + timedelta(minutes=8))
    produced = [{"path": path, "sha256": sha256(data), "size": len(data)} for path, data in outputs.items()]
    said = statement.run_statement(
        produced,
        {
            "run": RUN,
            "portal": PORTAL,
            "project": document["project"],
            "kind": document["kind"],
            "manifest": manifest_sha256,
            "program": {"sha256": document["program"]["sha256"]},
            "inputs": [
                {
                    "dataset": source["dataset"],
                    "version": source["version"],
                    "stage": source["stage"],
                    "ciphertext": source["sha256"] if source["sealed"] else None,
                    "plaintext": source["plaintext"],
                }
            ],
            "exit": exit_record,
            "started": started,
            "ended": ended,
            "image": IMAGE,
            "backend": "local",
            "evidence": keys.environment.evidence,
            "protection": keys.environment.protection,
        },
    )
    change_statement(said)
    files["statement.dsse.json"] = statement.sign(said, [sign_statement or keys.run])
    c2 = contexts.result_context(
        run=RUN,
        portal=PORTAL,
        challenge2="d" * 43,
        e1=e1,
        manifest=manifest_sha256,
        inputs=[{"dataset": source["dataset"], "plaintext": source["plaintext"]}],
        outputs=produced,
        statement=statement.digest(files["statement.dsse.json"]),
        exit=exit_record,
        started=started,
        ended=ended,
        sign_pub=keys.run.public,
    )
    change_c2(c2)
    files["context/c2.json"] = strictjson.canonical(c2)
    return c2


def _verdict(keys: Keys, files: dict[str, bytes], c2: dict[str, Any], change: Change) -> None:
    policies = sorted(keys.environment.policies, key=lambda policy: policy.sha256)
    appraised: dict[str, Any] = {"e1": None}
    for which, minutes in (("e1", 1), ("e2", 9)):
        raw = files.get(f"evidence/{which}.json")
        if raw is not None:
            at = NOW + timedelta(minutes=minutes, seconds=5)
            trust = Trust.of(software_keys=[keys.attester.public], anchors=keys.environment.anchors)
            found = [evidence.verify(raw, p, now=at, expected_nonce=None, trust=trust) for p in policies]
            appraisal = combined(found)
            appraised[which] = {
                "evidence": sha256(raw),
                "at": format_time(at),
                "policies": [policy.sha256 for policy in policies],
                "appraisal": {**appraisal.to_json(), "tier": keys.environment.tier},
            }
    document = statement.verdict(
        files["statement.dsse.json"],
        {
            "run": c2["run"],
            "portal": c2["portal"],
            "manifest": c2["manifest"],
            "at": format_time(NOW + timedelta(minutes=10)),
            "ok": True,
            "tier": keys.environment.tier,
            **appraised,
        },
    )
    for policy in policies:
        files[f"policies/{policy.sha256}.json"] = strictjson.canonical(policy.to_json())
    change(document)
    files["verdict.json"] = statement.sign(document, [keys.verdict])


def _log(keys: Keys, files: dict[str, bytes], change: Change) -> None:
    entry = {
        "v": 1,
        "event": "result.verified",
        "actor": "system",
        "object_type": "run",
        "object_id": RUN,
        "data": {"statement": sha256(files["statement.dsse.json"])},
        "at": format_time(NOW + timedelta(minutes=10)),
    }
    change(entry)
    salt = translog.generate_salt()
    leaves = [translog.leaf_hash(str(number).encode()) for number in range(20)]
    leaves[13] = translog.leaf_hash(translog.leaf_data(entry, salt))
    log = keys.portal.log
    head = translog.Checkpoint(log.name, len(leaves), translog.root_from_leaves(leaves))
    note = translog.sign_checkpoint(head, keys.log)
    path = translog.inclusion_proof(13, len(leaves), translog.memory_reader(leaves))
    files["log/entry.json"] = translog.entry_file(entry, salt)
    files["log/proof.txt"] = translog.format_proof(13, path, note)
    files["log/checkpoint"] = note
