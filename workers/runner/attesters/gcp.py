"""Google Confidential Space: a token from the launcher, which attests the container through Google's service.

The launcher listens on a unix socket inside the machine. It answers POST /v1/token with a signed token that names the
image that runs, and carries our nonce in `eat_nonce`. A PKI token brings its certificates along, so that it can be
verified for years. Whoever reaches the socket can have a token with any nonce: the sandbox keeps the program from it.

Sources: google/go-tpm-tools launcher/teeserver/tee_server.go (address, members, answers);
cloud.google.com/confidential-computing/confidential-space/docs/connect-external-resources (nonces, audience, rate).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import httpx

from strongroom.evidence import envelope
from workers.runner.attester import NoEvidence
from workers.runner.attesters import reading

SOCKET = Path("/run/container_launcher/teeserver.sock")
MAX_TOKEN = 64 << 10
MAX_AUDIENCE = 512
# The service takes five requests a second for a project and region: other machines of the project count too.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
TIMEOUT = httpx.Timeout(30.0, connect=5.0)


class LauncherAttester:
    """Evidence of type gcp-confidential-space. `audience`: whom the token is made out to, the portal's id."""

    type = "gcp-confidential-space"

    def __init__(self, socket: Path, *, audience: str, pauses: tuple[float, ...] = PAUSES) -> None:
        if not 0 < len(audience.encode()) <= MAX_AUDIENCE:
            raise NoEvidence(f"An audience must have 1 to {MAX_AUDIENCE} bytes.")
        if not socket.is_socket():
            raise NoEvidence(
                f"{socket} is not there: this is not a workload container of Confidential Space."
            )
        self._socket, self._audience, self._pauses = socket, audience, pauses

    def evidence(self, nonce: str) -> bytes:
        reading.nonce_bytes(nonce)
        token = self._token(nonce)
        _require_token(token, nonce, self._audience)
        return envelope.build(self.type, {"token": token}, collected=datetime.now(UTC).replace(microsecond=0))

    def _token(self, nonce: str) -> bytes:
        """The launcher's answer. A refusal is final; being busy is waited for."""
        for pause in (*self._pauses, None):
            status, content = self._ask(nonce)
            if status == 200:
                return content.strip()
            # The launcher hands on what the service says with 400, its rate limit included.
            busy = status is None or status >= 500 or status == 429 or b"RESOURCE_EXHAUSTED" in content
            if not busy:
                raise NoEvidence(f"The launcher refused a token with {status}.")
            if pause is not None:
                time.sleep(pause)
        raise NoEvidence("The launcher gave no token, asked six times.")

    def _ask(self, nonce: str) -> tuple[int | None, bytes]:
        body = {"audience": self._audience, "token_type": "PKI", "nonces": [nonce]}
        transport = httpx.HTTPTransport(uds=str(self._socket))
        with httpx.Client(
            transport=transport, timeout=TIMEOUT, trust_env=False, follow_redirects=False
        ) as http:
            try:
                with http.stream("POST", "http://localhost/v1/token", json=body) as answer:
                    content = bytearray()
                    for chunk in answer.iter_bytes():
                        content += chunk
                        if len(content) > MAX_TOKEN:
                            raise NoEvidence(f"The launcher answered more than {MAX_TOKEN:,} bytes.")
                    return answer.status_code, bytes(content)
            except httpx.HTTPError:
                return None, b""


def _require_token(token: bytes, nonce: str, audience: str) -> None:
    """Refuse what is no token for this nonce, before it is sent anywhere. It is not verified here: that is the portal's.

    Raises NoEvidence.
    """
    parts = token.decode("ascii", "replace").split(".")
    if len(parts) != 3:
        raise NoEvidence("What the launcher answered is not a signed token.")
    header = reading.json_of(reading.base64url_of(parts[0], "The token's header"), "The token's header")
    claims = reading.json_of(reading.base64url_of(parts[1], "The token's claims"), "The token's claims")
    reading.base64url_of(parts[2], "The token's signature")
    if header.get("alg") != "RS256" or not isinstance(header.get("x5c"), list) or len(header["x5c"]) != 3:
        raise NoEvidence("The launcher's token is not a PKI token (RS256 with three certificates).")
    bound = claims.get("eat_nonce")
    if (nonce not in bound) if isinstance(bound, list) else (bound != nonce):
        raise NoEvidence("The launcher's token is not bound to this context.")
    if claims.get("aud") != audience:
        raise NoEvidence("The launcher's token is made out to somebody else.")
