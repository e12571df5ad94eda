"""The stage pretrain: learn to write the report of an image.

One visible loop. All that decides a step is a pure function of the parameters and the step (order
of samples, augmentation, learning rate), so weights, optimizer and history continue from a state
to the same bytes as a run that was never disturbed.

States lie in .lapvqa/work/pretrain/<digest>/, where the digest covers parameters, data, code and
torch's version. The last one stays after success: the same run again is done at once.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from lapvqa import storage
from lapvqa.config import Machine
from lapvqa.data import dataset, transforms
from lapvqa.data.dataset import Batch, Pair
from lapvqa.errors import TrainingError
from lapvqa.layout import Layout
from lapvqa.params import PretrainParams
from lapvqa.pretrain.checkpoint import Checkpoints, State, prune_runs, serialise
from lapvqa.pretrain.corpus import Corpus, read_corpus
from lapvqa.pretrain.device import autocast, choose_device, make_deterministic
from lapvqa.pretrain.files import MODEL_FILE, TRAINING_FILE
from lapvqa.pretrain.loss import caption_loss
from lapvqa.pretrain.model import initial_model
from lapvqa.pretrain.optimizer import build_optimizer, learning_rate, set_learning_rate
from lapvqa.pretrain.parallel import hide_inputs
from lapvqa.pretrain.vocabulary import CutVocabulary
from lapvqa.recorder import Recorder

HISTORY_FILE = "history.csv"

Counts = dict[str, float | int | str]


@dataclass
class Record:
    """One step of history.csv; ``val_loss`` only where an epoch ends."""

    step: int
    loss: float
    val_loss: float | None
    lr: float
    epoch: int


@dataclass
class Progress:
    """What training has reached; ``best_weights`` belong to the lowest validation loss so far."""

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[Record] = field(default_factory=list)


def run(params: PretrainParams, layout: Layout, machine: Machine, recorder: Recorder) -> Counts:
    """Train, continuing from the newest state, and write model_best.pt, training.json, history.csv.

    Raises SourceError without training pairs, TrainingError when the loss stops being a number.
    """
    make_deterministic(threads=params.cpu_threads)
    corpus = read_corpus(layout)
    digest = run_digest(params, corpus)
    trainer = Trainer(params, corpus, choose_device(machine))
    checkpoints = Checkpoints(layout.work_dir("pretrain") / digest)
    state = checkpoints.newest()
    if state is not None:
        trainer.load_state(state)
        recorder.say(f"continuing at step {trainer.progress.step} of {trainer.total_steps}")
    recorder.facts({**trainer.facts(), "threads": torch.get_num_threads(), "run": digest})
    trainer.train(checkpoints, recorder)
    counts = write_results(trainer, layout.model_dir(params.objective))
    checkpoints.prune(1)
    prune_runs(layout.work_dir("pretrain"), current=digest)
    return counts


def run_digest(params: PretrainParams, corpus: Corpus) -> str:
    """Return a digest of all that decides the result: parameters, data, code, torch."""
    code = hashlib.sha256()
    room = Path(__file__).parent
    for path in sorted([*room.glob("*.py"), *(room.parent / "data").glob("*.py")]):
        code.update(path.read_bytes())
    parts = {
        # How often a state is saved changes no result.
        "params": params.model_dump(mode="json", exclude={"checkpoint_every_steps"}),
        "data": corpus.digest,
        "code": code.hexdigest(),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class Trainer:
    """The model, its optimizer, what they have reached, and the loop."""

    def __init__(self, params: PretrainParams, corpus: Corpus, device: torch.device) -> None:
        self.params, self.corpus, self.device = params, corpus, device
        self.vocabulary = CutVocabulary(pair.token_ids for pair in corpus.train)
        self.model = initial_model(params.model, seed=params.seed)
        self.vocabulary.cut(self.model)
        self.model.to(device)
        self.log_count = self.vocabulary.log_count.to(device)
        self.optimizer = build_optimizer(self.model, params)
        self.steps_per_epoch = math.ceil(len(corpus.train) / params.batch_size)
        self.total_steps = params.epochs * self.steps_per_epoch
        self.progress = Progress()

    def train(self, checkpoints: Checkpoints, recorder: Recorder) -> None:
        """Run the steps that are left; validate where an epoch ends."""
        while self.progress.step < self.total_steps:
            record = self._step(recorder)
            self.progress.history.append(record)
            self.progress.step += 1
            ends_epoch = self.progress.step % self.steps_per_epoch == 0
            if ends_epoch:
                record.val_loss = self._validate(recorder)
            if ends_epoch or self.progress.step % self.params.checkpoint_every_steps == 0:
                checkpoints.save(self.progress.step, self.state())

    def _step(self, recorder: Recorder) -> Record:
        """Take one step of the optimizer."""
        started = time.perf_counter()
        step = self.progress.step
        epoch, position = divmod(step, self.steps_per_epoch)
        batch = self._train_batch(epoch, position)
        rate = learning_rate(step, self.total_steps, self.params)
        set_learning_rate(self.optimizer, rate)
        self.model.train()
        loss, num_tokens = self._loss(batch, epoch=epoch)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.params.grad_clip)
        value = self._finite(loss.item(), step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - started
        measured = {
            "loss": value, "lr": rate, "grad_norm": norm.item(),
            "images_per_s": len(batch.indices) / seconds, "tokens_per_s": num_tokens / seconds,
        }  # fmt: skip
        recorder.metrics(measured, step=step + 1)
        recorder.progress(step + 1, self.total_steps, unit="steps", note=f"loss {value:.2f}")
        return Record(step + 1, value, None, rate, epoch + 1)

    def _train_batch(self, epoch: int, position: int) -> Batch:
        order = dataset.epoch_order(len(self.corpus.train), seed=self.params.seed, epoch=epoch)
        start = position * self.params.batch_size
        indices = order[start : start + self.params.batch_size].tolist()
        return dataset.read_batch(self.corpus.train, indices, self.corpus.store)

    def _loss(self, batch: Batch, *, epoch: int | None) -> tuple[Tensor, int]:
        """Return the batch's mean loss and its number of tokens.

        Mirroring, augmentation and parallel prediction belong to an epoch of training alone.
        """
        size = self.params.model.image_size
        images = transforms.to_input(batch.images.to(self.device), size)
        if epoch is not None and self.params.flip:
            images = transforms.mirror(
                images, seed=self.params.seed, epoch=epoch, indices=batch.indices,
                sided=batch.sided,
            )  # fmt: skip
        if epoch is not None and self.params.augment:
            images = transforms.augment(
                images, seed=self.params.seed, epoch=epoch, indices=batch.indices
            )
        inputs, targets = map(self.vocabulary.number, (batch.inputs, batch.targets))
        if epoch is not None:
            inputs = hide_inputs(
                inputs, self.params.parallel_share,
                seed=self.params.seed, epoch=epoch, indices=batch.indices,
            )  # fmt: skip
        with autocast(self.device):
            return caption_loss(self.model, images, inputs, targets, self.log_count)

    def _validate(self, recorder: Recorder) -> float | None:
        """Return the loss per token on the split validate; keep the weights if it is the lowest.

        Without such a split the weights of the last step count as the best.
        """
        progress, pairs = self.progress, self.corpus.validate
        value = self._mean_loss(pairs) if pairs else None
        if value is not None:
            recorder.metrics({"val_loss": value}, step=progress.step)
        if value is None or progress.best_loss is None or value < progress.best_loss:
            progress.best_loss, progress.best_step = value, progress.step
            progress.best_weights = {
                name: tensor.detach().to("cpu", copy=True)
                for name, tensor in self.model.state_dict().items()
            }
        return value

    @torch.no_grad()
    def _mean_loss(self, pairs: list[Pair]) -> float:
        self.model.eval()
        total, num_tokens = 0.0, 0
        for start in range(0, len(pairs), self.params.batch_size):
            indices = range(start, min(start + self.params.batch_size, len(pairs)))
            batch = dataset.read_batch(pairs, indices, self.corpus.store)
            loss, tokens = self._loss(batch, epoch=None)
            total += loss.item() * tokens
            num_tokens += tokens
        return self._finite(total / num_tokens, self.progress.step)

    def _finite(self, loss: float, step: int) -> float:
        if math.isfinite(loss):
            return loss
        raise TrainingError(
            f"the loss became {loss} at step {step + 1} of {self.total_steps}",
            hint=f"lower pretrain.lr (now {self.params.lr}) or raise pretrain.warmup_steps "
            f"(now {self.params.warmup_steps})",
        )

    def state(self) -> State:
        """Return all that a later process needs to continue."""
        progress = self.progress
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "step": progress.step,
            "best_step": progress.best_step,
            "best_loss": progress.best_loss,
            "best_weights": progress.best_weights,
            "history": [asdict(record) for record in progress.history],
        }

    def load_state(self, state: State) -> None:
        """Continue from what ``state`` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch_rng"])
        self.progress = Progress(
            step=state["step"],
            best_step=state["best_step"],
            best_loss=state["best_loss"],
            best_weights=state["best_weights"],
            history=[Record(**record) for record in state["history"]],
        )

    def facts(self) -> dict[str, str | int]:
        """Return what describes this training to a person."""
        return {
            "device": str(self.device),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "vocabulary_used": len(self.vocabulary.kept),
            "data_digest": self.corpus.digest,
        }


