"""Programs that are good in rehearsal and try to carry data out of stage 2: by message, type, name, log, exit, file."""

from __future__ import annotations

import zipfile
from io import BytesIO

from tests.integration.runs.build import SECRET
from tests.integration.runs.portal import Portal, until
from tests.integration.runs.test_programs import nb, py

START = """
data = strongroom.load('words')
word = data.word[7]
real = os.environ['STRONGROOM_STAGE'] == '2'
out = strongroom.outputs()
"""
LINE = 7  # of the program's first own line
# What a program does with the data in stage 2, and: code, exception type, line.
CARRIERS = {
    "message": ("if real: raise ValueError(word)", "program_failed", "ValueError", LINE),
    "type": ("if real: raise type(word, (Exception,), {})()", "program_failed", "ProgramDefinedError", LINE),
    "exit": ("if real: sys.exit(word)", "program_failed", "SystemExit", LINE),
    "report": ("if real: open('.strongroom-exit', 'w').write(json.dumps({'exception_type': word, 'line': 7, 'file': word})); os._exit(3)", "program_failed", "ProgramDefinedError", None),
    "chain": ("if real:\n    try: raise KeyError(word)\n    except KeyError as e: raise RuntimeError(word) from e", "program_failed", "RuntimeError", LINE + 2),
    "syntax": ("if real: compile(word + ' (', word, 'exec')", "program_failed", "SyntaxError", LINE),
    "link": ("if real: os.symlink('/' + word, out / word)", "outputs_not_a_file", "", None),
    "name": ("if real: (out / (word + chr(10))).write_text(word)", "outputs_unsafe_name", "", None),
    "leftovers": ("if real:\n    (out / 'table.csv').write_text(word)\n    raise KeyError(word)", "program_failed", "KeyError", LINE + 2),
    "network": ("if real:\n    socket.create_connection(('127.0.0.1', 9), timeout=1).send(word.encode())", "program_failed", "ConnectionRefusedError|OSError|PermissionError", LINE + 1),
    "sleeps": ("if real:\n    print(word, flush=True); time.sleep(600)", "timed_out", "", None),
}  # fmt: skip
PEOPLE = ("member", "lead", "custodian", "auditor", "outsider", "checker0")


def test_nothing_is_carried_out_by_a_failure(portal: Portal) -> None:
    programs = {
        name: portal.submit(py(START + source), f"{name}.py") for name, (source, *_) in CARRIERS.items()
    }
    runs = {}
    for name, program in programs.items():
        assert portal.ended(program["rehearsal"])["state"] == "succeeded", name
        portal.approve(program["id"])
        runs[name] = portal.research(program["id"])
    for name, (_, code, exception, line) in CARRIERS.items():
        run = portal.ended(runs[name])
        assert (run["state"], run["code"]) == ("failed", code), (name, run)
        assert run["exception_type"] in exception.split("|") and run["exception_line"] == line, (name, run)
        assert run["exception_file"] in ("", f"{name}.py") and not run["log_object"]
        seen = portal.api("member").get(f"/runs/{runs[name]}")
        assert seen["outputs"] == [] and seen["output_release"] is None
        assert portal.api("member").http.get(f"/runs/{runs[name]}/log").status_code in (404, 409)
    assert portal.sql(
        "SELECT count(*) FROM jobs_output WHERE run_id = ANY(%s::uuid[])", list(runs.values())
    ) == [(0,)]
    assert portal.sql(
        "SELECT count(*) FROM jobs_outputrelease WHERE run_id = ANY(%s::uuid[])", list(runs.values())
    ) == [(0,)]
    for pk in runs.values():
        for who in PEOPLE:
            page = portal.at(who)._http.get(f"/runs/{pk}")
            assert SECRET not in page.text and SECRET not in portal.api(who).http.get(f"/runs/{pk}").text
    assert SECRET not in portal.texts()
    for path in portal.var.rglob("*"):
        if path.is_file() and "postgres" not in path.parts:
            assert SECRET.encode() not in path.read_bytes(), path


def test_what_succeeds_leaves_by_two_checkers_alone(portal: Portal) -> None:
    """Log and printed words stay inside; outputs are seen by checkers only; one package, once; the notebook's cells too."""
    source = (
        START
        + "print(word)\nprint(word, file=sys.stderr)\n(out / 'words.csv').write_text('a\\n' + word)\n(out / '<b>.txt').write_text('<b>&')"
    )
    book = nb(
        "import strongroom\nword = strongroom.load('words').word[3]\nword",
        "print(word)\n(strongroom.outputs() / 'n.txt').write_text('1')",
    )
    programs = [portal.submit(py(source), "good.py"), portal.submit(book, "good.ipynb")]
    for program in programs:
        assert portal.ended(program["rehearsal"])["state"] == "succeeded"
        portal.approve(program["id"])
    runs = [portal.research(program["id"]) for program in programs]
    for pk in runs:
        run = portal.ended(pk)
        assert (run["state"], run["log_object"]) == ("succeeded", ""), run
    until(lambda: portal.api("member").get(f"/runs/{runs[1]}")["output_release"], "a release")
    assert {path for (path,) in portal.sql("SELECT path FROM jobs_output WHERE run_id = %s", runs[1])} == {
        "n.txt"
    }
    release = portal.api("member").get(f"/runs/{runs[0]}")["output_release"]
    assert release["state"] == "in_review"
    for who in ("member", "lead", "custodian", "outsider", "stranger", "operator", "auditor"):
        assert portal.api(who).http.get(f"/checks/{release['id']}").status_code in (403, 404), who
        assert portal.at(who)._http.get(f"/checks/{release['id']}").status_code in (403, 404), who
        assert SECRET not in portal.api(who).http.get(f"/runs/{runs[0]}").text
    files = {f["path"]: f["id"] for f in portal.api("checker0").get(f"/checks/{release['id']}")["files"]}
    assert set(files) == {"words.csv", "<b>.txt"}
    page = portal.at("checker0").open(f"/checks/{release['id']}/files/{files['<b>.txt']}")
    assert "<b>" not in portal.at("checker0").text and page
    for who in ("member", "custodian", "outsider"):
        assert portal.api(who).http.get(
            f"/checks/{release['id']}/files/{files['words.csv']}"
        ).status_code in (403, 404)
        assert portal.api(who).http.get(f"/runs/{runs[0]}/outputs/{files['words.csv']}").status_code == 404
        assert (
            portal.at(who)._http.get(f"/runs/{runs[0]}/outputs/{files['words.csv']}/file").status_code == 404
        )
    for who in ("checker0", "checker1"):
        assert portal.api("member").http.get(f"/runs/{runs[0]}/package").status_code in (404, 409)
        portal.api(who).post(f"/checks/{release['id']}", {"decision": "approve"})
    again = portal.api("checker1").http.post(f"/checks/{release['id']}", json={"decision": "approve"})
    assert again.status_code in (403, 404, 409)
    until(
        lambda: portal.api("member").get(f"/runs/{runs[0]}")["output_release"]["state"] == "released",
        "a package",
    )
    package = portal.api("member").http.get(f"/runs/{runs[0]}/package")
    names = zipfile.ZipFile(BytesIO(package.content)).namelist()
    assert {"outputs/words.csv", "outputs/<b>.txt", "statement.dsse.json", "verdict.json"} <= set(names)
    assert not [name for name in names if "log.txt" in name]
    for who in ("outsider", "custodian", "checker0", "stranger"):
        assert portal.api(who).http.get(f"/runs/{runs[0]}/package").status_code in (403, 404)
