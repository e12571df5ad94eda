"""dvc.yaml's lists of code against the imports of each stage, both ways."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lapvqa import code
from lapvqa.project import Project
from lapvqa.stage import STAGES
from lapvqa.uptodate.stagefile import declared

ALWAYS_RUNS = "inventory"
"""Runs at each start, so no list of code has to make it stale."""


def entry(stage: str) -> str:
    """Return the module that a stage runs."""
    return STAGES[stage].module


def declared_modules(repository: Path, paths: list[str]) -> set[str]:
    """Return the modules below the paths of dvc.yaml; what decides nothing is none."""
    modules = set()
    for path in (repository / path for path in paths):
        for file in [path] if path.is_file() else path.rglob("*.py"):
            parts = file.relative_to(repository).with_suffix("").parts
            modules.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return {name for name in modules if not code.is_left_out(name)}


def code_paths(repository: Path) -> dict[str, list[str]]:
    """Return stage -> what dvc.yaml says of its code."""
    stages = declared(Project(repository))
    return {
        name: [dep for dep in stage.deps if dep.startswith("lapvqa/")]
        for name, stage in stages.items()
        if name != ALWAYS_RUNS
    }


def shared_paths(repository: Path) -> set[str]:
    """Return the lines that all evaluations have in common: those without a template."""
    group = YAML(typ="safe").load((repository / "dvc.yaml").read_text())["stages"]["evaluate"]
    return {dep for dep in group["do"]["deps"] if dep.startswith("lapvqa/") and "$" not in dep}


def faults(repository: Path) -> Iterator[str]:
    """Yield what dvc.yaml lacks, and what it names that nobody reaches.

    What evaluations share need be reached by one of them only; all else by its own stage.
    """
    paths, shared = code_paths(repository), shared_paths(repository)
    reached = {stage: code.closure(entry(stage)) for stage in paths}
    by_any_evaluation = frozenset[str]().union(
        *(modules for stage, modules in reached.items() if stage.startswith("evaluate@"))
    )
    for stage, listed in paths.items():
        own = [path for path in listed if path not in shared or not stage.startswith("evaluate@")]
        for module in sorted(reached[stage] - declared_modules(repository, listed)):
            yield f"{stage} reaches {module}, dvc.yaml does not name it"
        for module in sorted(declared_modules(repository, own) - reached[stage]):
            yield f"{stage} does not reach {module}, dvc.yaml names it"
    for module in sorted(declared_modules(repository, list(shared)) - by_any_evaluation):
        yield f"no evaluation reaches {module}, dvc.yaml names it"


def test_each_stage_declares_the_code_that_it_reaches(repository: Path) -> None:
    assert list(faults(repository)) == []


@pytest.fixture
def copy(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the library and the graph, read in place of the real ones."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(repository / name, tmp_path)
    shutil.copytree(
        repository / "lapvqa", tmp_path / "lapvqa", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(code, "_ROOT", tmp_path)
    code._parsed.cache_clear()
    yield tmp_path
    code._parsed.cache_clear()


def test_an_undeclared_import_is_noticed(copy: Path) -> None:
    file = copy / "lapvqa" / "text" / "tokens.py"
    file.write_text(f"{file.read_text()}\n\nfrom lapvqa.synth import archive as _archive\n")
    assert "tokens reaches lapvqa.synth.archive, dvc.yaml does not name it" in list(faults(copy))


@pytest.mark.parametrize(
    ("after", "stage"),
    [("      - lapvqa/text\n", "pretrain"), ("        - lapvqa/heads\n", "no evaluation")],
)
def test_a_declared_file_that_nobody_reaches_is_noticed(copy: Path, after: str, stage: str) -> None:
    graph = copy / "dvc.yaml"
    text = graph.read_text()
    assert after in text
    indent = after[: after.index("-")]
    graph.write_text(text.replace(after, f"{after}{indent}- lapvqa/synth/archive.py\n", 1))
    assert any("lapvqa.synth.archive, dvc.yaml names it" in fault for fault in faults(copy))
