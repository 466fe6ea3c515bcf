"""The accounts API: who am I, tokens, organisations, people and their roles. Same actions, same words as the pages."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from apps.accounts import actions, queries, serializers
from apps.accounts.authentication import HasScope
from apps.accounts.login import sign_in_by_password
from apps.accounts.models import ApiToken, User
from apps.accounts.permissions import me, require_manage_people
from apps.core.addresses import client_address
from apps.core.api import AnonymousRate, Pagination
from apps.core.clock import now
from apps.core.errors import Denied

E = serializers.ErrorSerializer
PERSON = {"id": "6f1c…", "name": "Ada Obi", "email": "ada@example.org", "is_active": True, "roles": []}
SEARCH = OpenApiParameter(
    "q", str, description="Words that must all occur in the name, e-mail address or organisation."
)


def read(serializer: type[Any], data: Any) -> dict[str, Any]:
    """The validated body; DRF's ValidationError becomes a 422 with the fields."""
    form = serializer(data=data)
    form.is_valid(raise_exception=True)
    return dict(form.validated_data)


class LoginRate(SimpleRateThrottle):
    """Logins from one address, right or wrong."""

    scope = "login"
    rate = "60/min"

    def get_cache_key(self, request: Request, view: Any) -> str:
        return str(self.cache_format % {"scope": self.scope, "ident": client_address(request)})


class LoginToken(APIView):
    """Password for token, as `strongroom login` does it; and its end."""

    # No session here: a login by password must work without a CSRF token and must not ride on a cookie.
    throttle_classes = [LoginRate, AnonymousRate]

    def get_authenticators(self) -> list[Any]:
        found = super().get_authenticators()
        return [] if self.request is not None and self.request.method == "POST" else found[:1]

    def get_permissions(self) -> list[Any]:
        return (
            [AllowAny()]
            if self.request is not None and self.request.method == "POST"
            else [IsAuthenticated()]
        )

    @extend_schema(
        operation_id="login_token_create",
        tags=["Account"],
        auth=[],
        summary="Get an API token for an e-mail address and password",
        request=serializers.PasswordLogin,
        responses={201: serializers.TokenMade, 422: E, 429: E},
        examples=[
            OpenApiExample(
                "Log in",
                request_only=True,
                value={
                    "email": "ada@example.org",
                    "password": "three random words",
                    "name": "my laptop",
                    "scopes": ["read", "research"],
                    "days": 30,
                },
            )
        ],
    )
    def post(self, request: Request) -> Response:
        data = read(serializers.PasswordLogin, request.data)
        user = sign_in_by_password(request._request, email=data["email"], password=data["password"])
        token, secret = actions.create_token(
            by=user, name=_free_name(user, data["name"]), scopes=data["scopes"], days=data["days"]
        )
        return Response({**serializers.TokenSerializer(token).data, "token": secret}, status=201)

    @extend_schema(
        operation_id="login_token_delete",
        tags=["Account"],
        summary="Revoke the token that this request carries",
        request=None,
        responses={204: None, 403: E},
    )
    def delete(self, request: Request) -> Response:
        if not isinstance(request.auth, ApiToken):
            raise Denied(
                "no_token",
                "This request carries no token.",
                "Send the token that should end in the Authorization header.",
            )
        actions.revoke_token(by=me(request), token=request.auth)
        return Response(status=204)


def _free_name(user: User, name: str) -> str:
    """`name`, or `name 2`, … : logging in again on one machine must work although names are unique."""
    taken = set(
        user.tokens.filter(revoked_at__isnull=True, expires_at__gt=now()).values_list("name", flat=True)
    )
    return next(one for one in [name, *(f"{name} {n}" for n in range(2, len(taken) + 3))] if one not in taken)


class Scoped(APIView):
    permission_classes = [HasScope]
    scopes: dict[str, str] = {}


class Whoami(Scoped):
    scopes = {"GET": "read"}

    @extend_schema(
        tags=["Account"],
        summary="The person behind this session or token, with the roles they hold",
        responses={200: serializers.WhoamiSerializer},
        examples=[OpenApiExample("A researcher", response_only=True, value={**PERSON, "token": None})],
    )
    def get(self, request: Request) -> Response:
        return Response(serializers.WhoamiSerializer(me(request), context={"auth": request.auth}).data)


class Roles(Scoped):
    scopes = {"GET": "read"}

    @extend_schema(
        tags=["Account"],
        summary="Every role: purpose, where it is held, permissions, what it excludes",
        responses={200: serializers.RoleSerializer(many=True)},
    )
    def get(self, request: Request) -> Response:
        return Response(serializers.RoleSerializer(serializers.role_rows(), many=True).data)


class Terms(Scoped):
    # Accepting binds the person, so a token must have been made for work, not only for reading.
    scopes = {"POST": "research"}

    @extend_schema(
        operation_id="terms_accept",
        tags=["Account"],
        summary="Accept the terms of use in their present version",
        request=serializers.TermsSerializer,
        responses={200: serializers.TermsSerializer, 409: E},
        examples=[OpenApiExample("Accept", request_only=True, value={"version": "1"})],
    )
    def post(self, request: Request) -> Response:
        accepted = actions.accept_terms(
            by=me(request), version=read(serializers.TermsSerializer, request.data)["version"]
        )
        return Response({"version": accepted.version})


