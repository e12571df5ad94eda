"""The toy project of tests/lineage, and the command line as a user calls it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "lineage"))  # one toy project for both folders
sys.path.insert(
    0, str(Path(__file__).parents[1] / "encoders")
)  # and tiny models of other libraries
import toy_project
from cli_answer import Answer, Lapvqa

from flows.cli import main
from lapvqa.project import Project
from lapvqa.uptodate import manifest


@pytest.fixture
def toy(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """A private copy of the toy project as a finished run left it; the working folder."""
    root = tmp_path / "project"
    shutil.copytree(toy_project.made(tmp_path_factory), root)
    monkeypatch.chdir(root)
    manifest.remember(Project(root))
    return Project(root)


@pytest.fixture
def lapvqa(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lapvqa:
    """Run a command in this process, as if its output went to a file."""
    # pytest-xdist's workers have COLUMNS=80, which would be taken for a narrow terminal.
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*arguments: str) -> Answer:
        capsys.readouterr()
        code = main(list(arguments))
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return call


@pytest.fixture
def process() -> Callable[..., Answer]:
    """Run a command in a process of its own, as the installed program."""

    def call(*arguments: str, cwd: Path, timeout: float = 280) -> Answer:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        done = subprocess.run(
            [sys.executable, "-P", "-m", "flows.cli", *arguments],
            cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        return Answer(done.returncode, done.stdout, done.stderr)

    return call
