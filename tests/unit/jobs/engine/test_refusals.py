"""What must not work: evidence for something else, used challenges, changed results, wrong signers, old sessions."""

from __future__ import annotations

import hashlib
import uuid
from datetime import timedelta

import pytest

from apps.attestation.models import Challenge, Evidence, KeyRelease
from apps.audit.models import Entry
from apps.core.clock import now
from apps.jobs import engine
from apps.jobs.gate import Condition
from apps.jobs.models import Output, OutputRelease, Run
from strongroom import contexts, seal
from strongroom.signing import SigningKey
from tests.unit.jobs.engine.fake_runner import FakeRunner
from tests.unit.jobs.engine.world import sealed_version

pytestmark = pytest.mark.django_db

FILES = {"table.csv": b"a,b\n1,2\n"}


@pytest.fixture
def start(world, backend, runner_for):
    """A research run with a machine that has called home."""

    def make() -> FakeRunner:
        run = engine.create_run(
            by=world.user, kind="research", project=world.project, program=world.program,
            inputs=[(world.version, None)], submission=uuid.uuid4().hex,
        )  # fmt: skip
        engine.advance(run.pk)
        runner = runner_for(run)
        assert runner.claim().status == 200
        runner.run = run
        return runner

    return make


def failing(answer) -> set[str]:
    return {check["id"] for check in answer.body["checks"]}


def refused_keys(runner, answer, *checks: str) -> None:
    """403 with exactly these checks, no key, the run failed, all of it on record."""
    assert answer.status == 403 and answer.body["code"] == "evidence_refused", answer
    assert "keys" not in answer.body and failing(answer) == set(checks)
    run = Run.objects.get(pk=runner.run.pk)
    assert (run.state, run.code) == ("failed", "evidence_refused")
    assert not KeyRelease.objects.filter(run=run.pk, released=True).exists()
    release = KeyRelease.objects.get(run=run.pk)
    entry = Entry.objects.get(event="data_key.refused", object_id=str(release.pk))
    assert set(entry.data["failing"]) == set(checks) and entry.actor == f"runner:{run.pk}"
    assert runner.ask_keys().status == 409  # over


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("manifest", "0" * 64),
        ("approvals", "1" * 64),
        ("run", "0b6c1d0e-7d0f-4c7e-9a55-5a5b8d1c2f10"),
        ("portal", "another.portal"),
    ],
)
def test_context_that_is_not_the_runs(start, member, value):
    runner = start()
    context = runner.c1(**{member: value})
    refused_keys(runner, runner.ask_keys(context), "context")


def test_other_ciphertext(start):
    runner = start()
    inputs = [{**item, "ciphertext": "2" * 64} for item in runner.c1()["inputs"]]
    refused_keys(runner, runner.ask_keys(runner.c1(inputs=inputs)), "context")


def test_another_runner_image(start):
    runner = start()
    runner.image = "sha256:" + "3" * 64
    refused_keys(runner, runner.ask_keys(), "context", "image")


def test_evidence_claims_another_image_than_the_context(start):
    runner = start()
    context = runner.c1()
    evidence = runner.evidence(contexts.n1(context), image="sha256:" + "4" * 64)
    refused_keys(runner, runner.ask_keys(context, evidence), "image", "runner-image")


def test_evidence_bound_to_another_context(start):
    runner = start()
    other = runner.c1(hpke_pub=seal.generate_key_pair().public)
    refused_keys(runner, runner.ask_keys(runner.c1(), runner.evidence(contexts.n1(other))), "nonce")


def test_evidence_by_an_unknown_attester(start):
    runner = start()
    context = runner.c1()
    evidence = runner.evidence(contexts.n1(context), key=SigningKey.generate())
    refused_keys(runner, runner.ask_keys(context, evidence), "attester-known")


def test_old_evidence(start):
    runner = start()
    context = runner.c1()
    old = now() - timedelta(seconds=700)
    evidence = runner.evidence(contexts.n1(context), now=old, boot=old)
    refused_keys(runner, runner.ask_keys(context, evidence), "age")


def test_evidence_of_a_type_that_the_policy_does_not_take(start, world):
    from apps.attestation.models import ReleasePolicy

    document = {"v": 1, "types": ["snp"], "images": [], "max_age_seconds": 600}
    ReleasePolicy.objects.create(
        dataset=world.dataset, number=1, document=document, sha256="5" * 64, made_by=world.user
    )
    runner = start()
    refused_keys(runner, runner.ask_keys(), "type", "runner-image")


