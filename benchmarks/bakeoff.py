"""Does it learn? Four objectives beside each other, and beside encoders that never trained.

    python benchmarks/bakeoff.py PROJECT [--epochs 64] [--seeds 3] [--processes 2] [--only NAME]

PROJECT is a folder with a finished `lapvqa demo`: its data/, demo/ and params.yaml are read, its
.lapvqa/work/bakeoff/ is written, where finished runs stay and are not run again.

Every run takes the recipe of params.yaml but for its objective, seed and number of epochs, so all
see the same samples as often and take as many steps. One contender more, InfoNCE with a batch four
times as large, sees the same samples in a quarter of the steps: a batch's size is the number of
negatives. With `pretrain.init` in params.yaml, captioning that begins with those weights stands
beside captioning from scratch, at equal steps.

The encoder is probed on the way by the evaluations' own code. The test images are predicted at each
of these points, so the curves describe and nothing may be chosen by them.

Averages of the weights (EMA) are kept beside captioning's runs, to see whether they pay.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from bakeoff_scores import (
    EVALUATIONS,
    LAST,
    LOWEST,
    Run,
    circumstances,
    plot,
    rounded,
    summarise,
    table,
)
from torch import Tensor, nn

from lapvqa import storage
from lapvqa.datasets import image_folder
from lapvqa.datasets.chexpert import read_chexpert
from lapvqa.datasets.labelled import ProbeDataset
from lapvqa.datasets.nih14 import read_nih14
from lapvqa.evaluation.image_encoder import OwnEncoder
from lapvqa.job import open_job
from lapvqa.machine import Machine, Training
from lapvqa.networks.device import make_deterministic
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.params import Params, PretrainParams, load_params
from lapvqa.pretrain.loader import Corpus, read_corpus
from lapvqa.pretrain.start import Start, find_start
from lapvqa.pretrain.train import run_digest
from lapvqa.pretrain.trainer import Trainer
from lapvqa.probe import judge as probe_judge
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.schemas import PROBE_PREDICTIONS

RESULTS = Path(__file__).parent / "results"
MACHINE = Machine(workers=1, device="cpu")
SHARES = (0, 1 / 8, 1 / 4, 1 / 2, 1)
"""Where a run is probed: shares of its epochs."""
DECAYS = (0.99, 0.999)


@dataclass(frozen=True)
class Contender:
    """An objective, with a batch ``times`` that of the recipe."""

    name: str
    objective: str
    times: int = 1
    decays: tuple[float, ...] = ()
    """Of the averages that are kept beside it."""
    begun: bool = False
    """Its encoder begins with the weights of ``pretrain.init``."""


CONTENDERS = (
    Contender("captioning", "captioning", decays=DECAYS),
    Contender("InfoNCE", "contrastive"),
    Contender("sigmoid", "sigmoid"),
    Contender("CoCa", "coca"),
    Contender("InfoNCE, batch x 4", "contrastive", times=4),
)
BEGUN = Contender("captioning, begun", "captioning", begun=True)
"""Stands beside them where ``pretrain.init`` names weights."""


@dataclass(frozen=True)
class Job:
    """One run: what it trains, and the epochs after which it is probed."""

    contender: Contender
    params: PretrainParams
    points: tuple[int, ...]


def make_jobs(
    base: PretrainParams, *, epochs: int, seeds: int, only: Sequence[str] = ()
) -> list[Job]:
    """Return a job per seed and contender, all of one seed first; of the names ``only``, or all."""
    points = tuple(sorted({round(share * epochs) for share in SHARES}))
    contenders = (*CONTENDERS, BEGUN) if base.init else CONTENDERS
    return [
        Job(contender, recipe_of(contender, base, epochs=epochs, seed=seed), points)
        for seed in range(seeds)
        for contender in contenders
        if not only or contender.name in only
    ]


def recipe_of(
    contender: Contender, base: PretrainParams, *, epochs: int, seed: int
) -> PretrainParams:
    """Return the recipe ``base`` for a contender; its warm-up covers as many samples."""
    return base.model_copy(
        update={
            "objective": contender.objective,
            "seed": seed,
            "epochs": epochs,
            "batch_size": base.batch_size * contender.times,
            "warmup_steps": base.warmup_steps // contender.times,
            **({} if contender.begun else {"init": None, "init_sha256": None}),
        }
    )


class Average:
    """An exponential moving average of a model's weights, freed of where it began.

    After n updates the weights of update k count as decay ** (n - k), those from before the first
    do not: Adam's bias correction (arXiv:1412.6980, algorithm 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.weights = {name: one.detach().clone() for name, one in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self.updates += 1
        share = (1 - self.decay) / (1 - self.decay**self.updates)
        for name, one in model.state_dict().items():
            self.weights[name].lerp_(one, share)


