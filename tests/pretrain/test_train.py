"""The stage: it learns, it continues exactly after any death, and it says what it cannot do."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from conftest import image_row, token_row, write_project, write_tables
from jobs import make_job

from lapvqa import storage
from lapvqa.errors import ConfigError, SourceError, TrainingError
from lapvqa.images.shards import add_shard
from lapvqa.machine import Machine
from lapvqa.networks.device import choose_device
from lapvqa.params import PretrainParams
from lapvqa.pretrain import train
from lapvqa.pretrain.checkpoint import Checkpoints
from lapvqa.pretrain.inputs import Prepared
from lapvqa.pretrain.trainer import Trainer
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.schemas import MEMBERS

OUTPUTS = ("model_best.pt", "model_last.pt", "history.csv", "training.json", "members.parquet")
MACHINE = Machine(workers=1, device="cpu")


def run(params: PretrainParams, project: Project) -> train.Counts:
    recorder = Recorder(project.record("pretrain"), stage="pretrain")
    try:
        return train.run(params, make_job(project, MACHINE, recorder))
    finally:
        recorder.close()


def digests(project: Project, objective: str = "captioning") -> dict[str, str]:
    return {name: storage.sha256_file(project.model_dir(objective) / name) for name in OUTPUTS}


def history(project: Project) -> list[dict[str, str]]:
    lines = (project.model_dir("captioning") / "history.csv").read_text().splitlines()
    columns = lines[0].split(",")
    return [dict(zip(columns, line.split(","), strict=True)) for line in lines[1:]]


def test_learns_where_the_square_is(params: PretrainParams, project: Project) -> None:
    params = params.model_copy(update={"epochs": 80, "augment": False})
    counts = run(params, project)
    rows = history(project)
    assert list(rows[0]) == ["step", "loss", "val_loss", "lr", "epoch", "skipped", "chain"]
    assert len(rows) == counts["steps"] == 80 * 5
    assert float(rows[0]["loss"]) == pytest.approx(np.log(50257), abs=0.5)
    validated = [float(row["val_loss"]) for row in rows if row["val_loss"]]
    # Not looking at the image costs 1.39 nats per report of about 5.5 tokens: 0.25 per token.
    assert float(rows[-1]["loss"]) < 0.1
    assert min(validated) < 0.1
    assert len(validated) == 80
    assert counts["best_val_loss"] == pytest.approx(min(validated), abs=1e-6)
    assert int(counts["best_step"]) % 5 == 0


@pytest.mark.parametrize("sided", [True, False])
def test_flip_mirrors_what_names_no_side_and_nothing_else(
    params: PretrainParams, tmp_path: Path, sided: bool
) -> None:
    """With every report sided, flip changes no number; else it changes the training."""
    losses = []
    for flip in (False, True):
        project = write_project(tmp_path / str(flip), sided=sided)
        run(params.model_copy(update={"flip": flip, "augment": False}), project)
        losses.append([row["loss"] for row in history(project)])
    assert (losses[0] == losses[1]) == sided
    assert losses[0][-1] != losses[0][0]


def test_writes_the_weights_of_the_lowest_validation_loss(
    params: PretrainParams, project: Project
) -> None:
    counts = run(params, project)
    folder = project.model_dir("captioning")
    weights = torch.load(folder / "model_best.pt", weights_only=True)
    assert weights["decoder.token_embed.weight"].shape == (50257, 32)
    training = storage.read_json(folder / "training.json", made_by="pretrain")
    assert training["train_pairs"] == counts["train_pairs"] == 20
    assert training["validate_pairs"] == 6
    assert training["best_val_loss"] == counts["best_val_loss"]
    assert training["params"]["model"]["width"] == 32
    assert len(training["data_digest"]) == 64
    members = storage.read_table(folder / "members.parquet", MEMBERS, made_by="pretrain")
    rows = {role: members.filter(pc.field("role") == role) for role in ("train", "validate")}
    drawn = counts["steps"] * params.batch_size
    assert sum(rows["train"]["times"].to_pylist()) == drawn
    assert sum(rows["train"]["times_best"].to_pylist()) == counts["best_step"] * params.batch_size
    assert set(rows["validate"]["times"].to_pylist()) == {0}
    assert (len(rows["train"]), len(rows["validate"])) == (20, 6)


def test_twice_gives_the_same_bytes_and_the_second_is_done_at_once(
    params: PretrainParams, tmp_path: Path
) -> None:
    first, second = write_project(tmp_path / "a"), write_project(tmp_path / "b")
    run(params, first)
    run(params, second)
    assert digests(first) == digests(second)
    made = digests(first)
    for name in OUTPUTS:
        (first.model_dir("captioning") / name).unlink()
    run(params, first)
    assert digests(first) == made
    text = first.record("pretrain").read_text()
    assert "continuing at step 15 of 15" in text
    records = [json.loads(line) for line in text.splitlines()]
    (begun,) = (record["t"] for record in records if record["kind"] == "start")
    taken = [record["t"] for record in records if record["kind"] == "metrics"]
    assert taken  # the first run's, kept as the beginning of the story
    assert max(taken) < begun  # not one step was taken since


def test_another_seed_gives_other_bytes(params: PretrainParams, tmp_path: Path) -> None:
    first, second = write_project(tmp_path / "a"), write_project(tmp_path / "b")
    run(params, first)
    run(params.model_copy(update={"seed": 1}), second)
    assert digests(first)["model_best.pt"] != digests(second)["model_best.pt"]


class DiesAt(Recorder):
    """A recorder whose process dies, as far as training can tell, at a step."""

    step = 7

    def metrics(self, values: dict[str, float], *, step: int) -> None:
        super().metrics(values, step=step)
        if step == self.step and "loss" in values:
            raise KeyboardInterrupt


@pytest.mark.parametrize("objective", ["captioning", "sigmoid", "coca"])
def test_damage_to_the_newest_state_changes_no_byte(
    params: PretrainParams, tmp_path: Path, objective: str
) -> None:
    params = params.model_copy(update={"objective": objective})
    straight, damaged = write_project(tmp_path / "a"), write_project(tmp_path / "b")
    run(params, straight)
    recorder = DiesAt(damaged.record("pretrain"), stage="pretrain")
    with pytest.raises(KeyboardInterrupt):
        train.run(params, make_job(damaged, MACHINE, recorder))
    recorder.close()
    states = sorted(damaged.work_dir("pretrain").glob("*/state-*.pt"))
    assert [path.name for path in states] == ["state-000000005.pt", "state-000000006.pt"]
    states[-1].write_bytes(states[-1].read_bytes()[:-1])
    run(params, damaged)
    assert "continuing at step 5 of 15" in damaged.record("pretrain").read_text()
    assert digests(damaged, objective) == digests(straight, objective)


@pytest.mark.parametrize("objective", ["contrastive", "sigmoid", "coca"])
def test_pairs_learn_which_report_belongs_to_which_image(
    params: PretrainParams, project: Project, objective: str
) -> None:
    """Four corners, four reports: the right one comes first, and equal reports count as one."""
    params = params.model_copy(update={"objective": objective, "epochs": 40, "augment": False})
    run(params, project)
    last = [
        json.loads(line)["values"]
        for line in project.record("pretrain").read_text().splitlines()
        if "val_image_to_report_recall_at_1" in line
    ][-1]
    assert last["val_image_to_report_recall_at_1"] == 1.0
    assert last["val_report_to_image_recall_at_1"] == 1.0


def test_weights_of_epochs_are_kept_as_asked(params: PretrainParams, project: Project) -> None:
    counts = run(params.model_copy(update={"save_every_epochs": 2, "epochs": 4}), project)
    folder = project.model_dir("captioning") / "epochs"
    assert [path.name for path in sorted(folder.iterdir())] == [
        "model_epoch002.pt", "model_epoch004.pt",
    ]  # fmt: skip
    last = torch.load(folder / "model_epoch004.pt", weights_only=True)
    best = torch.load(project.model_dir("captioning") / "model_best.pt", weights_only=True)
    assert list(last) == list(best)
    assert last["decoder.token_embed.weight"].shape == (50257, 32)
    if counts["best_step"] == counts["steps"]:
        assert all(torch.equal(last[name], best[name]) for name in best)


def test_reports_are_written_after_each_epoch(params: PretrainParams, project: Project) -> None:
    run(params.model_copy(update={"samples": 2}), project)
    (path,) = project.work_dir("pretrain").glob("*/samples.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15]
    assert [set(one) for one in lines[0]["samples"]] == [{"generated", "report"}] * 2
    assert "samples" not in project.record("pretrain").read_text()


@pytest.mark.parametrize(
    ("objective", "accumulate"), [("captioning", 2), ("contrastive", 4), ("coca", 2)]
)
def test_pieces_of_a_step_give_what_the_step_gives(
    params: PretrainParams, tmp_path: Path, objective: str, accumulate: int
) -> None:
    losses = []
    for pieces in (1, accumulate):
        project = write_project(tmp_path / str(pieces))
        changed = params.model_copy(update={"objective": objective, "accumulate": pieces})
        trainer = Trainer(changed, train.read_corpus(project), torch.device("cpu"))
        recorder = Recorder(project.record("pretrain"), stage="pretrain")
        with Checkpoints(project.work_dir("pretrain")) as checkpoints:
            trainer.train(checkpoints, recorder)
        recorder.close()
        losses.append([one.loss for one in trainer.progress.history])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("objective", ["captioning", "contrastive"])
def test_recomputed_activations_change_nothing(
    params: PretrainParams, tmp_path: Path, objective: str
) -> None:
    params = params.model_copy(update={"objective": objective})
    first, second = write_project(tmp_path / "a"), write_project(tmp_path / "b")
    run(params, first)
    run(params.model_copy(update={"checkpoint_activations": True}), second)
    model = "model_best.pt"
    assert digests(first, objective)[model] == digests(second, objective)[model]


def test_looking_at_half_of_the_patches_still_learns(
    params: PretrainParams, project: Project
) -> None:
    params = params.model_copy(update={"keep_patches": 0.5, "epochs": 120, "augment": False})
    counts = run(params, project)
    # Knowing the wording alone leaves 0.25 nats per token; see the test of learning above.
    assert float(counts["best_val_loss"]) < 0.2


@pytest.mark.slow
def test_compiled_blocks_give_the_same_losses(params: PretrainParams, project: Project) -> None:
    """One block of each kind, compiled for a step both ways: each further one costs as much."""
    sizes = params.model.model_copy(update={"depth": 1})
    losses = []
    for compiled in (False, True):
        changed = params.model_copy(update={"model": sizes, "compile": compiled})
        trainer = Trainer(changed, train.read_corpus(project), torch.device("cpu"))
        recorder = Recorder(project.record("pretrain"), stage="pretrain", quiet=True)
        for micro in trainer.steps(0, 3):
            trainer.take_step(micro, recorder)
        losses.append([one.loss for one in trainer.progress.history])
        recorder.close()
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][0] != losses[0][2]


CHILD = """
import sys
from pathlib import Path
from lapvqa.job import Job
from lapvqa.machine import Machine
from lapvqa.project import Project
from lapvqa.params import PretrainParams
from lapvqa.pretrain import train
from lapvqa.pretrain.checkpoint import Checkpoints
from lapvqa.pretrain.inputs import Prepared
from lapvqa.pretrain.trainer import Trainer
from lapvqa.recorder import Recorder

