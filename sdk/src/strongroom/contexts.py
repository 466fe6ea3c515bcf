"""What a run is bound to: the two contexts, and the nonces that go into the evidence.

    C1  before the run: who asks for which keys           n1 = b64url(SHA-256("strongroom/1/key-release" 0x00 JCS(C1)))
    C2  after the run: which files this instance produced n2 = b64url(SHA-256("strongroom/1/result" 0x00 JCS(C2)))

Both labels and the `purpose` member differ, so evidence made for one can never stand for the other. C2 names E1
by hash, the same run and the same signing key: together they say that the instance that got the keys is the one
that produced the files. A custodian who runs a key broker of their own is asked with a C1 of its own, which names that
broker, carries its challenge and only its inputs; C2 then lists the evidence shown to each. JSON is canonical by RFC 8785; digests are lower-case hex SHA-256; times are RFC 3339 UTC.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from strongroom import paths, shapes, strictjson
from strongroom.errors import FormatError
from strongroom.seal.keys import PublicKey

KEY_RELEASE = "key-release"
RESULT = "result"
EXIT_CLASSES = ("succeeded", "failed", "timed_out", "out_of_memory", "disk_full", "cancelled", "refused")
MAX_INPUTS = 100
MAX_OUTPUTS = 1000
MAX_BROKERS = 20

portal_id = shapes.text(200)
broker_id = shapes.text(200)
sign_public = shapes.b64(32)


def hpke_public(value: Any, where: str) -> dict[str, str]:
    return PublicKey.from_json(value, where).to_json()


def exit_record(value: Any, where: str) -> dict[str, Any]:
    """{"class", "exception_type", "line"}: all that may be said of how a program ended."""
    return shapes.fields(
        value,
        where,
        {
            "class": shapes.one_of(*EXIT_CLASSES),
            "exception_type": shapes.nullable(shapes.text(200)),
            "line": shapes.nullable(shapes.whole(1)),
        },
    )


def output_list(value: Any, where: str) -> list[dict[str, Any]]:
    """[{"path", "sha256", "size"}], in the order of the paths' code points, each path safe and once only."""
    shape = {"path": paths.safe_path, "sha256": shapes.sha256, "size": shapes.whole()}
    outputs: list[dict[str, Any]] = shapes.list_of(
        lambda item, at: shapes.fields(item, at, shape), MAX_OUTPUTS
    )(value, where)
    names = paths.distinct_files((item["path"] for item in outputs), where)
    if names != sorted(names):
        raise FormatError(f"{where} must be sorted by path.")
    return outputs


def broker_list(value: Any, where: str) -> list[dict[str, Any]]:
    """[{"broker", "e1"}]: which evidence was shown to which custodian's broker; sorted by broker, each once."""
    shape = {"broker": broker_id, "e1": shapes.sha256}
    found: list[dict[str, Any]] = shapes.list_of(
        lambda item, at: shapes.fields(item, at, shape), MAX_BROKERS
    )(value, where)
    names = [item["broker"] for item in found]
    if not found or names != sorted(set(names)):
        raise FormatError(f"{where} must hold at least one entry, sorted by broker, each broker once.")
    return found


def _inputs(**members: shapes.Checker) -> shapes.Checker:
    shape = {"dataset": shapes.uuid_text, **members}
    return shapes.list_of(lambda item, at: shapes.fields(item, at, shape), MAX_INPUTS)


_C1: dict[str, shapes.Checker] = {
    "v": shapes.exactly(1),
    "purpose": shapes.exactly(KEY_RELEASE),
    "run": shapes.uuid_text,
    "portal": portal_id,
    "challenge": shapes.token,
    "manifest": shapes.sha256,
    "image": shapes.image_digest,
    "inputs": _inputs(version=shapes.whole(1), ciphertext=shapes.sha256),
    "approvals": shapes.sha256,
    "sign_pub": sign_public,
    "hpke_pub": hpke_public,
}
# Of a custodian's own key broker; without it C1 is for the portal's.
_C1_MORE: dict[str, shapes.Checker] = {"broker": broker_id}

