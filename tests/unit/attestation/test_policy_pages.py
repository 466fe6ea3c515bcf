"""The release-policy pages and their API: every line explained, nothing in force unseen, and the table of members whole."""

from __future__ import annotations

import dataclasses
import json
import re
from html import unescape
from typing import Any

import pytest

from apps.attestation import members, policies, queries
from apps.attestation.forms import PolicyForm
from apps.attestation.models import ReleasePolicy
from apps.audit.models import Entry
from apps.core.models import Outbox
from apps.datasets.models import Dataset
from strongroom import seal
from strongroom.evidence import Policy
from tests import factories
from tests.factories import World, again, browser, page

IMAGE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
FULL: dict[str, Any] = {
    "v": 1,
    "types": ["azure-cvm", "snp", "tdx", "gcp-confidential-space", "azure-maa"],
    "images": [IMAGE, OTHER],
    "max_age_seconds": 90,
    "code": [
        {"type": "snp", "image": IMAGE, "measurement": "c" * 96},
        {"type": "azure-cvm", "image": OTHER, "pcrs": {"11": "d" * 64}},
    ],
    "tees": ["sev-snp", "tdx"],
    "products": ["Genoa", "Turin"],
    "tcb": {"Genoa": {"snp": 21, "microcode": 72}, "Turin": {"fmc": 1}},
    "tdx_tcb": ["UpToDate"],
    "tdx_advisories": ["INTEL-SA-00837"],
    "swversion": 250800,
    "support": ["STABLE", "LATEST"],
    "uvm_svn": 101,
    "audiences": ["portal.example"],
    "projects": ["1234"],
    "zones": ["europe-west2-a", "europe-west2-b"],
    "service_accounts": ["runner@p.iam.gserviceaccount.com"],
    "env_override": ["LANG"],
    "maa": {"https://sharedneu.neu.attest.azure.net": ["A" * 43]},
}
_world, w = factories.fixtures(World.with_access)


@pytest.fixture(autouse=True)
def object_store() -> None:
    """The world's own store stays in use."""


def address(w: World, rest: str = "") -> str:
    return f"/my-datasets/{w.dataset.slug}/policy{rest}"


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def form_data(document: dict[str, Any]) -> dict[str, Any]:
    """What a browser sends for this policy."""
    form = PolicyForm(document=Policy.parse(document).to_json(), personal_data=False)
    sent = {name: "" if form.initial[name] is None else form.initial[name] for name in form.fields}
    return {name: value for name, value in sent.items() if value or members.BY_NAME[name].widget != "choices"}


def hidden(html: str) -> dict[str, str]:
    return {
        name: unescape(value)
        for name, value in re.findall(
            r'<input type="hidden" name="(document|instead_of)" value="([^"]*)"', html
        )
    }


def test_the_table_has_every_member_of_a_policy_and_no_other() -> None:
    assert [m.name for m in members.MEMBERS] == [f.name for f in dataclasses.fields(Policy)]
    for member in members.MEMBERS:
        assert member.label and len(member.explanation) > 40 and member.explanation.endswith("."), member.name
    assert {t for t, _ in members.BY_NAME["types"].choices} == set(members.TYPE_LABELS)
    assert set(FULL) - {"v"} == set(members.BY_NAME)


def test_every_member_survives_form_and_page() -> None:
    """What a form was filled with from a policy reads back as that policy; and each value stands on the page."""
    document = Policy.parse(FULL).to_json()
    form = PolicyForm(form_data(document), document=document, personal_data=False)
    assert form.is_valid(), form.errors
    assert Policy.parse(form.document()).to_json() == document
    lines = {line.name: line for line in members.lines_of(document)}
    assert all(line.values for line in lines.values())
    assert lines["tcb"].values == ("Genoa snp=21 microcode=72", "Turin fmc=1")
    assert members.lines_of({**document, "new_member": [1]})[-1].values == ("[1]",)
    assert members.differences(document, document) == []
    assert members.differences(document, {**document, "max_age_seconds": 60}) == [
        ("Age of the evidence", "90 seconds", "60 seconds")
    ]


