"""API tokens and their scopes."""

from __future__ import annotations

import hashlib
from typing import Any

from django.db.models import Q
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from apps.accounts.models import ApiToken, User
from apps.core.clock import now


def digest_of(secret: str) -> str:
    """What is stored of a token: the SHA-256 of the whole secret (256 random bits, so no slow hash is needed)."""
    return hashlib.sha256(secret.encode()).hexdigest()


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer srt_…`. A token is live until it expires, is revoked, or its person is deactivated.

    A token from before its person chose a password of their own is not: an operator could have made it.
    """

    keyword = b"bearer"

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        parts = get_authorization_header(request).split()
        if not parts or parts[0].lower() != self.keyword:
            return None
        if len(parts) != 2:
            raise AuthenticationFailed("The Authorization header must read: Bearer, a space, the token.")
        moment = now()
        token = (
            ApiToken.objects.select_related("user", "user__organisation")
            .filter(
                digest=digest_of(parts[1].decode("latin-1")), revoked_at__isnull=True, expires_at__gt=moment
            )
            .filter(user__is_active=True, user__password_chosen_at__isnull=False)
            .first()
        )
        if token is None:
            raise AuthenticationFailed(
                "This token is unknown, expired or revoked. Make a new one on your account page."
            )
        # Once a minute is enough to know when a token was last used, and spares a write on each request.
        ApiToken.objects.filter(pk=token.pk).filter(
            Q(last_used_at__isnull=True) | Q(last_used_at__lt=moment.replace(second=0, microsecond=0))
        ).update(last_used_at=moment)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class HasScope(BasePermission):
    """A signed-in person may; a token may only with the scope that the view names for the method.

    A view says `scopes = {"GET": "read", "POST": "research"}`, or names several of which one is enough. A view that
    says nothing refuses every token.
    """

    message = "This token lacks the scope for this call. Make one with the right scope on your account page."

    def has_permission(self, request: Request, view: Any) -> bool:
        if not request.user or not request.user.is_authenticated:
            return False
        method = "GET" if request.method in ("HEAD", "OPTIONS") else str(request.method)
        return has_scope(request, getattr(view, "scopes", {}).get(method) or ())


def has_scope(request: Request, scopes: str | tuple[str, ...]) -> bool:
    """Whether the request's token has one of these scopes; a person without a token needs none."""
    if not isinstance(request.auth, ApiToken):
        return True
    accepted = (scopes,) if isinstance(scopes, str) else scopes
    return any(scope in request.auth.scopes for scope in accepted)


class TokenScheme(OpenApiAuthenticationExtension):
    target_class = "apps.accounts.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
