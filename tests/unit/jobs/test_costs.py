"""What machines cost: the sum, the choice of a size, the budget, and the books after the end."""

from __future__ import annotations

import datetime as dt
import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from apps.attestation.challenges import OVERHEAD, attempt_lifetime
from apps.core.clock import now
from apps.core.errors import Invalid
from apps.jobs import actions, gate, spending
from apps.jobs.costs import estimate, machine_seconds
from apps.jobs.models import ProjectAllowance, Run, RunCost
from apps.jobs.sizes import GIB, Size
from strongroom.money import in_pounds
from tests.factories import World

AT = dt.datetime(2026, 11, 5, 12, 0, tzinfo=dt.UTC)
PRICED = Size("s", "", 4, 16, pence_per_hour=20, price_source="price list")
TABLE = {
    "local": {
        "small": {"vcpus": 2, "memory_gib": 8, "pence_per_hour": 12, "price_source": "our own figures, 1 November 2026"},
        "large": {"vcpus": 8, "memory_gib": 64, "pence_per_hour": 240, "price_source": "our own figures"},
        "free": {"vcpus": 8, "memory_gib": 32},
    }
}  # fmt: skip


def after(seconds: float) -> dt.datetime:
    return AT + dt.timedelta(seconds=seconds)


# ---- pure ----


@pytest.mark.parametrize(
    ("seconds", "pence"), [(0, 0), (1, 1), (180, 1), (181, 2), (3600, 20), (3601, 21), (86400, 480)]
)
def test_estimate(seconds, pence):
    assert estimate(PRICED, seconds) == pence
    assert estimate(Size("s", "", 4, 16), seconds) is None


def test_no_time_below_zero():
    with pytest.raises(ValueError):
        estimate(PRICED, -1)


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**6))
def test_an_estimate_never_falls_with_time_and_never_below_the_price(first, more, price):
    size = Size("s", "", 1, 1, pence_per_hour=price, price_source="x")
    low, high = estimate(size, first), estimate(size, first + more)
    assert low is not None and high is not None and low <= high
    assert 0 <= low * 3600 - price * first < 3600


def test_machine_seconds_over_attempts():
    changes = [
        ("waiting", AT), ("queued", after(10)), ("launching", after(20)), ("queued", after(50)),
        ("launching", after(650)), ("running", after(700)), ("succeeded", after(1000)),
    ]  # fmt: skip
    assert machine_seconds(changes, after(1060.2)) == 30 + 411
    assert machine_seconds(changes[:4], after(9999)) == 30
    assert machine_seconds([("waiting", AT), ("cancelled", after(5))], after(9)) == 0
    assert (
        machine_seconds([("launching", after(9)), ("queued", AT)], after(10)) == 0
    )  # a clock that was put back


def test_in_pounds():
    assert [in_pounds(p) for p in (None, 0, 7, 123456)] == ["not known", "£0.00", "£0.07", "£1,234.56"]


# ---- sizes and budget ----


@pytest.fixture
def sizes(settings):
    settings.RUN_SIZES = TABLE
    settings.RUN_LIMITS = {**settings.RUN_LIMITS, "memory_bytes": 4 * GIB, "disk_bytes": 2 * GIB}
    return settings


def allow(project, **changes):
    row, _ = ProjectAllowance.objects.get_or_create(project=project, defaults={"set_by": "system:x"})
    for name, value in changes.items():
        setattr(row, name, value)
    row.save()


def test_without_an_allowance_the_default_size_only(w: World, sizes):
    assert list(spending.allowed_sizes(w.project, "local")) == ["small"]
    allow(w.project, sizes=["large", "gone"])
    assert list(spending.allowed_sizes(w.project, "local")) == ["small", "large"]
    assert spending.allowed_sizes(w.project, "elsewhere") == {}


