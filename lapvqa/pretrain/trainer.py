"""The training loop, the same for every objective and any number of processes.

Everything that decides a step (order of samples, augmentation, learning rate) is a pure function
of the parameters and the step. So a run that continues from a state reaches the same bytes of
weights, optimizer and history as one that was never interrupted.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lapvqa.errors import CheckpointError, TrainingError
from lapvqa.images.report_pairs import Pair, read_batch
from lapvqa.machine import Training
from lapvqa.networks import device as computing
from lapvqa.networks.device import attention_by, check_attention, compile_deterministically
from lapvqa.networks.vocabulary import CutVocabulary
from lapvqa.params import Attention, PretrainParams
from lapvqa.pretrain import history
from lapvqa.pretrain.checkpoint import (
    Checkpoints,
    State,
    generator_states,
    restore_generators,
    snapshot,
)
from lapvqa.pretrain.distributed import World, assign_full, average_scalars, full_tensor
from lapvqa.pretrain.guard import Guard, Numbers
from lapvqa.pretrain.history import StepRecord
from lapvqa.pretrain.inputs import Prepared, Preparer
from lapvqa.pretrain.loader import Corpus, Loader, Plan
from lapvqa.pretrain.model import initial_model
from lapvqa.pretrain.monitor import Meter
from lapvqa.pretrain.objectives.objective import BatchResult
from lapvqa.pretrain.objectives.table import OBJECTIVES
from lapvqa.pretrain.optimizer import (
    build_optimizer,
    learning_rate,
    load_optimizer_state,
    optimizer_state,
    set_learning_rate,
    step_unless,
)
from lapvqa.pretrain.start import Start, load
from lapvqa.recorder import Recorder


@dataclass
class Progress:
    """How far training has come; ``best_weights`` had the lowest validation loss so far."""

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[StepRecord] = field(default_factory=list)


@dataclass(frozen=True)
class _Taken:
    """A step that the device may still be computing: what is known of it, and what will be."""

    record: StepRecord
    numbers: Numbers
    measured: dict[str, float]
    recorder: Recorder


class Trainer:
    """The model, its optimizer, its progress, and the loop.

    A step's loss is read when the next one has been handed to the device, which so never waits for
    the host. ``progress`` waits for it.
    """

    def __init__(
        self,
        params: PretrainParams,
        corpus: Corpus,
        device: torch.device,
        *,
        world: World | None = None,
        training: Training | None = None,
        run: str = "",
        start: Start | None = None,
        attention: Attention = "auto",
    ) -> None:
        """Build the model at its first step, from scratch or with the weights of ``start``.

        ``run`` is the digest that its states carry.
        """
        self.run, self.attention = run, attention
        self.params, self.corpus, self.device = params, corpus, device
        self.world = world or World()
        self.training = training or Training()
        self.vocabulary = CutVocabulary(pair.token_ids for pair in corpus.train)
        sends = self.world.is_main or self.training.strategy == "ddp"
        with contextlib.nullcontext() if sends else torch.device("meta"):  # it gets its shards
            self.model = initial_model(params.model, seed=params.seed, objective=params.objective)
        check_attention(attention, device, masked=self.model.masks)
        if start is None or not sends:
            self.vocabulary.cut(self.model)
        else:
            load(start, self.model, self.vocabulary)
        self._prepare_blocks()
        kind = OBJECTIVES[params.objective]
        self.preparer = Preparer(params, self.vocabulary, device, hides_words=kind.hides_words)
        self.objective = kind(
            self.model, params, self.vocabulary.log_count,
            self.world, self.training.strategy, device,
        )  # fmt: skip
        self.optimizer = build_optimizer(self.model, params)
        plan = Plan(
            len(corpus.train), params.batch_size, params.seed,
            self.world.size, self.world.rank, params.accumulate,
            *_replayed(params, corpus, start),
        )  # fmt: skip
        self.loader = Loader(
            corpus.train, corpus.store, plan,
            workers=self.training.loader_threads, pin=device.type == "cuda",
        )  # fmt: skip
        self.steps_per_epoch = plan.steps_per_epoch
        epochs = (params.continue_from and params.continue_epochs) or params.epochs
        self.total_steps = epochs * plan.steps_per_epoch
        self.meter = Meter(params, device, vocabulary=len(self.vocabulary))
        self.guard = Guard(params.spike_factor, device)
        self._progress = Progress()
        self._taken: _Taken | None = None

    @property
    def progress(self) -> Progress:
        """How far training has come, the last step included.

        Raises TrainingError if that one was skipped, and one too many.
        """
        taken, self._taken = self._taken, None
        if taken is not None:
            self._read(taken)
        return self._progress

    def steps(self, first: int, last: int) -> Generator[list[Prepared]]:
        """Yield this rank's micro-batches of each step from ``first`` until ``last``."""
        return self.loader.steps(first, last, self.preparer.prepare)

    def _prepare_blocks(self) -> None:
        self.model.compute_by(self.params, computing.precision_on(self.device))
        if self.params.compile:
            compile_deterministically()
            for module in self.model.modules():
                if isinstance(module, nn.ModuleList):
                    for block in module:
                        block.compile()

    def train(
        self,
        checkpoints: Checkpoints,
        recorder: Recorder,
        *,
        after_epoch: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the remaining steps; validate where an epoch ends, save states as configured.

        Every process runs this; only the main one writes.
        """
        with closing(self.steps(self.progress.step, self.total_steps)) as steps:
            for number, micro in enumerate(steps):
                if number == 0:
                    self._settle(micro)
                self.take_step(micro, recorder)
                if self._ends_epoch():
                    self._finish_epoch(recorder)
                    after_epoch()
                if self._is_kept():
                    state = self.state()
                    if self.world.is_main:
                        checkpoints.save(self.progress.step, state)

    def _settle(self, micro: Sequence[Prepared]) -> None:
        """Let DDP arrange its gradient buckets for good, which it does after a first pass.

        A sum over three or more processes rounds according to that arrangement: without this, the
        first step after a resume would differ in its last bits from the same step within a run.
        """
        if isinstance(self.objective.module, DistributedDataParallel):
            self.gradients(micro, self._progress.step)
            self.optimizer.zero_grad(set_to_none=True)

    def _ends_epoch(self) -> bool:
        return self._progress.step % self.steps_per_epoch == 0

    def _is_kept(self) -> bool:
        return self._ends_epoch() or self._progress.step % self.params.checkpoint_every_steps == 0

    def _finish_epoch(self, recorder: Recorder) -> None:
        progress, metrics = self.progress, self.validate()
        progress.history[-1].val_loss = metrics.get("val_loss")
        self._keep_best(metrics.get("val_loss"))
        if metrics:
            recorder.metrics(metrics, step=progress.step)

    def take_step(self, micro: Sequence[Prepared], recorder: Recorder) -> None:
        """Take one step of the optimizer, without effect if its loss or gradient is unusable."""
        started = time.perf_counter() - self.loader.wait_s
        step = self._progress.step
        epoch, _ = self.loader.plan.place(step)
        rate = learning_rate(step, self.total_steps, self.params)
        set_learning_rate(self.optimizer, rate)
        loss, norm, num_targets = self.gradients(micro, step)
        numbers = self.guard.judge(loss, norm)
        step_unless(self.optimizer, numbers.fault)
        self.optimizer.zero_grad(set_to_none=True)
        self._progress.step += 1
        before, self._taken = self._taken, None
        if before is not None:
            self._read(before)
        measured = self.meter.measure(
            seconds=time.perf_counter() - started,
            waited=self.loader.wait_s,
            images=sum(len(one.groups) for one in micro),
            positions=sum(one.tokens.numel() for one in micro),
            targets=num_targets // self.world.size,
            processes=self.world.size,
        )
        record = StepRecord(step + 1, math.nan, rate, epoch + 1)
        self._taken = _Taken(record, numbers, measured, recorder)

    def gradients(self, micro: Sequence[Prepared], step: int) -> tuple[Tensor, Tensor, int]:
        """Compute and clip a step's gradients; return loss, norm before clipping, all targets."""
        self.model.train()
        inputs = [self.preparer.to_inputs(one) for one in micro]
        num_targets = self.loader.num_targets(self.loader.plan.global_indices(step))
        with attention_by(self.attention):
            local = self.objective.backward(inputs, num_targets)
        if self.training.strategy == "fsdp" and self.world.size > 1:
            average_scalars(self.model, self.world)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.params.grad_clip)
        return self.world.mean(local), full_tensor(norm), num_targets

    def _read(self, taken: _Taken) -> None:
        """Enter a step into history and record, once the device has computed it."""
        record, recorder = taken.record, taken.recorder
        loss, norm, fault = taken.numbers.read()
        record.loss, record.skipped = loss, int(fault is not None)
        values = {"loss": loss, "lr": record.lr, "grad_norm": norm, **taken.measured}
        recorder.metrics(values, step=record.step)
        note = f"loss {loss:.2f}, {self.meter.line(taken.measured)}"
        recorder.progress(record.step, self.total_steps, unit="steps", note=note)
        self._progress.history.append(record)
        if fault is not None:
            self._count_skipped(fault, record.step, recorder)

    def _count_skipped(self, fault: str, step: int, recorder: Recorder) -> None:
        skipped = sum(record.skipped for record in self._progress.history)
        recorder.metrics({"skipped_steps": skipped}, step=step)
        recorder.say(
            f"step {step} skipped: {fault} ({skipped} of {self.params.skip_budget} allowed)"
        )
        if skipped > self.params.skip_budget:
            raise TrainingError(
                f"{skipped} steps had to be skipped, the last at step {step} of "
                f"{self.total_steps} because {fault}",
                hint=f"lower pretrain.lr (now {self.params.lr}), raise pretrain.warmup_steps "
                f"(now {self.params.warmup_steps}), or, if the data is known to be so, raise "
                f"pretrain.skip_budget (now {self.params.skip_budget})",
            )

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the metrics of the split validate; empty without such a split.

        Processes share the batches, and each takes part in the same number of forward passes: one
        that has none left repeats the last, which is not counted.
        """
        pairs = self.corpus.validate
        size = self.params.batch_size // (self.params.accumulate * self.world.size)
        if not pairs:
            return {}
        self.model.eval()
        starts = range(0, len(pairs), size)
        measured: list[BatchResult] = []
        for first in range(0, len(starts), self.world.size):
            start = starts[min(first + self.world.rank, len(starts) - 1)]
            measured += self.world.gather(self._measure(pairs, start, size))
        return self.objective.summarise(measured[: len(starts)])

    def _measure(self, pairs: Sequence[Pair], start: int, size: int) -> BatchResult:
        indices = range(start, min(start + size, len(pairs)))
        batch = read_batch(pairs, indices, self.corpus.store)
        with attention_by(self.attention):
            return self.objective.measure(self.preparer.for_validation(batch))

    def _keep_best(self, value: float | None) -> None:
        """Keep the weights if their loss is the lowest; without validation, always."""
        progress = self._progress
        if value is not None and not math.isfinite(value):
            return
        if value is None or progress.best_loss is None or value < progress.best_loss:
            progress.best_loss, progress.best_step = value, progress.step
            progress.best_weights = self.weights()

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the model's weights on the CPU; every process must call this.

        Only the main process gets it: on a machine with eight GPUs eight copies are too many.
        """
        weights = {}
        for name, tensor in self.model.state_dict().items():
            value = full_tensor(tensor)
            if self.world.is_main:
                weights[name] = snapshot(value)
        return weights

    def state(self) -> State:
        """Return all that a later process needs to continue; every process must call this."""
        progress = self.progress
        return {
            "model": self.weights(),
            "optimizer": optimizer_state(self.model, self.optimizer, keep=self.world.is_main),
            "random": generator_states(),
            "run": self.run,
            "data_digest": self.corpus.digest,
            "step": progress.step,
            "best_step": progress.best_step,
            "best_loss": progress.best_loss,
            "best_weights": progress.best_weights,
            "history": history.to_tensor(progress.history),
        }

    def load_state(self, state: State) -> None:
        """Continue from what ``state`` returned, in any number of processes.

        Raises CheckpointError for the state of another run: other parameters, data or code.
        """
        if (state["run"], state["data_digest"]) != (self.run, self.corpus.digest):
            raise CheckpointError(
                f"expected a state of run {self.run}, found one of {state['run']}",
                hint="states belong to the folder they were written in; remove the copied one",
            )
        for name, tensor in self.model.state_dict().items():
            assign_full(tensor, state["model"][name])
        load_optimizer_state(self.model, self.optimizer, state["optimizer"])
        restore_generators(state["random"])
        self._taken, self._progress = (
            None,
            Progress(
                step=state["step"],
                best_step=state["best_step"],
                best_loss=state["best_loss"],
                best_weights=state["best_weights"] if self.world.is_main else {},
                history=history.from_tensor(state["history"]),
            ),
        )
        self.guard.resume([one.loss for one in self._progress.history if not one.skipped])

    def facts(self) -> dict[str, str | int]:
        """Return a description of this training for a person."""
        return {
            "device": str(self.device),
            "processes": self.world.size,
            "strategy": self.training.strategy if self.world.size > 1 else "one process",
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "vocabulary_used": len(self.vocabulary.kept),
            "data_digest": self.corpus.digest,
            "threads": torch.get_num_threads(),
            **self.meter.facts(),
        }


def _replayed(params: PretrainParams, corpus: Corpus, start: Start | None) -> tuple[bytes, float]:
    """Return which pairs the start has seen, and what share of them an epoch shows again."""
    if start is None:
        return b"", 1.0
    seen = start.studies()
    return bytes(pair.study_key in seen for pair in corpus.train), params.replay
