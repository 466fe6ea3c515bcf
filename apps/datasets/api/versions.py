"""API: sealed uploads. Resumable: ask where the upload stands (HEAD), send the rest (PATCH), say what it is (finish).

The bytes are ciphertext from the first to the last; the portal has no key to them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest
from django.http.request import UnreadablePostError
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.parsers import BaseParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.authentication import HasScope
from apps.accounts.permissions import me
from apps.core.errors import Conflict, Invalid
from apps.datasets import actions, brokers, permissions, queries
from apps.datasets.actions.versions import MEDIA_TYPES
from apps.datasets.api.parts import REF, ErrorOut, ReasonIn
from apps.datasets.models import DatasetVersion
from strongroom.seal.header import MAX_HEADER_BYTES

PIECE = 1 << 20
OFFSET_TYPE = "application/offset+octet-stream"
EXAMPLE = {
    "id": "6d0f2b9a-0f52-4a35-8a4b-0c8a6f7a4f11",
    "dataset": "0b6c1d0e-7d0f-4c7e-9a55-5a5b8d1c2f10",
    "number": 1,
    "state": "uploading",
    "media_type": "text/csv",
    "announced_size": 1049000,
    "received_size": 0,
    "rows": None,
    "ciphertext_sha256": "",
    "plaintext_sha256": "",
    "seal": {},
    "dictionary": {
        "fields": [{"name": "age", "type": "integer", "sensitive": False}],
        "missingValues": ["", "NA"],
    },
    "report": None,
    "profile": None,
    "reason": "",
    "created_at": "2026-11-05T14:05:00Z",
}


class VersionOut(serializers.Serializer[Any]):
    """A version as its custodian sees it. `report` names rows: do not pass it on."""

    id = serializers.UUIDField()
    dataset = serializers.UUIDField(source="dataset_id")
    number = serializers.IntegerField()
    state = serializers.CharField()
    media_type = serializers.CharField()
    announced_size = serializers.SerializerMethodField(
        help_text="Bytes of ciphertext; null until it is known"
    )
    received_size = serializers.SerializerMethodField()
    rows = serializers.IntegerField(allow_null=True)
    ciphertext_sha256 = serializers.CharField()
    plaintext_sha256 = serializers.CharField()
    seal = serializers.JSONField()
    dictionary = serializers.JSONField()
    report = serializers.JSONField(allow_null=True)
    profile = serializers.JSONField(allow_null=True)
    reason = serializers.SerializerMethodField(help_text="Why it is in this state, where a reason was given")
    created_at = serializers.DateTimeField()

    def get_announced_size(self, version: DatasetVersion) -> int | None:
        return version.announced_size or None

    def get_received_size(self, version: DatasetVersion) -> int:
        return queries.received(version)

    def get_reason(self, version: DatasetVersion) -> str:
        return queries.last_reason(version)


class VersionRow(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    number = serializers.IntegerField()
    state = serializers.CharField()
    media_type = serializers.CharField()
    received_size = serializers.IntegerField()
    ciphertext_sha256 = serializers.CharField()
    rows = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()


class UploadIn(serializers.Serializer[Any]):
    """`announced_size`: bytes of the sealed file; may be left out and sent as Upload-Length with the first bytes."""

    media_type = serializers.ChoiceField(choices=MEDIA_TYPES)
    announced_size = serializers.IntegerField(required=False, allow_null=True)


class KeyOut(serializers.Serializer[Any]):
    suite = serializers.CharField()
    public = serializers.CharField(help_text="Raw key, base64")
    id = serializers.CharField(help_text="First 16 hex digits of the SHA-256 of the raw key")


class RawParser(BaseParser):
    """Leaves the body alone: it is streamed, or read strictly by the seal header's own reader."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        return stream


