"""How many Azure confidential VMs can be verified in a second, in one thread, against their signatures alone.

The bare cost is that of every signature that vouches for the evidence, with keys at hand: on AMD the report, VCEK and
ASK, on Intel those of the TD quote, and on both the vTPM's. Most of the rest is reading three JSON documents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom import evidence
from strongroom.evidence import Policy, Trust, der, hcl, snp_report
from tests.bench.evidence_tdx import bare_of
from tests.bench.table import Row, judged
from tests.bench.verifying import rate
from tests.unit.strongroom.evidence import authority_amd as amd
from tests.unit.strongroom.evidence import authority_cvm as cvm
from tests.unit.strongroom.evidence import authority_intel as intel

AIM = 2.0


def measure(*, small: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of part (d) about Azure confidential VMs."""
    seconds = 0.1 if small else 2.0
    if not small:
        amd.rsa_bits = 4096  # AMD's own length; such keys take seconds to make
    store = Trust(anchors=(*amd.anchors(("Milan",)), intel.Authority().anchor()))
    return [
        _row("Azure VM on AMD", cvm.Machine(), store, seconds),
        _row("Azure VM on Intel", cvm.Machine(tdx=True), store, seconds),
    ]


def _row(what: str, machine: cvm.Machine, store: Trust, seconds: float) -> Row:
    sealed, policy = machine.seal(), Policy(("azure-cvm",), (), 600)

    def whole() -> None:
        found = evidence.verify(sealed, policy, now=cvm.NOW, expected_nonce=machine.nonce, trust=store)
        if not found.ok:
            raise RuntimeError("valid evidence was refused")

    bare, count = _bare(machine)
    # In turns, and the best of each: another program's burst then spoils neither side alone.
    turns = [(rate(whole, seconds / 4), rate(bare, seconds / 4)) for _ in range(4)]
    verified, alone = (max(turn[side] for turn in turns) for side in (0, 1))
    times = alone / verified
    figure = f"{verified:,.0f} a second, {times:.1f} times the bare signatures ({alone:,.0f} a second)"
    return judged("d", f"{what} ({count} signatures)", figure, f"at most {AIM:.0f} times", met=times <= AIM)


def _bare(machine: cvm.Machine) -> tuple[Callable[[], None], int]:
    parts, more = machine.parts()
    report = hcl.parse(parts["hcl-report"])
    key, pkcs1, sha256 = report.ak.public(), padding.PKCS1v15(), hashes.SHA256()
    hardware, count = bare_of(parts["td-quote"]) if machine.tdx else _bare_snp(report.hardware, more)

    def bare() -> None:
        hardware()
        key.verify(parts["signature"], parts["quote"], pkcs1, sha256)

    return bare, count + 1


def _bare_snp(data: bytes, more: dict[str, bytes]) -> tuple[Callable[[], None], int]:
    report = snp_report.parse(data)
    vek = der.certificate(more["vek"])
    ask, ark = (der.certificate(raw) for raw in der.unwrap(more["chain"], "CERTIFICATE"))
    keys: Any = [load_der_public_key(found.spki) for found in (vek, ask, ark)]
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
    signature = encode_dss_signature(report.r, report.s)

    def bare() -> None:
        keys[0].verify(signature, report.signed, ec.ECDSA(hashes.SHA384()))
        keys[1].verify(vek.signature, vek.tbs, pss, hashes.SHA384())
        keys[2].verify(ask.signature, ask.tbs, pss, hashes.SHA384())

    return bare, 3