class Tokens(Scoped):
    # No scope makes tokens: a token that could make tokens would never expire.
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="tokens_list",
        tags=["Account"],
        summary="Your tokens, without their secrets",
        responses={200: serializers.TokenSerializer(many=True)},
    )
    def get(self, request: Request) -> Response:
        return Response(serializers.TokenSerializer(me(request).tokens.all()[:200], many=True).data)

    @extend_schema(
        operation_id="tokens_create",
        tags=["Account"],
        summary="Make a token (from a session; the secret is in this answer only)",
        request=serializers.TokenWrite,
        responses={201: serializers.TokenMade, 422: E},
        examples=[
            OpenApiExample(
                "Thirty days", request_only=True, value={"name": "my laptop", "scopes": ["read"], "days": 30}
            )
        ],
    )
    def post(self, request: Request) -> Response:
        token, secret = actions.create_token(by=me(request), **read(serializers.TokenWrite, request.data))
        return Response({**serializers.TokenSerializer(token).data, "token": secret}, status=201)


class TokenRevoke(Scoped):
    scopes = {"POST": "read"}

    @extend_schema(
        operation_id="tokens_revoke",
        tags=["Account"],
        summary="Revoke one of your tokens",
        request=None,
        responses={200: serializers.TokenSerializer, 404: E},
    )
    def post(self, request: Request, pk: Any) -> Response:
        token = queries.token_for(me(request), pk)
        actions.revoke_token(by=me(request), token=token)
        return Response(serializers.TokenSerializer(token).data)


class Organisations(Scoped):
    scopes = {"GET": "read", "POST": "admin"}

    @extend_schema(
        operation_id="organisations_list",
        tags=["People"],
        summary="Organisations",
        parameters=[SEARCH],
        responses={200: serializers.OrganisationSerializer(many=True)},
    )
    def get(self, request: Request) -> Response:
        return paged(
            request,
            queries.organisations(request.query_params.get("q", "")),
            serializers.OrganisationSerializer,
        )

    @extend_schema(
        operation_id="organisations_create",
        tags=["People"],
        summary="Add an organisation (operator)",
        request=serializers.OrganisationSerializer,
        responses={201: serializers.OrganisationSerializer, 403: E, 422: E},
        examples=[
            OpenApiExample(
                "A university",
                request_only=True,
                value={
                    "name": "University of Northmoor",
                    "slug": "northmoor",
                    "kind": "university",
                    "address": "",
                },
            )
        ],
    )
    def post(self, request: Request) -> Response:
        made = actions.create_organisation(
            by=me(request), **read(serializers.OrganisationSerializer, request.data)
        )
        return Response(serializers.OrganisationSerializer(made).data, status=201)


class OrganisationDetail(Scoped):
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="organisations_retrieve",
        tags=["People"],
        summary="One organisation, by id or short name",
        responses={200: serializers.OrganisationSerializer, 404: E},
    )
    def get(self, request: Request, key: str) -> Response:
        return Response(serializers.OrganisationSerializer(queries.organisation_for(key)).data)


class OperatorView(Scoped):
    """People and their roles: the operator only. Tokens need `admin` even to read: it is personal data."""

    scopes = {"GET": "admin", "POST": "admin"}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        require_manage_people(request.user)


class People(OperatorView):
    @extend_schema(
        operation_id="people_list",
        tags=["People"],
        summary="People with the roles they hold (operator)",
        parameters=[SEARCH, OpenApiParameter("organisation", str), OpenApiParameter("role", str)],
        responses={200: serializers.PersonSerializer(many=True), 403: E},
    )
    def get(self, request: Request) -> Response:
        asked = request.query_params
        found = queries.people(asked.get("q", ""), asked.get("organisation", ""), asked.get("role", ""))
        return paged(request, found, serializers.PersonSerializer)

    @extend_schema(
        operation_id="people_create",
        tags=["People"],
        summary="Add a person (operator)",
        request=serializers.PersonWrite,
        responses={201: serializers.PersonSerializer, 403: E, 422: E},
        examples=[
            OpenApiExample(
                "A researcher",
                request_only=True,
                value={
                    "email": "ada@example.org",
                    "name": "Ada Obi",
                    "organisation": "northmoor",
                    "password": "a first password",
                    "job_title": "",
                },
            )
        ],
    )
    def post(self, request: Request) -> Response:
        data = read(serializers.PersonWrite, request.data)
        data["organisation"] = queries.organisation_for(data["organisation"])
        return person_response(actions.create_person(by=me(request), **data), status=201)


class PersonDetail(OperatorView):
    @extend_schema(
        operation_id="people_retrieve",
        tags=["People"],
        summary="One person (operator)",
        responses={200: serializers.PersonSerializer, 404: E},
    )
    def get(self, request: Request, pk: Any) -> Response:
        return person_response(queries.person_for(pk))