class BrokerKey(APIView):
    permission_classes = [AllowAny]
    authentication_classes: list[Any] = []
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="broker_key",
        summary="The key to which a dataset's data key is wrapped",
        description="Without `dataset`: this portal's own key broker. `suite=any` gives the preferred key; without it, one that a browser can seal to.",
        parameters=[
            OpenApiParameter("dataset", OpenApiTypes.UUID),
            OpenApiParameter("suite", str, enum=["browser", "any"]),
        ],
        responses=KeyOut,
        examples=[
            OpenApiExample(
                "Key",
                value={
                    "suite": "x25519",
                    "public": "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
                    "id": "1f2e3d4c5b6a7980",
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request) -> Response:
        dataset = brokers.dataset_of(request.query_params.get("dataset"))
        browser = request.query_params.get("suite") != "any"
        return Response(actions.broker_key(dataset, browser=browser).to_json())


class Versions(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "custody", "POST": "custody"}

    @extend_schema(
        operation_id="versions_list",
        summary="All versions of a dataset, for its custodian",
        parameters=[REF],
        responses={200: VersionRow(many=True), 403: ErrorOut},
        examples=[
            OpenApiExample(
                "One version",
                value=[
                    {
                        k: EXAMPLE[k]
                        for k in (
                            "id",
                            "number",
                            "state",
                            "media_type",
                            "received_size",
                            "ciphertext_sha256",
                            "rows",
                            "created_at",
                        )
                    }
                ],
                response_only=True,
            )
        ],
    )
    def get(self, request: Request, ref: str) -> Response:
        dataset = queries.dataset_by_ref(request.user, ref)
        permissions.require_acts_for(request.user, dataset, to="see its uploads")
        return Response(VersionRow(queries.versions_of(dataset), many=True).data)

    @extend_schema(
        operation_id="versions_start",
        summary="Start an upload",
        description="Fixes the version's number, which the file must be sealed for, and the dictionary it will be checked against.",
        parameters=[REF],
        request=UploadIn,
        responses={201: VersionOut, 403: ErrorOut, 409: ErrorOut, 422: ErrorOut},
        examples=[
            OpenApiExample(
                "A CSV", value={"media_type": "text/csv", "announced_size": 1049000}, request_only=True
            ),
            OpenApiExample("Started", value=EXAMPLE, response_only=True, status_codes=["201"]),
        ],
    )
    def post(self, request: Request, ref: str) -> Response:
        dataset = queries.dataset_by_ref(request.user, ref)
        permissions.require_acts_for(request.user, dataset, to="upload data for this dataset")
        given = UploadIn(data=request.data)
        given.is_valid(raise_exception=True)
        version = actions.start_upload(
            by=me(request),
            dataset=dataset,
            media_type=given.validated_data["media_type"],
            announced_size=given.validated_data.get("announced_size"),
        )
        return Response(VersionOut(version).data, status=status.HTTP_201_CREATED)


class OneVersion(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "custody"}

    @extend_schema(
        operation_id="versions_get",
        summary="A version, for its custodian",
        responses={200: VersionOut, 403: ErrorOut, 404: ErrorOut},
        examples=[OpenApiExample("A version", value=EXAMPLE, response_only=True)],
    )
    def get(self, request: Request, pk: uuid.UUID) -> Response:
        return Response(VersionOut(queries.version_for(me(request), pk, to="see this version")).data)


def pieces(request: HttpRequest) -> Iterator[bytes]:
    """The body in pieces of at most 1 MiB. Ends where the connection broke: what came until then is good."""
    while True:
        try:
            piece = request.read(PIECE)
        except UnreadablePostError:
            return
        if not piece:
            return
        yield piece


def _whole(request: Request, name: str) -> int | None:
    text = request.headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise Invalid(
            "header", f"The header {name} must be a whole number.", f"Send {name}: and a number of bytes."
        )
    return int(text)


class Content(APIView):
    permission_classes = [HasScope]
    scopes = {"GET": "custody", "PATCH": "custody", "DELETE": "custody"}
    parser_classes = [RawParser]

    @extend_schema(
        operation_id="content_offset",
        summary="Where an upload stands",
        description="The header Upload-Offset is the number of bytes stored; Upload-Length the number announced (Upload-Defer-Length: 1 until it is).",
        responses={204: None, 403: ErrorOut, 404: ErrorOut},
        methods=["HEAD"],
        examples=[
            OpenApiExample(
                "Headers",
                value=None,
                description="Upload-Offset: 524288",
                response_only=True,
                status_codes=["204"],
            )
        ],
    )
    def head(self, request: Request, pk: uuid.UUID) -> Response:
        version = queries.version_for(me(request), pk, to="see this upload")
        length = (
            {"Upload-Length": str(version.announced_size)}
            if version.announced_size
            else {"Upload-Defer-Length": "1"}
        )
        return Response(
            status=status.HTTP_204_NO_CONTENT,
            headers={"Upload-Offset": str(queries.received(version)), **length},
        )

    @extend_schema(
        operation_id="content_append",
        summary="Send bytes of an upload",
        description="Appends the body at Upload-Offset. 409 gives the true offset in Upload-Offset and in the member `offset`. What arrived before a connection broke is kept.",
        parameters=[
            OpenApiParameter("Upload-Offset", OpenApiTypes.INT, OpenApiParameter.HEADER, required=True),
            OpenApiParameter(
                "Upload-Length",
                OpenApiTypes.INT,
                OpenApiParameter.HEADER,
                description="Once, where the size was not announced at the start",
            ),
        ],
        request={OFFSET_TYPE: OpenApiTypes.BINARY},
        responses={204: None, 403: ErrorOut, 404: ErrorOut, 409: ErrorOut, 415: ErrorOut, 422: ErrorOut},
        examples=[
            OpenApiExample(
                "Elsewhere",
                value={
                    "code": "offset_mismatch",
                    "detail": "The upload stands at byte 524,288, not 0: another connection may have sent the same part.",
                    "remedy": "Continue from the offset given.",
                    "offset": 524288,
                },
                response_only=True,
                status_codes=["409"],
            )
        ],
    )
    def patch(self, request: Request, pk: uuid.UUID) -> Response:
        version = queries.version_for(me(request), pk, to="upload data for this dataset")
        if request.content_type != OFFSET_TYPE:
            error = Invalid(
                "content_type",
                f"The body must be of type {OFFSET_TYPE}.",
                "Set the header Content-Type and send the bytes as they are.",
            )
            return Response(error.as_dict(), status=status.HTTP_415_UNSUPPORTED_MEDIA_TYPE)
        offset = _whole(request, "Upload-Offset")
        if offset is None:
            raise Invalid(
                "header",
                "The header Upload-Offset is missing.",
                "Ask with HEAD where the upload stands, and send that.",
            )
        if request.headers.get("Content-Length") in (None, ""):
            raise Invalid(
                "header",
                "The header Content-Length is missing.",
                "Send the bytes with their length, not chunked.",
            )
        if (length := _whole(request, "Upload-Length")) is not None:
            actions.announce_size(by=me(request), version=version, size=length)
        try:
            position = actions.receive_chunk(
                by=me(request), version=version, offset=offset, chunks=pieces(request._request)
            )
        except Conflict as error:
            headers = {"Upload-Offset": str(error.extra["offset"])} if "offset" in error.extra else {}
            return Response(error.as_dict(), status=error.status, headers=headers)
        return Response(status=status.HTTP_204_NO_CONTENT, headers={"Upload-Offset": str(position)})

    @extend_schema(
        operation_id="content_restart",
        summary="Throw away what was received and begin the same version anew",
        responses={204: None, 403: ErrorOut, 404: ErrorOut, 409: ErrorOut},
        examples=[
            OpenApiExample(
                "Too late",
                value={
                    "code": "not_uploading",
                    "detail": "This upload is finished or was given up, so nothing can be added to it.",
                    "remedy": "Start another version if the data has changed.",
                },
                response_only=True,
                status_codes=["409"],
            )
        ],
    )
    def delete(self, request: Request, pk: uuid.UUID) -> Response:
        version = queries.version_for(me(request), pk, to="upload data for this dataset")
        actions.restart_upload(by=me(request), version=version)
        return Response(status=status.HTTP_204_NO_CONTENT, headers={"Upload-Offset": "0"})


class Finish(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "custody"}
    parser_classes = [RawParser]

    @extend_schema(
        operation_id="versions_finish",
        summary="Finish an upload with its seal header",
        description="The header that sealing gave, as it is. It must name this dataset and version, the size received, and this portal's key broker. The same header sent again changes nothing.",
        request={"application/json": OpenApiTypes.OBJECT},
        responses={200: VersionOut, 403: ErrorOut, 404: ErrorOut, 409: ErrorOut, 422: ErrorOut},
        examples=[
            OpenApiExample(
                "Seal header",
                value={
                    "v": 1,
                    "format": "tink-aes256-gcm-hkdf-1mb",
                    "dataset": EXAMPLE["dataset"],
                    "version": 1,
                    "wrapped_key": {"suite": "x25519", "recipient": "1f2e3d4c5b6a7980", "data": "…base64…"},
                    "ciphertext": {
                        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                        "size": 1049000,
                    },
                    "plaintext": {
                        "sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
                        "size": 1048944,
                        "media_type": "text/csv",
                    },
                },
                request_only=True,
                media_type="application/json",
            )
        ],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        version = queries.version_for(me(request), pk, to="finish this upload")
        body = request._request.read(MAX_HEADER_BYTES + 1)
        return Response(VersionOut(actions.finish_upload(by=me(request), version=version, seal=body)).data)


class GiveUp(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "custody"}

    @extend_schema(
        operation_id="versions_give_up",
        summary="Give an unfinished upload up; its bytes are deleted",
        request=ReasonIn,
        responses={200: VersionOut, 403: ErrorOut, 404: ErrorOut, 409: ErrorOut},
        examples=[OpenApiExample("Reason", value={"reason": "Wrong file."}, request_only=True)],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        version = queries.version_for(me(request), pk, to="give this upload up")
        given = ReasonIn(data=request.data)
        given.is_valid(raise_exception=True)
        return Response(
            VersionOut(
                actions.give_up_upload(by=me(request), version=version, reason=given.validated_data["reason"])
            ).data
        )


class CheckAgain(APIView):
    permission_classes = [HasScope]
    scopes = {"POST": "custody"}

    @extend_schema(
        operation_id="versions_check_again",
        summary="Check an uploaded version again, after the check itself failed",
        request=None,
        responses={200: VersionOut, 403: ErrorOut, 404: ErrorOut, 409: ErrorOut},
        examples=[
            OpenApiExample(
                "A version", value={**EXAMPLE, "state": "uploaded"}, response_only=True, status_codes=["200"]
            )
        ],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        version = queries.version_for(me(request), pk, to="check this version again")
        return Response(VersionOut(actions.check_again(by=me(request), version=version)).data)


urlpatterns = [
    path("broker-key", BrokerKey.as_view(), name="broker-key"),
    path("datasets/<str:ref>/versions", Versions.as_view(), name="dataset-versions"),
    path("versions/<uuid:pk>", OneVersion.as_view(), name="version"),
    path("versions/<uuid:pk>/content", Content.as_view(), name="version-content"),
    path("versions/<uuid:pk>/finish", Finish.as_view(), name="version-finish"),
    path("versions/<uuid:pk>/give-up", GiveUp.as_view(), name="version-give-up"),
    path("versions/<uuid:pk>/check-again", CheckAgain.as_view(), name="version-check-again"),
]