class Watch:
    """Adds up processor and wall seconds while it is on."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0
        self.start()

    def start(self) -> None:
        """Begin a stretch."""
        self._since = time.process_time(), time.perf_counter()

    def stop(self) -> None:
        """End it."""
        self.cpu += time.process_time() - self._since[0]
        self.wall += time.perf_counter() - self._since[1]


def train(
    job: Job, corpus: Corpus, recorder: Recorder, start: Start | None = None
) -> tuple[list[dict[str, Any]], dict[str, VisionEncoder]]:
    """Run a job; return one row per probed encoder, and the encoders by the rows' ``system``."""
    # Without threads that read ahead, the process's seconds are the training's.
    trainer = Trainer(
        job.params, corpus, torch.device("cpu"), training=Training(loader_threads=0), start=start
    )
    averages = {f"average {decay}": Average(trainer.model, decay) for decay in job.contender.decays}
    watch, rows, encoders = Watch(), [], {}

    def note(weights: str, epoch: int, validation: Mapping[str, float]) -> None:
        system = f"{weights}, epoch {epoch}" if weights != LOWEST else weights
        rows[:] = [row for row in rows if row["system"] != system]
        rows.append({
            "system": system, "weights": weights, "epoch": epoch,
            "steps": trainer.progress.step,
            "samples": trainer.progress.step * job.params.batch_size,
            "train_cpu_s": watch.cpu, "train_wall_s": watch.wall, "validation": dict(validation),
        })  # fmt: skip
        encoders[system] = copy.deepcopy(trainer.model.vision_encoder)

    best = float("inf")
    for epoch in range(job.params.epochs + 1):
        if epoch:
            _train_epoch(trainer, epoch - 1, watch, averages.values(), recorder)
        validation = trainer.validate()
        if epoch in job.points:
            note(LAST, epoch, validation)
            for name, average in averages.items() if epoch else ():
                with_weights(
                    trainer.model, average.weights,
                    lambda name=name, epoch=epoch: note(name, epoch, trainer.validate()),
                )  # fmt: skip
        if epoch and validation["val_loss"] < best:
            best = validation["val_loss"]
            note(LOWEST, epoch, validation)
    return rows, encoders


def _train_epoch(
    trainer: Trainer, epoch: int, watch: Watch, averages: Iterable[Average], recorder: Recorder
) -> None:
    first, last = epoch * trainer.steps_per_epoch, (epoch + 1) * trainer.steps_per_epoch
    watch.start()
    with closing(trainer.steps(first, last)) as steps:
        for micro in steps:
            trainer.take_step(micro, recorder)
            watch.stop()
            for average in averages:
                average.update(trainer.model)
            watch.start()
    watch.stop()


def with_weights(model: nn.Module, weights: Mapping[str, Tensor], do: Callable[[], None]) -> None:
    """Call ``do`` while ``model`` has other weights."""
    own = copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    do()
    model.load_state_dict(own)


def probe(
    task: str,
    encoders: Mapping[str, VisionEncoder],
    *,
    params: Params,
    project: Project,
    recorder: Recorder,
) -> tuple[pa.Table, dict[str, Any]]:
    """Return predictions and protocol of each encoder, as the evaluation of ``task`` makes them."""
    job = open_job(project, recorder, machine=MACHINE)
    source = image_folder.open_folder(task, job)
    if source is None:
        raise SystemExit(f"no images of {task} here: run `lapvqa demo` in the project first")
    read: dict[str, Callable[[], ProbeDataset]] = {
        "chexpert": lambda: read_chexpert(
            source.folder, source.files, uncertain=params.evaluate.probe_chexpert.uncertain
        ),
        "nih14": lambda: read_nih14(source.folder, source.files),
    }
    listed = read[task]()
    listed.check(source.present(listed.images))
    found = probe_judge.extract(
        {name: OwnEncoder(encoder) for name, encoder in encoders.items()},
        source,
        listed.images,
        job=job,
    )
    grid = getattr(params.evaluate, f"probe_{task}").c_grid
    return probe_judge.predict(listed.keep(found.readable), found.systems, c_grid=grid)


def run_job(job: Job, root: Path, tasks: Sequence[str] = tuple(EVALUATIONS)) -> Path:
    """Train and probe in a process of its own; return the folder of its results."""
    project = Project(root)
    make_deterministic(threads=1)
    corpus = read_corpus(project)
    folder = project.work_dir("bakeoff") / _name(job, corpus)
    if (folder / "run.json").exists():
        return folder
    recorder = Recorder(folder / "record.jsonl", stage="bakeoff", quiet=True)
    rows, encoders = train(job, corpus, recorder, find_start(job.params, project))
    protocols = {}
    for task in tasks:
        predictions, protocols[task] = probe(
            task, encoders, params=load_params(project.params), project=project, recorder=recorder
        )
        storage.write_table(folder / f"{task}.parquet", predictions, PROBE_PREDICTIONS)
    recorder.close()
    facts = {
        "contender": job.contender.name, "params": job.params.model_dump(mode="json"),
        "train_pairs": len(corpus.train), "validate_pairs": len(corpus.validate),
        "data_digest": corpus.digest, "rows": rows, "protocols": protocols,
    }  # fmt: skip
    storage.write_json(folder / "run.json", facts)
    return folder


def _name(job: Job, corpus: Corpus) -> str:
    points = "-".join(map(str, job.points))
    return f"{job.contender.name}, {run_digest(job.params, corpus)}, {points}".replace(", ", "_")


def main() -> None:
    """Run what is missing, score all, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--epochs", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    names = [contender.name for contender in (*CONTENDERS, BEGUN)]
    parser.add_argument("--only", nargs="+", default=(), choices=names)
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    params = load_params(Project(chosen.project).params)
    jobs = make_jobs(params.pretrain, epochs=chosen.epochs, seeds=chosen.seeds, only=chosen.only)
    common = params.evaluate.common
    with ProcessPoolExecutor(chosen.processes, mp_context=get_context("spawn")) as pool:
        started = {pool.submit(run_job, job, chosen.project.resolve()): job for job in jobs}
        image_folder = {}
        for future in as_completed(started):
            job = started[future]
            image_folder[job] = future.result()
            print(f"{job.contender.name}, seed {job.params.seed}: done", flush=True)
    runs = [Run.read(image_folder[job], common) for job in jobs]
    summary = summarise(runs, common)
    result = {**circumstances(runs, processes=chosen.processes), **summary}
    chosen.results.mkdir(exist_ok=True)
    storage.write_json(chosen.results / "bakeoff.json", rounded(result))
    plot(summary, chosen.results / "bakeoff.png")
    print(table(summary))


if __name__ == "__main__":
    main()