def test_a_larger_machine_has_wider_bounds(sizes):
    wide = spending.limits_for("local", "large")
    assert (wide["memory_bytes"], wide["disk_bytes"]) == (32 * GIB, 16 * GIB)
    assert wide["cpu_seconds"] == sizes.RUN_LIMITS["wall_seconds"] * 8
    assert wide["wall_seconds"] == sizes.RUN_LIMITS["wall_seconds"]
    assert spending.limits_for("local", "") == sizes.RUN_LIMITS
    small = spending.limits_for("local", "small")
    assert all(small[name] >= value for name, value in sizes.RUN_LIMITS.items())


def codes(w: World, program, size: str = "", run: Run | None = None) -> set[str]:
    found = gate.unmet(
        project=w.project, program=program, versions=list(program.versions.all()), backend="local", person=w.lead,
        moment=now(), run=run, size=size,
    )  # fmt: skip
    return {c.code for c in found} & {"size_not_allowed", "budget_exceeded"}


@pytest.fixture
def program(w: World):
    """Rehearsed; what that cost is taken off the books, so that each test counts its own."""
    made = w.approved_program()
    assert RunCost.objects.filter(run__program=made).count() == 1
    RunCost.objects.all().delete()
    Run.objects.filter(program=made).update(attempt=0)
    return made


def test_the_gate_refuses_a_size_that_is_not_allowed(w, sizes, program):
    assert codes(w, program) == set() == codes(w, program, "small")
    assert codes(w, program, "large") == {"size_not_allowed"} == codes(w, program, "enormous")
    allow(w.project, sizes=["large"])
    assert codes(w, program, "large") == set()


def test_the_gate_holds_the_budget(w, sizes, program):
    most = spending.at_most("local", "", spending.limits_for("local", ""))
    assert most == 9  # 900 s and half an hour around it, at 12 pence an hour
    allow(w.project, budget_pence=most)
    assert codes(w, program) == set()
    allow(w.project, budget_pence=most - 1)
    assert codes(w, program) == {"budget_exceeded"}


def test_a_budget_and_a_price_that_nobody_gave(w, sizes, program):
    allow(w.project, sizes=["free"], budget_pence=10**6)
    assert codes(w, program, "free") == {"budget_exceeded"}
    allow(w.project, sizes=["free"], budget_pence=None)
    assert codes(w, program, "free") == set()


def test_live_runs_and_booked_ones_count_against_the_budget(w, sizes, program):
    allow(w.project, budget_pence=20)
    run = actions.submit_run(by=w.lead, program=program, submission="a")
    assert spending.spending(w.project).reserved == 0  # it waits: it has no machine and may never have one
    Run.objects.filter(pk=run.pk).update(state="launching", attempt=1, machine="sr-x-1")
    assert spending.spending(w.project) == spending.Spending(0, 9, 20, 0)
    run.refresh_from_db()
    assert codes(w, program) == set()
    allow(w.project, budget_pence=17)
    assert codes(w, program) == {"budget_exceeded"}
    assert codes(w, program, run=run) == set()  # its own place is kept
    RunCost.objects.create(run=run, project=w.project, backend="local", size="small", seconds=600, pence=2)
    assert spending.spending(w.project) == spending.Spending(2, 0, 17, 0)


def test_submitting_with_a_size(w, sizes, program):
    with pytest.raises(Invalid) as refused:
        actions.submit_run(by=w.lead, program=program, submission="a", size="large")
    assert refused.value.code == "size_not_allowed" and "size" in refused.value.fields
    allow(w.project, sizes=["large"])
    run = actions.submit_run(by=w.lead, program=program, submission="a", size="large")
    assert run.size == "large" and run.manifest["limits"]["memory_bytes"] == 32 * GIB


