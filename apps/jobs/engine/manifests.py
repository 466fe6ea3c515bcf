"""The manifest: everything that decides what a run does, as one document with one hash.

Frozen when the run is created. A research run is created before its custodians have all approved; the hash of their
approvals is therefore filled in when it leaves the waiting state, once, and nothing changes after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings

from apps.attestation.policies import in_force, runner_image
from apps.core.keys import hpke_key
from apps.datasets.models import DatasetVersion, Stage1Release
from apps.datasets.queries import active_access
from apps.jobs.models import ProgramApproval, Run
from apps.jobs.spending import limits_for
from strongroom import seal, strictjson

Input = tuple[DatasetVersion, Stage1Release | None]
BUILTIN = {Run.Kind.PROFILE: "profile", Run.Kind.SYNTHESISE: "synthesise"}


def egress_key() -> seal.PublicKey:
    """The public key to which a run seals its outputs. Its private half opens outputs only, never a dataset."""
    return seal.PublicKey(seal.keys.X25519, hpke_key("egress").public_key().public_bytes_raw())


def freeze_manifest(
    run: Run, inputs: Sequence[Input], parameters: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The manifest of `run` (docs/reference/manifest.md). Its hash: `manifest_digest`."""
    return {
        "v": 1,
        "run": str(run.pk),
        "portal": settings.PORTAL_ID,
        "project": run.project.ref if run.project else None,
        "kind": str(run.kind),
        "attempt-independent": True,
        "backend": run.backend,
        "program": _program(run, parameters or {}),
        "inputs": [_input(version, release) for version, release in inputs],
        "limits": limits_for(run.backend, run.size, run.time_limit),
        "image": runner_image(run.backend),
        "approvals": strictjson.digest(approvals_of(run, inputs)),
        "egress": egress_key().to_json(),
        "full_log": run.kind == Run.Kind.REHEARSAL,
    }


def manifest_digest(manifest: dict[str, Any]) -> str:
    """Hex SHA-256 of the canonical JSON."""
    return strictjson.digest(manifest)


def approvals_of(run: Run, inputs: Sequence[Input]) -> dict[str, Any]:
    """Who allowed what: per dataset the release policy in force, the access, the agreement, the word on the program."""
    entries = []
    for version, release in sorted(inputs, key=lambda item: str(item[0].dataset_id)):
        entry: dict[str, Any] = {
            "dataset": str(version.dataset_id),
            "version": version.number,
            "release": str(release.pk) if release else None,
            "policy": None if release else in_force(version.dataset).sha256,
        }
        if run.kind == Run.Kind.RESEARCH and run.project is not None and run.program is not None:
            access = active_access(run.project, version.dataset)
            approval = ProgramApproval.objects.filter(
                program=run.program, dataset=version.dataset, program_sha256=run.program.sha256,
                decision=ProgramApproval.Decision.APPROVED,
            ).first()  # fmt: skip
            agreement = access.agreements.filter(state="in_force").first() if access else None
            entry |= {
                "access": str(access.pk) if access else None,
                "agreement": agreement.sha256 if agreement else None,
                "program_approval": str(approval.pk) if approval else None,
            }
        entries.append(entry)
    return {"v": 1, "run": str(run.pk), "datasets": entries}


def _program(run: Run, parameters: dict[str, Any]) -> dict[str, Any]:
    if run.program is not None:
        return {
            "sha256": run.program.sha256,
            "size": run.program.size,
            "kind": run.program.kind,
            "entry": run.program.entry,
            "builtin": None,
            "parameters": parameters,
        }
    name = BUILTIN[Run.Kind(run.kind)]
    # A built-in program is part of the runner's image: its name in that image is its content.
    digest = strictjson.digest({"builtin": name, "image": runner_image(run.backend)})
    return {
        "sha256": digest,
        "size": 0,
        "kind": "builtin",
        "entry": "",
        "builtin": name,
        "parameters": parameters,
    }


def _input(version: DatasetVersion, release: Stage1Release | None) -> dict[str, Any]:
    common = {"name": version.dataset.slug, "dataset": str(version.dataset_id), "version": version.number}
    if release is not None:
        return {
            **common,
            "stage": 1,
            "media_type": "text/csv",
            "sealed": False,
            "sha256": release.sha256,
            "size": release.size,
            "plaintext": release.sha256,
            "dictionary": version.dictionary,
        }
    return {
        **common,
        "stage": 2,
        "media_type": version.media_type,
        "sealed": True,
        "sha256": version.ciphertext_sha256,
        "size": version.seal["ciphertext"]["size"],
        "plaintext": version.plaintext_sha256,
        "dictionary": version.dictionary,
        # Whose key broker holds the key; absent: this portal's own.
        **({"broker": version.dataset.key_broker} if version.dataset.key_broker else {}),
    }


__all__ = ["approvals_of", "egress_key", "freeze_manifest", "manifest_digest", "runner_image"]
