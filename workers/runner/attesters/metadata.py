"""The metadata services of the clouds: small, capped, over plain HTTP on a link-local address, no proxies, no redirects.

What they say is not evidence. A launch token comes from here, which is good for claiming a run and for nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx

from workers.runner.attester import NoEvidence
from workers.runner.attesters import reading

GCP = "http://metadata.google.internal"
AZURE = "http://169.254.169.254"
MAX_BYTES = 256 << 10
TIMEOUT = httpx.Timeout(10.0, connect=3.0)
# The service may not be up in a machine's first seconds.
PATIENCE = 30.0
TOKEN_ATTRIBUTE = "strongroom-token"  # noqa: S105  a name
USER_DATA = "/metadata/instance/compute/userData?api-version=2021-01-01&format=text"


class NotThere(NoEvidence):
    """The metadata service has no such entry."""


def fetch(
    base: str,
    path: str,
    *,
    headers: dict[str, str],
    body: dict[str, Any] | None = None,
    patience: float = PATIENCE,
) -> bytes:
    """GET, or POST of a JSON body. Tried again while the service is not up. Raises NoEvidence, NotThere."""
    deadline = time.monotonic() + patience
    while True:
        status, content = _once(base, path, headers, body)
        if status == 200:
            return content
        if status == 404:
            raise NotThere(f"{path} is not known to the metadata service.")
        if status is not None and status < 500 and status not in (408, 410, 429):
            raise NoEvidence(f"The metadata service answered {status} for {path}.")
        if time.monotonic() > deadline:
            raise NoEvidence(f"The metadata service gave no answer for {path} ({status or 'no connection'}).")
        time.sleep(1.0)


def _once(
    base: str, path: str, headers: dict[str, str], body: dict[str, Any] | None
) -> tuple[int | None, bytes]:
    """Status and content of one request; no status where there was no connection."""
    with httpx.Client(base_url=base, timeout=TIMEOUT, trust_env=False, follow_redirects=False) as http:
        try:
            with http.stream("GET" if body is None else "POST", path, headers=headers, json=body) as answer:
                content = bytearray()
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > MAX_BYTES:
                        raise NoEvidence(f"The metadata service answered more than {MAX_BYTES:,} bytes.")
                return answer.status_code, bytes(content)
        except httpx.HTTPError:
            return None, b""


def gcp_launch_token(base: str = GCP) -> str:
    """The one-time launch token from this machine's own attribute. Raises NoEvidence.

    Source: cloud.google.com/compute/docs/metadata/querying-metadata (path, required header).
    """
    path = f"/computeMetadata/v1/instance/attributes/{TOKEN_ATTRIBUTE}"
    return one_line(fetch(base, path, headers={"Metadata-Flavor": "Google"}), TOKEN_ATTRIBUTE)


def azure_user_data(base: str = AZURE) -> Mapping[str, str]:
    """This machine's user data: {"portal", "run", "token"}, and nothing else. Raises NoEvidence.

    Source: learn.microsoft.com/azure/virtual-machines/user-data (path, required header, base64).
    """
    encoded = fetch(base, USER_DATA, headers={"Metadata": "true"})
    told = reading.json_of(reading.base64_of(encoded, "The user data"), "The user data")
    if set(told) != {"portal", "run", "token"} or not all(isinstance(v, str) and v for v in told.values()):
        raise NoEvidence("The user data must name portal, run and token, and nothing else.")
    return {**told, "token": one_line(told["token"].encode(), "The user data")}


def one_line(data: bytes, what: str) -> str:
    """A token: one line of visible ASCII. Raises NoEvidence."""
    text = data.decode("ascii", "replace").strip()
    if not 20 <= len(text) <= 200 or not all("!" <= c <= "~" for c in text):
        raise NoEvidence(f"{what} holds no launch token.")
    return text
