"""Every write about organisations, people, roles, training, terms, passwords and tokens.

Accounts are no lifecycles: each action writes its row and one audit entry in a transaction, and where a reason is
given, a history row that holds the reason (the log holds only its digest: reasons may name people).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.contrib.auth import password_validation
from django.core.exceptions import ValidationError
from django.core.validators import validate_email, validate_slug
from django.db import transaction

from apps.accounts import leaving
from apps.accounts.authentication import digest_of
from apps.accounts.errors import choose_own_password, invalid, not_for_yourself
from apps.accounts.models import ApiToken, Organisation, RoleHolding, TermsAcceptance, Training, User
from apps.accounts.permissions import require_manage_people
from apps.accounts.policies import TOKEN_DAYS, clash, fits
from apps.accounts.queries import live
from apps.accounts.roles import ROLES, Role
from apps.core.actors import System, require_actor
from apps.core.clock import now
from apps.core.errors import Conflict, Denied, Invalid
from apps.core.lifecycle import recorder
from apps.core.models import StateChange


def create_organisation(*, by: User, name: str, slug: str, kind: str, address: str = "") -> Organisation:
    """Add an organisation. Invalid for a slug in use or an unknown kind."""
    require_manage_people(by)
    return _new_organisation(by=by, name=name, slug=slug, kind=kind, address=address)


def _new_organisation(*, by: object, name: str, slug: str, kind: str, address: str = "") -> Organisation:
    name, slug = _text("name", name, 200), slug.strip().lower()
    if kind not in Organisation.Kind.values:
        raise invalid("kind", "Choose what kind of organisation it is")
    try:
        validate_slug(slug)
    except ValidationError:
        raise invalid("slug", "The short name may have letters, digits and hyphens only") from None
    if len(slug) > 60:
        raise invalid("slug", "The short name must be 60 characters or fewer")
    with transaction.atomic():
        organisation, created = Organisation.objects.get_or_create(
            slug=slug, defaults={"name": name, "kind": kind, "address": address.strip()}
        )
        if not created:
            raise invalid("slug", "There is already an organisation with this short name", code="exists")
        _record("organisation.created", by, "organisation", organisation.pk, {"kind": kind})
    return organisation


def create_person(
    *, by: User, email: str, name: str, organisation: Organisation, password: str, job_title: str = ""
) -> User:
    """Add a person with a first password, which they must replace before they can do anything. Gives no role."""
    require_manage_people(by)
    return _new_person(
        by=by, email=email, name=name, organisation=organisation, password=password, job_title=job_title
    )


def _new_person(
    *, by: object, email: str, name: str, organisation: Organisation, password: str, job_title: str = ""
) -> User:
    name, email = _text("name", name, 200), email.strip().lower()
    try:
        validate_email(email)
    except ValidationError:
        raise invalid("email", "Enter an e-mail address like name@example.org") from None
    person = User(
        email=email,
        name=name,
        organisation=organisation,
        job_title=_text("job_title", job_title, 200, empty=True),
    )
    _check_password(password, person, "password")
    person.set_password(password)
    with transaction.atomic():
        # The unique constraint decides between two operators; the look-up only makes the usual refusal a sentence.
        if User.objects.filter(email__iexact=email).exists():
            raise invalid("email", "There is already a person with this e-mail address", code="exists")
        person.save(force_insert=True)
        _record("person.created", by, "person", person.pk, {"organisation": str(organisation.pk)})
    return person


def grant_role(
    *, by: User, user: User, role: str, organisation: Organisation, expires_at: dt.datetime | None = None
) -> RoleHolding:
    """Give a person a role in an organisation.

    Denied for oneself, and for roles that may not stand together (policies.clash). Invalid where the role cannot be
    held in such an organisation. Conflict where the person holds it already.
    """
    require_manage_people(by)
    if by.pk == user.pk:
        raise not_for_yourself("grant a role")
    return _grant(by=by, user=user, role=role, organisation=organisation, expires_at=expires_at)


def _grant(
    *, by: object, user: User, role: str, organisation: Organisation, expires_at: dt.datetime | None = None
) -> RoleHolding:
    if role not in list(Role):
        raise invalid("role", "Choose a role")
    wanted, moment = Role(role), now()
    if not fits(wanted, organisation.kind):
        where = ROLES[wanted].held_in
        raise invalid("organisation", _where_held(wanted, where))
    if not organisation.is_active:
        raise invalid("organisation", f"{organisation.name} is no longer active")
    if expires_at is not None and expires_at <= moment:
        raise invalid("expires_at", "The last day must be in the future")
    with transaction.atomic():
        # Two grants at once to one person must see each other, or a forbidden pair slips through.
        person = User.objects.select_for_update().get(pk=user.pk)
        if not person.is_active:
            raise Conflict(
                "deactivated", f"The account of {person.name} is deactivated.", "Reactivate it first."
            )
        RoleHolding.objects.filter(user=person, revoked_at__isnull=True, expires_at__lte=moment).update(
            revoked_at=moment
        )
        held = list(person.holdings.filter(revoked_at__isnull=True))
        if any(h.role == wanted and h.organisation_id == organisation.pk for h in held):
            raise Conflict(
                "already_held",
                f"{person.name} already holds the role “{ROLES[wanted].label}” in {organisation.name}.",
                "Nothing needs doing. To change its last day, revoke it and grant it again.",
            )
        if found := clash([Role(h.role) for h in held], wanted):
            other, why = found
            raise Denied(
                "separation_of_duties",
                f"{person.name} is “{ROLES[other].label}” and so cannot also be “{ROLES[wanted].label}”. {why}",
                "Give the role to somebody else, or revoke the other role first.",
            )
        holding = RoleHolding.objects.create(
            user=person,
            role=wanted.value,
            organisation=organisation,
            granted_by=require_actor(by),
            expires_at=expires_at,
        )
        _history("role_holding", holding.pk, "", "granted", by)
        data = {"holding": str(holding.pk), "role": wanted.value, "organisation": str(organisation.pk)}
        if expires_at:
            data["expires_at"] = expires_at.isoformat()
        _record("role.granted", by, "person", person.pk, data)
    _forget_roles(user)
    return holding


def _where_held(role: Role, where: str) -> str:
    label = ROLES[role].label
    if where == "project":
        return f"“{label}” is a role of a project: it comes with the project, not from here"
    return f"“{label}” can only be held in an organisation of the kind “{Organisation.Kind(where).label}”"


def revoke_role(*, by: User, holding: RoleHolding, reason: str) -> None:
    """Take a role back, from now. Conflict if it was already, or if something would be left without anybody who
    answers for it (leaving.py); Denied for the last operator of the portal."""
    require_manage_people(by)
    reason = _reason(reason)
    with transaction.atomic():
        if holding.role == Role.OPERATOR:
            _keep_one_operator(but=holding.user_id)
        leaving.ask(holding)
        changed = RoleHolding.objects.filter(pk=holding.pk, revoked_at__isnull=True).update(revoked_at=now())
        if not changed:
            raise Conflict(
                "already_revoked",
                "This role was already taken back.",
                "Reload the page to see the roles held now.",
            )
        _history("role_holding", holding.pk, "granted", "revoked", by, reason)
        data = {
            "holding": str(holding.pk),
            "role": holding.role,
            "organisation": str(holding.organisation_id),
        }
        _record("role.revoked", by, "person", holding.user_id, {**data, "reason_sha256": _digest(reason)})
    holding.refresh_from_db(fields=["revoked_at"])
    _forget_roles(by)


def deactivate_person(*, by: User, user: User, reason: str) -> None:
    """Close an account: no login, sessions and tokens end at once. The person stays named in the record."""
    require_manage_people(by)
    if by.pk == user.pk:
        raise Denied(
            "separation_of_duties",
            "You cannot deactivate your own account.",
            "Ask another operator to do it.",
        )
    reason = _reason(reason)
    with transaction.atomic():
        if live(RoleHolding.objects.filter(user=user, role=Role.OPERATOR)).exists():
            _keep_one_operator(but=user.pk)
        if not User.objects.filter(pk=user.pk, is_active=True).update(is_active=False):
            raise Conflict(
                "already_deactivated",
                f"The account of {user.name} is already deactivated.",
                "Nothing needs doing.",
            )
        tokens = ApiToken.objects.filter(user=user, revoked_at__isnull=True).update(revoked_at=now())
        _history("person", user.pk, "active", "deactivated", by, reason)
        _record(
            "person.deactivated", by, "person", user.pk, {"tokens": tokens, "reason_sha256": _digest(reason)}
        )
    user.is_active = False


def reactivate_person(*, by: User, user: User, reason: str) -> None:
    """Open a closed account again. Roles come back as far as they have not expired; tokens do not."""
    require_manage_people(by)
    reason = _reason(reason)
    with transaction.atomic():
        if not User.objects.filter(pk=user.pk, is_active=False).update(is_active=True):
            raise Conflict("already_active", f"The account of {user.name} is active.", "Nothing needs doing.")
        _history("person", user.pk, "deactivated", "active", by, reason)
        _record("person.reactivated", by, "person", user.pk, {"reason_sha256": _digest(reason)})
    user.is_active = True


def _keep_one_operator(*, but: object) -> None:
    """Raise Denied unless somebody other than `but` is an operator. Locks, so that two cannot remove each other."""
    others = live(
        RoleHolding.objects.filter(role=Role.OPERATOR, user__is_active=True, organisation__is_active=True)
    )
    ids = set(others.select_for_update(of=("self",)).order_by("pk").values_list("user_id", flat=True))
    if not ids - {but}:
        raise Denied(
            "last_operator",
            "This is the last operator of the portal. Without one nobody could manage people.",
            "Give somebody else the role “Operator” first.",
        )


def record_training(*, by: User, user: User, course: str, completed_on: dt.date) -> Training:
    """Note a completed course. An operator cannot vouch for themselves."""
    require_manage_people(by)
    if by.pk == user.pk:
        raise not_for_yourself("record training")
    course = _text("course", course, 200)
    if completed_on > now().date():
        raise invalid("completed_on", "The day of completion must be today or in the past")
    with transaction.atomic():
        training = Training.objects.create(
            user=user, course=course, completed_on=completed_on, recorded_by=require_actor(by)
        )
        data = {"training": str(training.pk), "completed_on": completed_on.isoformat()}
        _record("training.recorded", by, "person", user.pk, data)
    return training


def accept_terms(*, by: User, version: str) -> TermsAcceptance:
    """Accept the terms of use in their present version. Accepting twice is accepting once."""
    if not getattr(by, "is_authenticated", False):
        raise Denied(
            "sign_in_first",
            "Only a signed-in person can accept the terms of use.",
            "Sign in, then accept them.",
        )
    if version != settings.TERMS_VERSION:
        raise Conflict(
            "terms_changed",
            f"The terms of use are now version {settings.TERMS_VERSION}, not {version}. Nothing was accepted.",
            "Read the present terms, then accept those.",
        )
    with transaction.atomic():
        acceptance, created = TermsAcceptance.objects.get_or_create(user=by, version=version)
        if created:
            _record("terms.accepted", by, "person", by.pk, {"version": version})
    return acceptance


def change_password(*, by: User, current: str, new: str) -> None:
    """Replace one's own password. Every other session of the person ends (Django ties sessions to the hash)."""
    from apps.accounts.reauth import reauthenticate

    try:
        reauthenticate(user=by, password=current)
    except Invalid as error:
        raise Invalid(
            error.code, error.detail, error.remedy, fields={"current": error.fields["password"]}
        ) from None
    if current == new:
        raise invalid("new", "The new password must differ from the present one")
    _check_password(new, by, "new")
    with transaction.atomic():
        by.set_password(new)
        by.password_chosen_at = now()
        by.save(update_fields=["password", "password_chosen_at"])
        _record("password.changed", by, "person", by.pk)