def test_booked_once_with_the_price_of_the_day(w, sizes, program):
    run = actions.submit_run(by=w.lead, program=program, submission="a")
    spending.book(run)
    assert not RunCost.objects.exists()  # it never had a machine
    Run.objects.filter(pk=run.pk).update(attempt=1)
    run.refresh_from_db()
    spending.book(run)
    spending.book(run)
    cost = RunCost.objects.get()
    assert (cost.size, cost.pence_per_hour, cost.price_source) == (
        "small",
        12,
        "our own figures, 1 November 2026",
    )
    sizes.RUN_SIZES = {}
    assert spending.cost_of(run)["price_source"] == "our own figures, 1 November 2026"


# ---- pages, API, command ----


def test_the_page_offers_sizes_and_what_they_cost(w, sizes, program):
    client = Client()
    client.force_login(w.lead)
    address = f"/programs/{program.pk}"
    page = client.get(address).content.decode()
    assert 'name="size"' not in page  # there is one, so nothing to choose
    assert "of the size small: 2 processors, 8 GiB memory; cost at most £0.09" in page
    allow(w.project, sizes=["large", "free"])
    page = client.get(address).content.decode()
    assert "GiB memory; cost not known" in page
    assert "large: 8 processors, 64 GiB memory; cost at most £1.80" in page
    answer = client.post(f"/programs/{program.pk}/run", {"submission": "x", "size": "large"})
    run = Run.objects.get(kind="research")
    assert answer.status_code == 302 and run.size == "large"
    Run.objects.filter(pk=run.pk).update(attempt=1)
    assert "at most £1.80" in client.get(f"/runs/{run.pk}").content.decode()


def test_a_size_that_is_no_longer_offered_is_not_replaced_by_another(w, sizes, program):
    client = Client()
    client.force_login(w.lead)
    for offered in (["large"], []):
        allow(w.project, sizes=offered)
        answer = client.post(f"/programs/{program.pk}/run", {"submission": "x", "size": "free"})
        assert (
            'href="#id_size"' in answer.content.decode() and not Run.objects.filter(kind="research").exists()
        )
        answer = client.post(f"/programs/{program.pk}/run", {"submission": "x", "size": "fr\x00ee"})
        assert 'href="#id_size"' in answer.content.decode()


def test_the_projects_page_shows_its_books(w, sizes, program):
    client = Client()
    client.force_login(w.lead)
    assert "Live runs may still cost" not in client.get(f"/projects/{w.project.pk}").content.decode()
    run = actions.submit_run(by=w.lead, program=program, submission="a")
    RunCost.objects.create(run=run, project=w.project, backend="local", seconds=7200, pence=1234)
    page = client.get(f"/projects/{w.project.pk}").content.decode()
    assert "£12.34" in page and "7,200 seconds" in page and "No limit" in page


def test_time_without_a_price_is_not_shown_as_free(w, sizes, program):
    client = Client()
    client.force_login(w.lead)
    runs = [actions.submit_run(by=w.lead, program=program, submission=name) for name in "ab"]
    RunCost.objects.create(run=runs[0], project=w.project, backend="local", seconds=7200, pence=None)
    page = client.get(f"/projects/{w.project.pk}").content.decode()
    assert "Not known: no machine that was used has a price" in page
    RunCost.objects.create(run=runs[1], project=w.project, backend="local", seconds=60, pence=3)
    page = client.get(f"/projects/{w.project.pk}").content.decode()
    assert "Not known" not in page and "£0.03" in page and "7,200 seconds" in page


def test_the_api_takes_a_size_and_gives_the_cost(w, sizes, program):
    client = Client()
    client.force_login(w.lead)
    allow(w.project, sizes=["large"], budget_pence=5000)
    address = f"/api/v1/programs/{program.pk}/runs"
    refused = client.post(address, json.dumps({"size": "huge"}), content_type="application/json")
    assert (refused.status_code, refused.json()["code"]) == (422, "size_not_allowed")
    made = client.post(address, json.dumps({"size": "large"}), content_type="application/json")
    assert made.status_code == 201, made.content
    assert made.json()["cost"] == {
        "size": "large", "at_most_pence": 180, "booked_pence": None, "seconds": None, "price_source": "our own figures",
        "project_spent_pence": 0, "project_budget_pence": 5000,
    }  # fmt: skip


