"""After the erasure of a patient, retraining gives the weights of a run that never had them.

The round that the erasure asks for is real; its steps are this folder's stages, without DVC and
Prefect. By the commands alone: docs/erasure.md.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs import make_job
from ruamel.yaml import YAML
from small_project import KEY, new_project, place

from lapvqa import storage
from lapvqa.erasure.erase import erase, open_journal
from lapvqa.erasure.impact import trainings_since
from lapvqa.identity import Keyring
from lapvqa.lineage import ledger, recording
from lapvqa.lineage.runs import Run
from lapvqa.machine import Machine
from lapvqa.params import ModelParams, PretrainParams
from lapvqa.pretrain import train
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.retraining import rounds, wanted
from lapvqa.retraining.wanted import Round
from lapvqa.schemas import TOKENS

PARAMS = PretrainParams(
    model=ModelParams(
        image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2,
        decoder_width=32, decoder_depth=1, decoder_heads=2,
    ),
    epochs=2, batch_size=4, lr=3e-3, warmup_steps=2, checkpoint_every_steps=2,
)  # fmt: skip
FILES = ("model_best.pt", "model_last.pt", "training.json", "history.csv", "members.parquet")


def trained(project: Project) -> dict[str, str]:
    """Pretrain; return the digest of each file of the model."""
    recorder = Recorder(project.record("pretrain"), stage="pretrain", quiet=True)
    project.work_dir("pretrain").mkdir(parents=True, exist_ok=True)
    try:
        train.run(PARAMS, make_job(project, Machine(workers=1, device="cpu"), recorder))
    finally:
        recorder.close()
    folder = project.model_dir("captioning")
    return {name: storage.sha256_file(folder / name) for name in FILES}


def in_training(project: Project) -> list[str]:
    """The raw ids of the patients of the train split."""
    table = storage.read_table(project.tokens_dir, TOKENS, made_by="tokens").to_pylist()
    keys = {row["patient_key"] for row in table if row["split"] == "train"}
    ids = [str(10_000_000 + number) for number in range(8)]
    return [one for one in ids if Keyring(KEY.encode()).patient(one) in keys]


def told(project: Project) -> str:
    """Enter the training in the ledger, as the pipeline does; return the run's id."""
    outs = "".join(
        f"    - {{path: models/captioning/{name}, md5: {number:032x}}}\n"
        for number, name in enumerate(FILES)
    )
    project.dvc_lock.write_text(
        f"schema: '2.0'\nstages:\n  pretrain:\n    cmd: x\n    outs:\n{outs}"
    )
    run = Run("pretrain", time.time(), 2.0)
    return recording.record(project, run, recording.Commit(None, None))


@dataclass
class Work:
    """The round's steps; nothing but a training is expected."""

    project: Project
    made: dict[str, str] = field(default_factory=dict)

    def look_for_drift(self) -> None:
        raise AssertionError("nothing has arrived")

    def count_new(self) -> int:
        raise AssertionError("an erasure asks for no new studies")

    def judge_champion(self) -> tuple[str, None]:
        raise AssertionError("an erasure asks for no evaluation")

    def train(self, at_work: Round) -> dict[str, Any]:
        assert (at_work.way, at_work.start) == ("scratch", None)
        self.made = trained(self.project)
        return {"run": told(self.project)}

    def gate(self) -> dict[str, Any]:
        return {"outcome": "promote"}


def retrained(project: Project) -> dict[str, str]:
    """Let the round that is wanted be taken, after a rest; return what it has made."""
    work = Work(project)
    later = datetime.now(UTC) + timedelta(hours=13)
    (cause,) = wanted.load(project).causes
    assert (cause.cause, cause.facts) == (wanted.ERASURE, {"request": "R1"})
    assert rounds.take_turn(project, work, lambda: later, lambda _: None).outcome == "trained"
    assert not project.wanted.exists()
    return work.made


def test_the_weights_are_those_of_a_run_that_never_had_the_patient(
    read: Path, project: Project, tmp_path: Path
) -> None:
    params = YAML(typ="safe").load(project.params)
    with project.params.open("w") as file:
        YAML(typ="safe").dump({**params, "retraining": {"start": "champion"}}, file)
    with_the_patient = trained(project)
    before = told(project)
    patient = in_training(project)[1]
    there = place(project)
    receipt = erase(there, open_journal(there, f"p{patient}", "R1"), lambda _: None)
    assert receipt["absence"]["left"] == {}
    (training,) = [one.time for one in ledger.entries(project) if one.kind == ledger.TRAINED_ON]
    # Told apart though both may lie in one second, and the receipt tells what came after it.
    assert training < datetime.fromisoformat(receipt["written"]).timestamp()
    assert receipt["decision"]["runs"] == [before]
    after = retrained(project)
    assert [one["has_the_patient"] for one in trainings_since(project, receipt)] == [False]

    never = tmp_path / "never"
    shutil.copytree(read / "archive", never, copy_function=shutil.copy2)
    shutil.rmtree(never / f"files/p10/p{patient}")
    without = trained(new_project(tmp_path / "other", never))
    assert after == without
    assert after["model_last.pt"] != with_the_patient["model_last.pt"]