def test_the_default_is_shown_as_such(w: World) -> None:
    html = page(w.custodian, address(w))
    found = policies.in_force(w.dataset)
    assert "You have not set a policy" in html and found.sha256 in html and policies.runner_image() in html
    for member in members.MEMBERS:
        assert member.label in unescape(html) and member.explanation in unescape(html), member.name
    assert address(w) in page(w.custodian, f"/my-datasets/{w.dataset.slug}")


def test_from_the_form_to_a_policy_in_force(w: World) -> None:
    w.outputs()  # a run whose evidence can be judged
    document = {**policies.default_policy(personal_data=False), "images": [IMAGE], "max_age_seconds": 120}
    sent = browser(w.custodian).post(address(w, "/change"), form_data(document))
    html = sent.content.decode()
    assert sent.status_code == 200 and "Check the policy before it is in force" in html
    assert not ReleasePolicy.objects.filter(dataset=w.dataset).exists()  # nothing yet
    text = text_of(html)
    assert "Images of the runner" in text and "120 seconds (2 minutes)" in text
    assert re.search(r"Of the last (\d+) runs?, it would refuse \1 that the policy in force accepts\.", text)
    assert "Refused Accepted image The policy does not accept the runner image" in text
    carried = hidden(html)
    done = browser(w.custodian).post(address(w, "/confirm"), carried)
    assert (done.status_code, done.headers["Location"]) == (302, address(w))
    row = ReleasePolicy.objects.get(dataset=w.dataset)
    assert row.document == document and row.made_by == w.custodian
    entry = Entry.objects.get(event="release_policy.set", object_id=str(row.pk))
    assert entry.data["sha256"] == row.sha256
    assert Outbox.objects.filter(topic="recheck_runs", key=str(w.dataset.pk)).exists()
    assert "Policy 1" in page(w.custodian, address(w)) and row.sha256 in page(w.custodian, address(w, "/1"))
    assert page(w.custodian, address(w, "/2"), 404)
    # back from the check page, the answers are still there
    again_ = browser(w.custodian).post(
        address(w, "/change"),
        {**carried, "document": json.dumps({**document, "max_age_seconds": 77}), "back": "1"},
    )
    assert 'value="77"' in again_.content.decode()


def test_preview_says_what_would_change_and_writes_nothing(w: World) -> None:
    w.outputs()
    same = queries.preview(w.dataset, policies.in_force(w.dataset))
    assert same and all(p.before_ok and p.after_ok and p.released and not p.changes for p in same)
    strict = Policy.parse({**policies.default_policy(personal_data=False), "types": ["snp"]})
    before = Entry.objects.count()
    found = queries.preview(w.dataset, strict)
    assert all(p.before_ok and not p.after_ok and p.changes for p in found)
    assert {c.id for p in found for c in p.after} >= {"type"} and Entry.objects.count() == before


def test_somebody_else_was_first(w: World) -> None:
    document = {**policies.default_policy(personal_data=False), "max_age_seconds": 120}
    html = browser(w.custodian).post(address(w, "/change"), form_data(document)).content.decode()
    from apps.attestation import actions

    actions.set_policy(by=w.custodian2, dataset=w.dataset, document={**document, "max_age_seconds": 60})
    lost = browser(w.custodian).post(address(w, "/confirm"), hidden(html))
    assert (
        lost.status_code == 409
        and "Somebody has put another release policy in force" in lost.content.decode()
    )
    assert policies.in_force(w.dataset).max_age_seconds == 60
    # the same answers beside what is in force now, ready to be confirmed or changed
    assert "Now: 60 seconds" in text_of(lost.content.decode())
    done = browser(w.custodian).post(address(w, "/confirm"), hidden(lost.content.decode()))
    assert done.status_code == 302 and policies.in_force(w.dataset).max_age_seconds == 120


