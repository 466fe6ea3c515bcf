"""How many TDX quotes can be verified in a second, in one thread, against their signatures alone.

The bare cost is that of every signature that vouches for the quote: quote, QE report, PCK leaf, PCK CA, with keys at
hand. A platform's certificates are read once and kept (its quotes all bring the same ones); every signature and date is
verified each time. With collateral the library dcap-qvl verifies all of it once more, in its own way: that row has no aim.
"""

from __future__ import annotations

from collections.abc import Callable

from strongroom import evidence
from strongroom.evidence import Policy, Trust, intel_pck, tdx
from tests.bench.table import Row, judged
from tests.bench.verifying import rate
from tests.unit.strongroom.evidence import authority_intel as intel

AIM = 2.0


def measure(*, small: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of part (d) about TDX quotes."""
    seconds = 0.1 if small else 2.0
    domain = intel.Domain()
    quote = domain.quote()
    store = Trust.of(anchors=[domain.authority.anchor()])
    policy = Policy(("tdx",), (), 600)

    def whole_of(sealed: bytes) -> Callable[[], None]:
        def whole() -> None:
            found = evidence.verify(
                sealed, policy, now=intel.NOW, expected_nonce=domain.report_data, trust=store
            )
            if not found.ok:
                raise RuntimeError("valid evidence was refused")

        return whole

    bare, count = bare_of(quote)
    # In turns, and the best of each: another program's burst then spoils neither side alone.
    turns = [(rate(whole_of(intel.seal(quote)), seconds / 4), rate(bare, seconds / 4)) for _ in range(4)]
    verified, alone = (max(turn[side] for turn in turns) for side in (0, 1))
    times = alone / verified
    figure = f"{verified:,.0f} a second, {times:.1f} times the bare signatures ({alone:,.0f} a second)"
    sealed = intel.seal(quote, collateral=intel.collateral(domain.authority))
    full = rate(whole_of(sealed), seconds)
    return [
        judged("d", f"TDX quote ({count} signatures)", figure, f"at most {AIM:.0f} times", met=times <= AIM),
        Row("d", "TDX quote with collateral (TCB status by dcap-qvl)", f"{full:,.0f} a second"),
    ]


def bare_of(data: bytes) -> tuple[Callable[[], None], int]:
    """The signatures of a quote and nothing else; and how many there are."""
    quote, chain = tdx.read_quote(data)
    key = tdx.attestation_key(quote)
    assert key is not None
    signed = [(key, intel_pck.der_signature(quote.signature), quote.signed)]
    signed.append((chain.leaf_key, intel_pck.der_signature(quote.qe_signature), quote.qe_report.raw))
    signed += chain.links

    def bare() -> None:
        for public, signature, message in signed:
            public.verify(signature, message, intel_pck.ECDSA_SHA256)

    return bare, len(signed)
