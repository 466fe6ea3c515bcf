"""Opening what a run put out, in a worker, with the egress key (which opens outputs and nothing else).

Every file must be exactly one of those in the verified result context, byte for byte, and none may be missing. All of
it is checked before any of it is stored.
"""

from __future__ import annotations

import hashlib
import io
import mimetypes
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast
from uuid import UUID

from django.db import transaction

from apps.attestation.models import Evidence, Purpose
from apps.core.errors import Invalid
from apps.core.keys import hpke_key
from apps.core.lifecycle import begin, transition
from apps.core.objects import chunks_of, store
from apps.datasets import actions as datasets
from apps.datasets.states import ReleaseState, VersionState
from apps.jobs import codes
from apps.jobs.engine import consequences
from apps.jobs.engine.creation import ENGINE
from apps.jobs.models import Output, OutputRelease, Run
from apps.jobs.states import OutputState, RunState
from strongroom import seal, shapes, strictjson
from strongroom.errors import FormatError, SealError

MAX_REPORT = 16 << 20
_MEDIA = {
    ".csv": "text/csv", ".json": "application/json", ".txt": "text/plain", ".md": "text/markdown", ".png": "image/png",
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml", ".pdf": "application/pdf",
    ".html": "text/html", ".parquet": "application/vnd.apache.parquet", ".ipynb": "application/x-ipynb+json",
}  # fmt: skip


class OutputsRefused(Exception):
    """What arrived is not what the statement says."""


def open_outputs(run_id: UUID | str) -> None:
    """Unseal, verify and store the outputs of an ended run, then do what its kind asks for. Safe to repeat."""
    run = Run.objects.select_related("project", "program", "version", "release").get(pk=run_id)
    if (
        not run.statement_sha256
        or run.state not in (RunState.SUCCEEDED, RunState.FAILED)
        or run.code == "outputs_broken"
    ):
        return
    try:
        _store_outputs(run)
        if run.state == RunState.SUCCEEDED:
            _CONSEQUENCES[Run.Kind(run.kind)](run)
    except (OutputsRefused, SealError, FormatError, FileNotFoundError) as error:
        _refuse(run, str(error))


def media_type(path: str) -> str:
    """The media type by the name's ending; what is not known is bytes to download, never to show."""
    ending = "." + path.rsplit(".", 1)[-1].lower() if "." in path else ""
    return _MEDIA.get(ending) or mimetypes.types_map.get(ending) or "application/octet-stream"


def stated_outputs(run: Run) -> dict[str, dict[str, Any]]:
    """path -> {"path", "sha256", "size"} of the accepted result context."""
    evidence = Evidence.objects.get(run=run.pk, attempt=run.attempt, purpose=Purpose.RESULT, accepted=True)
    return {output["path"]: output for output in evidence.context["outputs"]}


def _store_outputs(run: Run) -> None:
    stated = stated_outputs(run)
    if run.outputs_opened:
        return
    _check_parcel(run)
    seen = set()
    with _files(run) as files:
        for path, reader in files:
            expected = stated.get(path)
            if expected is None or path in seen:
                raise OutputsRefused(
                    f"The outputs hold a file that is not in the statement, or hold it twice: {path!r}."
                )
            seen.add(path)
            digest, size = hashlib.sha256(), 0
            for chunk in chunks_of(reader):
                digest.update(chunk)
                size += len(chunk)
            if (digest.hexdigest(), size) != (expected["sha256"], expected["size"]):
                raise OutputsRefused(f"The output {path!r} is not the one in the statement.")
    if missing := sorted(set(stated) - seen):
        raise OutputsRefused(f"Outputs of the statement are missing: {', '.join(missing[:5])}.")
    # Whole and as stated. The stream is authenticated, so reading it again gives the same bytes.
    objects = store()
    with _files(run) as files:
        for path, reader in files:
            name = f"outputs/{stated[path]['sha256']}"
            if objects.size(name) != stated[path]["size"] or not stated[path]["size"]:
                objects.put(name, chunks_of(reader))
    with transaction.atomic():
        for path, output in stated.items():
            Output.objects.get_or_create(
                run=run,
                path=path,
                defaults={
                    "sha256": output["sha256"],
                    "size": output["size"],
                    "media_type": media_type(path),
                    "object_name": f"outputs/{output['sha256']}",
                },
            )
        Run.objects.filter(pk=run.pk).update(outputs_opened=True)


def _check_parcel(run: Run) -> None:
    digest = hashlib.sha256()
    with store().open(run.sealed_object) as reader:
        for chunk in chunks_of(reader):
            digest.update(chunk)
    if digest.hexdigest() != run.sealed["sha256"]:
        raise OutputsRefused("The sealed outputs in the store are not the ones that the runner handed over.")