@pytest.mark.parametrize("sent", [{}, {"document": "{}"}, {"document": "[]", "instead_of": "x"}])
def test_a_confirmation_that_lost_its_policy_says_so_once(w: World, sent: dict[str, str]) -> None:
    answer = browser(w.custodian).post(address(w, "/confirm"), sent)
    text = text_of(answer.content.decode())
    assert answer.status_code == 422 and text.count("The policy was lost on its way.") == 1
    assert "instead of" not in text


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("The policy.images[0] must be x.", ("images", "Images of the runner, entry 1, must be x.")),
        ("The policy.code[2].type must be x.", ("code", "Reference values of the code, entry 3, type, must be x.")),
        ("The policy.tcb.Milan.snp must be x.", ("tcb", "Lowest firmware of AMD processors, Milan.snp, must be x.")),
        ("The policy.max_age_seconds must be x.", ("max_age_seconds", "Age of the evidence must be x.")),
        ("The policy.maa.https://x[0] must be x.", ("maa", "Azure Attestation providers, https://x, entry 1, must be x.")),
        ("The policy.nothing must be x.", (None, "The policy.nothing must be x.")),
        ("The policy accepts no type.", (None, "The policy accepts no type.")),
    ],
)  # fmt: skip
def test_a_fault_stands_beside_its_field_under_the_fields_own_name(sentence: str, shown: Any) -> None:
    assert members.beside_its_field(sentence) == shown


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("types", [], "Kinds of evidence"),
        ("images", "latest", "must be an image digest"),
        ("images", f"{IMAGE}\n{IMAGE}", "twice"),
        ("max_age_seconds", "0", "must be a whole number from 1"),
        ("tcb", "Milan snp", "must be a component and a number"),
        ("tcb", "Milan snp=8\nMilan tee=0", "twice"),
        ("tcb", "Naples snp=8", "must name at least one of Milan"),
        ("code", "{", "Write a JSON list"),
        ("code", "{}", "Write a JSON list"),
        ("code", '[{"type":"snp"}]', "lacks"),
        ("maa", "http://x y", "must map issuers"),
        ("env_override", "A-B", "must be the name of an environment variable"),
    ],
)
def test_faults_stand_beside_their_field(w: World, field: str, value: Any, says: str) -> None:
    sent = {**form_data(policies.default_policy(personal_data=False)), field: value}
    html = browser(w.custodian).post(address(w, "/change"), sent).content.decode()
    assert "There is a problem" in html and says in text_of(html) and "Check the policy" not in html


def test_software_is_not_offered_for_personal_data(w: World) -> None:
    Dataset.objects.filter(pk=w.dataset.pk).update(personal_data=True)
    assert 'value="software"' not in page(w.custodian, address(w, "/change"))
    pasted = browser(w.custodian).post(
        address(w, "/paste"), {"document": json.dumps({**FULL, "types": ["software"]})}
    )
    assert "software evidence protects nothing" in text_of(pasted.content.decode())
    forced = browser(w.custodian).post(
        address(w, "/confirm"),
        {"document": json.dumps({**FULL, "types": ["software"]}), "instead_of": "0" * 64},
    )
    assert forced.status_code == 422 and not ReleasePolicy.objects.filter(dataset=w.dataset).exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"v":1}', '{"v":1,"v":1}', json.dumps({**FULL, "more": 1}), "null"]
)
def test_pasted_nonsense_is_refused(w: World, text: str) -> None:
    sent = browser(w.custodian).post(address(w, "/paste"), {"document": text})
    assert sent.status_code == 200 and "There is a problem" in sent.content.decode()
    assert browser(w.custodian).post(
        address(w, "/confirm"), {"document": text, "instead_of": "0" * 64}
    ).status_code in (409, 422)
    assert not ReleasePolicy.objects.filter(dataset=w.dataset).exists()


def test_pasted_policy_with_everything(w: World) -> None:
    html = browser(w.custodian).post(address(w, "/paste"), {"document": json.dumps(FULL)}).content.decode()
    assert browser(w.custodian).post(address(w, "/confirm"), hidden(html)).status_code == 302
    assert policies.in_force(w.dataset).to_json() == Policy.parse(FULL).to_json()
    assert "europe-west2-b" in page(w.custodian, address(w))


