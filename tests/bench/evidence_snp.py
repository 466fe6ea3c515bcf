"""How many SEV-SNP reports and confidential containers can be verified in a second, against their signatures alone.

The bare cost is that of the report's signature, the VCEK's and the ASK's, with keys at hand; for a container also that
of the endorsement and of the two certificates above its signer. Keys have the makers' own lengths (but not in the smoke
test: they take seconds to make).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom import evidence
from strongroom.evidence import Policy, Trust, cose, der, snp_report
from tests.bench.table import Row, judged
from tests.bench.verifying import rate
from tests.unit.strongroom.evidence import authority_amd as amd

AIM = 2.0
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)


def measure(*, small: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of part (d) about SEV-SNP reports and confidential containers."""
    seconds = 0.1 if small else 2.0
    if not small:
        amd.rsa_bits = 4096
    store = Trust(anchors=amd.anchors(("Milan",)))
    report, container = amd.Report().sign(), amd.ACI_REPORT.sign()
    endorsement = amd.Endorsement().cose()
    return [
        _row(
            "SEV-SNP report (3 signatures)",
            amd.evidence(report, amd.Vek().der(), chain=amd.chain()),
            Policy.parse(amd.policy("snp")),
            store,
            _signatures(report),
            seconds,
        ),
        _row(
            "Azure confidential container (6 signatures)",
            amd.aci_evidence(container, endorsement=endorsement),
            Policy.parse(amd.policy("azure-aci")),
            store,
            _signatures(container) + _endorsement(endorsement),
            seconds,
        ),
    ]


def _row(
    what: str, sealed: bytes, policy: Policy, store: Trust, signed: list[Callable[[], None]], seconds: float
) -> Row:
    def whole() -> None:
        found = evidence.verify(sealed, policy, now=amd.NOW, expected_nonce=amd.NONCE, trust=store)
        if found.tier is not evidence.Tier.AFFIRMING:
            raise RuntimeError("valid evidence was refused")

    def bare() -> None:
        for verify in signed:
            verify()

    # In turns, and the best of each: another program's burst then spoils neither side alone.
    turns = [(rate(whole, seconds / 4), rate(bare, seconds / 4)) for _ in range(4)]
    verified, alone = (max(turn[side] for turn in turns) for side in (0, 1))
    times = alone / verified
    figure = f"{verified:,.0f} a second, {times:.1f} times the bare signatures ({alone:,.0f} a second)"
    return judged("d", what, figure, f"at most {AIM:.0f} times", met=times <= AIM)


def _signatures(data: bytes) -> list[Callable[[], None]]:
    """The report's signature, and those of the chain above its key."""
    report = snp_report.parse(data)
    vek, ask, ark = (der.certificate(raw) for raw in (amd.Vek().der(), amd.intermediate(), amd.ark()))
    keys: Any = [load_der_public_key(found.spki) for found in (vek, ask, ark)]
    signature = encode_dss_signature(report.r, report.s)
    return [
        lambda: keys[0].verify(signature, report.signed, ec.ECDSA(hashes.SHA384())),
        lambda: keys[1].verify(vek.signature, vek.tbs, _PSS, hashes.SHA384()),
        lambda: keys[2].verify(ask.signature, ask.tbs, _PSS, hashes.SHA384()),
    ]


def _endorsement(data: bytes) -> list[Callable[[], None]]:
    """The endorsement's signature, and those of the chain above its signer."""
    message = cose.parse(data)
    chain = [x509.load_der_x509_certificate(raw) for raw in amd.uvm_chain()]
    keys: Any = [found.public_key() for found in chain]
    body = amd.cbor(["Signature1", message.protected, b"", message.payload])
    signed = [(found.signature, found.tbs_certificate_bytes) for found in chain]
    return [
        lambda: keys[0].verify(message.signature, body, _PSS, hashes.SHA384()),
        lambda: keys[1].verify(*signed[0], padding.PKCS1v15(), hashes.SHA384()),
        lambda: keys[2].verify(*signed[1], padding.PKCS1v15(), hashes.SHA384()),
    ]
