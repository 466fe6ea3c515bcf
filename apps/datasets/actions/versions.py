"""Writes on dataset versions: a sealed upload in pieces, its check, and what the profiling run found.

Only ciphertext passes through here. Nothing in this file, or reachable from it, can open it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max

from apps.accounts.models import User
from apps.core.errors import Conflict, Invalid
from apps.core.keys import broker_public, key_store
from apps.core.lifecycle import begin, recorder, transition
from apps.core.objects import sha256_of, store
from apps.core.outbox import enqueue
from apps.datasets.brokers import fault_of, key_for
from apps.datasets.models import Dataset, DatasetVersion
from apps.datasets.permissions import require_acts_for, require_portal
from apps.datasets.profile import publishable
from apps.datasets.states import DatasetState, VersionState
from strongroom.errors import FormatError
from strongroom.seal import PublicKey, SealHeader, ciphertext_size, parse_seal_header

MEDIA_TYPES = ("text/csv", "application/vnd.apache.parquet")
SMALLEST = ciphertext_size(0)
_PIECE = 1 << 20


def broker_key(dataset: Dataset | None = None, *, browser: bool = True) -> PublicKey:
    """The public key to which the data key of `dataset` is wrapped; None: of a dataset that this portal's broker holds.

    browser: one that a browser can seal to (X25519); else the preferred one. Raises Conflict where there is none.
    """
    key = (
        key_for(dataset, browser=browser)
        if dataset
        else (broker_public() if browser else key_store().public_keys()[0])
    )
    if key is None:
        raise Conflict(
            "no_browser_key",
            "The key broker of this dataset has no key that a browser can seal to.",
            "Seal and upload with `strongroom upload` on your own machine.",
        )
    return key


def start_upload(
    *, by: User, dataset: Dataset, media_type: str, announced_size: int | None
) -> DatasetVersion:
    """Begin a version: its number and the dictionary it will be checked against are fixed now.

    announced_size: bytes of ciphertext, or None where it is not known yet (`announce_size` says it later). An
    upload that was begun in the same way and has received nothing is given back, so a form sent twice begins one.
    Raises Invalid, Conflict, Denied.
    """
    require_acts_for(by, dataset, to="upload data for this dataset")
    if media_type not in MEDIA_TYPES:
        raise Invalid(
            "media_type",
            "Only CSV and Parquet files can be uploaded.",
            f"Send one of {', '.join(MEDIA_TYPES)}.",
            fields={"media_type": ["Choose CSV or Parquet"]},
        )
    size = 0 if announced_size is None else _size(announced_size)
    with transaction.atomic():
        row = Dataset.objects.select_for_update().get(pk=dataset.pk)
        if row.state == DatasetState.WITHDRAWN:
            raise Conflict(
                "withdrawn",
                "This dataset was withdrawn, so nothing can be uploaded for it.",
                "Register a new dataset.",
            )
        if not row.dictionary.get("fields"):
            raise Invalid(
                "dictionary_missing",
                "The dataset has no data dictionary yet, so an upload could not be checked.",
                "Add the data dictionary first.",
            )
        same = row.versions.filter(
            state=VersionState.UPLOADING,
            received_size=0,
            uploaded_by=by,
            media_type=media_type,
            announced_size=size,
            dictionary=row.dictionary,
        ).first()
        if same is not None:
            return same
        last = row.versions.aggregate(last=Max("number"))["last"] or 0
        version = DatasetVersion(
            dataset=row,
            number=last + 1,
            dictionary=row.dictionary,
            media_type=media_type,
            announced_size=size,
            uploaded_by=by,
        )
        version.object_name = f"datasets/{version.pk}.sealed"
        version.save(force_insert=True)
        begin(version, by=by, data={"dataset": str(row.pk), "number": version.number})
    return version


def announce_size(*, by: User, version: DatasetVersion, size: int) -> DatasetVersion:
    """Say how large the upload will be, once, where `start_upload` left it open. Raises Invalid, Conflict, Denied."""
    require_acts_for(by, version.dataset, to="upload data for this dataset")
    size = _size(size)
    with transaction.atomic():
        row = _uploading(version)
        if row.announced_size not in (0, size):
            raise Conflict(
                "size_fixed",
                f"This upload was announced with {row.announced_size:,} bytes, not {size:,}.",
                "Give it up and start another one.",
            )
        if size < row.received_size:
            raise Invalid(
                "size",
                "More bytes than that were received already.",
                "Give the upload up and start another one.",
            )
        DatasetVersion.objects.filter(pk=row.pk).update(announced_size=size)
    version.announced_size = size
    return version


def receive_chunk(*, by: User, version: DatasetVersion, offset: int, chunks: Iterable[bytes]) -> int:
    """Append the bytes of `chunks` at `offset`; returns the new number of bytes received.

    Each piece is appended under the row's lock and only if the upload still stands where this writer left it, so two
    writers cannot interleave, and no lock is held while waiting for the network. What arrived before a connection
    broke stays. Raises Conflict ("offset_mismatch" with `offset`, or no longer uploading), Invalid (too large), Denied.
    """
    require_acts_for(by, version.dataset, to="upload data for this dataset")
    position = offset
    position = _append(version, position, b"")
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE):
            position = _append(version, position, chunk[start : start + _PIECE])
    version.received_size = position
    return position


def _append(version: DatasetVersion, position: int, piece: bytes) -> int:
    with transaction.atomic():
        row = _uploading(version)
        objects = store()
        # The store is the truth: a crash between append and commit leaves it ahead of the row, never behind.
        there = objects.size(row.object_name)
        if there != position:
            raise Conflict(
                "offset_mismatch",
                f"The upload stands at byte {there:,}, not {position:,}: another connection may have sent the same part.",
                "Continue from the offset given.",
                offset=there,
            )
        limit = row.announced_size or settings.MAX_DATASET_BYTES
        if position + len(piece) > limit:
            raise Invalid(
                "too_large",
                f"More bytes than the {limit:,} that are possible for this upload.",
                "Give the upload up and start another one with the right size.",
            )
        if piece:
            position = objects.append(row.object_name, position, iter([piece]), limit=limit)
        if row.received_size != position:
            DatasetVersion.objects.filter(pk=row.pk).update(received_size=position)
    return position


def restart_upload(*, by: User, version: DatasetVersion) -> DatasetVersion:
    """Throw away what was received, to send the same version from its beginning. Raises Conflict, Denied.

    For a browser whose page is gone: the data key went with it, so the bytes can never be completed. The size may
    be announced anew.
    """
    require_acts_for(by, version.dataset, to="upload data for this dataset")
    with transaction.atomic():
        row = _uploading(version)
        recorder()(
            event="dataset_version.upload_restarted",
            by=by,
            object_type="dataset_version",
            object_id=row.pk,
            data={"received": row.received_size},
            scope=f"dataset:{row.dataset_id}",
        )
        DatasetVersion.objects.filter(pk=row.pk).update(received_size=0, announced_size=0)
        # Under the lock, or bytes of a writer that comes next would go with it.
        store().delete(row.object_name)
    version.received_size = version.announced_size = 0
    return version


def finish_upload(*, by: User, version: DatasetVersion, seal: dict[str, Any] | bytes) -> DatasetVersion:
    """Close an upload with its seal header; the stored bytes are then checked by a worker.

    The same header sent again by somebody whose answer was lost changes nothing and returns the version.
    Raises Invalid ("seal_refused", saying what), Conflict, Denied.
    """
    require_acts_for(by, version.dataset, to="upload data for this dataset")
    try:
        header = parse_seal_header(seal)
    except FormatError as error:
        raise _seal_refused(str(error)) from None
    with transaction.atomic():
        row = (
            DatasetVersion.objects.select_for_update(of=("self",))
            .select_related("dataset")
            .get(pk=version.pk)
        )
        if row.state != VersionState.UPLOADING and row.seal == header.to_json():
            return row
        if row.state == VersionState.UPLOADING:
            _refuse_seal(row, header)
        transition(
            row,
            VersionState.UPLOADED,
            by=by,
            set_fields={
                "seal": header.to_json(),
                "ciphertext_sha256": header.ciphertext.sha256,
                "plaintext_sha256": header.plaintext.sha256,
                "media_type": header.media_type,
                "announced_size": header.ciphertext.size,
                "received_size": header.ciphertext.size,
            },
            data={
                "dataset": str(row.dataset_id),
                "number": row.number,
                "ciphertext": header.ciphertext.sha256,
                "size": header.ciphertext.size,
            },
        )
        enqueue("check_upload", row.pk)
    return row


def _refuse_seal(row: DatasetVersion, header: SealHeader) -> None:
    stored = store().size(row.object_name)
    if header.dataset != str(row.dataset_id) or header.version != row.number:
        raise _seal_refused(
            f"The file was sealed for another dataset or version; this is version {row.number} of {row.dataset_id}."
        )
    if header.ciphertext.size != stored:
        raise _seal_refused(
            f"The sealed file has {header.ciphertext.size:,} bytes, but {stored:,} were received."
        )
    if row.announced_size and header.ciphertext.size != row.announced_size:
        raise _seal_refused(
            f"The sealed file has {header.ciphertext.size:,} bytes, but {row.announced_size:,} were announced."
        )
    if fault := fault_of(row.dataset, header):
        raise _seal_refused(fault)


def give_up_upload(*, by: User, version: DatasetVersion, reason: str) -> DatasetVersion:
    """Abandon an upload that was not finished; what was received is deleted. Raises Invalid, Conflict, Denied."""
    require_acts_for(by, version.dataset, to="give this upload up")
    with transaction.atomic():
        row = _uploading(version)
        transition(row, VersionState.REFUSED, by=by, reason=reason)
        transaction.on_commit(lambda: store().delete(row.object_name))
    version.state = row.state
    return version


def verify_upload(*, by: object, version: DatasetVersion) -> str:
    """Compare the stored bytes with the seal header and move the version on; returns its state then.

    Reads the object in pieces, outside any transaction. Safe to run again: does nothing unless it is uploaded.
    """
    require_portal(by, to="check an upload")
    version.refresh_from_db()
    if version.state != VersionState.UPLOADED:
        return str(version.state)
    try:
        digest, size = sha256_of(version.object_name)
    except FileNotFoundError:
        upload_broken(
            by=by, version=version, reason="The sealed file is not in the object store. Upload it again."
        )
        return str(version.state)
    expected = version.seal["ciphertext"]
    if (digest, size) == (expected["sha256"], expected["size"]):
        upload_checked(by=by, version=version)
    else:
        upload_broken(
            by=by,
            version=version,
            reason="The bytes received are not the ones that the seal header describes: the upload was damaged on its way, or the file changed while it was sent. Seal and upload it again.",
        )
    return str(version.state)


def upload_checked(*, by: object, version: DatasetVersion) -> DatasetVersion:
    """The stored bytes are the sealed ones: uploaded -> profiling. Raises Conflict, Denied (people)."""
    require_portal(by, to="check an upload")
    transition(version, VersionState.PROFILING, by=by)
    return version


def upload_broken(*, by: object, version: DatasetVersion, reason: str) -> DatasetVersion:
    """The stored bytes are not the sealed ones: uploaded -> refused, and they are deleted. Raises Conflict, Denied (people)."""
    require_portal(by, to="check an upload")
    with transaction.atomic():
        transition(version, VersionState.REFUSED, by=by, reason=reason)
        transaction.on_commit(lambda: store().delete(version.object_name))
    return version


def check_again(*, by: User, version: DatasetVersion) -> DatasetVersion:
    """Ask for the check of an uploaded version once more, after its profiling run itself failed. Raises Conflict, Denied."""
    require_acts_for(by, version.dataset, to="check this version again")
    with transaction.atomic():
        row = DatasetVersion.objects.select_for_update().get(pk=version.pk)
        if row.state != VersionState.UPLOADED:
            raise Conflict(
                "wrong_state",
                "Only a version whose check did not come to an end can be checked again.",
                "Reload the page to see where it stands.",
            )
        recorder()(
            event="dataset_version.check_requested",
            by=by,
            object_type="dataset_version",
            object_id=row.pk,
            data={},
            scope=f"dataset:{row.dataset_id}",
        )
        enqueue("check_upload", row.pk)
    return row


def record_profile(
    *,
    by: object,
    version: DatasetVersion,
    ok: bool,
    rows: int | None,
    profile: dict[str, Any] | None,
    report: dict[str, Any],
) -> DatasetVersion:
    """What the profiling run found: profiling -> accepted (ok) or refused. The profile is suppressed again before it is kept.

    A refused version keeps its report for the custodian and no public profile.
    Raises Invalid (a profile or report of another shape), Conflict, Denied (people).
    """
    require_portal(by, to="report what a profiling run found")
    if (
        not isinstance(report, dict)
        or report.get("ok") is not ok
        or not isinstance(report.get("problems"), list)
    ):
        raise Invalid(
            "report_malformed",
            "The profiling run's report does not have the agreed shape or contradicts its result.",
            "Run it again.",
        )
    public = None
    if ok:
        if rows is None or profile is None:
            raise Invalid(
                "profile_missing",
                "An accepted version needs its number of rows and its profile.",
                "Run the profiling again.",
            )
        try:
            public = publishable(profile, threshold=settings.SMALL_CELL_THRESHOLD)
        except FormatError as error:
            raise Invalid("profile_malformed", str(error), "Run the profiling again.") from None
    kinds = len(report["problems"])
    transition(
        version,
        VersionState.ACCEPTED if ok else VersionState.REFUSED,
        by=by,
        reason=""
        if ok
        else f"The data is not as its dictionary says: {kinds} {'problem' if kinds == 1 else 'problems'} found. See the report.",
        set_fields={"rows": rows, "profile": public, "report": report},
        data={"dataset": str(version.dataset_id), "number": version.number, "problems": kinds},
    )
    return version


def profile_failed(*, by: object, version: DatasetVersion, reason: str) -> DatasetVersion:
    """The profiling run itself failed: profiling -> uploaded, from where it may be tried again. Raises Conflict, Denied (people)."""
    require_portal(by, to="report that a profiling run failed")
    transition(version, VersionState.UPLOADED, by=by, reason=reason)
    return version


def _uploading(version: DatasetVersion) -> DatasetVersion:
    row = DatasetVersion.objects.select_for_update().get(pk=version.pk)
    if row.state != VersionState.UPLOADING:
        raise Conflict(
            "not_uploading",
            "This upload is finished or was given up, so nothing can be added to it.",
            "Start another version if the data has changed.",
        )
    return row


def _size(size: int) -> int:
    if (
        isinstance(size, bool)
        or not isinstance(size, int)
        or not SMALLEST <= size <= settings.MAX_DATASET_BYTES
    ):
        raise Invalid(
            "size",
            f"The sealed file must have {SMALLEST:,} to {settings.MAX_DATASET_BYTES:,} bytes.",
            "Check the size, or split the dataset.",
            fields={
                "announced_size": [f"The size must be {SMALLEST:,} to {settings.MAX_DATASET_BYTES:,} bytes"]
            },
        )
    return size


def _seal_refused(why: str) -> Invalid:
    return Invalid(
        "seal_refused",
        f"The seal header cannot be accepted. {why}",
        "Seal the file for this version and send the header that sealing gave.",
    )