def create_token(*, by: User, name: str, scopes: Iterable[str], days: int) -> tuple[ApiToken, str]:
    """Make an API token. Returns (row, secret): the secret exists nowhere else and is never shown again.

    Denied as long as the person has not replaced the first password that an operator gave them.
    """
    if not getattr(by, "is_authenticated", False) or not by.is_active:
        raise Denied("sign_in_first", "Only a signed-in person can make a token.", "Sign in, then make one.")
    if by.password_chosen_at is None:
        raise choose_own_password()
    name, wanted = _text("name", name, 100), sorted(set(scopes))
    if not wanted or not set(wanted) <= set(ApiToken.Scope.values):
        raise invalid("scopes", "Choose at least one thing that the token may do")
    if not TOKEN_DAYS[0] <= days <= TOKEN_DAYS[1]:
        raise invalid("days", f"A token lives between {TOKEN_DAYS[0]} and {TOKEN_DAYS[1]} days")
    secret = f"srt_{secrets.token_urlsafe(32)}"
    moment = now()
    with transaction.atomic():
        User.objects.select_for_update().get(pk=by.pk)
        # A form sent twice must not leave a second, forgotten token behind: names are unique among live tokens.
        if ApiToken.objects.filter(
            user=by, name=name, revoked_at__isnull=True, expires_at__gt=moment
        ).exists():
            raise invalid(
                "name",
                "You already have a token with this name. Choose another name, or revoke that one",
                code="exists",
            )
        token = ApiToken.objects.create(
            user=by,
            name=name,
            digest=digest_of(secret),
            hint=secret[:8],
            scopes=wanted,
            expires_at=moment + dt.timedelta(days=days),
        )
        data = {"scopes": wanted, "expires_at": token.expires_at.isoformat()}
        _record("token.created", by, "token", token.pk, data)
    return token, secret


