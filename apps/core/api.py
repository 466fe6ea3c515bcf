"""What every API view shares: errors as sentences, pages, rates."""

from __future__ import annotations

import logging
from typing import Any

from django.db import DataError
from django.http import Http404
from redis.exceptions import RedisError
from rest_framework import exceptions, pagination, parsers, throttling
from rest_framework.response import Response

from apps.core.addresses import client_address
from apps.core.errors import DomainError, unstorable

log = logging.getLogger(__name__)


class Pagination(pagination.PageNumberPagination):
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200


class JSONParser(parsers.JSONParser):
    """JSON, of which what is nested without end is a fault of the sender, not ours."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return super().parse(stream, media_type=media_type, parser_context=parser_context)
        except RecursionError:
            raise exceptions.ParseError("The JSON is nested too deeply.") from None


class _Counted(throttling.SimpleRateThrottle):
    """Counts in the cache. While the cache is away nothing is counted, and the portal goes on."""

    def get_ident(self, request: Any) -> str:
        return client_address(request)

    def allow_request(self, request: Any, view: Any) -> bool:
        try:
            return bool(super().allow_request(request, view))
        except RedisError as error:
            log.warning("calls are not being counted: the cache is away (%s)", type(error).__name__)
            return True


class UserRate(_Counted, throttling.UserRateThrottle):
    scope = "user"


class AnonymousRate(_Counted, throttling.AnonRateThrottle):
    scope = "anon"


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Domain errors become {code, detail, remedy}; everything DRF knows gets the same shape."""
    # DRF's views import this module by its name in the settings: whoever comes first must not need the other.
    from rest_framework.views import exception_handler as drf_exception_handler

    if isinstance(error, DataError):
        error = unstorable()
    if isinstance(error, DomainError):
        return Response(error.as_dict(), status=error.status)
    if isinstance(error, Http404):
        return Response(
            {"code": "not_found", "detail": "There is no such object, or you may not see it.", "remedy": ""},
            status=404,
        )
    response = drf_exception_handler(error, context)
    if response is not None:
        if isinstance(error, exceptions.ValidationError):
            response.status_code = 422
            response.data = {
                "code": "invalid",
                "detail": "Some fields cannot be accepted.",
                "remedy": "Correct the fields listed and send it again.",
                "fields": response.data,
            }
        else:
            detail = response.data.get("detail", "") if isinstance(response.data, dict) else ""
            response.data = {
                "code": getattr(error, "default_code", "error"),
                "detail": str(detail),
                "remedy": "",
            }
    return response
