from typing import Any

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "apps.accounts"
    label = "accounts"

    def ready(self) -> None:
        from axes.signals import user_locked_out

        from apps.accounts import permissions, queries
        from apps.audit.permissions import set_rules

        # The log may not import this app: it is told who reads it and what people are called.
        set_rules(
            may_read=permissions.can_read_log, names_of=queries.names_of, actors_called=queries.actors_called
        )
        user_locked_out.connect(_record_lock_out, dispatch_uid="accounts.record_lock_out")


def _record_lock_out(sender: Any, username: str | None = None, **kwargs: Any) -> None:
    """A lock-out is on the record, once a quarter of an hour, if the account exists; the address typed is not."""
    from apps.accounts.login import WINDOW
    from apps.accounts.models import User
    from apps.audit.models import Entry
    from apps.core.actors import System
    from apps.core.clock import now
    from apps.core.lifecycle import recorder

    person = User.objects.filter(email__iexact=username or "").first()
    if person is None:
        return
    known = Entry.objects.filter(event="person.locked_out", object_type="person", object_id=str(person.pk))
    if not known.filter(at__gt=now() - WINDOW).exists():
        recorder()(
            event="person.locked_out", by=System("login"), object_type="person", object_id=person.pk, data={}
        )
