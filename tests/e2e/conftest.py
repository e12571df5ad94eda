"""A scratch project: the tracked files, a small demo archive, sizes that run in seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import canaries
import pytest
from once import built_once
from ruamel.yaml import YAML

from lapvqa.synth.archive import write_demo

BIN = Path(sys.executable).parent
HEAD = {"d_model": 16, "num_layers": 1, "nhead": 2}
SMALL = {
    "pretrain": {
        "model": {
            "image_size": 64, "patch_size": 16, "width": 32, "depth": 1, "heads": 2,
            "pooled_grid": 4, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2,
        },
        "epochs": 2, "batch_size": 8, "warmup_steps": 2, "checkpoint_every_steps": 3,
    },
    "evaluate": {
        "common": {"bootstrap_draws": 50},
        "vqa": {"head": HEAD, "recipe": {"epochs": 1}},
        "diffvqa": {"head": HEAD, "recipe": {"epochs": 1}, "max_new_tokens": 12},
        "rrg": {"head": HEAD, "recipe": {"epochs": 1}, "max_new_tokens": 12},
        "ad": {"recipe": {"epochs": 2}},
        "pg": {"recipe": {"epochs": 2}},
    },
    "report": {"examples": 2},
}  # fmt: skip


@dataclass(frozen=True)
class Scratch:
    """A scratch project and how to run commands in it."""

    root: Path
    output: str = ""
    """What its first run printed."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a person who activated the virtual environment."""
        return {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "PYTHONPATH": str(self.root),
        }

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command; its output is shown if it fails."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def lapvqa(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return self.run(str(BIN / "lapvqa"), *arguments, check=check)

    @property
    def lock(self) -> bytes:
        """dvc.lock: the digests of everything that was made."""
        return (self.root / "dvc.lock").read_bytes()


def change(path: Path, values: dict) -> None:
    """Merge ``values`` into a YAML file."""
    yaml = YAML()
    content = yaml.load(path.read_text())
    _merge(content, values)
    with path.open("w") as handle:
        yaml.dump(content, handle)


def _merge(target: dict, values: dict) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _merge(target[key], value)
        else:
            target[key] = value


@pytest.fixture(scope="session")
def template(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files as they are now, a small archive and the small sizes; built once.

    The code lies compiled beside its source, the kernels too, as after anybody's first run.
    """

    def build(root: Path) -> None:
        _copy_tracked(repository, root)
        write_demo(root / "demo", patients=30, studies=60, seed=3, workers=1)
        canaries.populate(root / "demo/mimic-cxr")
        change(root / "params.yaml", SMALL)
        change(root / "params.yaml", canaries.SETTINGS)
        project = Scratch(root)
        project.run(sys.executable, "-m", "compileall", "-q", "lapvqa", "tasks", "flows")
        project.run(sys.executable, "-c", "import lapvqa.dicom.render")

    return built_once(tmp_path_factory, "e2e-template", build)


def _copy_tracked(repository: Path, root: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        # dvc.lock of the checkout belongs to the checkout's own data.
        if name != "dvc.lock" and (repository / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, root / name)


@pytest.fixture(scope="session")
def new_project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Scratch]:
    """Return a maker of scratch projects, each a git repository of its own."""

    return lambda: _make(template, tmp_path_factory.mktemp("project") / "lapvqa")


@pytest.fixture(scope="session")
def finished(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """A project after ``lapvqa run`` from scratch; one for all, so its outputs stay as they are."""

    def build(folder: Path) -> None:
        done = _make(template, folder / "lapvqa").lapvqa("run")
        (folder / "output.txt").write_text(done.stdout + done.stderr)

    folder = built_once(tmp_path_factory, "e2e-finished", build)
    return Scratch(folder / "lapvqa", (folder / "output.txt").read_text())


def _make(template: Path, root: Path) -> Scratch:
    shutil.copytree(template, root, copy_function=shutil.copy2)
    project = Scratch(root)
    project.run("git", "init", "-q")
    project.run("git", "add", "-A")
    project.run(
        "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start"
    )  # fmt: skip
    return project
