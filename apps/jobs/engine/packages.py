"""Packing outputs that two checkers approved, with everything that somebody needs to verify them offline."""

from __future__ import annotations

import tempfile
from pathlib import Path
from uuid import UUID

from django.conf import settings

from apps.attestation import verdicts
from apps.attestation.policies import trust
from apps.audit import queries as audit
from apps.audit.models import Entry
from apps.audit.sequencer import log_verifier
from apps.core.keys import signing_key
from apps.core.lifecycle import transition
from apps.core.objects import chunks_of, store
from apps.jobs.engine.conditions import unmet
from apps.jobs.engine.creation import ENGINE
from apps.jobs.engine.outputs import stated_outputs
from apps.jobs.models import OutputRelease, Run
from apps.jobs.states import OutputState
from strongroom import package, strictjson
from strongroom.package import PortalKeys


class PackageBroken(Exception):
    """The package that was built does not verify: it must not leave."""


def portal_keys() -> PortalKeys:
    """The public keys against which this portal's packages verify."""
    return PortalKeys(
        portal=settings.PORTAL_ID,
        log=log_verifier(),
        verdict_key=signing_key("verdict").public_key().public_bytes_raw(),
        software_attesters=(signing_key("software-attester").public_key().public_bytes_raw(),),
    )


def build_package(output_release_id: UUID | str) -> None:
    """Build, verify and store the package of approved outputs, ask the gate again, and release. Safe to repeat.

    Raises PackageBroken, LogBroken: nothing is released then, and the work stays due.
    """
    release = OutputRelease.objects.select_related("run__project", "run__program").get(pk=output_release_id)
    if release.state != OutputState.APPROVED or _gate_closed(release):
        return
    name = f"packages/{release.pk}.zip"
    with tempfile.TemporaryDirectory(prefix="strongroom-package-") as folder:
        path = Path(folder) / "package.zip"
        package.build_package(_files(release.run, Path(folder)), path)
        report = package.verify_package(path, trust=portal_keys(), anchors=trust().anchors)
        if not report.ok:
            failing = ", ".join(check.id for check in report.checks if check.outcome.value == "fail")
            raise PackageBroken(f"the package of run {release.run_id} does not verify: {failing}")
        with path.open("rb") as reader:
            sha256, size = store().put(name, chunks_of(reader))
    if _gate_closed(release):
        return
    transition(
        release,
        OutputState.RELEASED,
        by=ENGINE,
        set_fields={"package_object": name, "package_sha256": sha256, "package_size": size},
        data={"package": sha256, "statement": release.run.statement_sha256},
    )


def _gate_closed(release: OutputRelease) -> bool:
    """Ask the gate once more; where it has closed, the outputs stay inside for good."""
    conditions = unmet(release.run)
    if conditions:
        transition(
            release,
            OutputState.REJECTED,
            by=ENGINE,
            reason="; ".join(condition.detail for condition in conditions)[:1000],
        )
    return bool(conditions)


def _files(run: Run, folder: Path) -> dict[str, bytes | Path]:
    first, second = verdicts.evidence_of(run_id=run.pk, attempt=run.attempt)
    statement_bytes = strictjson.canonical(run.statement)
    manifest = strictjson.canonical(run.manifest)
    assert run.log_entry is not None  # written with the statement, in one transaction
    entry = Entry.objects.get(pk=run.log_entry)
    proof = audit.inclusion_proof(entry)
    files: dict[str, bytes | Path] = {
        "statement.dsse.json": statement_bytes,
        "evidence/e2.json": bytes(second.envelope),
        "context/c2.json": strictjson.canonical(second.context),
        "manifest.json": manifest,
        "verdict.json": verdicts.sign_verdict(
            run_id=run.pk, attempt=run.attempt, statement_bytes=statement_bytes, manifest=run.manifest_sha256
        ),
        "log/entry.json": audit.entry_file(entry),
        "log/proof.txt": proof.proof,
        "log/checkpoint": proof.checkpoint,
        "portal.json": portal_keys().to_bytes(),
    }
    if first is not None:
        files["evidence/e1.json"] = bytes(first.envelope)
        files["context/c1.json"] = strictjson.canonical(first.context)
    others = verdicts.broker_evidence_of(run_id=run.pk, attempt=run.attempt)
    for number, row in enumerate(others, start=1):
        files[f"evidence/e1-{number}.json"] = bytes(row.envelope)
        files[f"context/c1-{number}.json"] = strictjson.canonical(row.context)
    judged = [row for row in (first, *others, second) if row is not None]
    for each in judged:
        for document in each.appraisal["documents"]:
            files[f"policies/{strictjson.digest(document)}.json"] = strictjson.canonical(document)
    for number, (path, output) in enumerate(sorted(stated_outputs(run).items())):
        copy = folder / f"output-{number}"
        with store().open(f"outputs/{output['sha256']}") as reader, copy.open("xb") as target:
            for chunk in chunks_of(reader):
                target.write(chunk)
        files[f"outputs/{path}"] = copy
    return files
