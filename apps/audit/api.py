"""The log over HTTP: entries for those entitled, tree and checkpoints for everybody (they hold commitments only)."""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpResponse
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.pagination import CursorPagination
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.audit import queries
from apps.audit.actions import entry_document
from apps.audit.models import Entry, Tile
from apps.audit.permissions import ReadScope, require_read_log
from apps.core.errors import Invalid, NotFound

TILE = re.compile(r"(?:x\d{3}/)*(\d{1,19})(?:\.p/([1-9]\d{0,2}))?")


class EntrySerializer(serializers.Serializer[Any]):
    """`entry` is exactly what is committed to: leaf = JCS({"v": 1, "commitment": HMAC-SHA256(salt, JCS(entry))})."""

    index = serializers.IntegerField(allow_null=True, help_text="Place in the tree; null until sealed.")
    salt = serializers.CharField(help_text="64 hex digits.")
    leaf_hash = serializers.CharField(help_text="64 hex digits.")
    entry = serializers.DictField()


class ProofSerializer(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    size = serializers.IntegerField()
    salt = serializers.CharField()
    entry = serializers.DictField()
    proof = serializers.CharField(help_text="C2SP tlog-proof@v1.")
    checkpoint = serializers.CharField(help_text="C2SP tlog-checkpoint, the one inside the proof.")


def as_json(entry: Entry) -> dict[str, Any]:
    return {
        "index": entry.index,
        "salt": bytes(entry.salt).hex(),
        "leaf_hash": bytes(entry.leaf_hash).hex(),
        "entry": entry_document(entry),
    }


class EntryPages(CursorPagination):
    page_size = 100
    page_size_query_param = "page_size"
    max_page_size = 1000
    ordering = ("-at", "-id")

    def get_ordering(self, request: Request, queryset: Any, view: Any) -> tuple[str, ...]:
        """`order=index` is the tree's own order, for whoever verifies the whole log."""
        return ("index",) if request.query_params.get("order") == "index" else ("-at", "-id")


EXAMPLE = {
    "next": None,
    "previous": None,
    "results": [
        {
            "index": 12,
            "salt": "5f…",
            "leaf_hash": "9c…",
            "entry": {
                "v": 1,
                "id": "0d7c…",
                "event": "role.granted",
                "actor": "user:1f0a…",
                "object_type": "person",
                "object_id": "77b1…",
                "scope": "",
                "data": {"role": "custodian"},
                "at": "2026-03-27T10:00:00.000000+00:00",
            },
        }
    ],
}


class Entries(APIView):
    permission_classes = [ReadScope]
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="audit_entries_list",
        tags=["Audit log"],
        summary="Log entries with their salts, in cursor pages (auditor)",
        parameters=[
            OpenApiParameter("event", str, description="A whole event, or a noun with a dot: `role.`"),
            OpenApiParameter(
                "actor", str, description="An actor code, or part of a person's name or e-mail address"
            ),
            OpenApiParameter("object", str, description="An object's id or type"),
            OpenApiParameter("scope", str, description="`project:<id>` or `dataset:<id>`"),
            OpenApiParameter("from", OpenApiTypes.DATE),
            OpenApiParameter("to", OpenApiTypes.DATE),
            OpenApiParameter(
                "order", str, enum=["index"], description="`index`: sealed entries in the order of the tree"
            ),
            OpenApiParameter("cursor", str),
            OpenApiParameter("page_size", int),
        ],
        responses={200: EntrySerializer(many=True)},
        examples=[OpenApiExample("One page", response_only=True, value=EXAMPLE)],
    )
    def get(self, request: Request) -> Response:
        require_read_log(request.user)
        filters = queries.Filters.read(request.query_params)
        if filters.faults:
            raise Invalid(
                "invalid",
                "Some filters cannot be read.",
                "Correct them.",
                fields={k: [v] for k, v in filters.faults.items()},
            )
        found = queries.entries(filters)
        if request.query_params.get("order") == "index":
            found = found.filter(index__isnull=False)
        pages = EntryPages()
        rows = pages.paginate_queryset(found, request, view=self) or []
        return pages.get_paginated_response([as_json(row) for row in rows])


