"""The documentation against itself and against the code: links, named pages, words, commands."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from apps.core.lifecycle import LIFECYCLES

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "sdk" / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
# Addresses of package indexes, fillers, and notes to oneself.
FORBIDDEN = (
    "index-url http", "lorem ipsum", "todo:",
    "fixme", "xxx:", "tbd",
)  # fmt: skip
TAXONOMY = ("tutorial", "how-to", "explanation", "reference", "adr")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and its like make of a page's headings."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(kept.strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_internal_links_resolve(document: Path) -> None:
    broken = []
    for target in LINK.findall(prose(document)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = unquote(target).partition("#")
        there = (document.parent / path).resolve() if path else document
        good = there.exists() and ROOT in there.parents
        if good and anchor and there.suffix == ".md":
            good = anchor in anchors(there)
        if not good:
            broken.append(target)
    assert not broken, f"{name_of(document)} links to nothing: {', '.join(broken)}"


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_every_image_has_words(document: Path) -> None:
    assert all(words.strip() for words, _ in IMAGE.findall(prose(document)))


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_no_forbidden_words(document: Path) -> None:
    text = document.read_text(encoding="utf-8").lower()
    assert not [word for word in FORBIDDEN if re.search(rf"(?<!\w){re.escape(word)}", text)]


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_each_page_begins_with_one_title(document: Path) -> None:
    lines = [line for line in prose(document).splitlines() if line.strip() and not line.startswith("<!--")]
    assert lines[0].startswith("# ")
    assert sum(line.startswith("# ") for line in lines) == 1


def test_the_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = [p for kind in TAXONOMY for p in sorted((DOCS / kind).iterdir()) if p.is_file()]
    assert pages
    missing = [str(p.relative_to(DOCS)) for p in pages if f"({p.relative_to(DOCS)})" not in index]
    assert not missing, f"docs/README.md does not name {', '.join(missing)}"


def test_pages_that_the_code_names_exist() -> None:
    """Docstrings and sentences point to pages of docs/: each must be there."""
    named: dict[str, str] = {}
    for folder in ("apps", "portal", "workers", "infra", "sdk", "frontend/templates", "frontend/js"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".html", ".js") and file.is_file():
                text = file.read_text(encoding="utf-8", errors="replace")
                for page in re.findall(r"docs/[a-z0-9/_-]+\.(?:md|yaml)", text):
                    named[page] = name_of(file)
    named = {page: file for page, file in named.items() if not (ROOT / page).exists()}
    assert not named


def test_adrs_are_numbered_without_gaps_and_say_the_four_things() -> None:
    pages = sorted((DOCS / "adr").glob("*.md"))
    assert [int(p.name[:4]) for p in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        headings = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "What was not chosen"], page.name


# --- Words ---


def glossary() -> dict[str, str]:
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \|", (DOCS / "reference/glossary.md").read_text("utf-8"), re.MULTILINE
    )
    terms: dict[str, str] = {}
    for words, meaning in rows:
        if words == "word":
            continue
        for word in words.split(","):
            assert word.strip() not in terms, f"the glossary has {word.strip()!r} twice"
            terms[word.strip()] = meaning
    return terms


def test_the_glossary_is_in_order_of_the_alphabet() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", (DOCS / "reference/glossary.md").read_text("utf-8"), re.MULTILINE)
    words = [row for row in rows if row not in ("word",)]
    assert words == sorted(words)


def test_every_lifecycle_is_a_word_of_the_glossary() -> None:
    other = {"dataset_version": "dataset version", "stage1_release": "stage-1 release", "ethics_review": None}
    terms = glossary()
    for name in LIFECYCLES:
        word = other.get(name, name.replace("_", " "))
        assert word is None or word in terms, f"the glossary lacks {word!r}"


def test_the_states_page_has_every_label() -> None:
    page = (DOCS / "reference/states.md").read_text(encoding="utf-8")
    for lifecycle in LIFECYCLES.values():
        missing = [label for label in lifecycle.labels.values() if label not in page]
        assert not missing, f"docs/reference/states.md lacks {missing} of {lifecycle.name}"


def test_states_that_pages_quote_are_labels() -> None:
    """A word in italics that names a state of a run must be spelt as its label."""
    labels = {label for lifecycle in LIFECYCLES.values() for label in lifecycle.labels.values()}
    quoted = set(
        re.findall(
            r"step to \*([A-Z][a-z ]+)\*|leaves \*([A-Z][a-z ]+)\*", prose(DOCS / "reference/manifest.md")
        )
    )
    words = {word for pair in quoted for word in pair if word}
    assert words and words <= labels


# --- Commands ---


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_make_targets_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    commands = re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z][a-z-]*)", text)
    commands += re.findall(r"^(?:[A-Z_]+=\S+ )*make ([a-z][a-z-]*)", text, re.MULTILINE)
    assert set(commands) <= targets(), f"{name_of(document)}: {set(commands) - targets()}"


def test_the_readme_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text and "make test" in text


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_strongroom_commands_exist(document: Path) -> None:
    """Every `strongroom X Y` at the start of a line or of a code span is a command, with the options that it has."""
    import click

    from strongroom.cli import cli

    text = document.read_text(encoding="utf-8")
    found = re.findall(r"`strongroom ((?:[^`\n])+)`", text)
    found += re.findall(r"^strongroom (.+)$", text, re.MULTILINE)
    for line in found:
        words = line.split("#")[0].split()
        command: click.Command = cli
        while isinstance(command, click.Group) and words:
            name = words.pop(0)
            if name.startswith("-"):
                break
            assert name in command.commands, f"{name_of(document)}: there is no `strongroom {line}`"
            command = command.commands[name]
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {
            "--help",
            "-h",
            "--version",
        }
        used = {w.split("=")[0] for w in words if w.startswith("--")}
        assert used <= options, f"{name_of(document)}: `strongroom {line}` has no {used - options}"


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_files_that_pages_name_exist(document: Path) -> None:
    """A path of the repository in a code span, as `apps/jobs/gate.py`, is there."""
    named = re.findall(
        r"`((?:apps|portal|workers|infra|frontend|requirements|sdk|docs)/[\w./*-]+)`", prose(document)
    )
    missing = [n for n in named if not (list(ROOT.glob(n.rstrip("/"))) if "*" in n else (ROOT / n).exists())]
    assert not missing, f"{name_of(document)} names {missing}"


def test_environment_variables_are_those_of_the_code() -> None:
    """The settings page names every STRONGROOM_ variable that portal and package read."""
    read = set()
    for folder in ("portal", "apps", "infra", "sdk/src"):
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            read |= set(re.findall(r"(?:environ(?:\.get\(|\[)|envvar=)\s*\"(STRONGROOM_[A-Z_]+)\"", text))
    named = set(re.findall(r"STRONGROOM_[A-Z_]+", (DOCS / "reference/settings.md").read_text("utf-8")))
    assert read <= named, f"not in docs/reference/settings.md: {read - named}"
