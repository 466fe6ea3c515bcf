"""API: who may act for the custodian on a dataset."""

from __future__ import annotations

import uuid
from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.authentication import HasScope
from apps.accounts.models import User
from apps.accounts.permissions import me
from apps.core.errors import Invalid, NotFound
from apps.datasets import actions, permissions, queries
from apps.datasets.api.parts import REF, ErrorOut, valid
from apps.datasets.api.shapes import EXAMPLE


class ManagerIn(serializers.Serializer[Any]):
    email = serializers.EmailField()


class ManagerOut(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    email = serializers.EmailField()


class Managers(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "custody", "POST": "custody"}

    @extend_schema(
        operation_id="managers_list",
        summary="Who may act for the custodian",
        parameters=[REF],
        responses={200: ManagerOut(many=True), 403: ErrorOut},
        examples=[
            OpenApiExample(
                "One manager",
                value=[{"id": EXAMPLE["id"], "name": "Ada Obi", "email": "ada@example.org"}],
                response_only=True,
            )
        ],
    )
    def get(self, request: Request, ref: str) -> Response:
        dataset = queries.dataset_by_ref(request.user, ref)
        permissions.require_acts_for(request.user, dataset, to="see its managers")
        return Response(ManagerOut(permissions.managers(dataset), many=True).data)

    @extend_schema(
        operation_id="managers_add",
        summary="Let another custodian act",
        parameters=[REF],
        request=ManagerIn,
        responses={200: ManagerOut(many=True), 403: ErrorOut, 422: ErrorOut},
        examples=[OpenApiExample("Add", value={"email": "ada@example.org"}, request_only=True)],
    )
    def post(self, request: Request, ref: str) -> Response:
        dataset = queries.dataset_by_ref(request.user, ref)
        permissions.require_acts_for(request.user, dataset, to="add a manager")
        user = User.objects.filter(
            email__iexact=valid(ManagerIn(data=request.data))["email"], is_active=True
        ).first()
        if user is None:
            raise Invalid(
                "unknown_person",
                "Nobody with this e-mail address can sign in here.",
                "Check the spelling.",
                fields={"email": ["Nobody with this e-mail address can sign in here"]},
            )
        actions.add_manager(by=me(request), dataset=dataset, user=user)
        return Response(ManagerOut(permissions.managers(dataset), many=True).data)


class OneManager(APIView):
    permission_classes = [HasScope]
    scopes = {"DELETE": "custody"}

    @extend_schema(
        operation_id="managers_remove",
        summary="Take a manager's grant back",
        parameters=[REF],
        responses={204: None, 403: ErrorOut, 404: ErrorOut, 409: ErrorOut},
        examples=[
            OpenApiExample(
                "Last one",
                value={
                    "code": "last_manager",
                    "detail": "Ada Obi is the last person who can act for this dataset.",
                    "remedy": "Add another manager first.",
                },
                response_only=True,
                status_codes=["409"],
            )
        ],
    )
    def delete(self, request: Request, ref: str, pk: uuid.UUID) -> Response:
        dataset = queries.dataset_by_ref(request.user, ref)
        permissions.require_acts_for(request.user, dataset, to="remove a manager")
        user = permissions.managers(dataset).filter(pk=pk).first()
        if user is None:
            raise NotFound("manager of this dataset")
        actions.remove_manager(by=me(request), dataset=dataset, user=user)
        return Response(status=status.HTTP_204_NO_CONTENT)


urlpatterns = [
    path("datasets/<str:ref>/managers", Managers.as_view(), name="dataset-managers"),
    path("datasets/<str:ref>/managers/<uuid:pk>", OneManager.as_view(), name="dataset-manager"),
]