class Proof(APIView):
    permission_classes = [ReadScope]
    scopes = {"GET": "read"}

    @extend_schema(
        operation_id="audit_proof_retrieve",
        tags=["Audit log"],
        responses={200: ProofSerializer},
        summary="Proof that an entry is in the log (auditor, and whoever did what it records)",
        examples=[
            OpenApiExample(
                "A proof",
                response_only=True,
                value={
                    "index": 12,
                    "size": 40,
                    "salt": "5f…",
                    "entry": EXAMPLE["results"][0]["entry"],  # type: ignore[index]
                    "proof": "c2sp.org/tlog-proof@v1\nindex 12\n…",
                    "checkpoint": "strongroom.embedded\n40\n…",
                },
            )
        ],
    )
    def get(self, request: Request, pk: Any) -> Response:
        entry = queries.entry_for(request.user, pk)
        made = queries.proof_of(entry)
        return Response(
            {
                "index": made.index,
                "size": made.size,
                "salt": bytes(entry.salt).hex(),
                "entry": entry_document(entry),
                "proof": made.proof.decode(),
                "checkpoint": made.checkpoint.decode(),
            }
        )


class LatestCheckpoint(APIView):
    permission_classes = [AllowAny]

    @extend_schema(
        operation_id="audit_checkpoint_retrieve",
        tags=["Audit log"],
        auth=[],
        summary="The newest signed checkpoint (public)",
        responses={(200, "text/plain"): OpenApiTypes.STR},
        examples=[
            OpenApiExample(
                "A checkpoint",
                response_only=True,
                media_type="text/plain",
                value="strongroom.embedded\n40\n…\n\n— strongroom.embedded …\n",
            )
        ],
    )
    def get(self, request: Request) -> HttpResponse:
        head = queries.latest_checkpoint()
        if head is None:
            raise NotFound("checkpoint: nothing has been sealed yet")
        return HttpResponse(head.note.encode(), content_type="text/plain; charset=utf-8")


class LogTile(APIView):
    permission_classes = [AllowAny]

    @extend_schema(
        operation_id="audit_tile_retrieve",
        tags=["Audit log"],
        auth=[],
        summary="A tile of the tree, C2SP tlog-tiles (public)",
        parameters=[
            OpenApiParameter("level", int, OpenApiParameter.PATH),
            OpenApiParameter(
                "index",
                str,
                OpenApiParameter.PATH,
                description="`067`, `x001/x234/067`, with `.p/<width>` for a partial tile, or a plain number",
            ),
        ],
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY},
    )
    def get(self, request: Request, level: int, index: str) -> HttpResponse:
        """Up to 256 hashes of 32 bytes. Without a width: as many as there are."""
        match = TILE.fullmatch(index)
        number = int("".join(re.findall(r"\d+", index.split(".")[0]))) if match else -1
        width = int(match[2]) if match and match[2] else 0
        # level and index columns are a smallint and a bigint: beyond them there is no tile
        if level > 63 or not 0 <= number < 1 << 63 or width > 255:
            raise NotFound("tile")
        row = Tile.objects.filter(level=level, index=number).values_list("hashes", flat=True).first()
        data = b"" if row is None else bytes(row)
        if not data or len(data) < width * 32:
            raise NotFound("tile")
        return HttpResponse(data[: width * 32] if width else data, content_type="application/octet-stream")


urlpatterns = [
    path("audit/entries", Entries.as_view(), name="audit-entries"),
    path("audit/checkpoint", LatestCheckpoint.as_view(), name="audit-checkpoint"),
    path("audit/tile/<int:level>/<path:index>", LogTile.as_view(), name="audit-tile"),
    path("audit/proof/<uuid:pk>", Proof.as_view(), name="audit-proof"),
]
