"""benchmarks/bakeoff.py on a handful of images: what it trains, keeps, probes and says."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from lapvqa import inventory, storage
from lapvqa.datasets.chexpert import LABELS
from lapvqa.evaluation import contract
from lapvqa.machine import Training
from lapvqa.networks.device import make_deterministic
from lapvqa.params import BootstrapParams, PretrainParams
from lapvqa.pretrain.checkpoint import Checkpoints
from lapvqa.pretrain.loader import read_corpus
from lapvqa.pretrain.model import initial_model
from lapvqa.pretrain.start import find_start
from lapvqa.pretrain.trainer import Trainer
from lapvqa.probe.on_chexpert import TASK as CHEXPERT
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.schemas import INVENTORY, PROBE_PREDICTIONS

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bakeoff
import bakeoff_scores as scores

COMMON = BootstrapParams(bootstrap_draws=50)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "record.jsonl", stage="bakeoff", quiet=True)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    make_deterministic(threads=1)


def job_of(params: PretrainParams, contender: int, *, seed: int = 0) -> bakeoff.Job:
    jobs = bakeoff.make_jobs(params, epochs=2, seeds=seed + 1)
    return jobs[seed * len(bakeoff.CONTENDERS) + contender]


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize("contender", [0, 2, 3])
def test_looking_on_the_way_does_not_change_the_training(
    contender, params, project, recorder, tmp_path
):
    job, corpus = job_of(params, contender), read_corpus(project)
    rows, encoders = bakeoff.train(job, corpus, recorder)
    trainer = Trainer(job.params, corpus, torch.device("cpu"), training=Training(loader_threads=0))
    with Checkpoints(tmp_path / "states", keep=1) as checkpoints:
        trainer.train(checkpoints, recorder)
    assert same_weights(encoders["last, epoch 2"], trainer.model.vision_encoder)
    losses = {row["system"]: row["validation"]["val_loss"] for row in rows}
    recorded = [one.val_loss for one in trainer.progress.history if one.val_loss is not None]
    assert losses["last, epoch 2"] == recorded[-1]
    assert losses[scores.LOWEST] == min(recorded) == trainer.progress.best_loss
    assert [row["samples"] for row in rows if row["weights"] == "last"] == [0, 20, 40]
    assert not same_weights(encoders["last, epoch 0"], encoders["last, epoch 2"])


def test_averages_are_of_captioning_alone_and_differ_from_the_last(params, project, recorder):
    rows, encoders = bakeoff.train(job_of(params, 0), read_corpus(project), recorder)
    names = {row["weights"] for row in rows}
    assert names == {"last", scores.LOWEST, "average 0.99", "average 0.999"}
    assert not same_weights(encoders["average 0.99, epoch 2"], encoders["last, epoch 2"])
    assert not job_of(params, 1).contender.decays


def test_contenders_of_a_seed_start_alike_and_see_the_same_samples(params, project):
    corpus, trainers, base = read_corpus(project), [], params.model_dump()
    for number in range(len(bakeoff.CONTENDERS)):
        job = job_of(params, number)
        trainers.append(Trainer(job.params, corpus, torch.device("cpu")))
        changed = {key for key, value in job.params.model_dump().items() if base[key] != value}
        assert changed <= {"objective", "epochs", "batch_size", "warmup_steps"}
    first, *others = trainers
    for other in others:
        assert same_weights(first.model.vision_encoder, other.model.vision_encoder)
    large = trainers[-1].loader.plan.global_indices(0)
    small = [row for step in range(4) for row in first.loader.plan.global_indices(step)]
    assert large == small
    again = Trainer(job_of(params, 0, seed=1).params, corpus, torch.device("cpu"))
    assert not same_weights(first.model.vision_encoder, again.model.vision_encoder)


def test_one_begins_with_the_weights_that_the_recipe_names(params, project, recorder):
    assert all(not job.contender.begun for job in bakeoff.make_jobs(params, epochs=1, seeds=1))
    other = initial_model(params.model, seed=9).vision_encoder
    path = project.root / "weights" / "encoder_final.pt"
    path.parent.mkdir()
    torch.save(other.state_dict(), path)
    named = {"init": "weights", "init_sha256": storage.sha256_file(path)}
    *scratch, begun = bakeoff.make_jobs(params.model_copy(update=named), epochs=1, seeds=1)
    assert not any(job.params.init for job in scratch)
    start = find_start(begun.params, project)
    _, encoders = bakeoff.train(begun, read_corpus(project), recorder, start)
    first, last = (encoders[f"last, epoch {epoch}"] for epoch in (0, 1))
    assert same_weights(first, other)
    assert not same_weights(last, other)


def test_an_average_forgets_as_it_says():
    model = torch.nn.Linear(1, 1, bias=False)
    values = np.random.default_rng(0).normal(size=200)
    model.weight.data.fill_(values[0])
    average = bakeoff.Average(model, 0.9)
    for value in values[1:]:
        model.weight.data.fill_(value)
        average.update(model)
    expected = np.average(values[1:], weights=0.9 ** np.arange(len(values) - 2, -1, -1))
    assert average.weights["weight"].item() == pytest.approx(expected, abs=1e-6)
    seen = []
    bakeoff.with_weights(model, average.weights, lambda: seen.append(model.weight.item()))
    assert seen == [average.weights["weight"].item()]
    assert model.weight.item() == pytest.approx(values[-1])


def test_from_images_to_table_and_figure(params, project, repository, tmp_path):
    shutil.copy(repository / "params.yaml", project.root)
    write_chexpert(project)
    jobs = [job_of(params, 0), job_of(params, 1), job_of(params, 0, seed=1)]
    folders = [bakeoff.run_job(job, project.root, ("chexpert",)) for job in jobs]
    stamps = [(folder / "run.json").stat().st_mtime_ns for folder in folders]
    runs = [scores.Run.read(folder, COMMON) for folder in folders]
    summary = scores.summarise(runs, COMMON)
    assert_scored_as_the_evaluation_does(folders[0], scores.summarise(runs[:1], COMMON))
    text = scores.table(summary)
    assert text.count("\n| captioning") == 4  # last, two averages, lowest
    assert text.count("\n| untrained") == 1
    scores.plot(summary, tmp_path / "figure.png")
    assert np.asarray(Image.open(tmp_path / "figure.png").convert("L")).std() > 5
    storage.write_json(
        tmp_path / "all.json", {**scores.circumstances(runs, processes=1), **summary}
    )
    again = [bakeoff.run_job(job, project.root, ("chexpert",)) for job in jobs]
    assert [(folder / "run.json").stat().st_mtime_ns for folder in again] == stamps


def assert_scored_as_the_evaluation_does(folder: Path, summary: dict) -> None:
    predictions = storage.read_table(
        folder / "chexpert.parquet", PROBE_PREDICTIONS, made_by="bakeoff"
    )
    metrics = contract.metrics_of(CHEXPERT, predictions, common=COMMON)
    row = next(row for row in summary["rows"] if row["weights"] == "last" and row["epoch"] == 2)
    expected = metrics["systems"]["last, epoch 2"]["mean_auc"]
    assert {key: row["chexpert"][key] for key in expected} == pytest.approx(expected, abs=1e-6)


def made_run(contender: str, start: float, end: float) -> scores.Run:
    rows = [
        {"system": f"last, epoch {epoch}", "weights": "last", "epoch": epoch, "steps": epoch,
         "samples": epoch, "train_cpu_s": 1.0, "train_wall_s": 1.0, "validation": {"val_loss": 1.0}}
        for epoch in (0, 8)
    ]  # fmt: skip
    protocol = {f"validation_mean_auc_last, epoch {epoch}": 0.5 for epoch in (0, 8)}
    noise = np.linspace(-0.1, 0.1, 101)
    values = {
        "last, epoch 0": start + np.append(0, noise), "last, epoch 8": end + np.append(0, noise),
    }  # fmt: skip
    facts = {"contender": contender, "rows": rows, "protocols": {"nih14": protocol}}
    return scores.Run(facts, {"nih14": values})


def test_means_are_over_seeds_and_differences_are_paired():
    runs = [made_run("a", 0.6, 0.8), made_run("b", 0.6, 0.7), made_run("a", 0.6, 0.9)]
    summary = scores.summarise(runs, COMMON)
    found = {(row["contender"], row["epoch"]): row["nih14"] for row in summary["rows"]}
    assert found["a", 8]["value"] == pytest.approx(0.85)
    assert found["a", 8]["seeds"] == pytest.approx([0.8, 0.9])
    assert found["a", 8]["low"] == pytest.approx(0.85 - 0.095)
    # The same draws on both sides: what patients do to both cancels.
    assert found["a", 8]["gain"] == pytest.approx({"value": 0.25, "low": 0.25, "high": 0.25})
    assert found["a", 0]["beside_last"]["value"] == pytest.approx(-0.25)
    difference = summary["differences_at_the_end"]["a - b"]["nih14"]
    assert difference == pytest.approx({"value": 0.15, "low": 0.15, "high": 0.15})


def write_chexpert(project: Project) -> None:
    """Write CheXpert of 32 patients to train and 12 to test; a label lights a part of the image."""
    folder = project.root / "demo" / "CheXpert-v1.0-small"
    generator = np.random.default_rng(0)
    for split, patients in (("train", range(1, 33)), ("valid", range(101, 113))):
        lines = ["Path,Frontal/Lateral," + ",".join(LABELS)]
        for patient in patients:
            targets = [(patient // 2**label + label) % 2 for label in range(len(LABELS))]
            pixels = generator.integers(0, 60, (80, 80))
            for label in np.flatnonzero(targets):
                pixels[16 * label : 16 * label + 16] += 120
            path = f"{split}/patient{patient:05d}/study1/view1_frontal.jpg"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / path)
            values = ",".join(f"{value:.1f}" for value in targets)
            lines.append(f"CheXpert-v1.0-small/{path},Frontal,{values}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    rows = [dict(zip(INVENTORY.names, entry, strict=True)) for entry in inventory.scan(folder)]
    table = pa.Table.from_pylist(rows, schema=INVENTORY)
    storage.write_table(project.inventory("chexpert"), table, INVENTORY)
