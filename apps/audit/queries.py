"""Reads of the log: filtered entries, one entry with its proof, the keys that a verifier needs."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.audit.actions import entry_document
from apps.audit.models import Checkpoint, Entry
from apps.audit.permissions import require_see, rules
from apps.audit.sequencer import LogBroken, log_verifier, reader, seal_log
from apps.core.errors import Conflict
from apps.core.keys import broker_public, signing_key
from apps.core.tasks import Waiting
from strongroom import translog
from strongroom.errors import LogError
from strongroom.package import PortalKeys


@dataclass(frozen=True)
class Filters:
    """What the log is searched by. `event` matches a whole event or, ending in a dot, all of a noun ("role.")."""

    event: str = ""
    actor: str = ""
    object: str = ""
    scope: str = ""
    since: dt.date | None = None
    until: dt.date | None = None
    faults: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, asked: Any) -> Filters:
        """From query parameters (`from` and `to` are days, YYYY-MM-DD). Unreadable ones are in `faults`."""
        faults: dict[str, str] = {}
        days: dict[str, dt.date | None] = {}
        for name in ("from", "to"):
            text = asked.get(name, "").strip()
            try:
                days[name] = dt.date.fromisoformat(text) if text else None
            except ValueError:
                days[name] = None
                faults[name] = f"“{text[:40]}” is not a day: write it like 2026-03-27"
        texts = {
            name: asked.get(name, "").strip()[:120].replace("\0", "")
            for name in ("event", "actor", "object", "scope")
        }
        return cls(**texts, since=days["from"], until=days["to"], faults=faults)


def entries(filters: Filters = Filters()) -> QuerySet[Entry]:
    """Entries that match all filters, newest first."""
    found = Entry.objects.all()
    if filters.event:
        found = (
            found.filter(event__startswith=filters.event)
            if filters.event.endswith(".")
            else found.filter(event=filters.event)
        )
    if filters.actor:
        # A code as the log holds it, or a name or e-mail address, which only the accounts app can resolve.
        by_code = ":" in filters.actor
        found = found.filter(actor__in=[filters.actor] if by_code else rules().actors_called(filters.actor))
    if filters.object:
        found = found.filter(Q(object_id=filters.object) | Q(object_type=filters.object))
    if filters.scope:
        found = found.filter(scope=filters.scope)
    if filters.since:
        found = found.filter(at__gte=timezone.make_aware(dt.datetime.combine(filters.since, dt.time.min)))
    if filters.until:
        found = found.filter(
            at__lt=timezone.make_aware(dt.datetime.combine(filters.until + dt.timedelta(days=1), dt.time.min))
        )
    return found.order_by("-at", "-id")


def entry_for(user: Any, pk: object) -> Entry:
    """An entry that the person may see. Raises NotFound."""
    return require_see(user, Entry.objects.filter(pk=pk if isinstance(pk, UUID) else UUID(str(pk))).first())


def latest_checkpoint() -> Checkpoint | None:
    return Checkpoint.objects.order_by("-size").first()


@dataclass(frozen=True)
class InclusionProof:
    """`proof` is a C2SP tlog-proof@v1 file, `checkpoint` the signed note inside it; both bytes as they are stored."""

    index: int
    size: int
    proof: bytes
    checkpoint: bytes


def inclusion_proof(entry: Entry) -> InclusionProof:
    """The proof that `entry` is in the log, under the newest checkpoint. Seals the log first if need be.

    Raises LogBroken where the stored tree and the entry or checkpoint do not fit together.
    """
    if entry.index is None:
        seal_log()
        entry.refresh_from_db(fields=["index"])
    return proof_of(entry)


def proof_of(entry: Entry) -> InclusionProof:
    """Like `inclusion_proof`, but writes nothing: Conflict for an entry that has no place yet."""
    head = latest_checkpoint()
    if entry.index is None or head is None or entry.index >= head.size:
        raise Conflict(
            "not_sealed_yet",
            "This entry is not sealed into the log yet: that happens a few seconds after the act.",
            "Try again in a few seconds.",
        )
    try:
        path = translog.inclusion_proof(entry.index, head.size, reader(head.size))
        note = head.note.encode()
        proof = translog.format_proof(entry.index, path, note)
        # A proof that does not verify must not leave the house: it would accuse the entry instead of the table.
        translog.verify_proof(
            proof, translog.leaf_data(entry_document(entry), bytes(entry.salt)), log_verifier()
        )
    except LogError as error:
        raise LogBroken(str(error)) from error
    return InclusionProof(entry.index, head.size, proof, note)


def entry_file(entry: Entry) -> bytes:
    """The bytes of `log/entry.json` in an output package: the entry and the salt that opens its leaf."""
    return translog.entry_file(entry_document(entry), bytes(entry.salt))


def portal_keys() -> dict[str, Any]:
    """What anybody needs to check this portal's word, and to seal a dataset for it (/.well-known/strongroom.json).

    `keys` is portal.json as packages hold it and `strongroom verify --keys` takes it.
    """
    return {
        "v": 1,
        "api": f"{settings.PORTAL_URL}/api/v1",
        "keys": PortalKeys(
            portal=settings.PORTAL_ID,
            log=log_verifier(),
            verdict_key=_signing_public("verdict"),
            software_attesters=(_signing_public("software-attester"),),
        ).to_json(),
        "broker": broker_public().to_json(),
    }


def _signing_public(name: str) -> bytes:
    return signing_key(name).public_key().public_bytes_raw()


def named(rows: list[Entry]) -> list[tuple[Entry, str]]:
    """Entries with the name of their actor where there is one, the code otherwise: one query for all."""
    names = rules().names_of({row.actor for row in rows})
    return [(row, names.get(row.actor, row.actor)) for row in rows]


def waiting_for(user: Any) -> list[Waiting]:
    """Nothing in the log ever waits for anybody."""
    return []
