"""Files that are not what their dictionary says: each refused in a sentence with row numbers, to the custodian alone."""

from __future__ import annotations

import html
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.integration.runs.portal import Portal, until

HEAD = "visits,coins,plan,day,insured,word"
MARK = "Xylopyrography"  # in every bad cell: a value that must never be repeated
PARQUET = "application/vnd.apache.parquet"


@dataclass(frozen=True)
class Bad:
    """A file, and of its first problem: code, column, rows, words of the sentence."""

    name: str
    content: bytes
    code: str
    column: str = ""
    rows: tuple[int, ...] = ()
    words: str = ""
    media_type: str = "text/csv"


def csv(*rows: str, head: str = HEAD) -> bytes:
    """Rows as given, after a header and one good row (row 2)."""
    return ("\n".join([head, "1,2.5,A,1999-12-31,true,good", *rows]) + "\n").encode()


BAD = [
    Bad("another header", csv(head=f"visits,coins,plan,day,insured,{MARK}"), "header", rows=(1,), words="lacks “word”; it has 1 column that"),
    Bad("a column missing", b"visits,coins,plan,day,insured\n1,2,A,1999-12-31,true\n", "header", rows=(1,), words="lacks “word”"),
    Bad("columns in another order", csv(head="coins,visits,plan,day,insured,word"), "header", rows=(1,), words="another order"),
    Bad("no header", f"1,2,A,1999-12-31,true,{MARK}\n".encode(), "header", rows=(1,)),
    Bad("a header twice the same", csv(head="visits,visits,plan,day,insured,word"), "header", rows=(1,)),
    Bad("semicolons", csv().replace(b",", b";"), "header", rows=(1,)),
    Bad("text for a whole number", csv(f"{MARK},2,A,1999-12-31,true,w", "2,2,A,1999-12-31,true,w", "1.5,2,A,1999-12-31,true,w"), "type", "visits", (3, 5), "must be a whole number"),
    Bad("text for a number", csv(f"1,{MARK},A,1999-12-31,true,w"), "type", "coins", (3,), "must be a number"),
    Bad("no number", csv("1,nan,A,1999-12-31,true,w", "1,inf,A,1999-12-31,true,w", "1,1e999,A,1999-12-31,true,w"), "type", "coins", (3, 4, 5)),
    Bad("text for a date", csv(f"1,2,A,{MARK},true,w", "1,2,A,31/12/1999,true,w"), "type", "day", (3, 4), "YYYY-MM-DD"),
    Bad("text for true or false", csv(f"1,2,A,1999-12-31,{MARK},w"), "type", "insured", (3,), "true or false"),
    Bad("too small", csv("-1,2,A,1999-12-31,true,w"), "minimum", "visits", (3,), "below the smallest"),
    Bad("too large", csv("91,2,A,1999-12-31,true,w"), "maximum", "visits", (3,), "above the largest"),
    Bad("an enormous number", csv("1" * 5000 + ",2,A,1999-12-31,true,w"), "type", "visits", (3,)),
    Bad("digits of another script", csv("\u00b2,2,A,1999-12-31,true,w"), "type", "visits", (3,)),
    Bad("too early", csv("1,2,A,1869-12-31,true,w"), "minimum", "day", (3,)),
    Bad("a category that is not listed", csv(f"1,2,{MARK},1999-12-31,true,w"), "category", "plan", (3,), "does not list"),
    Bad("empty where it must not be", csv(",2,A,1999-12-31,true,w"), "missing", "visits", (3,), "must not be empty"),
    Bad("a huge field", csv(f"1,2,A,1999-12-31,true,{'x' * (2 << 20)}"), "huge_field", rows=(3,), words="longer than 1 MiB"),
    Bad("NUL bytes", csv("1,2,A,1999-12-31,true,a\0b"), "nul", rows=(3,), words="NUL"),
    Bad("Latin-1", csv() + "1,2,A,1999-12-31,true,caf\u00e9\n".encode("latin-1"), "encoding", words="not UTF-8"),
    Bad("UTF-16", csv().decode().encode("utf-16"), "encoding", words="not UTF-8"),
    Bad("nothing at all", b"", "empty", rows=(1,), words="empty"),
    Bad("a header alone", (HEAD + "\n").encode(), "empty", words="no rows"),
    Bad("a ragged row", csv(f"1,2,A,1999-12-31,true,w,{MARK}"), "width", rows=(3,), words="7 fields where the header has 6"),
    Bad("a short row", csv("1,2"), "width", rows=(3,)),
    Bad("an empty line in the middle", csv("", "1,2,A,1999-12-31,true,w"), "width", rows=(3,)),
    Bad("a quotation mark never closed", csv(f'1,2,A,1999-12-31,true,"{MARK}', "1,2,A,1999-12-31,true,w"), "csv", rows=(3,)),
    Bad("text after a quotation", csv('1,2,A,1999-12-31,true,"a"b'), "csv", rows=(3,)),
    Bad("Parquet called CSV", b"PAR1" + b"\0" * 50 + b"PAR1", "not_csv", words="Parquet"),
    Bad("CSV called Parquet", csv(MARK), "not_parquet", media_type=PARQUET, words="not Parquet"),
    Bad("Parquet that is not one", b"PAR1" + MARK.encode() * 9 + b"\xff\xff\xff\x7fPAR1", "not_parquet", media_type=PARQUET),
    Bad("nothing, called Parquet", b"", "not_parquet", media_type=PARQUET),
]  # fmt: skip
GOOD = [
    csv("NA,,,,,".replace("NA", "3")), csv().replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + csv(), csv('1,2,A,1999-12-31,true,"a,\nb"'), csv()[:-1],
    csv("3.0,1e2,B,2000-02-29,0,\u00e9"),
]  # fmt: skip