root, params = Path(sys.argv[1]), PretrainParams.model_validate_json(sys.argv[2])
project = Project(root)
recorder = Recorder(project.record("pretrain"), stage="pretrain")
machine = Machine(workers=1, device="cpu")
train.run(params, Job(project, machine, recorder, {}, params.objective, keep_ids=False))
"""


def start(params: PretrainParams, project: Project) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CHILD, str(project.root), params.model_dump_json()]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def states(project: Project) -> list[Path]:
    return sorted(project.work_dir("pretrain").glob("*/state-*.json"))


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    params: PretrainParams, tmp_path: Path
) -> None:
    params = params.model_copy(update={"epochs": 90, "checkpoint_every_steps": 3})
    straight, killed = write_project(tmp_path / "a"), write_project(tmp_path / "b")
    child = start(params, straight)
    assert child.wait(timeout=120) == 0, child.stderr.read()
    chance = random.Random(5)
    deaths = 0
    for _ in range(5):
        before = states(killed)
        child = start(params, killed)
        # Imports take seconds and training less: wait for its first new state, then a random time.
        while child.poll() is None and states(killed) == before:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.4))
        os.kill(child.pid, signal.SIGKILL)
        deaths += child.wait() == -signal.SIGKILL
    assert deaths >= 3, "training ended before it could be killed: this tested nothing"
    child = start(params, killed)
    assert child.wait(timeout=120) == 0, child.stderr.read()
    assert digests(killed) == digests(straight)


def test_without_a_validation_split_the_last_weights_count(
    params: PretrainParams, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    pixels = np.zeros((2, 384, 384), np.uint8)
    shard = add_shard(project.images_dir, ["i", "j"], pixels)
    images = [
        image_row("a", "i", "train", shard=shard),
        image_row("b", "j", "train", row=1, shard=shard),
    ]
    write_tables(project, images, [token_row("a", "train", [1]), token_row("b", "train", [2])])
    counts = run(params, project)
    assert counts["best_val_loss"] == "none"
    assert counts["best_step"] == counts["steps"] == 3
    path = project.model_dir("captioning") / "training.json"
    assert storage.read_json(path, made_by="pretrain")["best_val_loss"] is None


def test_nothing_to_train_on_is_said(params: PretrainParams, tmp_path: Path) -> None:
    project = Project(tmp_path)
    write_tables(
        project, [image_row("a", "i", "train", view="LATERAL")], [token_row("a", "train", [1])]
    )
    with pytest.raises(SourceError, match=r"found none \(1 reports there have no frontal image,"):
        run(params, project)


def test_reports_longer_than_the_decoder_are_said(params: PretrainParams, tmp_path: Path) -> None:
    project = Project(tmp_path)
    write_tables(project, [image_row("a", "i", "train")], [token_row("a", "train", [1] * 600)])
    with pytest.raises(ConfigError, match=r"512 positions, the longest report 602 tokens"):
        run(params, project)


def test_steps_of_no_use_change_nothing_and_stop_training_above_the_budget(
    params: PretrainParams, project: Project
) -> None:
    params = params.model_copy(update={"epochs": 60, "skip_budget": 2})
    trainer = Trainer(params, train.read_corpus(project), torch.device("cpu"))
    with torch.no_grad():
        trainer.model.decoder.norm.weight.fill_(float("nan"))
    before = trainer.weights()
    recorder = Recorder(project.record("pretrain"), stage="pretrain")
    with (
        Checkpoints(project.work_dir("pretrain")) as checkpoints,
        pytest.raises(TrainingError, match=r"3 steps.*step 3 of 300.*nan[\s\S]*lower pretrain.lr"),
    ):
        trainer.train(checkpoints, recorder)
    recorder.close()
    after = trainer.weights()
    assert all(torch.equal(after[name].nan_to_num(), before[name].nan_to_num()) for name in before)
    lines = project.record("pretrain").read_text()
    assert "step 1 skipped: the loss is nan (1 of 2 allowed)" in lines


class Spoilt(Trainer):
    """A trainer that meets one batch of ten times the usual loss."""

    at = 55

    def gradients(
        self, micro: Sequence[Prepared], step: int
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        loss, norm, num_targets = super().gradients(micro, step)
        return (loss * 10 if step == self.at else loss), norm, num_targets


def test_a_spike_of_the_loss_is_skipped_and_counted(
    params: PretrainParams, project: Project
) -> None:
    params = params.model_copy(update={"epochs": 14})
    trainer = Spoilt(params, train.read_corpus(project), torch.device("cpu"))
    recorder = Recorder(project.record("pretrain"), stage="pretrain")
    with Checkpoints(project.work_dir("pretrain")) as checkpoints:
        trainer.train(checkpoints, recorder)
    recorder.close()
    skipped = [one.step for one in trainer.progress.history if one.skipped]
    assert skipped == [56]


def test_several_processes_cannot_share_a_gpu() -> None:
    machine = Machine.model_validate({"device": "cuda:1", "training": {"processes": 2}})
    with pytest.raises(ConfigError, match="a GPU of its own"):
        choose_device(machine)


def test_a_device_that_is_not_here_is_named(params: PretrainParams, project: Project) -> None:
    recorder = Recorder(project.record("pretrain"), stage="pretrain")
    for device in ("cuda:99", "quantum"):
        with pytest.raises(ConfigError, match=device):
            train.run(params, make_job(project, Machine(workers=1, device=device), recorder))
    recorder.close()
