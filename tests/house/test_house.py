"""The rules of the house, checked by tools: style, types, direction of imports, what is in git."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lapvqa.errors import MissingPackageError
from lapvqa.extras import EXTRAS, optional
from lapvqa.params import Params, load_params, read_yaml, validate
from lapvqa.stage import STAGES

BIN = Path(sys.executable).parent


def _check(repository: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_ruff_finds_nothing(repository: Path) -> None:
    _check(repository, str(BIN / "ruff"), "check", ".")


def test_ruff_would_format_nothing(repository: Path) -> None:
    _check(repository, str(BIN / "ruff"), "format", "--check", ".")


def test_types_are_strict(repository: Path) -> None:
    _check(repository, str(BIN / "mypy"))


def test_imports_point_one_way(repository: Path) -> None:
    _check(repository, str(BIN / "lint-imports"))


def test_every_stage_of_the_graph_has_its_function_and_the_other_way_round(
    repository: Path,
) -> None:
    graph = YAML(typ="safe").load((repository / "dvc.yaml").read_text())["stages"]
    names = set()
    for name, stage in graph.items():
        names |= {f"{name}@{key}" for key in stage["foreach"]} if "foreach" in stage else {name}
    assert names == set(STAGES)


def test_every_dependency_on_code_exists(repository: Path) -> None:
    graph = YAML(typ="safe").load((repository / "dvc.yaml").read_text())["stages"]
    for name, stage in graph.items():
        for key, item in stage.get("foreach", {"": {}}).items():
            for dep in stage.get("do", stage).get("deps", []):
                path = dep.replace("${key}", key)
                for field, value in item.items():
                    path = path.replace(f"${{item.{field}}}", value)
                if path.startswith("lapvqa/"):
                    assert (repository / path).exists(), f"{name}: {path}"


def test_shipped_parameter_files_fit_together(repository: Path) -> None:
    load_params(repository / "params.yaml")
    for extra in sorted((repository / "params").glob("*.yaml")):
        merged = _merge(read_yaml(repository / "params.yaml"), read_yaml(extra))
        validate(Params, merged, extra.name)


def test_each_extra_has_its_target_its_lock_and_its_line_in_the_readme(repository: Path) -> None:
    makefile, readme = (repository / name for name in ("Makefile", "README.md"))
    told = set(re.findall(r"`make setup-([a-z]+)`", readme.read_text()))
    assert told == set(EXTRAS)
    targets = re.findall(r"(?m)^setup-([a-z]+): ##", makefile.read_text())
    assert set(targets) == set(EXTRAS)
    for name in EXTRAS:
        assert (repository / "requirements" / f"lock-{name}.txt").is_file(), name


def test_a_package_that_is_not_there_names_the_target_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match="`x` needs the package timm: ") as caught:
        optional("timm", needed_for="`x`", instead="leave it")
    assert caught.value.hint == "`make setup-encoders` installs it; or leave it"
    with pytest.raises(MissingPackageError, match="no_such_package_of_ours"):
        optional("no_such_package_of_ours.inner", needed_for="`x`")


def _merge(base: dict, extra: dict) -> dict:
    return {
        **base,
        **{
            key: _merge(base[key], value) if isinstance(value, dict) else value
            for key, value in extra.items()
        },
    }


def _tracked(repository: Path) -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True
    )
    return [repository / name for name in done.stdout.decode().split("\0") if name]


def test_nothing_large_is_in_git(repository: Path) -> None:
    large = [p.name for p in _tracked(repository) if p.exists() and p.stat().st_size > 2_000_000]
    assert not large


@pytest.mark.parametrize(
    "pattern",
    [r"(?<!\.lapvqa)/(root|work|home)/[a-z]", r"(?i)pypi\.org|files\.pythonhosted|registry\.npmjs"],
)
def test_no_machine_paths_and_no_registries(repository: Path, pattern: str) -> None:
    found = []
    for path in _tracked(repository):
        if path.suffix in {".png", ".gz", ".dcm"} or path == Path(__file__) or not path.exists():
            continue
        if re.search(pattern, path.read_text(encoding="utf-8", errors="replace")):
            found.append(str(path.relative_to(repository)))
    assert not found


def test_lock_pins_what_breaks_silently(repository: Path) -> None:
    lock = (repository / "requirements" / "lock.txt").read_text().lower()
    pins = dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)$", lock, flags=re.MULTILINE))
    assert pins["torch"] == "2.13.0"
    assert tuple(map(int, pins["fastapi"].split(".")[:2])) < (0, 151)
    assert tuple(map(int, pins["sqlalchemy"].split(".")[:2])) < (2, 1)
    assert not [name for name in pins if name.startswith("nvidia") or name == "torchvision"]


def test_no_two_test_files_have_one_name(repository: Path) -> None:
    """Pytest would read the first for both: folders of tests are no packages."""
    names = [path.name for path in (repository / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
