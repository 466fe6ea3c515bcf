"""Google Confidential Space: a token that Google signs about a container in a confidential VM.

Two forms, told apart by the header: a PKI token carries its three certificates (`x5c`) and stays verifiable for ever;
an OIDC token names a key of a set that Google replaces every few weeks, so the verifier must have kept that set.
What the claims must say is in gcp_claims.py. Source: Google's "Attestation token claims" (2026-04-08) and "Validate
PKI tokens"; docs/reference/evidence/gcp-confidential-space.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from strongroom import shapes
from strongroom.errors import FormatError
from strongroom.evidence import gcp_claims, jose, tokens
from strongroom.evidence.envelope import Envelope
from strongroom.evidence.jose import Token
from strongroom.evidence.model import Appraisal, Checks, Tier, hardware_tier
from strongroom.evidence.policy import Policy
from strongroom.evidence.tokens import Window
from strongroom.evidence.trust import Trust

TYPE = "gcp-confidential-space"
ISSUER = "https://confidentialcomputing.googleapis.com"
INTEL_ISSUER = "https://portal.trustauthority.intel.com"

_MAX_CERTIFICATE = 8 << 10
_NAMES = ("leaf certificate", "intermediate certificate", "root certificate")
# The extensions that _problem looks at. RFC 5280 section 4.2: a critical one that is not understood is a refusal.
_UNDERSTOOD = (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE)


def verify(
    envelope: Envelope, policy: Policy, *, now: datetime, expected_nonce: str | bytes | None, trust: Trust
) -> Appraisal:
    """Appraise a parsed envelope of this type. Never raises for anything in the envelope."""
    checks = Checks()
    try:
        token = tokens.read(envelope)
    except FormatError as error:
        checks.failed("format", str(error))
        return Appraisal(TYPE, Tier.CONTRAINDICATED, tuple(checks.items))
    checks.passed("format", "The evidence is one signed token, and nothing else.")
    tokens.check_algorithm(checks, token)
    _check_issuer(checks, token)
    windows: Sequence[Window] = ()
    if "x5c" in token.header:
        keys, windows, attester = _check_chain(checks, token, envelope, trust)
    else:
        keys = tokens.check_key(
            checks, envelope, token, trust, purpose="google-cs-jwks", issuer=ISSUER, need_kid=False
        )
        attester = token.kid or ""
    tokens.check_signature(checks, token, keys)
    issued = tokens.check_times(checks, token, envelope, policy, now, windows)
    claims, required = gcp_claims.judge(checks, token.claims, policy, expected_nonce)
    if issued is not None:
        claims["collected"] = shapes.format_time(issued)
    if keys:
        claims["attester"] = attester
    tier = hardware_tier(checks.items, required=required)
    return Appraisal(TYPE, tier, tuple(checks.items), claims)


def _check_issuer(checks: Checks, token: Token) -> None:
    issuer = token.claims.get("iss")
    if issuer == INTEL_ISSUER:
        checks.failed(
            "issuer",
            "The token is from Intel Trust Authority. This version verifies tokens of Google Cloud Attestation only: "
            "ask the launcher for a token at /v1/token instead.",
        )
        return
    checks.require(
        "issuer",
        issuer == ISSUER,
        "The token is from Google Cloud Attestation.",
        f"The token is not from Google Cloud Attestation: its issuer is not exactly {ISSUER}.",
    )


def _check_chain(
    checks: Checks, token: Token, envelope: Envelope, trust: Trust
) -> tuple[Sequence[RSAPublicKey], Sequence[Window], str]:
    """Judge the three certificates. Gives the leaf's key where all is well, and when each is valid."""
    if envelope.collateral:
        checks.failed(
            "collateral", "A token with certificates needs no key set: the collateral jwks has no place here."
        )
    try:
        chain = _read_chain(token.header["x5c"])
    except FormatError as error:
        checks.failed("chain", str(error))
        return (), (), ""
    windows = [
        # A certificate is valid through its last second (RFC 5280 section 4.1.2.5), which may be the last there is.
        Window(name, c.not_valid_before_utc, c.not_valid_after_utc.replace(microsecond=999999))
        for name, (c, _) in zip(_NAMES, chain, strict=True)
    ]
    root = hashlib.sha256(chain[2][1]).hexdigest()
    pinned = checks.require(
        "trust-anchor",
        root in trust.fingerprints("google-cs-root"),
        "The root certificate is Google's Confidential Space root, as the trust store holds it.",
        "The root certificate is not one that the trust store holds for Confidential Space, whatever its name says.",
    )
    problem = _problem(*(der for _, der in chain))
    checks.require(
        "chain",
        problem is None,
        "The root certificate signed the intermediate one, and that one the token's.",
        f"The certificates do not make a chain: {problem}",
    )
    checks.not_available(
        "revocation", "Whether a certificate was revoked is not shown: the evidence holds no revocation list."
    )
    key = chain[0][0].public_key()
    good = pinned and problem is None and isinstance(key, RSAPublicKey)
    return ((key,) if good and isinstance(key, RSAPublicKey) else ()), windows, root


