"""Which key broker holds a dataset's keys, and to which public keys its data may be sealed.

Nothing named in the row: this portal's own. Else a custodian's (docs/explanation/key-release.md), which the operator
has admitted in KEY_BROKERS: a person at a page cannot make the portal speak to an address of their choice.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings

from apps.core.errors import NotFound
from apps.core.keys import key_store
from apps.datasets.models import Dataset
from apps.datasets.states import VersionState
from strongroom.errors import FormatError
from strongroom.seal import PublicKey, SealHeader
from strongroom.seal.keys import X25519

WRAPPED_SIZES = {
    "x25519": 32 + 32 + 16,
    "mlkem768x25519": 1088 + 32 + 32 + 16,
}  # encapsulated key, data key, tag


def admitted() -> dict[str, str]:
    """Custodians' brokers that this portal may ask: id -> address."""
    return {name: address.rstrip("/") for name, address in settings.KEY_BROKERS.items()}


def offered(dataset: Dataset) -> list[str]:
    """Ids of the brokers that can hold its keys from now on, "" being this portal's own.

    Once data are sealed, that is the present one alone; none at all where the operator has taken that off the list.
    """
    possible = ["", *sorted(admitted())]
    return [name for name in possible if name == dataset.key_broker] if sealed(dataset) else possible


def sealed(dataset: Dataset) -> bool:
    """Whether any data were sealed to the keys of its broker, so that no other can take its place."""
    return dataset.versions.exclude(state=VersionState.UPLOADING).exists()


def is_admitted(dataset: Dataset) -> bool:
    """Whether this portal may ask the broker that holds its keys."""
    return not dataset.key_broker or dataset.key_broker in admitted()


def dataset_of(pk: str | None) -> Dataset | None:
    """The dataset of that id, for its public keys alone; None without an id. Raises NotFound."""
    if pk is None:
        return None
    try:
        found = Dataset.objects.filter(pk=UUID(pk)).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("dataset")
    return found


def keys_of(dataset: Dataset) -> list[PublicKey]:
    """The keys to seal to, the preferred one first. Raises KeyStoreError where the portal's own store is out of reach."""
    if not dataset.key_broker:
        return key_store().public_keys()
    return [PublicKey.from_json(key) for key in dataset.key_broker_keys]


def key_for(dataset: Dataset, *, browser: bool) -> PublicKey | None:
    """The key to seal to; a browser can do X25519 only. None where the broker has no such key."""
    keys = keys_of(dataset)
    return next((key for key in keys if not browser or key.suite == X25519), None)


def fault_of(dataset: Dataset, header: SealHeader) -> str:
    """Why the wrapped key of a seal header is not one for this dataset's broker; "" if it is."""
    known = {key.id: key for key in keys_of(dataset)}
    key = known.get(header.recipient)
    if key is None or header.suite != key.suite:
        whose = f"the key broker {dataset.key_broker}" if dataset.key_broker else "this portal's key broker"
        return f"The data key was wrapped for another recipient than {whose} ({', '.join(known)})."
    if len(header.wrapped_key) != WRAPPED_SIZES[key.suite]:
        return (
            f"The wrapped data key must have {WRAPPED_SIZES[key.suite]} bytes, not {len(header.wrapped_key)}."
        )
    return ""


def parse_keys(value: Any, *, broker: str) -> list[dict[str, str]]:
    """Public keys as `strongroom broker keys` prints them, or the list alone. Raises FormatError.

    Data sealed to another broker's keys would open nowhere: a print that names another one is refused.
    """
    if isinstance(value, dict):
        if (whose := value.get("id", broker)) != broker:
            raise FormatError(f"These are the keys of the key broker {str(whose)[:200]}, not of {broker}.")
        value = value.get("keys")
    if not isinstance(value, list) or not 1 <= len(value) <= 10:
        raise FormatError("The broker's keys must be a list of one to ten key objects.")
    return [
        PublicKey.from_json(
            {m: key[m] for m in ("suite", "public", "id") if m in key} if isinstance(key, dict) else key
        ).to_json()
        for key in value
    ]