_C2: dict[str, shapes.Checker] = {
    "v": shapes.exactly(1),
    "purpose": shapes.exactly(RESULT),
    "run": shapes.uuid_text,
    "portal": portal_id,
    "challenge2": shapes.token,
    "e1": shapes.nullable(shapes.sha256),
    "manifest": shapes.sha256,
    "inputs": _inputs(plaintext=shapes.sha256),
    "outputs": output_list,
    "statement": shapes.sha256,
    "exit": exit_record,
    "started": shapes.time_text,
    "ended": shapes.time_text,
    "sign_pub": sign_public,
}
_C2_MORE: dict[str, shapes.Checker] = {"brokers": broker_list}


def key_release_context(
    *,
    run: str,
    portal: str,
    challenge: str,
    manifest: str,
    image: str,
    inputs: Sequence[dict[str, Any]],
    approvals: str,
    sign_pub: bytes,
    hpke_pub: PublicKey,
    broker: str | None = None,
) -> dict[str, Any]:
    """C1. `inputs` are [{"dataset", "version", "ciphertext"}], `sign_pub` raw Ed25519. Raises FormatError.

    `broker`: the id of a custodian's own broker, whose challenge this is; None for the portal's.
    """
    return parse_key_release(
        {
            **({} if broker is None else {"broker": broker}),
            "v": 1,
            "purpose": KEY_RELEASE,
            "run": run,
            "portal": portal,
            "challenge": challenge,
            "manifest": manifest,
            "image": image,
            "inputs": list(inputs),
            "approvals": approvals,
            "sign_pub": shapes.b64_encode(sign_pub),
            "hpke_pub": hpke_pub.to_json(),
        }
    )


def result_context(
    *,
    run: str,
    portal: str,
    challenge2: str,
    e1: str | None,
    manifest: str,
    inputs: Sequence[dict[str, Any]],
    outputs: Sequence[dict[str, Any]],
    statement: str,
    exit: dict[str, Any],
    started: str,
    ended: str,
    sign_pub: bytes,
    brokers: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """C2. `inputs` are [{"dataset", "plaintext"}], `outputs` [{"path", "sha256", "size"}] in any order.

    `e1` is the SHA-256 of the evidence envelope shown to the portal's broker, None only if the run needed no key of
    it; `brokers` [{"broker", "e1"}] the same for custodians' own brokers, in any order. `statement` is the SHA-256 of
    the bytes of the DSSE envelope. Raises FormatError.
    """
    asked = sorted(brokers, key=lambda item: str(item["broker"]))
    return parse_result(
        {
            **({"brokers": asked} if asked else {}),
            "v": 1,
            "purpose": RESULT,
            "run": run,
            "portal": portal,
            "challenge2": challenge2,
            "e1": e1,
            "manifest": manifest,
            "inputs": list(inputs),
            "outputs": sorted(outputs, key=lambda item: str(item["path"])),
            "statement": statement,
            "exit": exit,
            "started": started,
            "ended": ended,
            "sign_pub": shapes.b64_encode(sign_pub),
        }
    )


def parse_key_release(value: Any) -> dict[str, Any]:
    """Check a parsed C1 member by member; unknown members are refused. Raises FormatError."""
    context = shapes.fields(value, "The key-release context", _C1, _C1_MORE)
    versions = [(item["dataset"], item["version"]) for item in context["inputs"]]
    if len(set(versions)) != len(versions):
        raise FormatError("The key-release context names an input twice.")
    return context


def parse_result(value: Any) -> dict[str, Any]:
    """Check a parsed C2 member by member; unknown members are refused. Raises FormatError."""
    context = shapes.fields(value, "The result context", _C2, _C2_MORE)
    started = shapes.parse_time(context["started"], "started")
    if shapes.parse_time(context["ended"], "ended") < started:
        raise FormatError("The result context ends before it starts.")
    return context


def n1(context: dict[str, Any]) -> str:
    """The nonce of a key-release context, 43 characters. Raises FormatError if it is not one."""
    return _nonce(parse_key_release(context), KEY_RELEASE)


def n2(context: dict[str, Any]) -> str:
    """The nonce of a result context, 43 characters. Raises FormatError if it is not one."""
    return _nonce(parse_result(context), RESULT)


def _nonce(context: dict[str, Any], purpose: str) -> str:
    message = f"strongroom/1/{purpose}".encode() + b"\x00" + strictjson.canonical(context)
    return shapes.b64url_encode(hashlib.sha256(message).digest())
