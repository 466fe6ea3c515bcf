"""Whether manifest, contexts, statement and outputs of a package all speak of one and the same run."""

from __future__ import annotations

import hashlib
from typing import Any

from strongroom.evidence.model import Checks
from strongroom.package.content import Content


def check(found: Content, statement: dict[str, Any] | None, checks: Checks) -> None:
    """Add the checks `manifest`, `contexts`, `key-release`, `statement-content` and `outputs`."""
    manifest, c2 = found.manifest, found.c2
    if manifest is None or c2 is None:
        return
    sha256 = hashlib.sha256(found.raw["manifest.json"]).hexdigest()
    _check_manifest(checks, manifest, sha256, c2)
    if found.has_key_release:
        releases = [(name, c1) for name, c1 in found.releases if c1 is not None]
        if len(releases) == len(found.releases):
            shown = {
                name: hashlib.sha256(found.raw[f"evidence/{name}.json"]).hexdigest() for name, _ in releases
            }
            _check_key_release(checks, manifest, sha256, releases, c2, shown)
    else:
        _check_no_key_release(checks, manifest, c2)
    _check_outputs(checks, found, c2)
    if statement is not None:
        _check_statement(checks, statement, manifest, c2)


def _check_manifest(checks: Checks, manifest: dict[str, Any], sha256: str, c2: dict[str, Any]) -> None:
    checks.require(
        "manifest",
        c2["manifest"] == sha256 and (manifest["run"], manifest["portal"]) == (c2["run"], c2["portal"]),
        "The result is bound to this manifest, run and portal.",
        "The result is bound to another manifest, run or portal.",
    )
    wanted = sorted((item["dataset"], item["plaintext"]) for item in manifest["inputs"])
    checks.require(
        "inputs",
        wanted == sorted((item["dataset"], item["plaintext"]) for item in c2["inputs"]),
        "The run read exactly the data that the manifest names.",
        "The run read other data than the manifest names.",
    )


def _check_key_release(
    checks: Checks,
    manifest: dict[str, Any],
    sha256: str,
    releases: list[tuple[str, dict[str, Any]]],
    c2: dict[str, Any],
    shown: dict[str, str],
) -> None:
    """releases: every C1 by the name of its evidence; shown: the evidence's SHA-256 by that name."""
    names = ("run", "portal", "manifest", "sign_pub")
    wanted = [c2[name] for name in names]
    checks.require(
        "contexts",
        c2["manifest"] == sha256 and all([c1[name] for name in names] == wanted for _, c1 in releases),
        "Key release and result are of the same run, portal, manifest and signing key.",
        "Key release and result differ in run, portal, manifest or signing key.",
    )
    brokers = [{"broker": c1["broker"], "e1": shown[name]} for name, c1 in releases if "broker" in c1]
    checks.require(
        "key-release-evidence",
        c2["e1"] == shown.get("e1")
        and c2.get("brokers", []) == brokers
        and all(("broker" in c1) is (name != "e1") for name, c1 in releases),
        "The result names the evidence under which the keys were released, by every key broker that was asked.",
        "The result names other evidence than the one under which the keys were released.",
    )
    asked: dict[str | None, set[tuple[str, int, str]]] = {
        c1.get("broker"): {(item["dataset"], item["version"], item["ciphertext"]) for item in c1["inputs"]}
        for _, c1 in releases
    }
    named: dict[str | None, set[tuple[str, int, str]]] = {}
    sealed: dict[str | None, set[tuple[str, int, str]]] = {}
    for item in manifest["inputs"]:
        entry = (item["dataset"], item["version"], item["sha256"])
        named.setdefault(item["broker"], set()).add(entry)
        if item["sealed"]:
            sealed.setdefault(item["broker"], set()).add(entry)
    checks.require(
        "key-release",
        set(sealed) <= set(asked) <= set(named)
        and all(sealed.get(b, set()) <= inputs <= named[b] for b, inputs in asked.items())
        and all(
            c1["image"] == manifest["image"] and c1["approvals"] == manifest["approvals"]
            for _, c1 in releases
        ),
        "Keys were asked for exactly the sealed data, image and approvals of the manifest, each of the key broker that holds it.",
        "Keys were asked for other data, another image or other approvals than the manifest names, or of another key broker.",
    )


def _check_no_key_release(checks: Checks, manifest: dict[str, Any], c2: dict[str, Any]) -> None:
    sealed = any(item["sealed"] for item in manifest["inputs"])
    if c2["e1"] is not None or "brokers" in c2 or sealed:
        checks.failed(
            "key-release",
            "The run read sealed data or names evidence for a key release, but the package does not hold it.",
        )
    else:
        checks.not_available("key-release", "The run read no sealed data, so no keys were released to it.")


def _check_outputs(checks: Checks, found: Content, c2: dict[str, Any]) -> None:
    stated = {item["path"]: (item["sha256"], item["size"]) for item in c2["outputs"]}
    checks.require(
        "outputs",
        stated == found.outputs,
        f"The {len(stated)} output files are those that the environment produced, byte for byte.",
        "The output files are not those that the environment produced: one is changed, renamed, missing or added.",
    )


def _check_statement(
    checks: Checks, statement: dict[str, Any], manifest: dict[str, Any], c2: dict[str, Any]
) -> None:
    subjects = [(item["name"], item["digest"]["sha256"]) for item in statement["subject"]]
    checks.require(
        "statement-subjects",
        subjects == [(item["path"], item["sha256"]) for item in c2["outputs"]],
        "The statement is about exactly these output files.",
        "The statement is about other files than the outputs.",
    )
    said = statement["predicate"]
    expected = {name: c2[name] for name in ("run", "portal", "manifest", "exit", "started", "ended")}
    expected |= {name: manifest[name] for name in ("project", "kind", "image", "program")}
    expected["inputs"] = [
        {
            "dataset": item["dataset"],
            "version": item["version"],
            "stage": item["stage"],
            "ciphertext": item["sha256"] if item["sealed"] else None,
            "plaintext": item["plaintext"],
        }
        for item in manifest["inputs"]
    ]
    wrong = sorted(name for name, value in expected.items() if said[name] != value)
    checks.require(
        "statement-content",
        not wrong,
        "What the statement says agrees with the manifest and with what the evidence is bound to.",
        f"The statement contradicts the manifest or the evidence's context in: {', '.join(wrong)}.",
    )
