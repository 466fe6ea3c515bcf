"""What the API files of this app share."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from apps.accounts.authentication import HasScope

REF = OpenApiParameter(
    "ref", OpenApiTypes.STR, OpenApiParameter.PATH, description="Short name or id of the dataset"
)


class PublicRead(HasScope):
    """Reading is open to everybody, without signing in; the rest as HasScope says."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if request.method in SAFE_METHODS and not (request.user and request.user.is_authenticated):
            return True
        return super().has_permission(request, view)


class ErrorOut(serializers.Serializer[Any]):
    """A refusal: a stable code, what happened, what to do next."""

    code = serializers.CharField()
    detail = serializers.CharField()
    remedy = serializers.CharField()


class ReasonIn(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=2000)


def valid(serializer: serializers.Serializer[Any]) -> dict[str, Any]:
    """What was sent, once the serializer has found it well-formed. Raises its ValidationError (422)."""
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)