def revoke_token(*, by: User, token: ApiToken) -> None:
    """End a token of one's own, at once. Twice is once."""
    if token.user_id != getattr(by, "pk", None):
        raise Denied(
            "not_yours", "You can only revoke your own tokens.", "Ask its owner, or deactivate their account."
        )
    with transaction.atomic():
        if ApiToken.objects.filter(pk=token.pk, revoked_at__isnull=True).update(revoked_at=now()):
            _record("token.revoked", by, "token", token.pk)
    token.refresh_from_db(fields=["revoked_at"])


def bootstrap_operator(*, by: System, email: str, name: str, organisation: str, password: str) -> User:
    """The first operator (and, after a disaster, another one): only for whoever has the machine itself."""
    if not isinstance(by, System):
        raise Denied(
            "not_from_here",
            "Only the command create_operator can do this.",
            "Run it on the portal's machine.",
        )
    from django.utils.text import slugify

    slug = slugify(organisation)[:60] or "operator"
    with transaction.atomic():
        where = Organisation.objects.filter(slug=slug).first() or _new_organisation(
            by=by, name=organisation, slug=slug, kind=Organisation.Kind.OPERATOR
        )
        person = _new_person(by=by, email=email, name=name, organisation=where, password=password)
        _grant(by=by, user=person, role=Role.OPERATOR, organisation=where)
        # Whoever ran the command chose their own password.
        person.password_chosen_at = now()
        person.save(update_fields=["password_chosen_at"])
    return person