def test_the_api_says_before_a_run_what_it_may_cost(w, sizes, program):
    client = Client()
    client.force_login(w.lead)
    allow(w.project, sizes=["large", "free"])
    answer = client.get(f"/api/v1/projects/{w.project.pk}/machines")
    assert answer.status_code == 200, answer.content
    found = {size["name"]: size for size in answer.json()["sizes"]}
    assert found["large"] == {
        "name": "large", "vcpus": 8, "memory_gib": 64, "gpus": 0, "pence_per_hour": 240, "price_source": "our own figures",
        "at_most_pence": 180,
    }  # fmt: skip
    assert (answer.json()["usual_seconds"], answer.json()["longest_seconds"]) == (900, 900)
    assert {name: size["at_most_pence"] for name, size in found.items()} == {
        "small": 9,
        "large": 180,
        "free": None,
    }
    sizes.RUN_SIZES = {}
    assert client.get(f"/api/v1/projects/{w.project.pk}/machines").json()["sizes"] == []


def test_a_time_limit_bounds_program_and_cost(w, sizes, program):
    short = spending.limits_for("local", "", 60)
    assert (short["wall_seconds"], short["cpu_seconds"]) == (60, sizes.RUN_LIMITS["cpu_seconds"])
    long = spending.limits_for("local", "large", 3600)
    assert (long["wall_seconds"], long["cpu_seconds"]) == (3600, 3600 * 8)
    assert spending.limits_for("local", "", 1800)["cpu_seconds"] == 2 * sizes.RUN_LIMITS["cpu_seconds"]
    run = actions.submit_run(by=w.lead, program=program, submission="a", time_limit=60)
    assert run.manifest["limits"]["wall_seconds"] == 60
    assert (
        spending.cost_of(run)["at_most_pence"] == 7
    )  # a minute and half an hour around it, at 12 pence an hour
    usual = actions.submit_run(by=w.lead, program=program, submission="b")
    assert (usual.time_limit, usual.manifest["limits"]["wall_seconds"]) == (900, 900)
    assert usual.manifest["limits"] == sizes.RUN_LIMITS


@pytest.mark.parametrize("seconds", [0, -1, 901, 2**31])
def test_a_time_limit_that_the_project_may_not_use(w, sizes, program, seconds):
    with pytest.raises(Invalid) as refused:
        actions.submit_run(by=w.lead, program=program, submission="a", time_limit=seconds)
    assert refused.value.code == "time_limit_not_allowed" and "900 seconds" in refused.value.remedy


def test_a_project_may_be_given_more_time_or_less(w, sizes, program):
    sizes.LONGEST_RUN_SECONDS = 7200
    allow(w.project, longest_seconds=3600)
    run = actions.submit_run(by=w.lead, program=program, submission="a", time_limit=3600)
    assert "time_limit_not_allowed" not in {c.code for c in gate.unmet_for_run(run, now())}
    with pytest.raises(Invalid):
        actions.submit_run(by=w.lead, program=program, submission="b", time_limit=3601)
    allow(w.project, longest_seconds=300)
    assert "time_limit_not_allowed" in {c.code for c in gate.unmet_for_run(run, now())}
    assert actions.submit_run(by=w.lead, program=program, submission="c").time_limit == 300
    allow(w.project, longest_seconds=10**6)
    assert spending.longest_seconds(w.project) == 7200  # the installation's bound holds
    assert spending.longest_seconds(None) == 900
    assert attempt_lifetime() == dt.timedelta(seconds=7200) + OVERHEAD


def test_longer_time_counts_against_the_budget(w, sizes, program):
    sizes.LONGEST_RUN_SECONDS = 7200
    allow(w.project, budget_pence=9, longest_seconds=7200)
    assert spending.budget_fault(w.project, "local", "", 900, None) == ""
    assert spending.budget_fault(w.project, "local", "", 7200, None) == "spent"