@contextmanager
def _files(run: Run) -> Iterator[Iterator[tuple[str, BinaryIO]]]:
    """The regular files of the sealed tar, one after the other. Raises OutputsRefused for anything else in it."""
    wrapped = shapes.b64_decode(run.sealed["wrapped_key"]["data"], "wrapped_key")
    private = seal.PrivateKey(seal.keys.X25519, hpke_key("egress").private_bytes_raw())
    key = seal.unwrap_key(wrapped, private, seal.info_egress_key(str(run.pk)))
    with (
        store().open(run.sealed_object) as sealed,
        seal.Unsealer(sealed, key, seal.aad_outputs(str(run.pk))) as plain,
    ):
        try:
            with tarfile.open(fileobj=io.BufferedReader(plain, 1 << 16), mode="r|") as tar:
                yield _members(tar)
            while plain.read(1 << 20):  # the padding of the tar
                pass
            plain.result()  # only the end of the stream proves that it is whole
        except (tarfile.TarError, EOFError, UnicodeError) as error:
            raise OutputsRefused(
                f"The outputs are not a readable archive ({type(error).__name__})."
            ) from None


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, BinaryIO]]:
    for member in tar:
        reader = tar.extractfile(member) if member.isreg() and not member.issparse() else None
        if reader is None:
            raise OutputsRefused(f"The outputs hold something that is not a plain file: {member.name!r}.")
        yield member.name, cast(BinaryIO, reader)


def _rehearsal(run: Run) -> None:
    """Shown to the project as they are: stand-in data only went in."""


def _profile(run: Run) -> None:
    assert run.version is not None  # a database constraint
    if run.version.state != VersionState.PROFILING:
        return
    report = _document(run, "report.json")
    profile = (
        _document(run, "profile.json")
        if Output.objects.filter(run=run, path="profile.json").exists()
        else None
    )
    try:
        datasets.record_profile(
            by=ENGINE,
            version=run.version,
            ok=report.get("ok") is True,
            rows=_rows(report),
            profile=profile,
            report=report,
        )
    except Invalid as error:
        raise OutputsRefused(error.detail) from None


def _synthesise(run: Run) -> None:
    release = run.release
    assert release is not None  # a database constraint
    if release.state != ReleaseState.MAKING:
        return
    made = Output.objects.filter(run=run, path="stand-in.csv").first()
    if made is None:
        raise OutputsRefused("The run put out no stand-in data.")
    report = _document(run, "report.json")
    rows = _rows(report)
    if rows is None:
        raise OutputsRefused("The report on the stand-in data does not say how many rows there are.")
    name = f"releases/{release.pk}"
    with store().open(made.object_name) as reader:
        digest, size = store().put(name, chunks_of(reader))
    if (digest, size) != (made.sha256, made.size):
        raise OutputsRefused("The stand-in data changed while it was being stored.")
    datasets.release_made(
        by=ENGINE, release=release, object_name=name, sha256=digest, size=size, rows=rows, report=report
    )


def _research(run: Run) -> None:
    with transaction.atomic():
        release, created = OutputRelease.objects.get_or_create(run=run)
        if created:
            begin(release, by=ENGINE, data={"run": str(run.pk), "statement": run.statement_sha256})
        release = OutputRelease.objects.select_for_update().get(pk=release.pk)
        if release.state == OutputState.COLLECTED:
            transition(release, OutputState.IN_REVIEW, by=ENGINE, data={"outputs": run.outputs.count()})


_CONSEQUENCES = {
    Run.Kind.REHEARSAL: _rehearsal,
    Run.Kind.PROFILE: _profile,
    Run.Kind.SYNTHESISE: _synthesise,
    Run.Kind.RESEARCH: _research,
}


def _refuse(run: Run, why: str) -> None:
    """The outputs cannot be believed: nothing of them is shown or goes anywhere, and it is on record."""
    Run.objects.filter(pk=run.pk).update(code="outputs_broken", outputs_opened=True)
    consequences.failed(run, codes.describe("outputs_broken").sentence)
    if run.kind == Run.Kind.RESEARCH and run.state == RunState.SUCCEEDED:
        with transaction.atomic():
            release, created = OutputRelease.objects.get_or_create(run=run)
            if created:
                begin(release, by=ENGINE, data={"run": str(run.pk), "statement": run.statement_sha256})
            release = OutputRelease.objects.select_for_update().get(pk=release.pk)
            if release.state == OutputState.COLLECTED:
                transition(release, OutputState.REJECTED, by=ENGINE, reason=why[:1000])


def _document(run: Run, path: str) -> dict[str, Any]:
    output = Output.objects.filter(run=run, path=path).first()
    if output is None:
        raise OutputsRefused(f"The run put out no {path}.")
    if output.size > MAX_REPORT:
        raise OutputsRefused(f"{path} is too large.")
    with store().open(output.object_name) as reader:
        document = strictjson.loads(reader.read(), max_bytes=MAX_REPORT, what=path)
    return shapes.mapping(document, path)


def _rows(report: dict[str, Any]) -> int | None:
    rows = report.get("rows")
    return rows if isinstance(rows, int) and not isinstance(rows, bool) and rows >= 0 else None


__all__ = ["OutputsRefused", "media_type", "open_outputs", "stated_outputs"]
