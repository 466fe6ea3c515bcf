"""Writes on who holds a dataset's keys."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from apps.accounts.models import User
from apps.core.errors import Conflict, Invalid
from apps.core.lifecycle import recorder
from apps.datasets import brokers
from apps.datasets.models import Dataset
from apps.datasets.permissions import require_acts_for
from strongroom.errors import FormatError


def set_key_broker(*, by: User, dataset: Dataset, broker: str, keys: Any = None) -> Dataset:
    """Let a custodian's own key broker hold the keys of this dataset, or ("") this portal's again.

    broker: an id that the operator has admitted. keys: the broker's public keys, got from its operator, not from the
    portal. Only while nothing has been uploaded: what is sealed to one broker opens at no other.
    Raises Denied, Invalid, Conflict.
    """
    require_acts_for(by, dataset, to="choose the key broker of this dataset")
    parsed: list[dict[str, str]] = []
    if broker:
        if broker not in brokers.admitted():
            raise Invalid(
                "broker_unknown",
                f"This portal does not know a key broker “{broker}”.",
                "Ask the operator to add it to STRONGROOM_KEY_BROKERS.",
                fields={"broker": ["Choose a key broker from the list"]},
            )
        try:
            parsed = brokers.parse_keys(keys, broker=broker)
        except FormatError as error:
            raise Invalid(
                "keys_malformed",
                str(error),
                "Send what “strongroom broker keys” prints.",
                fields={"keys": [str(error)]},
            ) from None
    with transaction.atomic():
        row = Dataset.objects.select_for_update().get(pk=dataset.pk)
        # New keys of the same broker, after a rotation: what was sealed to the old ones still opens there.
        if row.key_broker != broker and brokers.sealed(row):
            raise Conflict(
                "already_sealed",
                "Data of this dataset were sealed to the key broker it has now, and no other can open them.",
                "Register a new dataset for another key broker.",
            )
        row.key_broker, row.key_broker_keys = broker, parsed
        row.save(update_fields=["key_broker", "key_broker_keys"])
        recorder()(
            event="dataset.key_broker_set", by=by, object_type="dataset", object_id=row.pk,
            data={"broker": broker, "keys": [key["id"] for key in parsed]}, scope=f"dataset:{row.pk}",
        )  # fmt: skip
    return row