def test_the_page_takes_minutes(w, sizes, program):
    sizes.LONGEST_RUN_SECONDS = 7200
    allow(w.project, longest_seconds=7200)
    client = Client()
    client.force_login(w.lead)
    assert "At most 2 hours" in client.get(f"/programs/{program.pk}").content.decode()
    address = f"/programs/{program.pk}/run"
    whole, less = "Enter a whole number of minutes", "must be 2 hours or less"
    wrong = {"0": whole, "-5": whole, "1.5": whole, "soon": whole, "\u0661": whole, "\x00": "Null characters"}
    wrong |= {"121": less, "9999999": less, "1" * 20: less, "1" * 5000: "must be 20 characters or fewer"}
    for text, sentence in wrong.items():
        page = client.post(address, {"submission": "x", "minutes": text}).content.decode()
        # In the summary, which leads to the field, and beside it; with what was typed, to be mended.
        assert page.count(sentence) == 2 and 'href="#id_minutes"' in page and "Error: " in page, text[:10]
        assert "\x00" in text or f'value="{text}"' in page
        assert not Run.objects.filter(kind="research").exists()
    assert client.get(address).headers["Location"] == f"/programs/{program.pk}"
    client.post(address, {"submission": "x", "minutes": " 90 "})
    run = Run.objects.get(kind="research")
    assert run.time_limit == 5400
    assert "1 hour 30 minutes" in client.get(f"/runs/{run.pk}").content.decode()


def test_the_api_takes_seconds(w, sizes, program):
    client = Client()
    client.force_login(w.lead)
    address = f"/api/v1/programs/{program.pk}/runs"
    for wrong in (0, "long", 901):
        answer = client.post(address, json.dumps({"time_limit": wrong}), content_type="application/json")
        assert answer.status_code in (400, 422), answer.content
    made = client.post(address, json.dumps({"time_limit": 120}), content_type="application/json")
    assert made.status_code == 201 and Run.objects.get(pk=made.json()["id"]).time_limit == 120


def test_the_command_sets_the_longest_time(w, sizes):
    sizes.LONGEST_RUN_SECONDS = 7200
    call_command("set_allowance", w.project.ref, "--minutes", "120", stdout=StringIO())
    assert spending.longest_seconds(w.project) == 7200
    for wrong in ("121", "0", "-1", "long"):
        with pytest.raises(CommandError):
            call_command("set_allowance", w.project.ref, "--minutes", wrong, stdout=StringIO())
    call_command("set_allowance", w.project.ref, "--minutes", "usual", stdout=StringIO())
    assert spending.longest_seconds(w.project) == 900


def test_the_command(w, sizes):
    said = StringIO()
    call_command("set_allowance", w.project.ref, "--sizes", "large,small", "--budget", "250.00", stdout=said)
    row = ProjectAllowance.objects.get(project=w.project)
    assert (row.sizes, row.budget_pence, row.set_by) == (["large", "small"], 25000, "system:set-allowance")
    call_command("set_allowance", w.project.ref, "--budget", "none", stdout=said)
    row.refresh_from_db()
    assert (row.sizes, row.budget_pence) == (["large", "small"], None)
    for arguments in (["nothing"], [w.project.ref, "--sizes", "huge"], [w.project.ref, "--budget", "-1"],
                      [w.project.ref, "--budget", "1.005"], [w.project.ref, "--budget", "lots"]):  # fmt: skip
        with pytest.raises(CommandError):
            call_command("set_allowance", *arguments, stdout=said)


def test_runs_from_before_the_books_reserve_nothing(w, sizes, program):
    run = actions.submit_run(by=w.lead, program=program, submission="a")
    Run.objects.filter(pk=run.pk).update(state="failed", attempt=2, machine_gone=True)
    assert spending.spending(w.project).reserved == 0
