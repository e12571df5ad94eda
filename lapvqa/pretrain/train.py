"""The stage pretrain: learn to write, or to recognise, the report of an image.

States are kept in .lapvqa/work/pretrain/<digest>/, where the digest covers parameters, data, code
and torch's version. The last one stays after success, so repeating the run takes no step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lapvqa import code, storage
from lapvqa.errors import CheckpointError
from lapvqa.job import Counts, Job
from lapvqa.networks.device import choose_device, make_deterministic, require_compiler
from lapvqa.networks.weights import serialise
from lapvqa.params import Attention, PretrainParams
from lapvqa.pretrain import history, launch, members, memory, samples
from lapvqa.pretrain.checkpoint import Checkpoints, State, prune_runs
from lapvqa.pretrain.distributed import World
from lapvqa.pretrain.files import EPOCHS_DIR, LAST_FILE, MODEL_FILE, TRAINING_FILE
from lapvqa.pretrain.history import HISTORY_FILE
from lapvqa.pretrain.loader import Corpus, read_corpus
from lapvqa.pretrain.start import Start, find_start, with_members
from lapvqa.pretrain.trainer import Trainer
from lapvqa.project import Project
from lapvqa.recorder import counted
from lapvqa.schemas import MEMBERS, MEMBERS_FILE

# How often a state is saved, and how many stay, changes no result.
_WITHOUT_EFFECT = {"checkpoint_every_steps", "keep_checkpoints", "samples"}


def run(params: PretrainParams, job: Job) -> Counts:
    """Train, continuing from the newest state, and write the model, training.json, history.csv.

    If ``training`` in local.yaml asks for more than one process, torchrun starts them.
    Raises SourceError without training pairs, TrainingError when too many steps have to be
    skipped or the memory does not suffice.
    """
    if launch.needs_torchrun(job.machine):
        launch.run_workers(job)
    else:
        train(params, job, World())
    training = storage.read_json(
        job.project.model_dir(params.objective) / TRAINING_FILE, made_by="pretrain"
    )
    counts: Counts = training["counts"]
    return counts


def train(params: PretrainParams, job: Job, world: World) -> None:
    """Train as one of the processes of ``world``."""
    make_deterministic(threads=job.computing.cpu_threads, exact=params.deterministic)
    corpus = read_corpus(job.project, verify=world.is_first_of_node)
    if corpus.excluded and world.is_main:
        job.recorder.say(f"left out: {counted(corpus.excluded, 'image')} that a test set has too")
    start = find_start(params, job.project)
    digest = run_digest(params, corpus, attention=job.computing.attention)
    world.require_same("run (parameters, data, code, torch)", digest)
    device = choose_device(job.machine, world.local_rank)
    if params.compile:
        require_compiler(device)
    trainer = Trainer(
        params, corpus, device, world=world, training=job.machine.training, run=digest,
        start=start, attention=job.computing.attention,
    )  # fmt: skip
    folder = job.project.work_dir("pretrain") / digest
    with Checkpoints(folder, keep=params.keep_checkpoints) as checkpoints:
        state = newest_state(checkpoints, world)
        if state is not None:
            trainer.load_state(state)
            if world.is_main:
                job.recorder.resume(trainer.progress.step)
            job.recorder.say(f"continuing at step {trainer.progress.step} of {trainer.total_steps}")
        world.require_same("step to continue at", trainer.progress.step)
        job.recorder.facts({**trainer.facts(), "run": digest})
        with explain_out_of_memory(trainer):
            trainer.train(
                checkpoints, job.recorder,
                after_epoch=lambda: _after_epoch(trainer, folder),
            )  # fmt: skip
    last = trainer.weights()
    if world.is_main:
        write_results(trainer, last, job.project, folder, start)
        prune_runs(job.project.work_dir("pretrain"), current=digest)


def newest_state(checkpoints: Checkpoints, world: World) -> State | None:
    """Return the newest whole state; the main process alone looks at its digest."""
    own = checkpoints.newest() if world.is_main else None
    step: int | None = world.gather(None if own is None else own["step"])[0]
    return own if world.is_main or step is None else checkpoints.mapped(step)


@contextlib.contextmanager
def explain_out_of_memory(trainer: Trainer) -> Iterator[None]:
    """Turn running out of memory into an error that says which setting helps, and by how much."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out_of_memory(error):
            raise
        # The step's frames hold its tensors; planning needs some of their memory.
        traceback.clear_frames(error.__traceback__)
        trainer.optimizer.zero_grad(set_to_none=True)
        raise memory.out_of_memory_error(trainer) from error


