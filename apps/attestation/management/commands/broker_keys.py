"""The keys of this portal's own key broker: look at them, try them, make a new one, throw an old one away."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from apps.attestation.queries import sealed_to
from apps.core.actors import System
from apps.core.keys import key_store
from apps.core.lifecycle import recorder
from strongroom.broker.errors import KeyStoreError
from strongroom.seal.keys import SUITES

OPERATOR = System("operator")


class Command(BaseCommand):
    """`manage.py broker_keys [check | rotate SUITE | retire ID]`; without an argument, the list."""

    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        acts = parser.add_subparsers(dest="act")
        acts.add_parser("list", help="the keys and their states (the default)")
        acts.add_parser("check", help="open every private half once")
        acts.add_parser("rotate", help="make a new key").add_argument("suite", choices=SUITES)
        acts.add_parser("retire", help="throw an old private half away, for good").add_argument("key")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._act(options.get("act") or "list", options)
        except KeyStoreError as error:
            raise CommandError(str(error)) from None

    def _act(self, act: str, options: dict[str, Any]) -> None:
        store = key_store()
        match act:
            case "check":
                store.check()
                self.stdout.write(f"Every key of {store!r} opens.")
            case "rotate":
                made = store.rotate(options["suite"])
                self._record("broker_key.rotated", made.id)
                self.stdout.write(f"New key {made.id}. Data sealed to the one before still open.")
            case "retire":
                if names := sealed_to(options["key"]):
                    raise CommandError(
                        f"Data are sealed to this key and could never be opened again: {', '.join(names)}. "
                        "Have them uploaded anew first."
                    )
                store.retire(options["key"])
                self._record("broker_key.retired", options["key"])
                self.stdout.write(f"The key {options['key']} is retired.")
            case _:
                for key in store.list_keys():
                    self.stdout.write(f"{key.public.id}  {key.public.suite}  {key.state}  made {key.created}")

    def _record(self, event: str, key: str) -> None:
        with transaction.atomic():
            recorder()(event=event, by=OPERATOR, object_type="broker_key", object_id=key, data={"key": key})
