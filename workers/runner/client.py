"""The runner's side of the runner protocol (docs/reference/runner-protocol.md).

Every call has a timeout and is repeated on a broken connection or a server error: each endpoint is safe to repeat.
A refusal (4xx) is final and is raised as Refused with the portal's code.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import httpx

CHUNK = 1 << 20
# A portal that is being restarted, or whose database is, comes back within this time or the attempt is given up.
PATIENCE = 60.0
# What the portal may be waiting for itself; after PATIENCE the attempt is given up with this word.
AWAY = frozenset({"broker_unavailable", "key_store_unavailable"})


class Refused(Exception):
    """The portal said no, for good."""

    def __init__(self, status: int, code: str, detail: str = "") -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code, self.detail = status, code, detail


class Cancelled(Exception):
    """The portal asked the run to stop."""


def private_authority(folder: Path | None) -> ssl.SSLContext | None:
    """Trust in the certificate authorities whose PEM files lie in `folder`, and in no other. None where there are none.

    Raises OSError for a file that cannot be read, or holds no certificate.
    """
    files = sorted(folder.glob("*.pem")) if folder else []
    if not files:
        return None
    # Not create_default_context(cadata=...): given nothing but empty files, that trusts every public authority.
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for file in files:
        try:
            trust.load_verify_locations(cafile=file)
        except ssl.SSLError as error:
            raise OSError(f"{file} holds no certificate that can be read ({error}).") from error
    return trust


class Portal:
    """One attempt's connection to the portal. trust: whose certificate the portal has; None: a public authority's."""

    def __init__(self, url: str, *, patience: float = PATIENCE, trust: ssl.SSLContext | None = None) -> None:
        self._http = httpx.Client(
            base_url=url.rstrip("/") + "/api/runner/v1",
            timeout=httpx.Timeout(30.0, connect=5.0),
            # Without TLS there is nothing to verify, and reading the authorities' certificates takes its time.
            verify=False if url.startswith("http://") else trust or True,
            trust_env=False,
            follow_redirects=False,
        )
        self._patience = patience

    def close(self) -> None:
        self._http.close()

    def claim(self, token: str) -> dict[str, Any]:
        """Use the one-time launch token. Returns session, manifest and challenges."""
        answer = self._call("POST", "/claim", json={"token": token}).json()
        self._http.headers["Authorization"] = f"Bearer {answer['session']}"
        return dict(answer)

    def broker_challenge(self, broker: str) -> str:
        """The challenge of a custodian's key broker, which the portal asks. Refused if the broker says no."""
        return str(self._call("POST", "/challenge", json={"broker": broker}).json()["challenge"])

    def keys(self, context: dict[str, Any], evidence: dict[str, Any]) -> list[dict[str, Any]]:
        """Send E1; receive each data key wrapped to the attested key, or Refused."""
        answer = self._call("POST", "/keys", json={"context": context, "evidence": evidence})
        return list(answer.json()["keys"])

    def phase(self, phase: str, done: int = 0, total: int = 0, detail_code: str = "") -> None:
        """Report a phase and stay alive in the portal's eyes. Raises Cancelled when the run must stop."""
        body = {"phase": phase, "done": done, "total": total, "detail_code": detail_code}
        answer = self._call("POST", "/phase", json=body).json()
        if not answer["continue"]:
            raise Cancelled(answer.get("reason", ""))

    def download(self, path: str) -> Iterator[bytes]:
        """The bytes at `path`, resumed with a Range request after a broken connection."""
        received, deadline = 0, time.monotonic() + self._patience
        while True:
            headers = {"Range": f"bytes={received}-"} if received else {}
            try:
                with self._http.stream("GET", path, headers=headers) as response:
                    if response.status_code >= 500:
                        raise httpx.RemoteProtocolError("server error")
                    _raise_refusal(response)
                    if received and response.status_code != 206:
                        raise Refused(response.status_code, "range_ignored")
                    for chunk in response.iter_bytes(CHUNK):
                        received += len(chunk)
                        deadline = time.monotonic() + self._patience
                        yield chunk
                    return
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def upload(self, reader: BinaryIO, size: int) -> None:
        """Send the sealed outputs in pieces, from wherever the portal says it stands."""
        offset = int(self._call("GET", "/outputs").json()["offset"])
        while offset < size or size == 0:
            reader.seek(offset)
            piece = reader.read(8 * CHUNK)
            try:
                answer = self._call("PUT", "/outputs", params={"offset": offset}, content=piece)
                offset = int(answer.json()["offset"])
            except Refused as refusal:
                if refusal.status != 409:
                    raise
                offset = int(self._call("GET", "/outputs").json()["offset"])
            if size == 0:
                return

    def result(self, body: dict[str, Any]) -> dict[str, Any]:
        return dict(self._call("POST", "/result", json=body).json())

    def abandon(self, code: str, exception_type: str = "", line: int | None = None) -> None:
        """Say that this attempt cannot go on. Best effort: the portal notices a silent runner by itself."""
        try:
            self._call(
                "POST",
                "/abandon",
                json={"code": code, "exception_type": exception_type, "line": line},
                patience=5.0,
            )
        except (httpx.HTTPError, Refused):
            pass

    def _call(
        self, method: str, path: str, *, patience: float | None = None, **options: Any
    ) -> httpx.Response:
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        delay = 0.1
        while True:
            try:
                response = self._http.request(method, path, **options)
                if response.status_code < 500 and response.status_code != 429:
                    _raise_refusal(response)
                    return response
                failure: Exception = httpx.RemoteProtocolError(f"the portal answered {response.status_code}")
                if response.status_code == 503 and (code := _code(response)) in AWAY:
                    failure = Refused(503, code)
            except httpx.TransportError as error:
                failure = error
            if time.monotonic() + delay > deadline:
                raise failure
            time.sleep(delay)
            delay = min(delay * 2, 3.0)


def _code(response: httpx.Response) -> str:
    try:
        return str(response.json().get("code", ""))
    except (ValueError, AttributeError):
        return ""


def _raise_refusal(response: httpx.Response) -> None:
    if response.status_code < 400:
        return
    response.read()
    try:
        body = response.json()
        code, detail = str(body.get("code", "refused")), str(body.get("detail", ""))
    except ValueError:
        code, detail = "refused", ""
    raise Refused(response.status_code, code, detail)
