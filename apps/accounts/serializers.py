"""Shapes of the accounts API."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.accounts.models import ApiToken, Organisation, RoleHolding, Training, User
from apps.accounts.policies import TOKEN_DAYS
from apps.accounts.roles import ROLES, Role

HELD = [(r.value, i.label) for r, i in ROLES.items() if i.held_in != "project"]


class OrganisationSerializer(serializers.ModelSerializer[Organisation]):
    class Meta:
        model = Organisation
        fields = ["id", "slug", "name", "kind", "address", "is_active"]
        read_only_fields = ["id", "is_active"]
        # The action says in our words that a slug is taken.
        extra_kwargs: dict[str, dict[str, Any]] = {"slug": {"validators": []}}


class OrganisationBrief(serializers.ModelSerializer[Organisation]):
    class Meta:
        model = Organisation
        fields = ["id", "slug", "name", "kind"]


class HoldingSerializer(serializers.ModelSerializer[RoleHolding]):
    label = serializers.CharField(source="get_role_display", read_only=True)  # type: ignore[assignment]
    organisation = OrganisationBrief(read_only=True)

    class Meta:
        model = RoleHolding
        fields = [
            "id",
            "role",
            "label",
            "organisation",
            "granted_by",
            "created_at",
            "expires_at",
            "revoked_at",
        ]


class PersonSerializer(serializers.ModelSerializer[User]):
    organisation = OrganisationBrief(read_only=True)
    roles = HoldingSerializer(many=True, read_only=True, source="roles_now")

    class Meta:
        model = User
        fields = ["id", "name", "email", "job_title", "organisation", "is_active", "created_at", "roles"]


class PersonWrite(serializers.Serializer[Any]):
    email = serializers.EmailField()
    name = serializers.CharField(max_length=200)
    organisation = serializers.CharField(help_text="Id or short name of an organisation.")
    password = serializers.CharField(trim_whitespace=False, max_length=1000, write_only=True)
    job_title = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")


class RoleGrant(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=HELD)
    organisation = serializers.CharField(help_text="Id or short name of an organisation.")
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


class Reason(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=1000)


class TrainingSerializer(serializers.ModelSerializer[Training]):
    class Meta:
        model = Training
        fields = ["id", "course", "completed_on", "recorded_by"]
        read_only_fields = ["id", "recorded_by"]


class RoleSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    purpose = serializers.CharField()
    held_in = serializers.CharField()
    permissions = serializers.ListField(child=serializers.CharField())
    not_with = serializers.ListField(
        child=serializers.CharField(), help_text="Roles that the same person cannot hold."
    )


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    class Meta:
        model = ApiToken
        fields = ["id", "name", "hint", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at"]


class TokenWrite(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=100)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=ApiToken.Scope.choices), allow_empty=False
    )
    days = serializers.IntegerField(min_value=TOKEN_DAYS[0], max_value=TOKEN_DAYS[1], default=30)


class TokenMade(TokenSerializer):
    token = serializers.CharField(help_text="The secret. It is shown in this answer only.")

    class Meta(TokenSerializer.Meta):
        fields = [*TokenSerializer.Meta.fields, "token"]


class PasswordLogin(TokenWrite):
    email = serializers.EmailField()
    password = serializers.CharField(trim_whitespace=False, max_length=1000, write_only=True)
    name = serializers.CharField(max_length=90, default="strongroom login")
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=ApiToken.Scope.choices),
        allow_empty=False,
        default=["read", "research"],
    )


class WhoamiSerializer(serializers.ModelSerializer[User]):
    organisation = OrganisationBrief(read_only=True)
    roles = serializers.SerializerMethodField()
    token = serializers.SerializerMethodField()
    training_valid = serializers.SerializerMethodField()
    terms_accepted = serializers.SerializerMethodField()

    class Meta:
        model = User
        fields = ["id", "email", "name", "organisation", "roles", "training_valid", "terms_accepted", "token"]

    def get_roles(self, user: User) -> list[dict[str, Any]]:
        from apps.accounts.permissions import live_holdings

        return [dict(HoldingSerializer(h).data) for h in live_holdings(user)]

    def get_token(self, user: User) -> dict[str, Any] | None:
        auth = self.context.get("auth")
        return dict(TokenSerializer(auth).data) if isinstance(auth, ApiToken) else None

    def get_training_valid(self, user: User) -> bool:
        from apps.accounts.queries import training_valid

        return training_valid(user)

    def get_terms_accepted(self, user: User) -> bool:
        from apps.accounts.queries import terms_accepted

        return terms_accepted(user)


class TermsSerializer(serializers.Serializer[Any]):
    version = serializers.CharField(max_length=20)


class ErrorSerializer(serializers.Serializer[Any]):
    """Every refusal has this shape."""

    code = serializers.CharField()
    detail = serializers.CharField()
    remedy = serializers.CharField()


def role_rows() -> list[dict[str, Any]]:
    """The role table for the API."""
    from apps.accounts.policies import incompatible

    return [
        {
            "code": role.value,
            "label": info.label,
            "purpose": info.purpose,
            "held_in": info.held_in,
            "permissions": sorted(p.value for p in info.permissions),
            "not_with": [other.value for other, _ in incompatible(role)]
            if role != Role.PRINCIPAL_INVESTIGATOR
            else [],
        }
        for role, info in ROLES.items()
    ]
