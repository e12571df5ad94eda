"""An interrupted training goes on after an edit that cannot change it, and only then."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import make_job

from lapvqa import code
from lapvqa.machine import Machine
from lapvqa.params import PretrainParams
from lapvqa.pretrain import train
from lapvqa.project import Project
from lapvqa.recorder import Recorder

WITHOUT_EFFECT = (
    "export/export", "export/standalone", "networks/generation", "pretrain/allocations",
    "pretrain/memory", "pretrain/replay", "pretrain/samples", "text/bpe", "recorder",
)  # fmt: skip
WITH_EFFECT = (
    "images/report_pairs", "images/shards", "images/transforms", "networks/decoder",
    "networks/device", "networks/encoder", "networks/losses", "networks/text_encoder",
    "networks/vocabulary", "pretrain/checkpoint", "pretrain/distributed", "pretrain/inputs",
    "pretrain/guard", "pretrain/loader", "pretrain/objectives/coca", "pretrain/optimizer",
    "pretrain/train",
    "pretrain/trainer", "pretrain/worker",
)  # fmt: skip
INTERRUPTED_AT = 7


@pytest.fixture
def package(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, whose source is what digests are of."""
    folder = tmp_path / "copy" / "lapvqa"
    shutil.copytree(repository / "lapvqa", folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "_ROOT", folder.parent)
    forget()
    yield folder
    forget()


def forget() -> None:
    code.digest.cache_clear()
    code._parsed.cache_clear()


def edit(package: Path, name: str, before: str = "", after: str = "") -> None:
    """Replace ``before`` once; without it, add a statement at the end."""
    path = package / f"{name}.py"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1) if before else f"{text}\nEDITED = 1\n")
    forget()


def digest(params: PretrainParams, project: Project) -> str:
    return train.run_digest(params, train.read_corpus(project))


def test_the_stage_reaches_no_code_that_cannot_change_it() -> None:
    reached = code.closure("lapvqa.pretrain.train")
    assert {f"lapvqa.{name.replace('/', '.')}" for name in WITH_EFFECT} < reached
    unwanted = {f"lapvqa.{name.replace('/', '.')}" for name in WITHOUT_EFFECT}
    assert not reached & unwanted
    assert not [name for name in reached if name.startswith("lapvqa.export")]


def test_edits_without_effect_keep_the_digest(
    params: PretrainParams, project: Project, package: Path
) -> None:
    before = digest(params, project)
    for name in WITHOUT_EFFECT:
        edit(package, name)
    assert digest(params, project) == before


def test_words_about_the_trainer_keep_the_digest_and_its_statements_change_it(
    params: PretrainParams, project: Project, package: Path
) -> None:
    before = digest(params, project)
    edit(package, "pretrain/trainer", '"""The training loop', '"""The loop')
    edit(package, "pretrain/trainer", "    def take_step(", "    # one step\n    def take_step(")
    assert digest(params, project) == before
    edit(package, "pretrain/trainer", "self._progress.step += 1", "self._progress.step += 2")
    assert digest(params, project) != before


class Interrupted(Recorder):
    """A recorder at whose step the process is interrupted."""

    def metrics(self, values: dict[str, float], *, step: int) -> None:
        super().metrics(values, step=step)
        if step == INTERRUPTED_AT and "loss" in values:
            raise KeyboardInterrupt


def run(params: PretrainParams, project: Project, kind: type[Recorder] = Recorder) -> str:
    """Run the stage; return what it recorded."""
    recorder = kind(project.record("pretrain"), stage="pretrain")
    try:
        train.run(params, make_job(project, Machine(workers=1, device="cpu"), recorder))
    finally:
        recorder.close()
    return project.record("pretrain").read_text()


def test_an_interrupted_training_continues_after_an_edit_of_export_memory_and_replay(
    params: PretrainParams, project: Project, package: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(params, project, Interrupted)
    for name in WITHOUT_EFFECT:
        edit(package, name)
    assert "continuing at step 6 of 15" in run(params, project)  # a state every second step
    edit(package, "pretrain/trainer")
    assert "continuing" not in run(params, project)