def test_challenge_of_another_run(start):
    first, second = start(), start()
    second.claimed["challenge"] = first.claimed["challenge"]
    refused_keys(second, second.ask_keys(), "challenge")
    assert first.ask_keys().status == 200  # its own challenge was not used up by that


def test_made_up_challenge(start):
    runner = start()
    runner.claimed["challenge"] = "A" * 43
    refused_keys(runner, runner.ask_keys(), "challenge")


def test_result_challenge_for_keys(start):
    runner = start()
    runner.claimed["challenge"] = runner.claimed["challenge2"]
    refused_keys(runner, runner.ask_keys(), "challenge")


def test_expired_challenge(start):
    runner = start()
    Challenge.objects.filter(value=runner.claimed["challenge"]).update(
        expires_at=now() - timedelta(seconds=1)
    )
    refused_keys(runner, runner.ask_keys(), "challenge")


def test_challenge_used_twice_for_other_keys(start):
    """The same request again is the same answer; another request with the used challenge is refused."""
    runner = start()
    context = runner.c1()
    evidence = runner.evidence(contexts.n1(context))
    assert runner.ask_keys(context, evidence).status == 200
    assert runner.ask_keys(context, evidence).status == 200
    assert KeyRelease.objects.filter(run=runner.run.pk).count() == 1
    runner.hpke = seal.generate_key_pair()
    answer = runner.ask_keys()
    assert answer.status == 403 and failing(answer) == {"challenge"}
    assert Run.objects.get(pk=runner.run.pk).code == "evidence_refused"


def test_gate_closed_at_key_release(start, gate):
    runner = start()
    gate.append(Condition("access_not_active", "There is no access in force.", "Ask.", "custodian"))
    answer = runner.ask_keys()
    assert (answer.status, answer.body["code"]) == (403, "gate_closed")
    run = Run.objects.get(pk=runner.run.pk)
    assert (run.state, run.code) == ("cancelled", "gate_closed")
    assert not Evidence.objects.filter(run=run.pk).exists()


def test_personal_data_is_refused_by_the_key_broker_itself(start, world):
    """Were every other lock open (here: the flag set behind their backs), this one holds."""
    runner = start()
    type(world.dataset).objects.filter(pk=world.dataset.pk).update(personal_data=True)
    answer = runner.ask_keys()
    assert answer.status == 403 and {"personal-data", "type"} <= failing(answer)


def test_data_key_for_another_broker(start, world):
    runner = start()
    other = seal.generate_key_pair("x25519")
    wrapped = seal.wrap_key(
        seal.generate_data_key(),
        other.public,
        seal.info_data_key(str(world.dataset.pk), world.version.number),
    )
    import base64

    world.version.seal["wrapped_key"]["data"] = base64.b64encode(wrapped).decode()
    world.version.save(update_fields=["seal"])
    answer = runner.ask_keys()
    assert (answer.status, answer.body["code"]) == (403, "key_unusable")
    assert Run.objects.get(pk=runner.run.pk).code == "key_unusable"


# ---- the result ----


@pytest.fixture
def running(start):
    runner = start()
    assert runner.ask_keys().status == 200
    assert runner.phase("running").body["continue"]
    return runner


def refused_result(runner, answer, *checks: str) -> None:
    assert answer.status == 403 and answer.body["code"] == "evidence_refused", answer
    assert failing(answer) == set(checks)
    run = Run.objects.get(pk=runner.run.pk)
    assert (run.state, run.code, run.statement_sha256) == ("failed", "result_refused", "")
    assert Evidence.objects.get(run=run.pk, purpose="result").accepted is False
    engine.open_outputs(run.pk)
    assert not Output.objects.filter(run=run).exists() and not OutputRelease.objects.filter(run=run).exists()


def test_no_result_without_keys(start):
    runner = start()
    assert runner.phase("running").body["continue"]
    refused_result(runner, runner.deliver(FILES), "first-evidence")


@pytest.mark.parametrize(
    "change",
    [
        {"manifest": "0" * 64},
        {"run": str(uuid.uuid4())},
        {"portal": "another.portal"},
        {"inputs": []},
    ],
)
def test_result_context_that_is_not_the_runs(running, change):
    refused_result(running, running.deliver(FILES, context=change), "context")


def test_exit_that_differs_from_the_attested_one(running):
    sealed, parcel = running.seal_outputs({})
    running.upload(sealed)
    body = running.result_body({}, parcel, exit_class="failed")
    body["exit"] = {"class": "succeeded", "exception_type": "", "line": None, "file": ""}
    refused_result(running, running.call("POST", "/result", body), "context")