def _check_password(password: str, person: User, field: str) -> None:
    try:
        password_validation.validate_password(password, person)
    except ValidationError as error:
        raise Invalid(
            "weak_password",
            "This password cannot be used.",
            "Choose another one.",
            fields={field: list(error.messages)},
        ) from None


def _text(field: str, value: str, limit: int, *, empty: bool = False) -> str:
    value = " ".join(value.split())
    if not value and not empty:
        raise invalid(field, f"Enter the {field.replace('_', ' ')}")
    if len(value) > limit:
        raise invalid(field, f"The {field.replace('_', ' ')} must be {limit} characters or fewer")
    if not value.isprintable():
        raise invalid(field, f"The {field.replace('_', ' ')} contains characters that cannot be printed")
    return value


def _reason(reason: str) -> str:
    if not reason.strip():
        raise Invalid(
            "reason_missing", "Give a reason.", "Say in a sentence why.", fields={"reason": ["Give a reason"]}
        )
    return reason.strip()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _record(
    event: str, by: object, object_type: str, object_id: object, data: dict[str, Any] | None = None
) -> None:
    recorder()(event=event, by=by, object_type=object_type, object_id=object_id, data=data or {})


def _history(
    object_type: str, object_id: Any, source: str, target: str, by: object, reason: str = ""
) -> None:
    StateChange.objects.create(
        object_type=object_type,
        object_id=object_id,
        from_state=source,
        to_state=target,
        by=require_actor(by),
        reason=reason,
        at=now(),
    )


def _forget_roles(user: User) -> None:
    """The roles are read once per user object (permissions.live_holdings): after a change they must be read again."""
    if hasattr(user, "_live_holdings"):
        del user._live_holdings
