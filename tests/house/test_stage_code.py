"""dvc.yaml's lists of code against the imports of each stage, both ways."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lapvqa import code
from lapvqa.project import Project
from lapvqa.stage import code_modules
from lapvqa.uptodate.stagefile import declared

ALWAYS_RUNS = "inventory"
"""Runs at each start, so no list of code has to make it stale."""


def code_paths(repository: Path) -> dict[str, list[str]]:
    """Return stage -> what dvc.yaml says of its code."""
    return {
        name: [dep for dep in stage.deps if dep.startswith("lapvqa/")]
        for name, stage in declared(Project(repository)).items()
        if name != ALWAYS_RUNS
    }


def modules_below(repository: Path, path: str) -> set[str]:
    """Return the modules that a line of dvc.yaml covers, without those that decide nothing."""
    place = repository / path
    modules = set()
    for file in [place] if place.is_file() else place.rglob("*.py"):
        parts = file.relative_to(repository).with_suffix("").parts
        modules.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return {name for name in modules if code.source(name) and not code.is_left_out(name)}


def data_beside(repository: Path, module: str) -> list[str]:
    """Return what lies beside a module, is no code, and is named by one of its texts."""
    file = code.source(module)
    assert file is not None
    texts = texts_in(code._parsed(module))
    beside = (path for path in file.parent.iterdir() if path.name in texts)
    return [
        path.relative_to(repository).as_posix()
        for path in beside
        if path.suffix != ".py" and not (path / "__init__.py").exists()
    ]


@cache
def texts_in(tree: ast.Module) -> set[str]:
    """Return the texts that stand in a module."""
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


@cache
def parsed(source: bytes) -> ast.Module:
    """Parse a source once, in whichever copy it lies: most files of the copies are equal."""
    return ast.parse(source)


@pytest.fixture(autouse=True)
def _parsed_by_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_parsed", lambda name: parsed(code.source(name).read_bytes()))


def faults(repository: Path) -> Iterator[str]:
    """Yield what dvc.yaml lacks, and what it names that nobody reaches.

    DVC gives the evaluations one list with templates, so a line that several of them share need be
    reached by one of these; a line of a single stage by that stage.
    """
    paths = code_paths(repository)
    reached = {stage: code.closure(*code_modules(stage)) for stage in paths}
    for stage, lines in paths.items():
        covered = set[str]().union(*(modules_below(repository, line) for line in lines))
        for module in sorted(reached[stage] - covered):
            yield f"{stage} reaches {module}, dvc.yaml does not name it"
        for data in sorted(
            {d for module in reached[stage] for d in data_beside(repository, module)}
        ):
            if not any(data == line or data.startswith(f"{line}/") for line in lines):
                yield f"{stage} reads {data}, dvc.yaml does not name it"
        for line in lines:
            sharing = [
                other for other in paths
                if line in paths[other]
                and other.startswith("evaluate@") and stage.startswith("evaluate@")
            ] or [stage]  # fmt: skip
            by_some = frozenset[str]().union(*(reached[other] for other in sharing))
            for module in sorted(modules_below(repository, line) - by_some):
                yield f"{stage} does not reach {module}, dvc.yaml names it"


def test_each_stage_declares_the_code_that_it_reaches(repository: Path) -> None:
    assert list(faults(repository)) == []


@pytest.fixture
def copy(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the library and the graph, read in place of the real ones."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(repository / name, tmp_path)
    shutil.copytree(
        repository / "lapvqa", tmp_path / "lapvqa", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(code, "_ROOT", tmp_path)
    return tmp_path


def test_an_undeclared_import_is_noticed(copy: Path) -> None:
    file = copy / "lapvqa" / "text" / "tokens.py"
    file.write_text(f"{file.read_text()}\n\nfrom lapvqa.synth import archive as _archive\n")
    assert "tokens reaches lapvqa.synth.archive, dvc.yaml does not name it" in list(faults(copy))


@pytest.mark.parametrize("line", ["lapvqa/text/tokens.py", "lapvqa/report/templates"])
def test_a_line_that_is_missing_is_noticed(copy: Path, line: str) -> None:
    graph = copy / "dvc.yaml"
    graph.write_text(graph.read_text().replace(f"      - {line}\n", "", 1))
    assert any("dvc.yaml does not name it" in fault for fault in faults(copy))


@pytest.mark.parametrize(
    "after",
    [
        "      - lapvqa/text/tokens.py\n",
        "        - ${item.metrics}\n",
    ],
)
def test_a_declared_file_that_nobody_reaches_is_noticed(copy: Path, after: str) -> None:
    graph = copy / "dvc.yaml"
    text = graph.read_text()
    assert after in text
    indent = after[: after.index("-")]
    graph.write_text(text.replace(after, f"{after}{indent}- lapvqa/synth/archive.py\n", 1))
    assert any("lapvqa.synth.archive, dvc.yaml names it" in fault for fault in faults(copy))
