"""The documentation says what is there: generated pages are fresh, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from flows.cli import app
from lapvqa.stage import STAGES


def _pages(repository: Path) -> list[Path]:
    found = [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]
    return [*found, *(repository / "docker").glob("*.md")]


def test_generated_pages_are_what_the_code_says(repository: Path) -> None:
    spec = importlib.util.spec_from_file_location("made", repository / "docs/make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, make in module.PAGES.items():
        assert make() == (repository / "docs" / name).read_text(), f"{name}: run: make docs"
    parameters = module.parameters_page()
    for key in ("ingest.limits.memory_mb", "pretrain.lr", "gate.budget.total", "paths.source"):
        assert f"| `{key}` |" in parameters
    assert "| `pretrain.lr` | number, > 0, <= 1 | `1.0e-3` |" in parameters


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="no mkdocs here")
def test_the_site_has_no_broken_link_and_asks_no_network(repository: Path, tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "--site-dir", tmp_path / "site"],
        cwd=repository, capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 60
    fetched = re.compile(r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?:[^\" >]+)")
    assert {link for page in pages for link in fetched.findall(page.read_text())} == set()
    assert "lowest validation" in (tmp_path / "site/search/search_index.json").read_text()


def test_links_between_pages_lead_somewhere(repository: Path) -> None:
    broken = []
    for page in _pages(repository):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if not target.startswith(("http:", "https:")):
                found = (page.parent / target).exists()
                broken += [] if found else [f"{page.relative_to(repository)}: {target}"]
    assert not broken


def test_files_named_in_the_text_exist(repository: Path) -> None:
    """Paths of the repository in backticks; what the pipeline writes is not checked here."""
    missing = []
    for page in _pages(repository):
        if page.name in ("artifacts.md", "cli.md"):
            continue
        named = re.findall(r"`((?:lapvqa|tasks|flows|tests|docs|docker|requirements)/[^`\s]*)`",
                           page.read_text())  # fmt: skip
        for path in named:
            pattern = path.rstrip("/")
            if not list(repository.glob(pattern)):
                missing.append(f"{page.relative_to(repository)}: {path}")
    assert not missing


def test_commands_and_stages_named_in_the_text_exist(repository: Path) -> None:
    commands = {
        command.name or command.callback.__name__.replace("_", "-")
        for command in app.registered_commands
    }
    commands |= {group.name for group in app.registered_groups}
    unknown = []
    for page in _pages(repository):
        text = page.read_text()
        named = re.findall(r"(?:`|^ {4})lapvqa ([a-z][a-z-]*)", text, flags=re.MULTILINE)
        unknown += [f"{page.name}: lapvqa {name}" for name in named if name not in commands]
        stages = re.findall(r"\bevaluate@\w+", text)
        unknown += [f"{page.name}: {name}" for name in stages if name not in STAGES]
    assert not unknown


def test_pictures_are_small_and_ask_no_network(repository: Path) -> None:
    pictures = list((repository / "docs/img").iterdir())
    assert {
        path.name: path.stat().st_size for path in pictures if path.stat().st_size > 150e3
    } == {}
    drawn = [path for path in pictures if path.suffix == ".svg"]
    asking = re.compile(r"@import|@font-face|(?:href|src)=.?https?:|url\(.?https?:")
    assert [path.name for path in drawn if asking.search(path.read_text())] == []
    assert len(drawn) > 1


def test_options_named_in_the_text_exist(repository: Path) -> None:
    """Of commands in blocks and in backticks."""
    shown = re.compile(r"(?:`|^ {4}(?:\$ )?)lapvqa ([a-z][^`\n#|;]*)", re.MULTILINE)
    unknown, seen, program = [], 0, get_command(app)
    for page in _pages(repository):
        for told in shown.findall(page.read_text()):
            words, command = told.split(), program
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            # `lineage TARGET` is one of its own commands, and does not say so.
            meant = [command, *getattr(command, "commands", {}).values()]
            given = [option for one in meant for option in one.params]
            known = {name for option in given for name in (*option.opts, *option.secondary_opts)}
            options = {word.split("=")[0].strip(",.)") for word in words if word[:2] == "--"}
            unknown += [f"{page.name}: {told}" for _ in options - known - {"--help"}]
            seen += len(options)
    assert unknown == []
    assert seen > 100


def test_every_direct_dependency_has_its_reason(repository: Path) -> None:
    page = (repository / "docs" / "decisions" / "0006-dependencies.md").read_text()
    rows = {
        name.strip()
        for row in re.findall(r"^\| ([^|]+) \|", page, flags=re.MULTILINE)
        for name in row.split(",")
    }
    for file in ("runtime.in", "dev.in"):
        lines = (repository / "requirements" / file).read_text().splitlines()
        names = {re.split(r"[=<>]", line)[0] for line in lines if not line.startswith("#")}
        assert names - rows - {""} == set()


@pytest.mark.parametrize("page", ["README.md", "docs/README.md"])
def test_indexes_name_every_page(repository: Path, page: str) -> None:
    text = (repository / page).read_text()
    pages = [p.name for p in (repository / "docs").glob("*.md") if p.name != "README.md"]
    assert [name for name in pages if name not in text] == []


def test_decisions_are_listed(repository: Path) -> None:
    folder = repository / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    assert [p.name for p in folder.glob("0*.md") if p.name not in index] == []
