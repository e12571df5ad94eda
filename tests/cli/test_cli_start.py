"""The command line answers at once: nothing heavy is loaded before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from lapvqa import __version__
from lapvqa.project import Project

HEAVY = ["torch", "prefect", "mlflow", "dvc", "pyarrow", "pandas", "numpy", "pydicom", "cv2"]
CLONE = Path(__file__).parents[2]
COMMANDS = [
    "run", "plan", "status", "doctor", "demo", "schedule", "retrain", "lineage", "evaluate", "sync",
]  # fmt: skip


def loaded_by(arguments: list[str], cwd: Path, code: int = 0) -> list[str]:
    """Return the heavy modules that a command leaves in memory; its exit code must be ``code``."""
    script = (
        "import sys\n"
        "from flows.cli import main\n"
        f"assert main({arguments!r}) == {code}\n"
        f"sys.stderr.write(','.join(sorted(set({HEAVY!r}) & set(sys.modules))))"
    )
    # -P: the toy's folder lapvqa/ must not stand in for the package.
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [name for name in done.stderr.rpartition("\n")[2].split(",") if name]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], ["run", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert loaded_by(arguments, tmp_path) == []


def test_a_film_that_is_not_there_is_told_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    for folder, command in ((tmp_path, "embed"), (tmp_path, "caption"), (CLONE, "inspect")):
        assert loaded_by([command, "/absent/film.dcm"], folder, code=2) == []


def test_a_run_with_nothing_to_do_loads_nothing_heavy(toy: Project) -> None:
    assert loaded_by(["run"], toy.root) == []
    assert loaded_by(["plan"], toy.root) == []


def test_the_check_above_can_fail(toy: Project) -> None:
    toy.uptodate.unlink()  # without it the inventories have to be read
    assert "pyarrow" in loaded_by(["run"], toy.root)


@pytest.mark.parametrize("begin", ["lapvqa.stage import main; main([])",
                                   "flows.cli import main; main(['--version'])"])  # fmt: skip
def test_numpy_computes_on_one_thread_whatever_the_machine_has(begin: str, tmp_path: Path) -> None:
    """Its products round by the number of threads that share them."""
    look = "import numpy, sys, threadpoolctl as t"
    found = "max(one['num_threads'] for one in t.threadpool_info())"
    code = f"from {begin}\n{look}\nsys.exit({found})"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 1, done.stderr


def test_help_names_every_command_and_the_exit_codes() -> None:
    answer = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert answer.exit_code == 0
    for name in [*COMMANDS, "Exit codes", "130 interrupted", "70 a fault of LAPVQA"]:
        assert name in answer.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    answer = CliRunner().invoke(app, [command, "--help"])
    assert answer.exit_code == 0
    assert f"lapvqa {command}" in answer.output or command in answer.output


def test_version() -> None:
    answer = CliRunner().invoke(app, ["--version"])
    assert (answer.exit_code, answer.output) == (0, f"lapvqa {__version__}\n")
