"""How many tokens of Google and Microsoft can be verified in a second, in one thread, against their signatures alone.

The bare cost is that of every RSA signature that vouches for the token, and nothing else: no reading, no rules. The
check of one RSA signature takes about 20 microseconds, less than any careful reading of the token's JSON. So a token
with one signature misses the aim by far and still takes a fraction of a millisecond; what dominates is parsing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from strongroom import evidence
from strongroom.evidence import Policy, Trust, jose
from tests.bench.table import Row, judged
from tests.bench.verifying import rate
from tests.unit.strongroom.evidence import authority_tokens as authority

NOW = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)
AIM = 2.0


def measure(*, small: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of part (d) about signed tokens."""
    seconds = 0.1 if small else 2.0
    # Google's own key lengths, but not in the smoke test: a key of 4096 bits takes seconds to make.
    google = authority.Google(label="bench", ca_bits=2048 if small else 4096)
    maa = authority.Maa()
    gcp = Policy(("gcp-confidential-space",), (authority.IMAGE,), 600, audiences=(authority.AUDIENCE,))
    azure = Policy(("azure-maa",), (), 600, maa={authority.MAA: [authority.MAA_POLICY]})
    claims = authority.google_claims(NOW)
    pki, oidc = google.pki(claims), google.oidc(claims)
    vm = maa.token(authority.maa_vm_claims(NOW))
    store = Trust(anchors=(*google.anchors, *maa.anchors))
    oidc_key, leaf_key = (authority.key(f"bench-{name}").public_key() for name in ("oidc", "leaf"))
    chain = [
        (google.leaf, google.intermediate),
        (google.intermediate, google.root),
        (google.root, google.root),
    ]
    jws = [(pki, leaf_key)]
    return [
        _row("Google, PKI token (4 signatures)", pki, gcp, store, seconds, jws=jws, chain=chain),
        _row("Google, OIDC token (1 signature)", oidc, gcp, store, seconds, jws=[(oidc, oidc_key)]),
        _row(
            "Azure Attestation token (1 signature)",
            vm,
            azure,
            store,
            seconds,
            jws=[(vm, authority.key("maa").public_key())],
        ),
    ]


def _row(
    what: str,
    token: bytes,
    policy: Policy,
    store: Trust,
    seconds: float,
    *,
    jws: list[tuple[bytes, Any]],
    chain: list[tuple[Any, Any]] | None = None,
) -> Row:
    envelope = authority.wrap(policy.types[0], token, NOW)
    signed = [(key, read.signature, read.signed) for data, key in jws for read in [jose.read(data)]]
    signed += [(up.public_key(), c.signature, c.tbs_certificate_bytes) for c, up in chain or []]

    def whole() -> None:
        appraisal = evidence.verify(
            envelope, policy, now=NOW + timedelta(seconds=5), expected_nonce=authority.NONCE, trust=store
        )
        if not appraisal.ok:
            raise RuntimeError("valid evidence was refused")

    def bare() -> None:
        for key, signature, message in signed:
            key.verify(signature, message, PKCS1v15(), SHA256())

    # In turns, and the best of each: another program's burst then spoils neither side alone.
    turns = [(rate(whole, seconds / 4), rate(bare, seconds / 4)) for _ in range(4)]
    verified, alone = (max(turn[side] for turn in turns) for side in (0, 1))
    times = alone / verified
    figure = f"{verified:,.0f} a second, {times:.1f} times the bare signatures ({alone:,.0f} a second)"
    return judged("d", what, figure, f"at most {AIM:.0f} times", met=times <= AIM)
