"""Builds a small world in a portal's database before its workers start, and prints what is in it as JSON.

Run by portal.py with that portal's environment. The dataset holds words that stand nowhere else, so that a test can look
for any of them in places where data must not be.
"""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

import django

SECRET = "Quizzaciously"  # begins every secret value of the real data
STAND_IN = "Placeholder"
DICTIONARY = {
    "fields": [
        {
            "name": "visits",
            "type": "integer",
            "description": "Visits",
            "constraints": {"minimum": 0, "maximum": 90},
        },
        {"name": "coins", "type": "number", "description": "Coinsurance"},
        {"name": "word", "type": "string", "description": "A word", "sensitive": True},
    ],
    "missingValues": ["", "NA"],
}
CHECKED = {
    "fields": [
        {"name": "visits", "type": "integer", "constraints": {"minimum": 0, "maximum": 90, "required": True}},
        {"name": "coins", "type": "number"},
        {"name": "plan", "type": "string", "constraints": {"enum": ["A", "B", "C"]}},
        {"name": "day", "type": "date", "constraints": {"minimum": "1970-01-01", "maximum": "2030-12-31"}},
        {"name": "insured", "type": "boolean"},
        {"name": "word", "type": "string", "sensitive": True},
    ],
    "missingValues": ["", "NA"],
}
ROWS = 60


def rows(word: str) -> bytes:
    return b"visits,coins,word\n" + b"".join(
        b"%d,%d,%s%04d\n" % (n % 9, (n % 4) * 25, word.encode(), n) for n in range(ROWS)
    )


def build() -> dict[str, Any]:
    from django.conf import settings

    from apps.accounts import actions as accounts
    from apps.accounts.roles import Role
    from apps.core import outbox
    from apps.core.models import Outbox
    from apps.datasets import actions as datasets
    from apps.jobs.engine import machines
    from tests import factories as make

    settings.ALLOWED_HOSTS = ["*"]
    outbox.kick = lambda: None
    machines.register("local", make.Machines())
    university, archive, office = (
        make.organisation("university"),
        make.organisation("custodian"),
        make.organisation("university"),
    )
    lead, member = (
        make.person(name, university, Role.RESEARCHER) for name in ("Lena Lead", "Ravi Researcher")
    )
    outsider = make.person("Otto Outsider", make.organisation("university"), Role.RESEARCHER)
    ours = make.person("Una Signatory", university, Role.SIGNATORY)
    custodian = make.person("Carl Custodian", archive, Role.CUSTODIAN)
    theirs = make.person("Theo Signatory", archive, Role.SIGNATORY)
    stranger = make.person("Cleo Custodian", make.organisation("custodian"), Role.CUSTODIAN)
    checkers = [make.person(f"Chris Checker {n}", office, Role.OUTPUT_CHECKER) for n in range(2)]
    auditor = make.person("Ada Auditor", office, Role.AUDITOR)

    fields = [
        {
            "name": f["name"],
            "type": f["type"],
            "missing": 0,
            "summary": None,
            "categories": None,
            "histogram": None,
        }
        for f in DICTIONARY["fields"]
    ]
    dataset = make.draft_dataset(custodian, slug="words", title="Words and visits", dictionary=DICTIONARY)
    version = make.uploaded_version(dataset, custodian, rows(SECRET))
    run = make.engine.create_profile_run(version)
    assert run is not None
    report = {"v": 1, "ok": True, "rows": ROWS, "problems": [], "checked_at": "2026-11-05T14:05:00Z"}
    make.drive(
        run,
        {
            "report.json": json.dumps(report).encode(),
            "profile.json": json.dumps({"v": 1, "rows": ROWS, "columns": fields}).encode(),
        },
    )
    dataset = make.again(datasets.publish_dataset(by=custodian, dataset=make.again(dataset)))
    release = datasets.order_release(
        by=custodian, version=make.again(version), method="gaussian_copula", parameters={}
    )
    run = make.engine.create_release_run(release)
    assert run is not None
    make.drive(
        run,
        {
            "stand-in.csv": rows(STAND_IN),
            "report.json": json.dumps({**make.RELEASE_REPORT, "rows": ROWS}).encode(),
        },
    )
    release = datasets.decide_release(by=custodian, release=make.again(release), approve=True, reason="Good.")
    project = make.approved_project(lead, make.board(), [member])
    access = make.access_in_force(project, dataset, lead, custodian, ours, theirs)
    draft = make.draft_dataset(custodian, slug="checked", title="Checked", dictionary=CHECKED)
    Outbox.objects.exclude(topic="seal_log").delete()

    people = {
        "lead": lead, "member": member, "outsider": outsider, "custodian": custodian, "stranger": stranger, "checker0": checkers[0],
        "checker1": checkers[1], "auditor": auditor, "operator": make.operator(), "signatory": ours,
    }  # fmt: skip
    scopes = ["read", "research", "custody", "review", "admin"]
    known = set(accounts.ApiToken.Scope.values)
    return {
        "password": make.PASSWORD,
        "people": {
            name: {
                "email": user.email,
                "id": str(user.pk),
                "token": accounts.create_token(by=user, name="tests", scopes=[s for s in scopes if s in known], days=7)[1],
            }
            for name, user in people.items()
        },
        "project": str(project.pk), "dataset": dataset.slug, "dataset_id": str(dataset.pk), "draft": draft.slug, "draft_id": str(draft.pk),
        "version": str(version.pk), "release": str(release.pk), "access": str(access.pk), "agreement": str(access.agreements.get().pk),
    }  # fmt: skip


EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&<b>"


def build_evil() -> dict[str, Any]:
    """A second world in which every free text is an attack on whoever reads it. No worker may run meanwhile."""
    from django.conf import settings

    from apps.accounts.models import User
    from apps.accounts.roles import Role
    from apps.core import outbox
    from apps.core.models import Outbox
    from apps.datasets import actions as datasets
    from apps.jobs import actions as jobs
    from apps.jobs.engine import machines
    from tests import factories as make

    settings.ALLOWED_HOSTS = ["*"]
    outbox.kick = lambda: None
    machines.register("local", make.Machines())
    make._numbers = itertools.count(1000)
    real_answers = make.answers
    make.answers = lambda title: {
        name: EVIL if isinstance(value, str) and " " in value else value
        for name, value in real_answers(title).items()
    }
    university, archive = (make.organisation(kind, f"{kind} {EVIL}") for kind in ("university", "custodian"))

    def person(name: str, where: Any, *roles: Role) -> User:
        user = make.person(name, where, *roles)
        User.objects.filter(pk=user.pk).update(name=f"{name} {EVIL}", job_title=EVIL[:100])
        return User.objects.get(pk=user.pk)

    lead, member = person("Lou", university, Role.RESEARCHER), person("May", university, Role.RESEARCHER)
    ours, theirs = person("Una", university, Role.SIGNATORY), person("Tom", archive, Role.SIGNATORY)
    custodian = person("Cat", archive, Role.CUSTODIAN)
    checkers = [
        person(f"Che{n}", make.organisation("university", f"Office {EVIL} {n}"), Role.OUTPUT_CHECKER)
        for n in range(2)
    ]
    board = make.board()
    fields = [{**field, "description": EVIL, "unit": EVIL[:40]} for field in make.DICTIONARY["fields"]]
    dataset = make.published_dataset(
        custodian,
        slug="evil",
        title=f"T {EVIL}",
        summary=EVIL,
        keywords=["<b>x</b>"],
        coverage_place=EVIL,
        licence=EVIL,
        dictionary={**make.DICTIONARY, "fields": fields},
    )
    make.released_stand_in(dataset, custodian)
    project = make.draft_project(lead, [member], title=f"P {EVIL}")
    review = make.review_of(project, lead, board)
    make.projects.decide(
        by=board.chair,
        review=review,
        outcome="favourable",
        reason=EVIL,
        valid_until=make.now().date() + make.dt.timedelta(days=365),
    )
    project = make.again(project)
    request = datasets.request_access(
        by=lead,
        project=project,
        dataset=dataset,
        purpose=EVIL,
        ends_on=make.now().date() + make.dt.timedelta(days=200),
    )
    datasets.decide_access(by=custodian, access_request=request, approve=True, reason=EVIL, conditions=EVIL)
    agreement = make.again(request.agreements.get())
    make.sign(agreement, ours, "user_organisation")
    make.sign(agreement, theirs, "custodian")
    source = f"# {EVIL}\nprint(1)\n".encode()
    program = make.rehearsed_program(
        project, member, [dataset], content=source, name=EVIL, filename="<img src=x>.py", note=EVIL
    )
    jobs.decide_program(by=custodian, program=program, dataset=dataset, approve=True, reason=EVIL)
    files = {
        "<img src=x onerror=alert(3)>.csv": EVIL.encode() + b",b\n" + EVIL.encode() + b",2\n",
        "page.html": EVIL.encode(),
        "a.svg": b"<svg onload=alert(1)>",
        "t.txt": EVIL.encode(),
    }
    review_of_outputs = make.outputs_in_review(program, member, files)
    released = make.outputs_in_review(program, member, files)
    for checker in checkers:
        jobs.check_outputs(by=checker, output_release=make.again(released), decision="approve", comment=EVIL)
    make.engine.build_package(released.pk)
    cancelled = make.research_run(
        make.rehearsed_program(project, member, [dataset], name=f"2 {EVIL}"), member
    )
    jobs.cancel_run(by=member, run=cancelled, reason=EVIL)
    Outbox.objects.exclude(topic="seal_log").delete()
    people = {
        "lead": lead,
        "member": member,
        "custodian": custodian,
        "checker": checkers[0],
        "signatory": ours,
        "chair": board.chair,
        "operator": make.operator(),
    }
    return {
        "people": {name: user.email for name, user in people.items()},
        "password": make.PASSWORD,
        "check": str(review_of_outputs.pk),
    }


if __name__ == "__main__":
    django.setup()
    print(json.dumps(build_evil() if "--evil" in sys.argv else build()))
