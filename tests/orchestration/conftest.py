"""Toy projects for the tests of this folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from once import built_once
from others_at_work import kill_all
from running_toy import IGNORED, TOY, Finished, Toy


@pytest.fixture(scope="session")
def new_toy(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Toy]]:
    """Return a maker of toy projects; what still runs in them at the end is ended."""
    made: list[Toy] = []

    def make() -> Toy:
        toy = Toy(tmp_path_factory.mktemp("toy").resolve())
        shutil.copy(TOY / "dvc.yaml", toy.root)
        shutil.copy(TOY / "toy.py", toy.root)
        shutil.copy(repository / "params.yaml", toy.root)
        (toy.root / ".gitignore").write_text(IGNORED)
        (toy.root / "input").mkdir()
        (toy.root / "input" / "first.dcm").write_text("pixels")
        toy.command("git", "init", "-q")
        toy.command("dvc", "init", "-q")
        toy.command("git", "add", "-A")
        toy.command("git", "-c", "user.name=t", "-c", "user.email=t@example.org",
                    "commit", "-qm", "start")  # fmt: skip
        made.append(toy)
        return toy

    yield make
    for toy in made:
        kill_all(toy.processes())


@pytest.fixture(scope="session")
def finished(
    new_toy: Callable[[], Toy], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Toy, Finished]:
    """A toy after one whole run from nothing."""

    def build(folder: Path) -> None:
        toy = new_toy()
        run = toy.run()
        (folder / "run.json").write_text(json.dumps([str(toy.root), asdict(run)]))

    once = built_once(tmp_path_factory, "finished-toy", build)
    root, run = json.loads((once / "run.json").read_text())
    return Toy(Path(root)), Finished(**run)


@pytest.fixture
def copied(finished: tuple[Toy, Finished], tmp_path: Path) -> Iterator[Toy]:
    """A copy of the finished toy, to be maltreated."""
    root = tmp_path.resolve() / "toy"
    shutil.copytree(finished[0].root, root, symlinks=True)
    toy = Toy(root)
    yield toy
    kill_all(toy.processes())
