"""(d) How many results can be verified in a second, in one thread: statement and evidence, whole packages, each evidence.

Each type of hardware evidence has a module evidence_*.py beside this one, named in `EVIDENCE`, with a function

    measure(*, small, say) -> list[Row]

that makes evidence of its type under an authority of its own (tests/unit/strongroom/evidence/authority_*.py), takes the
`rate` of `strongroom.evidence.verify` over it and, in the same run and in turns, that of the bare signatures which vouch
for it: nothing but `key.verify(...)`, with keys loaded. The row is `judged` by the ratio of the two; the aim is 2.

One verification of statement and evidence is what a verifier does for one result: parse and hash the result context,
check the statement's signature and form, and appraise the evidence against a policy, bound to that context.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from strongroom import contexts, evidence, statement, strictjson
from strongroom.evidence import Policy
from strongroom.package import verify_package
from tests.bench.table import Row
from tests.unit.strongroom import factory

EVIDENCE = ("evidence_snp", "evidence_tokens", "evidence_tdx", "evidence_cvm")


def measure(*, small: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of part (d)."""
    keys = factory.Keys()
    files = factory.make_files(keys)
    policy, trust = Policy(("software",), (factory.IMAGE,), 600), keys.portal.trust
    now = factory.NOW + timedelta(minutes=9, seconds=5)

    def statement_and_evidence() -> None:
        context = strictjson.loads_canonical(files["context/c2.json"], max_bytes=1 << 20, what="The context")
        document = statement.open_envelope(files["statement.dsse.json"], keys.run.public)
        statement.parse_statement(document, statement.RUN_PREDICATE)
        if context["statement"] != statement.digest(files["statement.dsse.json"]):
            raise RuntimeError("the context names another statement")
        appraisal = evidence.verify(
            files["evidence/e2.json"], policy, now=now, expected_nonce=contexts.n2(context), trust=trust
        )
        if not appraisal.ok:
            raise RuntimeError("valid evidence was refused")

    with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as name:
        path = Path(name) / "package.zip"
        factory.make_package(path, keys)

        def package() -> None:
            if not verify_package(path, trust=keys.portal).ok:
                raise RuntimeError("a valid package was refused")

        seconds = 0.1 if small else 3.0
        one, whole = rate(statement_and_evidence, seconds), rate(package, seconds)
    rows = [
        Row("d", "statement + evidence verifications", f"{one:,.0f} a second"),
        Row("d", "whole packages (evidence twice, log proof, every byte)", f"{whole:,.0f} a second"),
    ]
    for name in EVIDENCE:
        rows += importlib.import_module(f"tests.bench.{name}").measure(small=small, say=say)
    return rows


def rate(act: Callable[[], None], seconds: float) -> float:
    """Calls of `act` a second, over about `seconds`."""
    act()
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        act()
        count += 1
    return count / passed