def _read_chain(value: object) -> list[tuple[x509.Certificate, bytes]]:
    if not isinstance(value, list) or len(value) != 3:
        raise FormatError(
            "The token must carry exactly three certificates (x5c): leaf, intermediate and root."
        )
    ders = [shapes.b64_decode(item, f"The token's {name}") for item, name in zip(value, _NAMES, strict=True)]
    if max(map(len, ders)) > _MAX_CERTIFICATE:
        raise FormatError(f"A certificate of the token is longer than {_MAX_CERTIFICATE} bytes.")
    return [
        (jose.certificate(der, f"The token's {name}"), der) for der, name in zip(ders, _NAMES, strict=True)
    ]


def _problem(leaf: bytes, intermediate: bytes, root: bytes) -> str | None:
    """What is wrong with a chain, apart from its dates; None if nothing is."""
    return (
        _link(leaf, intermediate, "leaf", "intermediate", ca=False)
        or _link(intermediate, root, "intermediate", "root", ca=True)
        or _link(root, root, "root", "root", ca=True)
    )


def _link(child: bytes, parent: bytes, name: str, signer: str, *, ca: bool) -> str | None:
    problem = _shape(child, name, ca=ca)
    if problem is not None:
        return problem
    try:
        jose.certificate(child, name).verify_directly_issued_by(jose.certificate(parent, signer))
    except Exception:  # a wrong name, key or signature, or a parser's own error: none of them is a signature
        return f"the {name} certificate is not signed by the {signer} certificate."
    return None


@lru_cache(maxsize=32)  # the same certificates come with every token; who signed them is not looked at here
def _shape(child: bytes, name: str, *, ca: bool) -> str | None:
    """What is wrong with a certificate by itself: its key, its algorithm, what it may be used for."""
    certificate = jose.certificate(child, name)
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey) or not jose.MIN_KEY_BITS <= key.key_size <= jose.MAX_KEY_BITS:
        return f"the {name} certificate's key is not an RSA key of {jose.MIN_KEY_BITS} bits or more."
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.RSA_WITH_SHA256:
        return f"the {name} certificate is not signed with RSA and SHA-256."
    return _constraints(certificate, name, ca=ca)


def _constraints(certificate: x509.Certificate, name: str, *, ca: bool) -> str | None:
    found = {extension.oid: extension for extension in certificate.extensions}
    if any(extension.critical and oid not in _UNDERSTOOD for oid, extension in found.items()):
        return f"the {name} certificate has a critical extension that this verifier does not know."
    basic = found.get(ExtensionOID.BASIC_CONSTRAINTS)
    usage = found.get(ExtensionOID.KEY_USAGE)
    is_ca = basic is not None and isinstance(basic.value, x509.BasicConstraints) and basic.value.ca
    if is_ca != ca:
        return f"the {name} certificate {'may not' if ca else 'claims that it may'} sign certificates."
    if usage is not None and isinstance(usage.value, x509.KeyUsage):
        if not (usage.value.key_cert_sign if ca else usage.value.digital_signature):
            return f"the {name} certificate's key is not meant for this use."
    elif ca:
        return f"the {name} certificate does not say what its key is for."
    return None