def test_the_api_does_the_same(w: World) -> None:
    client, base = browser(w.custodian), f"/api/v1/datasets/{w.dataset.slug}"
    first = client.get(f"{base}/release-policy").json()
    assert first["number"] is None and len(first["lines"]) == len(members.MEMBERS)
    document = {**policies.default_policy(personal_data=False), "max_age_seconds": 120}

    def put(**body: Any) -> Any:
        return client.put(f"{base}/release-policy", json.dumps(body), content_type="application/json")

    assert put(policy=document, instead_of="0" * 64).status_code == 409
    done = put(policy=document, instead_of=first["sha256"])
    assert (
        done.status_code == 200 and done.json()["number"] == 1 and done.json()["set_by"] == w.custodian.name
    )
    assert put(policy={**document, "images": ["x"]}).status_code == 422
    assert put(policy={**document, "more": 1}).status_code == 422
    tried = client.post(
        f"{base}/release-policy/preview",
        json.dumps({"policy": {**document, "images": [IMAGE]}}),
        content_type="application/json",
    )
    assert tried.status_code == 200 and all(not run["after_ok"] for run in tried.json())
    assert [row["number"] for row in client.get(f"{base}/release-policies").json()] == [1]
    for user in (w.lead, w.member, w.ours):
        assert browser(user).get(f"{base}/release-policy").status_code in (403, 404)


def test_without_a_broker_to_choose_there_is_no_form(w: World, settings: Any) -> None:
    settings.KEY_BROKERS = {}
    fresh = factories.draft_dataset(w.custodian, title="Fresh")
    shown = page(w.custodian, f"/my-datasets/{fresh.slug}/key-broker")
    assert "admitted none so far" in text_of(shown) and 'name="broker"' not in shown
    path = f"/my-datasets/{w.dataset.slug}/key-broker"
    for settings.KEY_BROKERS in ({}, {"broker.archive.example": "https://broker.archive.example"}):
        shown = page(w.custodian, path)
        assert "no other can open them" in text_of(shown) and 'name="broker"' not in shown
    stale = browser(w.custodian).post(path, {"broker": "broker.archive.example", "keys": "[]"})
    assert "There is a problem" in stale.content.decode() and again(w.dataset).key_broker == ""
    assert not Entry.objects.filter(event="dataset.key_broker_set").exists()


def test_a_broker_that_the_operator_has_taken_off_the_list(w: World, settings: Any) -> None:
    """The pages say so; before the first upload the custodian can still go back, after it nobody can choose."""
    settings.KEY_BROKERS = {}
    keys = [seal.generate_key_pair().public.to_json()]
    fresh = factories.draft_dataset(w.custodian, title="Fresh")
    for dataset in (fresh, w.dataset):
        Dataset.objects.filter(pk=dataset.pk).update(key_broker="broker.gone.example", key_broker_keys=keys)
        for rest in ("policy", "key-broker"):
            assert "taken this key broker off the list" in text_of(
                page(w.custodian, f"/my-datasets/{dataset.slug}/{rest}")
            )
        shown = browser(w.custodian).get(f"/api/v1/datasets/{dataset.slug}/key-broker").json()
        assert (shown["broker"], shown["address"]) == ("broker.gone.example", "")
    assert 'name="broker"' not in page(w.custodian, f"/my-datasets/{w.dataset.slug}/key-broker")
    path = f"/my-datasets/{fresh.slug}/key-broker"
    assert 'name="keys"' not in page(w.custodian, path)  # there is nobody whose keys they could be
    assert browser(w.custodian).post(path, {"broker": "this portal"}).status_code == 302
    assert (again(fresh).key_broker, again(fresh).key_broker_keys) == ("", [])


def test_switching_brokers_never_keeps_the_keys_of_the_one_before(w: World, settings: Any) -> None:
    """The page shows the keys in force: chosen with another broker, they are refused; with the portal's, ignored."""
    settings.KEY_BROKERS = {"b.example": "https://b.example", "c.example": "https://c.example"}
    fresh = factories.draft_dataset(w.custodian, title="Fresh")
    path, printed = (
        f"/my-datasets/{fresh.slug}/key-broker",
        {"keys": [seal.generate_key_pair().public.to_json()]},
    )
    post = browser(w.custodian).post
    assert (
        post(path, {"broker": "b.example", "keys": json.dumps({"id": "b.example", **printed})}).status_code
        == 302
    )
    shown = unescape(re.findall(r'name="keys"[^>]*>(.*?)</textarea>', page(w.custodian, path), re.DOTALL)[0])
    refused = post(path, {"broker": "c.example", "keys": shown})
    assert "not of c.example" in text_of(refused.content.decode()) and again(fresh).key_broker == "b.example"
    assert post(path, {"broker": "b.example", "keys": shown}).status_code == 302  # as it stands
    assert post(path, {"broker": "this portal", "keys": "half a pa"}).status_code == 302
    assert (again(fresh).key_broker, again(fresh).key_broker_keys) == ("", [])