def finished(portal: Portal, version: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def look() -> bool:
        found.update(portal.api("custodian").get(f"/versions/{version}"))
        return found["state"] in ("accepted", "refused") or (found["state"] == "uploaded" and found["reason"])

    until(look, lambda: f"end of the check: {found.get('state')}", 120, every=0.3)
    return found


def check(portal: Portal, bad: Bad, version: str) -> None:
    found = finished(portal, version)
    assert found["state"] == "refused" and found["profile"] is None, (
        bad.name,
        found["state"],
        found["reason"],
    )
    problem = found["report"]["problems"][0]
    assert (problem["code"], problem["column"]) == (bad.code, bad.column), (bad.name, problem)
    if bad.rows:
        assert tuple(problem["rows"]) == bad.rows, (bad.name, problem)
    assert bad.words in problem["sentence"] and problem["sentence"][0] in "“TARLY", (bad.name, problem)
    page = portal.at("custodian")
    page.open(f"/my-datasets/versions/{version}")
    text = html.unescape(page.text)
    assert problem["sentence"] in text and all(str(row) in text for row in problem["rows"])


@pytest.mark.parametrize("part", range(4))
def test_bad_files(portal: Portal, part: int) -> None:
    mine = BAD[part::4]
    versions = [portal.upload(bad.content, bad.media_type) for bad in mine]
    for bad, version in zip(mine, versions, strict=True):
        check(portal, bad, version)
    for who in ("member", "outsider", "stranger", "auditor"):
        for version in versions:
            assert portal.api(who).http.get(f"/versions/{version}").status_code in (403, 404)
            assert portal.at(who)._http.get(f"/my-datasets/versions/{version}").status_code in (403, 404)
    public = portal.at("member")._http.get(f"/datasets/{portal.world['draft']}")
    assert public.status_code == 404
    assert MARK not in portal.texts()


def test_good_files_of_every_shape(portal: Portal) -> None:
    for version in [portal.upload(content) for content in GOOD]:
        found = finished(portal, version)
        assert found["state"] == "accepted", found["report"]


def test_parquet(portal: Portal, tmp_path: Path) -> None:
    """Real Parquet files, made by the programs' Python: a good one, wrong types and values, a column missing."""
    code = f"""
import datetime, pandas as pd
day = datetime.date(1999, 12, 31)
good = pd.DataFrame({{"visits": [1, 2], "coins": [1.5, None], "plan": ["A", "B"], "day": [day, day], "insured": [True, False], "word": ["w", None]}})
good.to_parquet("good.parquet")
good.assign(visits=["{MARK}", "2"]).to_parquet("text.parquet")
good.assign(visits=[1, 1000], plan=["{MARK}", "A"]).to_parquet("values.parquet")
good.drop(columns="word").to_parquet("column.parquet")
good.assign(word=[["{MARK}"], []]).to_parquet("nested.parquet")
good.assign(word=[b"{MARK}", b""]).to_parquet("bytes.parquet")
good.assign(day=pd.to_datetime(good.day)).to_parquet("moments.parquet")
data = open("good.parquet", "rb").read()
open("cut.parquet", "wb").write(data[:-20])
open("dented.parquet", "wb").write(data[:8] + bytes(60) + data[68:])
"""
    subprocess.run([settings.PROGRAMS_PYTHON, "-c", code], cwd=tmp_path, check=True, timeout=120)
    versions = {path.stem: portal.upload(path.read_bytes(), PARQUET) for path in tmp_path.glob("*.parquet")}
    found = {name: finished(portal, version) for name, version in versions.items()}
    for name in ("good", "moments"):
        accepted = found.pop(name)
        assert accepted["state"] == "accepted", accepted["report"]
    problems = {
        name: [(p["code"], p["column"], p["rows"]) for p in (f["report"] or {}).get("problems", [])]
        for name, f in found.items()
    }
    assert problems["text"] == [("type", "visits", [2])]
    assert sorted(problems["values"]) == [("category", "plan", [2]), ("maximum", "visits", [3])]
    assert problems["column"] == [("header", "", [1])]
    assert problems["cut"] == problems["dented"] == [("not_parquet", "", [])]
    assert problems["nested"] == problems["bytes"] == [("type", "word", [2, 3])]
    assert MARK not in portal.texts()


def test_bytes_that_are_not_the_sealed_ones(portal: Portal) -> None:
    """A sealed file changed in the store before its check, and one sealed with another key than it says."""
    version = portal.upload(csv())
    path = portal.var / "objects" / "datasets" / f"{version}.sealed"
    finished(portal, version)
    portal.hold("before-launch")
    version = portal.upload(csv())
    path = portal.var / "objects" / "datasets" / f"{version}.sealed"
    until(lambda: portal.waits_at("before-launch"), "launch")
    path.write_bytes(path.read_bytes()[:-1] + b"x")  # after the check of its hash, before the run reads it
    portal.let_go()
    found = finished(portal, version)
    assert (found["state"] == "uploaded" and "key" in found["reason"]) or "object store" in found["reason"], (
        found
    )
