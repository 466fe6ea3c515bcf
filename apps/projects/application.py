"""The application form as a table: Five Safes sections, each a list of questions.

A longer form is more rows. The table drives the pages, the API, what is refused and how answers are shown.
Answers are JSON by question code: text for most kinds, `YYYY-MM-DD` for dates, a list of option codes for checkboxes.
A question that is no longer asked keeps its row with `retired=True`, so that frozen applications stay readable.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from apps.core.errors import Invalid

FORM_VERSION = "1"
# Written by the portal when an application is frozen; never asked, never accepted from outside.
PEOPLE = "people"
FORM = "form"


class Kind(StrEnum):
    TEXT = "text"
    TEXTAREA = "textarea"
    RADIOS = "radios"
    CHECKBOXES = "checkboxes"
    DATE = "date"


@dataclass(frozen=True)
class Option:
    """One choice. `code` is stored and stable; `label` is shown."""

    code: str
    label: str
    hint: str = ""


@dataclass(frozen=True)
class Question:
    """One question. `code` is stored and stable.

    words: limit of a textarea. max_chars: limit of a text. not_before: code of a date that this date may not precede.
    only_if: (code, option code): asked only when that question has that answer.
    """

    code: str
    label: str
    kind: Kind
    hint: str = ""
    required: bool = True
    options: tuple[Option, ...] = ()
    words: int = 0
    max_chars: int = 200
    not_before: str = ""
    only_if: tuple[str, str] | None = None
    retired: bool = False

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class Section:
    """One of the Five Safes: one page of the form."""

    code: str
    title: str
    intro: str
    questions: tuple[Question, ...]


YES_NO = (Option("yes", "Yes"), Option("no", "No"))

SECTIONS: tuple[Section, ...] = (
    Section(
        "people",
        "Safe people",
        "Who works on the project. Colleagues are invited on the project's page; here, say what equips the team.",
        (
            Question(
                "people_experience",
                "Experience of the team",
                Kind.TEXTAREA,
                words=250,
                hint="What in your training and earlier work equips you to use these data well?",
            ),
            Question(
                "people_interests",
                "Does anybody in the team have a financial or other interest in the result?",
                Kind.RADIOS,
                options=YES_NO,
            ),
            Question(
                "people_interests_detail",
                "What the interest is, and how you deal with it",
                Kind.TEXTAREA,
                words=150,
                only_if=("people_interests", "yes"),
            ),
        ),
    ),
    Section(
        "project",
        "Safe project",
        "What you want to find out, how, and what good it does.",
        (
            Question("title", "Title of the project", Kind.TEXT, max_chars=200),
            Question(
                "lay_summary",
                "Lay summary",
                Kind.TEXTAREA,
                words=300,
                hint="For readers who are not researchers. Do not use abbreviations that you have not explained.",
            ),
            Question(
                "aims",
                "Aims and method",
                Kind.TEXTAREA,
                words=500,
                hint="Your research question, and the analysis that will answer it.",
            ),
            Question(
                "public_benefit",
                "What kind of public benefit do you expect?",
                Kind.CHECKBOXES,
                hint="Select all that apply.",
                options=(
                    Option("care", "Better care or treatment"),
                    Option("prevention", "Better prevention or public health"),
                    Option("services", "Better planning or use of services"),
                    Option("understanding", "Better understanding of health and disease"),
                    Option("methods", "Better research methods"),
                ),
            ),
            Question(
                "funder",
                "Funder",
                Kind.TEXT,
                required=False,
                hint="Leave this empty if the work has no funder of its own.",
            ),
            Question("starts_on", "Start of the project", Kind.DATE, hint="For example, 27 3 2027"),
            Question(
                "ends_on",
                "End of the project",
                Kind.DATE,
                hint="For example, 26 3 2029",
                not_before="starts_on",
            ),
        ),
    ),
    Section(
        "data",
        "Safe data",
        "Which data you need, and why no less would do. You ask each custodian for access after the ethics opinion.",
        (
            Question(
                "data_needed",
                "Data that you need, and why",
                Kind.TEXTAREA,
                words=300,
                hint="Name the datasets and the columns, and say why each is needed.",
            ),
            Question(
                "lawful_basis",
                "Lawful basis for using personal data",
                Kind.RADIOS,
                options=(
                    Option("public_task", "Public task", "UK GDPR Article 6(1)(e)"),
                    Option("legitimate_interests", "Legitimate interests", "UK GDPR Article 6(1)(f)"),
                    Option("consent", "Consent of the people concerned", "UK GDPR Article 6(1)(a)"),
                    Option("not_personal", "The data are not personal data"),
                ),
            ),
            Question("linkage", "Will you link datasets with each other?", Kind.RADIOS, options=YES_NO),
            Question(
                "linkage_detail",
                "Which datasets you link, and by what",
                Kind.TEXTAREA,
                words=150,
                only_if=("linkage", "yes"),
            ),
        ),
    ),
    Section(
        "settings",
        "Safe settings",
        "Where the work happens. Real data never leave this portal's protected environment.",
        (
            Question(
                "place_of_work",
                "Where will the team work from?",
                Kind.RADIOS,
                hint="This is where people sit when they use the portal; the data stay where they are.",
                options=(
                    Option("uk", "Only in the United Kingdom"),
                    Option("adequate", "Also in a country with a UK adequacy decision"),
                    Option("other", "Also in another country"),
                ),
            ),
        ),
    ),
    Section(
        "outputs",
        "Safe outputs",
        "What you want to take out, and how you protect the people behind the numbers.",
        (
            Question(
                "outputs_expected",
                "What results will you ask to have released?",
                Kind.CHECKBOXES,
                hint="Select all that apply.",
                options=(
                    Option("tables", "Summary tables"),
                    Option("models", "Coefficients of statistical models"),
                    Option("figures", "Figures"),
                    Option(
                        "machine_learning",
                        "A trained machine-learning model",
                        "Such models can hold records of people and need a longer check.",
                    ),
                ),
            ),
            Question(
                "outputs_protection",
                "How you will avoid disclosing anything about a person",
                Kind.TEXTAREA,
                words=200,
                hint="For example, the smallest cell that you will publish.",
            ),
        ),
    ),
)

QUESTIONS: dict[str, Question] = {q.code: q for s in SECTIONS for q in s.questions}


def section_by_code(code: str) -> Section | None:
    return next((s for s in SECTIONS if s.code == code), None)


def applies(question: Question, answers: Mapping[str, Any]) -> bool:
    """Whether the question is asked, given the other answers."""
    return question.only_if is None or answers.get(question.only_if[0]) == question.only_if[1]


def is_empty(value: Any) -> bool:
    return value in (None, "", [])


def _clean_one(question: Question, value: Any) -> Any:
    """The value in its stored form. Raises ValueError with a sentence for the person."""
    if question.kind is Kind.CHECKBOXES:
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise ValueError(f"{question.label} must be a list of options")
        known = [o.code for o in question.options]
        if set(value) - set(known):
            raise ValueError(f"{question.label}: choose only options in the list")
        return [code for code in known if code in value]
    if not isinstance(value, str):
        raise ValueError(f"{question.label} must be text")
    text = value.replace("\r\n", "\n").strip()
    if "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError(
            f"{question.label} contains a character that cannot be stored. Type it again without special characters"
        )
    match question.kind:
        case Kind.RADIOS if text not in {o.code for o in question.options}:
            raise ValueError(f"{question.label}: choose one of the options in the list")
        case Kind.DATE:
            try:
                return dt.date.fromisoformat(text).isoformat()
            except ValueError:
                raise ValueError(f"{question.label} must be a real date, like 2027-03-27") from None
        case Kind.TEXT if len(text) > question.max_chars:
            raise ValueError(f"{question.label} must be {question.max_chars} characters or fewer")
        case Kind.TEXT if "\n" in text:
            raise ValueError(f"{question.label} must be one line")
        case Kind.TEXTAREA:
            if (words := len(text.split())) > question.words:
                raise ValueError(f"{question.label} must be {question.words} words or fewer; it has {words}")
            if len(text) > question.words * 20:
                raise ValueError(
                    f"{question.label} is too long. Use ordinary words, {question.words} at most"
                )
    return text


def _wrong_order(given: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, list[str]]:
    """Dates before the date that they may not precede. The sentence goes to an answer that was given just now."""
    found: dict[str, list[str]] = {}
    for question in QUESTIONS.values():
        first = question.not_before
        at_fault = next((c for c in (question.code, first) if c in given), None)
        both = not is_empty(answers.get(question.code)) and not is_empty(answers.get(first))
        if first and at_fault and both and answers[question.code] < answers[first]:
            found[at_fault] = [f"{question.label} must not be before “{QUESTIONS[first].label}”"]
    return found


def clean(given: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """`before` with the `given` answers laid over it; an empty answer removes one. Answers may be incomplete.

    Raises Invalid with a sentence for each answer that cannot be accepted.
    """
    errors: dict[str, list[str]] = {}
    answers = dict(before)
    for code, value in given.items():
        question = QUESTIONS.get(code)
        if question is None or question.retired:
            errors[code] = ["The form has no such question"]
        elif is_empty(value) or (isinstance(value, str) and not value.strip()):
            answers.pop(code, None)
        else:
            try:
                answers[code] = _clean_one(question, value)
            except ValueError as error:
                errors[code] = [str(error)]
    errors.update({c: e for c, e in _wrong_order(given, answers).items() if c not in errors})
    if errors:
        raise Invalid(
            "answers_invalid",
            "Some answers cannot be accepted.",
            "Correct them and save again.",
            fields=errors,
        )
    return answers


def missing(answers: Mapping[str, Any], questions: Iterable[Question] | None = None) -> list[Question]:
    """Required questions that apply and have no answer."""
    return [
        q
        for q in (questions if questions is not None else QUESTIONS.values())
        if q.required and not q.retired and applies(q, answers) and is_empty(answers.get(q.code))
    ]


def progress(section: Section, answers: Mapping[str, Any]) -> str:
    """not_started | in_progress | completed. A section of which only the title is known has not been started."""
    if not missing(answers, section.questions):
        return "completed"
    started = any(not is_empty(answers.get(q.code)) for q in section.questions if q.code != "title")
    return "in_progress" if started else "not_started"


def frozen(answers: Mapping[str, Any], people: list[str]) -> dict[str, Any]:
    """What a submission freezes: the answers that apply, the team as it is now, and the version of the form."""
    kept = {c: v for c, v in answers.items() if c in QUESTIONS and applies(QUESTIONS[c], answers)}
    return {**kept, PEOPLE: people, FORM: FORM_VERSION}


def shown(question: Question, value: Any) -> str:
    """An answer in words."""
    if is_empty(value):
        return ""
    labels = {o.code: o.label for o in question.options}
    if isinstance(value, list):
        return "\n".join(labels.get(v, str(v)) for v in value)
    if question.kind is Kind.DATE:
        day = dt.date.fromisoformat(value)
        return f"{day.day} {day:%B %Y}"
    return labels.get(value, str(value))


@dataclass(frozen=True)
class Change:
    """One answer that differs between two versions, in words."""

    label: str
    before: str
    after: str


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What changed from one frozen application to the next, in the order of the form."""
    found = []
    for question in QUESTIONS.values():
        before, after = shown(question, old.get(question.code)), shown(question, new.get(question.code))
        if before != after:
            found.append(Change(question.label, before, after))
    if old.get(PEOPLE, []) != new.get(PEOPLE, []):
        found.append(
            Change("People of the project", "\n".join(old.get(PEOPLE, [])), "\n".join(new.get(PEOPLE, [])))
        )
    return found
