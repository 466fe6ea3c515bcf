"""Asking a custodian's key broker, over HTTP (docs/reference/broker.md). Writes nothing; never inside a transaction.

The portal passes on and decides nothing for the broker: it signs that the run exists (an authorisation), and the
broker judges the evidence by itself. Addresses come from the operator's list alone.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from django.conf import settings

from apps.core.clock import now
from apps.core.errors import DomainError
from apps.core.keys import signing_key
from apps.datasets.brokers import admitted
from strongroom import seal, shapes, strictjson
from strongroom.broker import authorisation
from strongroom.broker.standing import MAX_RUNS, Standing, ask, read
from strongroom.errors import FormatError
from strongroom.signing import SigningKey

log = logging.getLogger(__name__)

CONNECT_SECONDS, ANSWER_SECONDS, WHOLE_SECONDS = 3.0, 15.0, 20.0
MAX_ANSWER = 1 << 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


class ServiceUnavailable(DomainError):
    """A broker or key service does not answer now; the same request may be sent again (503)."""

    status = 503
    title = "A key service does not answer"

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(code, sentence, "It is tried again by itself for a while.")


class BrokerRefused(Exception):
    """The broker said no. `sentence`: its own, for people. `checks`: those that failed."""

    def __init__(self, code: str, sentence: str, checks: list[dict[str, str]]) -> None:
        super().__init__(code)
        self.code, self.sentence, self.checks = code, sentence, checks


@dataclass(frozen=True)
class Released:
    """Keys as the runner gets them, and where the broker's own log has it: {"index", "hash"}."""

    keys: list[dict[str, Any]]
    log: dict[str, Any]


def authorise(*, run_id: UUID, attempt: int, broker: str, manifest: dict[str, Any]) -> dict[str, str]:
    """This portal's signed word that the run exists and which of its inputs the broker holds."""
    inputs = [
        {"dataset": i["dataset"], "version": i["version"], "ciphertext": i["sha256"]}
        for i in manifest["inputs"]
        if i["sealed"] and i.get("broker") == broker
    ]
    return authorisation.sign(
        _verdict_key(),
        portal=settings.PORTAL_ID,
        broker=broker,
        run=str(run_id),
        attempt=attempt,
        manifest=manifest,
        inputs=inputs,
        now=now(),
    )


def challenge(broker: str, word: dict[str, str]) -> str:
    """A challenge for the run that `word` authorises. Raises BrokerRefused, ServiceUnavailable."""
    answer = _ask(broker, "/v1/challenge", {"authorisation": word})
    try:
        return str(shapes.pick(answer, "The answer", {"challenge": shapes.token})["challenge"])
    except FormatError as error:
        raise _nonsense(broker, str(error)) from None


def release(
    broker: str,
    *,
    authorisation: dict[str, str],
    context: dict[str, Any],
    evidence: Any,
    grants: Sequence[Mapping[str, Any]],
) -> Released:
    """The keys of `grants` (seal headers) for the attested key in `context`. Raises BrokerRefused, ServiceUnavailable."""
    body = {"authorisation": authorisation, "context": context, "evidence": evidence, "grants": list(grants)}
    answer = _ask(broker, "/v1/release", body)
    shape = {
        "dataset": shapes.uuid_text,
        "version": shapes.whole(1),
        "wrapped": shapes.b64(),
        "suite": shapes.one_of(*seal.SUITES),
    }
    log = {"index": shapes.whole(), "hash": shapes.sha256}
    try:
        found = shapes.pick(
            answer,
            "The answer",
            {
                "keys": shapes.list_of(lambda item, at: shapes.fields(item, at, shape), 100),
                "log": lambda item, at: shapes.fields(item, at, log),
            },
        )
    except FormatError as error:
        raise _nonsense(broker, str(error)) from None
    asked = sorted((g["dataset"], g["version"]) for g in grants)
    if sorted((k["dataset"], k["version"]) for k in found["keys"]) != asked:
        raise _nonsense(broker, "It answered for other datasets than it was asked for.")
    return Released(found["keys"], found["log"])


def standing(broker: str, runs: Sequence[tuple[UUID, int]]) -> dict[tuple[UUID, int], Standing]:
    """What a broker says of keys that it released to these (run, attempt) pairs. Those it says nothing usable of are
    missing: it does not answer, is off the list, or its answer cannot be used. One call, whatever their number.
    """
    asked = [(str(run), attempt) for run, attempt in runs[:MAX_RUNS]]
    try:
        question = ask(_verdict_key(), portal=settings.PORTAL_ID, broker=broker, runs=asked, now=now())
        answers = read(_ask(broker, "/v1/standing", {"question": question}))
    except (BrokerRefused, ServiceUnavailable, FormatError) as error:
        log.info("the key broker %s was asked what it permits, in vain: %s", broker, error)
        return {}
    return {
        (UUID(run), attempt): Standing(said.standing, said.code, _CONTROL.sub(" ", said.detail))
        for (run, attempt), said in answers.items()
        if (run, attempt) in asked
    }


def _verdict_key() -> SigningKey:
    return SigningKey(signing_key("verdict").private_bytes_raw())


def _ask(broker: str, path: str, body: Any) -> Any:
    address = admitted().get(broker)
    if address is None:
        raise BrokerRefused(
            "broker_unknown", "The operator of this portal has taken this key broker off the list.", []
        )
    away = ServiceUnavailable("broker_unavailable", f"The key broker {broker} does not answer.")
    timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    deadline = time.monotonic() + WHOLE_SECONDS
    try:
        with (
            httpx.Client(timeout=timeout, trust_env=False, follow_redirects=False) as client,
            client.stream(
                "POST", address + path, content=strictjson.canonical(body), headers=headers
            ) as response,
        ):
            data = b""
            for chunk in response.iter_raw():
                data += chunk
                if time.monotonic() > deadline:  # one that drips must not hold a thread of the web for ever
                    raise away
                if len(data) > MAX_ANSWER:
                    raise _nonsense(broker, "Its answer is too long.")
            status = response.status_code
    except (httpx.HTTPError, httpx.InvalidURL):
        raise away from None
    if status >= 500 or status == 429:
        raise away
    try:
        document = shapes.mapping(
            strictjson.loads(data, max_bytes=MAX_ANSWER, what="The answer"), "The answer"
        )
    except FormatError as error:
        raise _nonsense(broker, str(error)) from None
    if status != 200:
        raise _refusal(document)
    return document


def _refusal(document: dict[str, Any]) -> BrokerRefused:
    """What it said, with its sentences cut to what a page and the log can take."""

    def said(value: Any, maximum: int) -> str:
        return _CONTROL.sub(" ", value)[:maximum] if isinstance(value, str) else ""

    found = document.get("checks")
    checks = [
        {"id": said(c.get("id"), 60), "outcome": "fail", "detail": said(c.get("detail"), 500)}
        for c in (found if isinstance(found, list) else [])[:50]
        if isinstance(c, dict)
    ]
    return BrokerRefused(
        said(document.get("code"), 60) or "refused",
        said(document.get("detail"), 1000) or "It gave no reason.",
        checks,
    )


def _nonsense(broker: str, why: str) -> BrokerRefused:
    return BrokerRefused(
        "broker_malformed", f"What the key broker {broker} answered cannot be used. {why}", []
    )
