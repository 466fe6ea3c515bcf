"""From which address a request comes: what lock-out and rate limits count by."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.conf import settings


def client_address(request: Any) -> str:
    """The caller's IP address: the connection's, or behind proxies of ours what they saw (TRUSTED_PROXIES of them).

    Each proxy adds to X-Forwarded-For the address that it was called from, at the right end; whatever stands further
    left came with the request and may be made up. A header with fewer entries than proxies, or with something there
    that is no address, did not come through them: then the connection's own address counts.
    """
    direct = str(request.META.get("REMOTE_ADDR") or "")
    hops: int = settings.TRUSTED_PROXIES
    if hops <= 0:
        return direct
    seen = [part.strip() for part in str(request.META.get("HTTP_X_FORWARDED_FOR", "")).split(",")]
    if len(seen) < hops:
        return direct
    try:
        return str(ipaddress.ip_address(seen[-hops]))
    except ValueError:
        return direct