def test_new_keys_of_the_same_broker_after_an_upload(w: World, settings: Any) -> None:
    settings.KEY_BROKERS = {"b.example": "https://b.example", "c.example": "https://c.example"}
    old, new = ([seal.generate_key_pair().public.to_json()] for _ in range(2))
    Dataset.objects.filter(pk=w.dataset.pk).update(key_broker="b.example", key_broker_keys=old)
    path = f"/my-datasets/{w.dataset.slug}/key-broker"
    shown = page(w.custodian, path)
    assert "c.example" not in shown and re.findall(r'name="broker"[^>]*value="([^"]*)"', shown) == [
        "b.example"
    ]
    assert (
        browser(w.custodian).post(path, {"broker": "b.example", "keys": json.dumps(new)}).status_code == 302
    )
    assert again(w.dataset).key_broker_keys == new


def test_text_areas_count_down_from_no_bound_that_nobody_meets(w: World) -> None:
    for rest in ("/change", "/paste"):
        assert "You can enter up to" not in text_of(page(w.custodian, address(w, rest)))
    for rest, field in (("/change", "images"), ("/paste", "document")):
        data = {**form_data(policies.in_force(w.dataset).to_json()), field: "x" * 65_537}
        answer = text_of(browser(w.custodian).post(address(w, rest), data).content.decode())
        assert "must be 65,536 characters or fewer" in answer


def test_choosing_ones_own_key_broker(w: World, settings: Any) -> None:
    settings.KEY_BROKERS = {"broker.archive.example": "https://broker.archive.example/"}
    fresh = factories.draft_dataset(w.custodian, title="Fresh")
    path, keys = f"/my-datasets/{fresh.slug}/key-broker", [seal.generate_key_pair().public.to_json()]
    assert "broker.archive.example" in page(w.custodian, path)
    post = browser(w.custodian).post
    for data, says in (
        ({}, "There is a problem Select who is to hold the keys of this dataset Fresh"),
        ({"broker": "elsewhere"}, "choose one of the options in the list"),
        ({"broker": "broker.archive.example"}, "Enter the public keys of broker.archive.example"),
        ({"broker": "broker.archive.example", "keys": "{}"}, "must be a list"),
        ({"broker": "broker.archive.example", "keys": "[1]"}, "must be an object"),
        (
            {"broker": "broker.archive.example", "keys": json.dumps([{**keys[0], "id": "0" * 16}])},
            "id of another key",
        ),
        (
            {"broker": "broker.archive.example", "keys": json.dumps({"id": "b.example", "keys": keys})},
            "These are the keys of the key broker b.example, not of broker.archive.example.",
        ),
    ):
        assert says in text_of(post(path, data).content.decode()), data
    printed = json.dumps({"id": "broker.archive.example", "keys": keys})
    assert post(path, {"broker": "broker.archive.example", "keys": printed}).status_code == 302
    fresh = again(fresh)
    assert (fresh.key_broker, fresh.key_broker_keys) == ("broker.archive.example", keys)
    api = f"/api/v1/datasets/{fresh.slug}/key-broker"
    assert browser(w.custodian).get(api).json()["address"] == "https://broker.archive.example"
    assert Entry.objects.get(event="dataset.key_broker_set").data["keys"] == [keys[0]["id"]]
    assert "The key broker broker.archive.example holds the keys of this dataset" in text_of(
        page(w.custodian, f"/my-datasets/{fresh.slug}/policy")
    )
    # after the first upload no other can be chosen
    refused = browser(w.custodian).put(
        f"/api/v1/datasets/{w.dataset.slug}/key-broker",
        json.dumps({"broker": "broker.archive.example", "keys": keys}),
        content_type="application/json",
    )
    assert refused.status_code == 409 and again(w.dataset).key_broker == ""
    api = browser(w.custodian).put(
        f"/api/v1/datasets/{fresh.slug}/key-broker",
        json.dumps({"broker": ""}),
        content_type="application/json",
    )
    assert api.status_code == 200 and again(fresh).key_broker == ""
