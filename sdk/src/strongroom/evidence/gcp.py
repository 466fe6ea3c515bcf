"""Google Confidential Space: a token that Google signs about a container in a confidential VM.

Two forms, told apart by the header: a PKI token carries its three certificates (`x5c`) and stays verifiable for ever;
an OIDC token names a key of a set that Google replaces every few weeks, so the verifier must have kept that set.
What the claims must say is in gcp_claims.py. Source: Google's "Attestation token claims" (2026-04-08) and "Validate
PKI tokens"; docs/reference/evidence/gcp-confidential-space.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from strongroom import shapes
from strongroom.errors import FormatError
from strongroom.evidence import der, gcp_claims, jose, tokens
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
_VERSION = 0xA0  # tag of a certificate's first field, which those of version 1 lack
# The extensions that _constraints looks at. RFC 5280 section 4.2: a critical one that is not understood is a refusal.
_UNDERSTOOD = (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE)


@dataclass(frozen=True, slots=True)
class _Certificate:
    """A certificate of a token, with what its bytes alone decide: who signed it is verified for every token.

    `issuer` and `subject` are whole encodings. `signed`: signature and message. `fault`: why it cannot be what it
    should be in a chain, whoever signed it.
    """

    name: str
    sha256: str
    key: RSAPublicKey | None
    window: Window
    issuer: bytes
    subject: bytes
    signed: tuple[bytes, bytes] | None
    fault: str | None


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
    leaf, _, root = chain
    pinned = checks.require(
        "trust-anchor",
        root.sha256 in trust.fingerprints("google-cs-root"),
        "The root certificate is Google's Confidential Space root, as the trust store holds it.",
        "The root certificate is not one that the trust store holds for Confidential Space, whatever its name says.",
    )
    problem = _problem(*chain)
    checks.require(
        "chain",
        problem is None,
        "The root certificate signed the intermediate one, and that one the token's.",
        f"The certificates do not make a chain: {problem}",
    )
    checks.not_available(
        "revocation", "Whether a certificate was revoked is not shown: the evidence holds no revocation list."
    )
    keys = (leaf.key,) if pinned and problem is None and leaf.key is not None else ()
    return keys, [found.window for found in chain], root.sha256


def _read_chain(value: object) -> list[_Certificate]:
    if not isinstance(value, list) or len(value) != 3:
        raise FormatError(
            "The token must carry exactly three certificates (x5c): leaf, intermediate and root."
        )
    for item, name in zip(value, _NAMES, strict=True):
        if not isinstance(item, str):
            raise FormatError(f"The token's {name} must be base64 text.")
    return [_certificate(item, name) for item, name in zip(value, _NAMES, strict=True)]


@lru_cache(maxsize=32)  # the same certificates come with every token
def _certificate(text: str, name: str) -> _Certificate:
    data = shapes.b64_decode(text, f"The token's {name}")
    if len(data) > _MAX_CERTIFICATE:
        raise FormatError(f"A certificate of the token is longer than {_MAX_CERTIFICATE} bytes.")
    found = jose.certificate(data, f"The token's {name}")
    key = found.public_key()
    tbs, outer, _ = der.items(der.whole(data, der.SEQUENCE))
    fields = [item.raw for item in der.items(tbs) if item.tag != _VERSION]
    _, algorithm, issuer, _, subject = fields[:5]
    # A certificate is valid through its last second (RFC 5280 section 4.1.2.5), which may be the last there is.
    last = found.not_valid_after_utc.replace(microsecond=999999)
    return _Certificate(
        name,
        hashlib.sha256(data).hexdigest(),
        key if isinstance(key, RSAPublicKey) else None,
        Window(name, found.not_valid_before_utc, last),
        issuer,
        subject,
        # RFC 5280 section 4.1.1.2: one algorithm, inside and outside of what is signed.
        (found.signature, found.tbs_certificate_bytes) if algorithm == outer.raw else None,
        _fault(found, key, name),
    )


def _problem(leaf: _Certificate, intermediate: _Certificate, root: _Certificate) -> str | None:
    """What is wrong with a chain, apart from its dates; None if nothing is."""
    return _link(leaf, intermediate) or _link(intermediate, root) or _link(root, root)


def _link(child: _Certificate, parent: _Certificate) -> str | None:
    if child.fault is not None:
        return child.fault
    if child.issuer != parent.subject or not _signed(child, parent.key):
        return f"the {child.name} is not signed by the {parent.name}."
    return None


def _signed(child: _Certificate, key: RSAPublicKey | None) -> bool:
    if key is None or child.signed is None:
        return False
    try:
        key.verify(*child.signed, PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):  # the second for a key that is too short for any
        return False
    return True


def _fault(certificate: x509.Certificate, key: object, name: str) -> str | None:
    """What is wrong with a certificate by itself: its key, its algorithm, what it may be used for."""
    if not isinstance(key, RSAPublicKey) or not jose.MIN_KEY_BITS <= key.key_size <= jose.MAX_KEY_BITS:
        return f"the {name}'s key is not an RSA key of {jose.MIN_KEY_BITS} bits or more."
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.RSA_WITH_SHA256:
        return f"the {name} is not signed with RSA and SHA-256."
    return _constraints(certificate, name, ca=name != _NAMES[0])


def _constraints(certificate: x509.Certificate, name: str, *, ca: bool) -> str | None:
    found = {extension.oid: extension for extension in certificate.extensions}
    if any(extension.critical and oid not in _UNDERSTOOD for oid, extension in found.items()):
        return f"the {name} has a critical extension that this verifier does not know."
    basic = found.get(ExtensionOID.BASIC_CONSTRAINTS)
    usage = found.get(ExtensionOID.KEY_USAGE)
    is_ca = basic is not None and isinstance(basic.value, x509.BasicConstraints) and basic.value.ca
    if is_ca != ca:
        return f"the {name} {'may not' if ca else 'claims that it may'} sign certificates."
    if usage is not None and isinstance(usage.value, x509.KeyUsage):
        if not (usage.value.key_cert_sign if ca else usage.value.digital_signature):
            return f"the {name}'s key is not meant for this use."
    elif ca:
        return f"the {name} does not say what its key is for."
    return None