def test_first_evidence_in_place_of_the_second(running):
    """E1 is bound to n1: it can never stand for E2."""
    evidence = running.evidence(contexts.n1(running.c1()))
    refused_result(running, running.deliver(FILES, evidence=evidence), "nonce")


def test_other_first_evidence_named(running):
    refused_result(running, running.deliver(FILES, context={"e1": "6" * 64}), "first-evidence")


def test_statement_by_another_key(running):
    refused_result(
        running, running.deliver(FILES, statement_signer=SigningKey.generate()), "statement-signature"
    )


def test_result_by_another_key_than_the_attested_one(running):
    running.signer = SigningKey.generate()
    refused_result(running, running.deliver(FILES), "signing-key")


def test_result_of_another_instance(running):
    changes = {"instance": "somewhere-else"}
    refused_result(running, running.deliver(FILES, evidence_changes=changes), "same-instance")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "rehearsal"},
        {"project": "SR-other"},
        {"program": {"sha256": "7" * 64}},
        {"image": "sha256:" + "8" * 64},
        {"backend": "azure"},
        {"manifest": "9" * 64},
    ],
)
def test_statement_that_says_something_else(running, change):
    refused_result(running, running.deliver(FILES, predicate=change), "statement-content")


def test_outputs_of_context_and_statement_differ(running):
    outputs = [{"path": "table.csv", "sha256": "a" * 64, "size": 8}]
    refused_result(running, running.deliver(FILES, context={"outputs": outputs}), "statement-outputs")


def test_another_statement_than_the_attested_one(running):
    sealed, parcel = running.seal_outputs(FILES)
    running.upload(sealed)
    body = running.result_body(FILES, parcel)
    body["statement"] = running.result_body({"other.csv": b"1"}, parcel)["statement"]
    refused_result(running, running.call("POST", "/result", body), "statement", "statement-outputs")


def test_result_challenge_of_another_run(running, start):
    other = start()
    running.claimed["challenge2"] = other.claimed["challenge2"]
    refused_result(running, running.deliver(FILES), "challenge")


def test_expired_result_challenge(running):
    Challenge.objects.filter(value=running.claimed["challenge2"]).update(
        expires_at=now() - timedelta(seconds=1)
    )
    refused_result(running, running.deliver(FILES), "challenge")


def test_second_result_after_the_first(running):
    assert running.deliver(FILES).body == {"state": "succeeded"}
    before = Run.objects.get(pk=running.run.pk).statement_sha256
    _sealed, parcel = running.seal_outputs({"other.csv": b"1"})
    answer = running.call("POST", "/result", running.result_body({"other.csv": b"1"}, parcel))
    assert (answer.status, answer.body["code"]) == (409, "run_ended")
    assert Run.objects.get(pk=running.run.pk).statement_sha256 == before


# ---- the files ----


@pytest.mark.parametrize(
    "sent",
    [
        {"table.csv": b"a,b\n1,3\n"},
        {},
        {**FILES, "more.csv": b"1"},
        {"other.csv": FILES["table.csv"]},
    ],
    ids=["changed", "missing", "extra", "renamed"],
)
def test_files_that_are_not_the_stated_ones(running, sent):
    assert running.deliver(FILES, tar_files=sent).body == {"state": "succeeded"}
    for _ in range(2):
        engine.open_outputs(running.run.pk)
    run = Run.objects.get(pk=running.run.pk)
    assert run.code == "outputs_broken"
    assert not Output.objects.filter(run=run).exists()
    assert OutputRelease.objects.get(run=run).state == "rejected"


def test_symlink_in_the_tar(running, monkeypatch):
    import io
    import tarfile

    real = running.seal_outputs

    def with_link(files):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            link = tarfile.TarInfo("table.csv")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        key, run, sealed = seal.generate_data_key(), running.manifest["run"], io.BytesIO()
        made = seal.seal_stream(io.BytesIO(out.getvalue()), sealed, key, seal.aad_outputs(run))
        parcel = real(files)[1]
        egress = seal.PublicKey.from_json(running.manifest["egress"])
        import base64

        parcel["wrapped_key"]["data"] = base64.b64encode(
            seal.wrap_key(key, egress, seal.info_egress_key(run))
        ).decode()
        return sealed.getvalue(), {**parcel, "sha256": made.ciphertext_sha256, "size": made.ciphertext_size}

    monkeypatch.setattr(running, "seal_outputs", with_link)
    assert running.deliver(FILES).body == {"state": "succeeded"}
    engine.open_outputs(running.run.pk)
    assert Run.objects.get(pk=running.run.pk).code == "outputs_broken"