class PersonRoles(OperatorView):
    @extend_schema(
        operation_id="people_roles_grant",
        tags=["People"],
        summary="Give a person a role (operator; never to yourself)",
        request=serializers.RoleGrant,
        responses={201: serializers.HoldingSerializer, 403: E, 409: E, 422: E},
        examples=[
            OpenApiExample(
                "A custodian",
                request_only=True,
                value={"role": "custodian", "organisation": "north-hospital"},
            )
        ],
    )
    def post(self, request: Request, pk: Any) -> Response:
        data = read(serializers.RoleGrant, request.data)
        data["organisation"] = queries.organisation_for(data["organisation"])
        holding = actions.grant_role(by=me(request), user=queries.person_for(pk), **data)
        return Response(serializers.HoldingSerializer(holding).data, status=201)


class PersonRoleRevoke(OperatorView):
    @extend_schema(
        operation_id="people_roles_revoke",
        tags=["People"],
        summary="Take a role back (operator)",
        request=serializers.Reason,
        responses={200: serializers.HoldingSerializer, 403: E, 404: E, 409: E},
        examples=[OpenApiExample("Left", request_only=True, value={"reason": "Left the hospital."})],
    )
    def post(self, request: Request, pk: Any, holding: Any) -> Response:
        held = queries.holding_for(queries.person_for(pk), holding)
        actions.revoke_role(by=me(request), holding=held, **read(serializers.Reason, request.data))
        return Response(serializers.HoldingSerializer(held).data)


class PersonTraining(OperatorView):
    @extend_schema(
        operation_id="people_training_record",
        tags=["People"],
        summary="Record a completed course (operator)",
        request=serializers.TrainingSerializer,
        responses={201: serializers.TrainingSerializer, 403: E, 422: E},
        examples=[
            OpenApiExample(
                "A course",
                request_only=True,
                value={"course": "Research, GDPR and confidentiality", "completed_on": "2026-01-15"},
            )
        ],
    )
    def post(self, request: Request, pk: Any) -> Response:
        data = read(serializers.TrainingSerializer, request.data)
        made = actions.record_training(by=me(request), user=queries.person_for(pk), **data)
        return Response(serializers.TrainingSerializer(made).data, status=201)


class PersonDeactivate(OperatorView):
    @extend_schema(
        operation_id="people_deactivate",
        tags=["People"],
        summary="Close an account; its sessions and tokens end (operator)",
        request=serializers.Reason,
        responses={200: serializers.PersonSerializer, 403: E, 409: E},
    )
    def post(self, request: Request, pk: Any) -> Response:
        who = queries.person_for(pk)
        actions.deactivate_person(by=me(request), user=who, **read(serializers.Reason, request.data))
        return person_response(who)


class PersonReactivate(OperatorView):
    @extend_schema(
        operation_id="people_reactivate",
        tags=["People"],
        summary="Open a closed account again (operator)",
        request=serializers.Reason,
        responses={200: serializers.PersonSerializer, 403: E, 409: E},
    )
    def post(self, request: Request, pk: Any) -> Response:
        who = queries.person_for(pk)
        actions.reactivate_person(by=me(request), user=who, **read(serializers.Reason, request.data))
        return person_response(who)


def person_response(person: User, status: int = 200) -> Response:
    return Response(serializers.PersonSerializer(queries.person_for(person.pk)).data, status=status)


def paged(request: Request, found: Any, serializer: type[Any]) -> Response:
    """One page of `found` in the shape {count, next, previous, results}."""
    pages = Pagination()
    rows: Any = pages.paginate_queryset(found, request)
    return pages.get_paginated_response(serializer(rows, many=True).data)


urlpatterns = [
    path("login/token", LoginToken.as_view(), name="login-token"),
    path("whoami", Whoami.as_view(), name="whoami"),
    path("roles", Roles.as_view(), name="roles"),
    path("terms", Terms.as_view(), name="terms"),
    path("tokens", Tokens.as_view(), name="tokens"),
    path("tokens/<uuid:pk>/revoke", TokenRevoke.as_view(), name="token-revoke"),
    path("organisations", Organisations.as_view(), name="organisations"),
    path("organisations/<str:key>", OrganisationDetail.as_view(), name="organisation"),
    path("people", People.as_view(), name="people"),
    path("people/<uuid:pk>", PersonDetail.as_view(), name="person"),
    path("people/<uuid:pk>/roles", PersonRoles.as_view(), name="person-roles"),
    path(
        "people/<uuid:pk>/roles/<uuid:holding>/revoke", PersonRoleRevoke.as_view(), name="person-role-revoke"
    ),
    path("people/<uuid:pk>/training", PersonTraining.as_view(), name="person-training"),
    path("people/<uuid:pk>/deactivate", PersonDeactivate.as_view(), name="person-deactivate"),
    path("people/<uuid:pk>/reactivate", PersonReactivate.as_view(), name="person-reactivate"),
]
