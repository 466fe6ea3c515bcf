"""The portal's API from Python: who is signed in, and calls that fail in sentences.

Credentials stand in one file of mode 0600 (see `config_file`), with the public keys of the portal as they were when
the person signed in: `strongroom verify` trusts those.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from strongroom.errors import StrongroomError

CHUNK = 1 << 20


class NotSignedIn(StrongroomError):
    """There are no credentials for a portal."""


class ApiError(StrongroomError):
    """The portal refused. `detail` says what happened and why, `remedy` what to do next."""

    def __init__(
        self, status: int, code: str, detail: str, remedy: str = "", fields: dict[str, Any] | None = None
    ) -> None:
        self.status, self.code, self.detail, self.remedy, self.fields = (
            status,
            code,
            detail,
            remedy,
            fields or {},
        )
        lines = [detail]
        for name, sentences in self.fields.items():
            listed = sentences if isinstance(sentences, list) else [sentences]
            lines += [
                f"{name}: {sentence}" for sentence in listed if str(sentence) not in f"{detail}\n{remedy}"
            ]
        lines.append(remedy)
        super().__init__("\n".join(line for line in lines if line))


def config_file() -> Path:
    """The credentials' file: $STRONGROOM_CONFIG, else strongroom/credentials.json in the user's configuration folder."""
    if explicit := os.environ.get("STRONGROOM_CONFIG"):
        return Path(explicit)
    return (
        Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "strongroom" / "credentials.json"
    )


@dataclass(frozen=True)
class Credentials:
    """A portal's address, a token for it, whose token it is, and the portal's public keys (portal.json)."""

    portal: str
    token: str
    email: str
    keys: dict[str, Any] | None

    def save(self) -> Path:
        path = config_file()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as f:
            json.dump(self.__dict__, f)
        os.replace(temporary, path)
        return path

    @classmethod
    def load(cls) -> Credentials:
        """Raises NotSignedIn. $STRONGROOM_URL and $STRONGROOM_TOKEN, where both are set, win over the file."""
        url, token = os.environ.get("STRONGROOM_URL"), os.environ.get("STRONGROOM_TOKEN")
        if url and token:
            return cls(url, token, "", None)
        try:
            return cls(**json.loads(config_file().read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise NotSignedIn(
                "You are not signed in to a portal. Run: strongroom login https://your-portal"
            ) from None
        except (ValueError, TypeError):
            raise NotSignedIn(
                f"The file {config_file()} cannot be read. Run: strongroom login https://your-portal"
            ) from None


class Client:
    """Calls to one portal's API under /api/v1. Every call has a timeout; a broken connection is an ApiError too."""

    def __init__(self, portal: str, token: str = "") -> None:
        self.portal = portal.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=f"{self.portal}/api/v1",
            headers=headers,
            timeout=httpx.Timeout(60.0, connect=10.0),
            follow_redirects=False,
        )

    @classmethod
    def signed_in(cls) -> Client:
        """With the saved credentials. Raises NotSignedIn."""
        credentials = Credentials.load()
        return cls(credentials.portal, credentials.token)

    def get(self, path: str, **params: Any) -> Any:
        return self._json("GET", path, params=params)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return self._json("POST", path, **({"json": body} if body is not None else {}), **options)

    def pages(self, path: str, **params: Any) -> Iterator[Any]:
        """Every item of a paged list."""
        answer = self.get(path, **params)
        while True:
            yield from answer["results"]
            if not answer.get("next"):
                return
            answer = self._check(self._send("GET", answer["next"])).json()

    def portal_keys(self) -> dict[str, Any]:
        """The portal's public keys as it states them now."""
        response = self._check(self._send("GET", f"{self.portal}/.well-known/strongroom.json"))
        return dict(response.json()["keys"])

    def download(self, path: str, target: Path, *, sha256: str = "") -> int:
        """Stream to `target`, which appears only when complete. Raises ApiError, StrongroomError for another hash."""
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        digest, size = hashlib.sha256(), 0
        try:
            with self._http.stream("GET", path) as response:
                if response.status_code != 200:
                    response.read()
                    self._check(response)
                with temporary.open("wb") as f:
                    for chunk in response.iter_bytes(CHUNK):
                        digest.update(chunk)
                        size += len(chunk)
                        f.write(chunk)
            if sha256 and digest.hexdigest() != sha256:
                raise StrongroomError(
                    "What arrived is not what the portal announced (other SHA-256). Nothing was kept; try again."
                )
            os.replace(temporary, target)
        except httpx.HTTPError as error:
            raise _unreachable(self.portal, error) from None
        finally:
            temporary.unlink(missing_ok=True)
        return size

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A raw call; 4xx and 5xx raise ApiError."""
        return self._check(self._send(method, path, **options))

    def _json(self, method: str, path: str, **options: Any) -> Any:
        response = self._check(self._send(method, path, **options))
        return response.json() if response.content else None

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise _unreachable(self.portal, error) from None

    @staticmethod
    def _check(response: httpx.Response) -> httpx.Response:
        if response.status_code < 400:
            return response
        try:
            body = response.json()
        except ValueError:
            body = {}
        if not isinstance(body, dict):
            body = {}
        detail = str(body.get("detail") or f"The portal answered {response.status_code}.")
        raise ApiError(
            response.status_code,
            str(body.get("code", "error")),
            detail,
            str(body.get("remedy", "")),
            body.get("fields"),
        )


def _unreachable(portal: str, error: Exception) -> ApiError:
    return ApiError(
        0,
        "unreachable",
        f"The portal at {portal} does not answer ({type(error).__name__}).",
        "Check the address and your connection, then try again.",
    )