def run_digest(params: PretrainParams, corpus: Corpus, *, attention: Attention = "auto") -> str:
    """Return a digest of all that decides the result: parameters, data, code, torch, threads."""
    parts = {
        "params": params.model_dump(mode="json", exclude=_WITHOUT_EFFECT),
        "data": corpus.digest,
        "code": code.digest(__name__),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "attention": attention,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _after_epoch(trainer: Trainer, folder: Path) -> None:
    """Keep the weights every ``save_every_epochs``, and some reports as the model writes them."""
    params = trainer.params
    epoch = trainer.progress.step // trainer.steps_per_epoch
    if params.save_every_epochs and epoch % params.save_every_epochs == 0:
        weights = trainer.weights()
        if trainer.world.is_main:
            weights = trainer.vocabulary.restore(trainer.model, weights)
            path = folder / EPOCHS_DIR / f"model_epoch{epoch:03d}.pt"
            storage.write_bytes(path, serialise(weights))
    if params.samples:
        samples.append(trainer, folder / samples.SAMPLES_FILE)


def write_results(
    trainer: Trainer, last: dict[str, Tensor], project: Project, work: Path, start: Start | None
) -> None:
    """Write the best and the last weights, those of epochs, and what tells of the training."""
    progress, corpus, params = trainer.progress, trainer.corpus, trainer.params
    folder = project.model_dir(params.objective)
    if not progress.best_weights:
        raise CheckpointError(
            "no epoch ended with a finite validation loss, so there are no best weights",
            hint="look at history.csv of the run in .lapvqa/work/pretrain; lower pretrain.lr",
        )
    best_loss = None if progress.best_loss is None else round(progress.best_loss, 6)
    counts = {
        "train_pairs": len(corpus.train),
        "validate_pairs": len(corpus.validate),
        "reports_without_frontal_image": corpus.without_image,
        "images_excluded_by_firewall": corpus.excluded,
        "steps": progress.step,
        "skipped_steps": sum(record.skipped for record in progress.history),
        "best_step": progress.best_step,
        "vocabulary_used": len(trainer.vocabulary.kept),
        "best_val_loss": "none" if best_loss is None else best_loss,
    }
    for name, weights in ((MODEL_FILE, progress.best_weights), (LAST_FILE, last)):
        restored = trainer.vocabulary.restore(trainer.model, weights)
        storage.write_bytes(folder / name, serialise(restored))
    (folder / EPOCHS_DIR).mkdir(parents=True, exist_ok=True)
    for path in sorted((work / EPOCHS_DIR).glob("model_epoch*.pt")):
        storage.write_bytes(folder / EPOCHS_DIR / path.name, path.read_bytes())
    storage.write_bytes(folder / HISTORY_FILE, history.to_csv(progress.history))
    sampled = members.table(
        project, corpus, trainer.loader.plan, best=progress.best_step, last=progress.step
    )
    storage.write_table(folder / MEMBERS_FILE, with_members(sampled, start), MEMBERS)
    storage.write_json(
        folder / TRAINING_FILE,
        {
            "objective": params.objective,
            "params": params.model_dump(mode="json"),
            "computing": {
                "cpu_threads": torch.get_num_threads(),
                "attention": trainer.attention,
            },
            "data_digest": corpus.digest,
            **({"began_with": start.unknown} if start and start.unknown else {}),
            "best_val_loss": best_loss,
            **{key: counts[key] for key in ("train_pairs", "validate_pairs", "steps", "best_step")},
            "counts": counts,
        },
    )