def test_incomplete_upload(running):
    sealed, parcel = running.seal_outputs(FILES)
    running.upload(sealed[:50])
    answer = running.call("POST", "/result", running.result_body(FILES, parcel))
    assert (answer.status, answer.body["code"], answer.body["offset"]) == (409, "outputs_incomplete", 50)
    running.upload(sealed)
    assert running.call("POST", "/result", running.result_body(FILES, parcel)).body == {"state": "succeeded"}


def test_upload_at_a_wrong_offset_says_where_to_go_on(running):
    assert running.call("PUT", "/outputs?offset=0", raw=b"x" * 10).body == {"offset": 10}
    answer = running.call("PUT", "/outputs?offset=0", raw=b"x" * 10)
    assert (answer.status, answer.body["offset"]) == (409, 10)
    assert running.call("PUT", "/outputs?offset=-1", raw=b"x").status == 422


# ---- sessions, tokens, requests ----


def test_launch_token_works_once(start):
    runner = start()
    again = FakeRunner(runner.client, runner.token)
    assert (
        again.claim().status == 200 and again.session == runner.session
    )  # an answer was lost; nothing used yet
    assert runner.phase("claimed").body["continue"]
    late = FakeRunner(runner.client, runner.token)
    assert (late.claim().status, late.session) == (403, "")


@pytest.mark.parametrize("token", ["", "x", "a.b", "0" * 32 + ".x", "f" * 200, "é" * 40])
def test_made_up_tokens(start, client, token):
    start()
    answer = FakeRunner(client, token).claim()
    assert answer.status in (403, 422)


def test_sessions_are_not_interchangeable(start, world):
    first, second = start(), start()
    _name, _, secret = first.session.partition(".")
    stranger = FakeRunner(first.client, "", session=second.session.partition(".")[0] + "." + secret)
    assert stranger.phase("running").status == 401
    nobody = FakeRunner(first.client, "")
    assert nobody.phase("running").status == 401
    launch = FakeRunner(first.client, "", session=first.token)
    assert launch.phase("running").status == 401


def test_inputs_of_others_are_not_served(start, world):
    runner = start()
    other = sealed_version(
        type(world.dataset).objects.exclude(pk=world.dataset.pk).first() or _another(world), world.user
    )
    assert runner.call("GET", f"/inputs/{other.dataset_id}").status == 404
    assert runner.call("GET", f"/inputs/{uuid.uuid4()}").status == 404


def _another(world):
    from tests.unit.jobs.engine.world import dataset_of

    return dataset_of(world.user)


def test_ranges(start, world):
    runner = start()
    path = f"/inputs/{world.dataset.pk}"
    whole = runner.call("GET", path).body
    assert hashlib.sha256(whole).hexdigest() == world.version.ciphertext_sha256
    assert runner.call("GET", path, Range="bytes=10-").body == whole[10:]
    part = runner.call("GET", path, Range="bytes=3-5")
    assert (part.status, part.body) == (206, whole[3:6])
    for wrong in (f"bytes={len(whole)}-", "bytes=5-3", "bytes=-5", "bytes=0-1,3-4", "lines=1-2"):
        assert runner.call("GET", path, Range=wrong).status == 416


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b'{"token": "a", "token": "b"}',
        b'{"token": 1}',
        b'{"token": "a", "more": 1}',
        b"\xff",
        b"{" * 50,
    ],
)
def test_malformed_bodies(client, db, raw):
    answer = FakeRunner(client, "").call("POST", "/claim", raw=raw)
    assert (answer.status, answer.body["code"]) == (422, "malformed")


def test_too_large_a_body(client, db):
    answer = FakeRunner(client, "").call("POST", "/claim", raw=b'{"token": "' + b"a" * 9000 + b'"}')
    assert (answer.status, answer.body["code"]) == (422, "too_large")


def test_wrong_method(client, db):
    assert FakeRunner(client, "").call("GET", "/claim").status == 405


def test_phase_is_one_of_the_table(start):
    runner = start()
    assert runner.phase("dancing").status == 422
    assert runner.call("POST", "/phase", {"phase": "running", "done": -1, "total": 0}).status == 422
    assert not Run.objects.get(pk=runner.run.pk).program_started