def write_results(trainer: Trainer, folder: Path) -> Counts:
    """Write model_best.pt, training.json and history.csv; return the stage's closing counts."""
    progress, corpus, params = trainer.progress, trainer.corpus, trainer.params
    counts = {
        "train_pairs": len(corpus.train),
        "validate_pairs": len(corpus.validate),
        "reports_without_frontal_image": corpus.without_image,
        "steps": progress.step,
        "best_step": progress.best_step,
        "vocabulary_used": len(trainer.vocabulary.kept),
    }
    best_loss = None if progress.best_loss is None else round(progress.best_loss, 6)
    storage.write_bytes(
        folder / MODEL_FILE, serialise(trainer.vocabulary.restore(progress.best_weights))
    )
    storage.write_bytes(folder / HISTORY_FILE, history_csv(progress.history))
    storage.write_json(
        folder / TRAINING_FILE,
        {
            "objective": params.objective,
            "params": params.model_dump(mode="json"),
            "data_digest": corpus.digest,
            "best_val_loss": best_loss,
            **counts,
        },
    )
    return {**counts, "best_val_loss": "none" if best_loss is None else best_loss}


def history_csv(history: list[Record]) -> bytes:
    """Return history.csv: one row per step, the validation loss where an epoch ended."""
    lines = ["step,loss,val_loss,lr,epoch"]
    for one in history:
        val_loss = "" if one.val_loss is None else f"{one.val_loss:.6f}"
        lines.append(f"{one.step},{one.loss:.6f},{val_loss},{one.lr:.6e},{one.epoch}")
    return ("\n".join(lines) + "\n").encode()
