"""The `strongroom` command against a live portal, as its users type it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from apps.accounts.roles import Role
from apps.audit.models import Entry
from apps.audit.sequencer import seal_log
from apps.jobs.models import ProjectAllowance, Run
from strongroom import cli as command_line
from strongroom import data as strongroom_data
from strongroom.client import Client, Credentials, NotSignedIn
from tests import factories
from tests.unit.strongroom.factory import make_package

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A person's own machine: no credentials, no cache."""
    for name in ("STRONGROOM_URL", "STRONGROOM_TOKEN", "STRONGROOM_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments, code=0, **options):
    done = CliRunner().invoke(command_line.cli, list(arguments), **options)
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def sign_in(live_server, person):
    return run(
        "login", live_server.url, "--email", person.email, env={"STRONGROOM_PASSWORD": factories.PASSWORD}
    )


@pytest.fixture
def custodian(live_server, home, monkeypatch):
    factories.use(monkeypatch, home)
    person = factories.person("Custodian", factories.organisation("custodian"), Role.CUSTODIAN)
    sign_in(live_server, person)
    return person


def test_login_keeps_a_private_file_and_the_portals_keys(live_server, home):
    person = factories.person("Reader", factories.organisation("university"), Role.RESEARCHER)
    said = sign_in(live_server, person)
    file = home / "xdg_config_home" / "strongroom" / "credentials.json"
    assert str(file) in said and file.stat().st_mode & 0o777 == 0o600
    assert Credentials.load().keys["portal"]
    assert factories.PASSWORD not in file.read_text()
    assert person.email in run("whoami")
    run("logout")
    with pytest.raises(NotSignedIn):
        Credentials.load()


def test_a_wrong_password_is_a_sentence_not_a_traceback(live_server, home):
    person = factories.person("Reader", factories.organisation("university"), Role.RESEARCHER)
    done = CliRunner().invoke(
        command_line.cli,
        ["login", live_server.url, "--email", person.email, "--password", "not the one at all"],
    )
    assert done.exit_code == 1 and "password is not right" in str(done.exception)


def test_register_and_upload_goes_on_after_a_broken_connection(live_server, custodian, home, monkeypatch):
    description = {
        "slug": "own-data", "custodian": custodian.organisation.slug, "title": "Mine", "summary": "My own data.",
        "keywords": [], "personal_data": False, "program_approval": "reviewer", "dictionary": factories.DICTIONARY,
    }  # fmt: skip
    (home / "mine.json").write_text(json.dumps(description))
    assert "Published" in run("dataset", "register", "mine.json", "--publish")
    (home / "mine.csv").write_bytes(b"visits,coins\n" + b"1,25\n" * 1_000_000)  # more than one piece
    sent, real = [], Client.request

    def breaks(self, method, path, **options):
        if method == "PATCH":
            sent.append(options["headers"]["Upload-Offset"])
            if len(sent) == 2:
                raise KeyboardInterrupt
        return real(self, method, path, **options)

    monkeypatch.setattr(Client, "request", breaks)
    CliRunner().invoke(command_line.cli, ["dataset", "upload", "own-data", "mine.csv", "--no-wait"])
    assert sent == ["0", str(4 << 20)]
    said = run("dataset", "upload", "own-data", "mine.csv", "--no-wait")
    assert "Going on with the upload" in said and "version 1" in said
    assert sent[2] == str(4 << 20)
    assert not list(home.glob(".mine.csv*")), "the sealed copy and the note are gone"


def test_template_has_the_columns_and_sends_nothing(home):
    (home / "own_data.csv").write_text("age,dose\n1,2\n")
    made = json.loads(run("dataset", "template", "own_data.csv"))
    assert made["slug"] == "own-data" and [f["name"] for f in made["dictionary"]["fields"]] == ["age", "dose"]


def test_load_without_access_says_what_is_missing(live_server, custodian):
    factories.published_dataset(custodian, slug="closed")
    outsider = factories.person("Outsider", factories.organisation("university"), Role.RESEARCHER)
    sign_in(live_server, outsider)
    with pytest.raises(strongroom_data.DatasetNotGranted, match="access to be approved"):
        strongroom_data.fetch("closed")


def test_choice_and_cost_before_a_run(live_server, home, monkeypatch, settings):
    factories.use(monkeypatch, home)
    settings.RUN_SIZES = {
        "local": {
            "small": {"vcpus": 2, "memory_gib": 8},
            "large": {"vcpus": 8, "memory_gib": 64, "pence_per_hour": 240, "price_source": "our own figures"},
        }
    }
    w = factories.World.with_access()
    program = w.approved_program()
    ProjectAllowance.objects.create(project=w.project, sizes=["large"], set_by="system:x")
    sign_in(live_server, w.lead)
    said = run("sizes", w.project.ref)
    assert "15 minutes if none is chosen, 15 at most" in said
    lines = {line.split()[0]: line for line in said.splitlines()}
    assert lines["large"].endswith("£1.80") and "64 GiB" in lines["large"]
    assert lines["small"].endswith("not known")
    assert json.loads(run("sizes", w.project.ref, "--json"))["sizes"][1]["at_most_pence"] == 180
    # 11 minutes of the program and half an hour around it, at £2.40 an hour.
    said = run("run", str(program.pk), "--size", "large", "--minutes", "11")
    assert "size large; cost at most: £1.64" in said
    assert Run.objects.get(kind="research").time_limit == 660
    refused = CliRunner().invoke(command_line.cli, ["run", str(program.pk), "--minutes", "16"])
    assert refused.exit_code == 1 and str(refused.exception).count("Choose a time up to 900 seconds") == 1
    settings.RUN_SIZES = {}
    assert "no sizes to choose" in run("sizes", w.project.ref)


def test_verify_prints_checks_and_exits_by_them(home):
    keys = make_package(home / "good.zip")
    (home / "portal.json").write_bytes(keys.to_bytes())
    said = run("verify", "good.zip", "--keys", "portal.json")
    assert "no hardware" in said.lower() and "The package is what it says it is." in said
    assert json.loads(run("verify", "good.zip", "--keys", "portal.json", "--json"))["ok"] is True
    raw = bytearray((home / "good.zip").read_bytes())
    raw[len(raw) // 2] ^= 1
    (home / "bad.zip").write_bytes(bytes(raw))
    said = run("verify", "bad.zip", "--keys", "portal.json", code=1)
    assert "FAIL" in said and "must not be relied on" in said
    said = run("verify", "good.zip")
    assert "taken from the package itself" in said


def test_audit_verify_finds_a_row_changed_by_hand(live_server, home, django_db_blocker):
    auditor = factories.person("Auditor", factories.organisation("university"), Role.AUDITOR)
    sign_in(live_server, auditor)
    seal_log()
    assert "complete and unchanged" in run("audit", "verify")
    from django.db import connection

    victim = Entry.objects.order_by("index").first()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_entry DISABLE TRIGGER USER")
        cursor.execute("UPDATE audit_entry SET event = 'person.forgotten' WHERE id = %s", [victim.pk])
        cursor.execute("ALTER TABLE audit_entry ENABLE TRIGGER USER")
    said = run("audit", "verify", code=1)
    assert f"Entry {victim.index} (person.forgotten" in said and "was changed" in said
