"""What a custodian's key broker does when asked: give challenges, judge evidence, release keys, or refuse. No HTTP here.

It believes the portal in one thing: that a run exists, by a signature of the portal's pinned key. Which machine gets a
key is decided by the evidence, under the custodian's own policy, with the broker's own challenge. Every decision stands
in the log before a key is opened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from strongroom import contexts, seal, shapes, strictjson
from strongroom.broker import authorisation, standing
from strongroom.broker.authorisation import Authorisation
from strongroom.broker.config import Config
from strongroom.broker.errors import KeyStoreError, Refusal, ReleaseError
from strongroom.broker.rejudge import standing_of
from strongroom.broker.release import Decision, challenge_check, decide, wrap
from strongroom.broker.standing import UNKNOWN, WITHDRAWN, Standing
from strongroom.broker.state import Place, Shown, State, Transaction
from strongroom.broker.stores import KeyStore
from strongroom.errors import FormatError
from strongroom.evidence import Check, Outcome, digest
from strongroom.seal import SealHeader

log = logging.getLogger(__name__)

MAX_BODY = 8 << 20


class Broker:
    """A broker at work. Safe to use from several threads and processes at once."""

    def __init__(
        self,
        config: Config,
        *,
        store: KeyStore | None = None,
        state: State | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.config = config
        self.store = store or config.open_store()
        self.state = state or State(config.state)
        self._now = clock

    def keys(self) -> dict[str, Any]:
        """The public keys to seal to, preferred first. Raises Refusal (unavailable)."""
        try:
            return {"v": 1, "id": self.config.id, "keys": [key.to_json() for key in self.store.public_keys()]}
        except KeyStoreError as error:
            raise Refusal(503, "unavailable", str(error)) from None

    def health(self) -> dict[str, Any]:
        """Whether state and key file can be read, and whether the custodian stopped it. Raises Refusal (unavailable)."""
        self.keys()
        return {"ok": True, "stopped": self.state.stopped() is not None}

    def challenge(self, body: Any) -> dict[str, Any]:
        """{"authorisation"} -> {"challenge"}: single use, for ten minutes. Raises Refusal, FormatError."""
        document = shapes.fields(body, "The request", {"authorisation": shapes.mapping})
        word = self._authorised(document["authorisation"])
        with self.state.transaction() as state:
            _require_running(state)
            value = state.challenge(word.run, word.attempt, self._now())
        if value is None:
            raise Refusal(503, "busy", "Too many challenges are open. Try again in a few minutes.")
        return {"challenge": value}

    def release(self, body: Any) -> dict[str, Any]:
        """{"authorisation", "context", "evidence", "grants": [seal header]} -> {"keys", "log"}.

        The same request again gives keys for the same attested key again, and nothing new in the log.
        Raises Refusal (stopped, authorisation_refused, dataset_unknown, program_refused, evidence_refused, ...),
        FormatError.
        """
        document = shapes.fields(
            body,
            "The request",
            {
                "authorisation": shapes.mapping,
                "context": shapes.mapping,
                "evidence": shapes.mapping,
                "grants": shapes.list_of(shapes.mapping, contexts.MAX_INPUTS),
            },
        )
        word = self._authorised(document["authorisation"])
        context = contexts.parse_key_release(document["context"])
        envelope = strictjson.canonical(document["evidence"])
        headers = [seal.parse_seal_header(grant) for grant in document["grants"]]
        place = self._decide(word, context, envelope, headers)
        try:
            keys = wrap(self.store, context, headers)
        except ReleaseError as error:
            with self.state.transaction() as state:
                state.append({**self._entry("unusable", word), "dataset": error.dataset})
            raise Refusal(403, "key_unusable", str(error)) from None
        except KeyStoreError as error:
            log.warning("the key service does not answer: %s", error)
            raise Refusal(503, "unavailable", "The key service behind this broker does not answer.") from None
        return {"keys": keys, "log": place.to_json()}

    def standing(self, body: Any) -> dict[str, Any]:
        """{"question"} -> {"runs": [{"run", "attempt", "standing", "code", "detail"}]}: may they still use their keys?

        Only the portal may ask, by its signature: the answer says what the custodian thinks of runs. Writes nothing.
        Raises Refusal (authorisation_refused), FormatError.
        """
        document = shapes.fields(body, "The request", {"question": shapes.mapping})
        portal = self.config.portal
        asked = standing.verify(
            document["question"],
            portal=portal.portal,
            key=portal.verdict_key,
            broker=self.config.id,
            now=self._now(),
        )
        stopped = self.state.stopped()
        if stopped is not None:
            said = Standing(WITHDRAWN, "stopped", _why(stopped))
            return standing.answer([(attempt, said) for attempt in asked])
        return standing.answer([(attempt, self._standing(*attempt)) for attempt in asked])

    def _standing(self, run: str, attempt: int) -> Standing:
        shown = self.state.shown(run, attempt)
        if shown is None:
            return Standing(UNKNOWN, "not_released", "This key broker knows of no release to this attempt.")
        return standing_of(shown, self.config)

    def stop(self, reason: str) -> None:
        """Refuse everything from now on. A stop of a stopped broker changes the reason."""
        with self.state.transaction() as state:
            state.stop(self._now(), reason)
            state.append({**self._entry("stopped"), "reason": reason})

    def start(self) -> None:
        """Take the stop back."""
        with self.state.transaction() as state:
            if state.stopped() is not None:
                state.start()
                state.append(self._entry("started"))

    def _authorised(self, value: Any) -> Authorisation:
        portal = self.config.portal
        return authorisation.verify(
            value, portal=portal.portal, key=portal.verdict_key, broker=self.config.id, now=self._now()
        )

    def _decide(
        self, word: Authorisation, context: dict[str, Any], envelope: bytes, headers: list[SealHeader]
    ) -> Place:
        """Judge, and write the decision down. Returns its place in the log, or raises the Refusal that is in there."""
        evidence, bound = digest(envelope), strictjson.digest(context)
        now = self._now()
        # The write lock is held while the evidence is judged: milliseconds, and then a challenge cannot be used twice,
        # nor a stop overtaken.
        with self.state.transaction() as state:
            facts = {"evidence": evidence, "context": bound}
            try:
                _require_running(state)
                before = state.released(word.run, word.attempt)
                decision = self._judge(
                    word, context, envelope, headers, state, now, repeated=before is not None
                )
            except Refusal as refusal:
                refused: Refusal | None = refusal
                state.append({**self._entry("refused", word), **facts, "code": refusal.code, "failing": []})
            else:
                refused = self._written(word, context, envelope, decision, state, now, facts, before)
            if refused is None:
                found = state.released(word.run, word.attempt)
                assert found is not None
                return found[2]
        raise refused

    def _written(
        self,
        word: Authorisation,
        context: dict[str, Any],
        envelope: bytes,
        decision: Decision,
        state: Transaction,
        now: datetime,
        facts: dict[str, Any],
        before: tuple[str, str, Place] | None,
    ) -> Refusal | None:
        if before is not None and decision.ok and before[:2] == (facts["evidence"], facts["context"]):
            return None  # this very request, whose answer was lost
        failing = decision.failing
        if before is not None and not failing:
            failing = [
                Check(
                    "challenge", Outcome.FAIL, "Keys were released to this attempt on other evidence already."
                )
            ]
        state.spend(context["challenge"], word.run, word.attempt, now)
        said = {
            **facts,
            "datasets": [
                {
                    "dataset": j.asked.dataset,
                    "version": j.asked.version,
                    "policy": j.asked.policy.sha256,
                    "failing": [check.id for check in j.failing],
                }
                for j in decision.judgements
            ],
            "failing": [check.id for check in failing],
        }
        if failing or not decision.ok:
            state.append({**self._entry("refused", word), "code": "evidence_refused", **said})
            sentences = " ".join(check.detail for check in failing)
            return Refusal(
                403,
                "evidence_refused",
                f"The evidence does not satisfy every check. {sentences}",
                checks=[check.to_json() for check in failing],
            )
        place = state.append({**self._entry("released", word), **said})
        state.set_released(word.run, word.attempt, facts["evidence"], facts["context"], place)
        shown = Shown(
            at=shapes.format_time(now),
            context=strictjson.canonical(context).decode(),
            envelope=envelope,
            program=_program(word),
            policies={j.asked.dataset: j.asked.policy.sha256 for j in decision.judgements},
        )
        state.set_shown(word.run, word.attempt, shown)
        return None

    def _judge(
        self,
        word: Authorisation,
        context: dict[str, Any],
        envelope: bytes,
        headers: list[SealHeader],
        state: Transaction,
        now: datetime,
        *,
        repeated: bool,
    ) -> Decision:
        named = [
            {"dataset": h.dataset, "version": h.version, "ciphertext": h.ciphertext.sha256} for h in headers
        ]
        if named != list(word.inputs):
            raise Refusal(
                403, "grants_differ", "The wrapped keys sent are not those of the authorised inputs."
            )
        asked = [self.config.asked(h.dataset, h.version) for h in headers]
        sha256 = _program(word)
        for header in headers:
            allowed = self.config.datasets[header.dataset].programs
            if allowed is not None and sha256 not in allowed:
                raise Refusal(
                    403,
                    "program_refused",
                    f"The custodian's key broker does not release dataset {header.dataset} to this program.",
                )
        fault = state.fault_of(context["challenge"], word.run, word.attempt, now)
        if repeated and fault in ("spent", "expired"):
            fault = ""  # by its own first time; what was released then is compared by the caller
        return decide(
            context=context,
            envelope=envelope,
            asked=asked,
            challenge=challenge_check(fault),
            expected=word.expected(),
            trust=self.config.trust,
            now=now,
        )

    def _entry(self, event: str, word: Authorisation | None = None) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "v": 1,
            "at": shapes.format_time(self._now()),
            "event": event,
            "broker": self.config.id,
        }
        if word is not None:
            entry |= {"run": word.run, "attempt": word.attempt, "manifest": word.manifest_sha256}
        return entry


def _program(word: Authorisation) -> str:
    """The program's hash as the manifest has it; "", which no list allows, where it has none."""
    program = word.manifest.get("program")
    found = program.get("sha256") if isinstance(program, dict) else None
    return found if isinstance(found, str) else ""


def _require_running(state: Transaction) -> None:
    stopped = state.stopped()
    if stopped is not None:
        raise Refusal(403, "stopped", _why(stopped))


def _why(stopped: tuple[str, str]) -> str:
    since, reason = stopped
    why = f" Reason given: {reason}" if reason else ""
    return f"The custodian stopped this key broker on {since[:10]}, so it releases no key.{why}"


__all__ = ["MAX_BODY", "Broker", "FormatError"]
