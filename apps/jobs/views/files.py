"""Sending stored files so that a browser never executes them."""

from __future__ import annotations

from collections.abc import Iterator

from django.http import HttpResponse, StreamingHttpResponse

from apps.core.objects import chunks_of, store

INLINE = ("image/png", "image/jpeg")


def send(
    object_name: str, *, filename: str, media_type: str, size: int, inline: bool = False
) -> HttpResponse | StreamingHttpResponse:
    """Stream an object. Only PNG and JPEG are ever shown inline; all else is a download of no particular type."""
    shown = inline and media_type in INLINE

    def body() -> Iterator[bytes]:
        with store().open(object_name) as reader:
            yield from chunks_of(reader)

    response = StreamingHttpResponse(body(), content_type=media_type if shown else "application/octet-stream")
    plain = (
        filename.encode("ascii", "replace").decode().replace('"', "_").replace("\\", "_").replace("/", "_")
    )
    response["Content-Disposition"] = f'{"inline" if shown else "attachment"}; filename="{plain}"'
    response["Content-Length"] = str(size)
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response
