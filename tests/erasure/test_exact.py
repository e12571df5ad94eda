"""After the erasure of a patient, retraining gives the weights of a run that never had them."""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs import make_job
from small_project import KEY, new_project, place

from lapvqa import storage
from lapvqa.erasure.erase import erase, open_journal
from lapvqa.identity import Keyring
from lapvqa.machine import Machine
from lapvqa.params import ModelParams, PretrainParams
from lapvqa.pretrain import train
from lapvqa.project import Project
from lapvqa.recorder import Recorder
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


def test_the_weights_are_those_of_a_run_that_never_had_the_patient(
    read: Path, project: Project, tmp_path: Path
) -> None:
    with_the_patient = trained(project)
    patient = in_training(project)[1]
    there = place(project)
    receipt = erase(there, open_journal(there, f"p{patient}", "R1"), lambda _: None)
    assert receipt["absence"]["left"] == {}
    after = trained(project)

    never = tmp_path / "never"
    shutil.copytree(read / "archive", never, copy_function=shutil.copy2)
    shutil.rmtree(never / f"files/p10/p{patient}")
    without = trained(new_project(tmp_path / "other", never))
    assert after == without
    assert after["model_last.pt"] != with_the_patient["model_last.pt"]
