"""ViT-L/14 at 384 px on one GPU: training, its parts, embedding, captions, resume. One table.

    python benchmarks/bench_gpu.py               # on an H200 within ten minutes; writes gpu.json
    python benchmarks/bench_gpu.py --minutes 5 --out FILE   # what is left undone then says so
    python benchmarks/bench_gpu.py --tiny        # the same code, tiny, wherever; nothing is kept

It measures part by part in a process of its own and writes the file after each. A part that fails
says why in its rows, one that hangs is stopped, and where the process dies (a kernel that spoilt
the GPU's context, memory) a new one goes on with the next part. A checkout will do, not installed;
beside torch it needs numpy, pyarrow, pydantic, opencv, pydicom, scikit-learn, tiktoken, safetensors
and xxhash, and no network.

It takes the stages' own path: ``Trainer.take_step`` on batches that its loader prepares ahead,
``features.encode`` and ``write_reports`` on a ``Computer``, states and resume of ``Checkpoints``.
Images are random, reports of up to 128 or 256 tokens are half padding. Where there is no GPU the
rows say "not measured", but for those that come from tensors without memory: FLOPs and the plan.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lapvqa.evaluation.features import encode, rows_at_once
from lapvqa.evaluation.image_encoder import OwnEncoder
from lapvqa.images.report_pairs import Pair
from lapvqa.images.shards import ShardStore, add_shard
from lapvqa.machine import Training
from lapvqa.networks.device import Computer, attention_by, make_deterministic, mixed_precision
from lapvqa.networks.encoder import LayerNorm
from lapvqa.networks.losses import head_loss
from lapvqa.params import Attention, ModelParams, PretrainParams
from lapvqa.pretrain.allocations import Workload
from lapvqa.pretrain.checkpoint import Checkpoints
from lapvqa.pretrain.inputs import padded_length
from lapvqa.pretrain.loader import Corpus
from lapvqa.pretrain.memory import forecast, largest_that_fit, usable_on_gpu, workload_of
from lapvqa.pretrain.model import CaptioningModel
from lapvqa.pretrain.monitor import data_sheet_peak, flops_per_step, measured_peak
from lapvqa.pretrain.trainer import Trainer
from lapvqa.recorder import Recorder
from lapvqa.rrg.decoding import write_reports

RESULT = Path(__file__).parent / "results" / "gpu.json"
NO_GPU, NO_TIME = "not measured: no accelerator here", "not measured: out of time"
PART_LIMIT_S = 180.0
"""A part that takes longer hangs."""
BACKENDS: tuple[Attention, ...] = ("cudnn", "flash", "efficient")
VOCABULARY = 50257
Found = dict[str, float]


@dataclass(frozen=True)
class Scale:
    """How large and how often."""

    model: ModelParams
    batch: int
    lengths: tuple[int, int]
    words: int
    steps: int
    embedded: int
    studies: int
    loss_steps: int
    loss_batch: int


FULL = Scale(ModelParams(), 128, (128, 256), VOCABULARY, 10, 2048, 3269, 200, 16)
TINY = Scale(
    ModelParams(
        image_size=64, patch_size=16, width=32, depth=2, heads=2, pooled_grid=2,
        decoder_width=32, decoder_depth=1, decoder_heads=2,
    ),
    4, (12, 20), 500, 2, 4, 3, 3, 4,
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table; ``value`` is None where nothing was measured."""

    what: str
    unit: str
    target: str = ""
    part: str = ""
    """What fills it; empty: the part of the row's own name."""
    value: float | None = None
    why_not: str = NO_GPU

    def line(self) -> str:
        """Return it for a person."""
        found = self.why_not if self.value is None else f"{self.value:.4g} {self.unit}"
        return f"{self.what:50} {found[:70]:34} {self.target}".rstrip()


PLAIN = "train_eager_short"
"""The step of which the parts, the memory and the waits are measured too."""


def rows() -> dict[str, Row]:
    """Return the table before anything is measured, at most 40 lines."""
    named = {
        "train_eager_short": Row("training, T 128, eager", "images/s", "277 estimated"),
        "train_compiled_short": Row("training, T 128, compiled", "images/s", "320 estimated"),
        "train_fast_short": Row("training, T 128, compiled, not deterministic", "images/s"),
        "train_lean_short": Row("training, T 128, the same, bf16 residuals", "images/s", "340"),
        "train_eager_long": Row("training, T 256, eager", "images/s"),
        "train_compiled_long": Row("training, T 256, compiled", "images/s"),
        "flops": Row("an image's training, T 128 (counted)", "TFLOP", "1.515"),
        "mfu_measured": Row("best of these: MFU of the measured peak", "", "0.55", part=PLAIN),
        "mfu_data_sheet": Row("best of these: MFU of the data sheet", "", "0.54", part=PLAIN),
        "rows": Row("images in a micro-batch, as planned", "", part=PLAIN),
        "planned": Row("peak memory of that by plan-memory", "GB"),
        "peak": Row("peak memory, T 128, eager", "GB", "of the plan +- 10 %", part=PLAIN),
        "waits": Row("waits of the host in a step", "", "0 but for the late read", part=PLAIN),
        "part_encoder": Row("encoder, forward and backward", "ms", part=PLAIN),
        "part_elements": Row("of it norms, GELU and sums (alone)", "ms", part=PLAIN),
        "part_head": Row("head and loss, forward and backward", "ms", part=PLAIN),
        "part_optimizer": Row("clipping and optimizer", "ms", part=PLAIN),
        "part_inputs": Row("to the device, and augmented there", "ms", part=PLAIN),
        "part_data": Row("reading and preparing on one thread", "ms", part=PLAIN),
    }
    for name in BACKENDS:
        named[f"attention_{name}"] = Row(f"attention of a block, both ways: {name}", "ms")
    for name in ("auto", *BACKENDS):
        named[f"loss_{name}"] = Row(f"loss after 200 steps: {name}", "nats", "as math's to 0.02")
    named["loss_math"] = Row("loss after 200 steps: math", "nats")
    named["embed"] = Row("embedding, as evaluations do", "images/s", "1280")
    named["embed_rows"] = Row("images at a time there", "", part="embed")
    named["captions"] = Row("captions of 3,269 studies, greedy", "s", "20")
    named["resume"] = Row("kill -9, resumed: the same bytes (1: yes)", "", "1")
    named["seconds"] = Row("all of this", "s", "600")
    return named


def mean_ms(device: torch.device, act: Callable[[], Any], runs: int, *, warm_up: int = 3) -> float:
    """Return the milliseconds of ``act``: the better of two windows of ``runs`` calls."""
    for _ in range(warm_up):
        act()
    windows = []
    for _ in range(2):
        _wait(device)
        started = time.perf_counter()
        for _ in range(runs):
            act()
        _wait(device)
        windows.append(1000 * (time.perf_counter() - started) / runs)
    return min(windows)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def corpus(folder: Path, scale: Scale, length: int, batch: int) -> Corpus:
    """Random images; reports of which a third have ``length`` tokens, the others a quarter.

    The words are dealt in turn, so that all occur and the table is as large as it can be.
    """
    rng, count = np.random.default_rng(0), 2 * batch
    keys = [str(index) for index in range(count)]
    shard = add_shard(folder, keys, rng.integers(0, 256, (count, 384, 384), dtype=np.uint8))
    words = np.resize(rng.permutation(scale.words).astype(np.uint16), scale.words + length)
    pairs: list[Pair] = []
    start = 0
    while start < scale.words or len(pairs) < count:
        taken = length if len(pairs) % 3 == 0 else length // 4
        first = start % scale.words
        tokens = words[first : first + taken + 1]
        pairs.append(Pair(str(len(pairs)), shard, len(pairs) % count, "", tokens, sided=False))
        start += taken
    return Corpus(pairs, [], ShardStore(folder), 0, "random")


def settings(scale: Scale, **changes: Any) -> PretrainParams:
    """Return the parameters of the published preset, at this scale."""
    common = {"epochs": 1000, "batch_size": scale.batch, "lr": 1e-4, "warmup_steps": 10}
    return PretrainParams(model=scale.model, **{**common, **changes})


@contextlib.contextmanager
def training(
    scale: Scale,
    device: torch.device,
    params: PretrainParams,
    length: int,
    attention: Attention = "auto",
) -> Iterator[tuple[Trainer, Recorder]]:
    """A trainer of its own, as the stage builds it, and a recorder for its steps."""
    torch.compiler.reset()
    make_deterministic(threads=torch.get_num_threads(), exact=params.deterministic)
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder) / "record.jsonl", stage="pretrain", quiet=True)
        read = corpus(Path(folder), scale, length, params.batch_size)
        threads = Training(loader_threads=2)
        trainer = Trainer(params, read, device, training=threads, attention=attention)
        try:
            yield trainer, recorder
        finally:
            recorder.close()
            if device.type == "cuda":
                torch.cuda.empty_cache()


def accumulated(scale: Scale, device: torch.device, length: int) -> int:
    """Return into how many pieces the plan cuts a batch on this device."""
    if device.type != "cuda":
        return 1
    room = usable_on_gpu(torch.cuda.get_device_properties(device).total_memory)
    place = padded_length(length, on_gpu=True)
    found = largest_that_fit(settings(scale), Workload(place, place / 2, scale.words), room)
    return found[0].accumulate


KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    PLAIN: (0, {}),
    "train_compiled_short": (0, {"compile": True}),
    "train_fast_short": (0, {"compile": True, "deterministic": False}),
    "train_lean_short": (0, {"compile": True, "deterministic": False, "residuals": "bfloat16"}),
    "train_eager_long": (1, {}),
    "train_compiled_long": (1, {"compile": True}),
}
"""Row -> which of the lengths, and what differs from the preset."""


def measure_training(scale: Scale, device: torch.device, found: Found, name: str) -> None:
    """Fill in a whole step; of the plain one the memory, the waits and the parts too."""
    which, changes = KINDS[name]
    length = scale.lengths[which]
    params = settings(scale, accumulate=accumulated(scale, device, length), **changes)
    with training(scale, device, params, length) as (trainer, recorder):
        with contextlib.closing(trainer.steps(0, 10**6)) as steps:
            step = partial(_take, trainer, recorder, steps)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            seconds = mean_ms(device, step, scale.steps, warm_up=4) / 1000
            found[name] = scale.batch / seconds
            if name == PLAIN:
                if device.type == "cuda":
                    found["peak"] = torch.cuda.max_memory_allocated(device) / 1e9
                    found["waits"] = waits(step)
                found["rows"] = scale.batch / params.accumulate
                found["planned"] = forecast(params, workload_of(trainer)).peak / 1e9
        if name == PLAIN:
            measure_parts(scale, trainer, found)
        rate = flops_of(scale, params, length) * scale.batch / seconds
        found["mfu_measured"] = max(found.get("mfu_measured", 0), rate / measured_peak(device))
        if sheet := data_sheet_peak(device):
            found["mfu_data_sheet"] = max(found.get("mfu_data_sheet", 0), rate / sheet)


def _take(trainer: Trainer, recorder: Recorder, steps: Iterator[Any]) -> None:
    trainer.take_step(next(steps), recorder)


def flops_of(scale: Scale, params: PretrainParams, length: int) -> float:
    """Return the FLOPs of training on an image, forward and backward, as ``monitor`` counts."""
    total = flops_per_step(
        params, images=scale.batch, positions=scale.batch * length,
        targets=scale.batch * length // 2, vocabulary=scale.words,
    )  # fmt: skip
    return total / scale.batch


def waits(step: Callable[[], None]) -> float:
    """Return how often CUDA says that the host waits in a step, but for the read of the last."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return float(sum("synchroniz" in str(one.message) for one in said))


def measure_parts(scale: Scale, trainer: Trainer, found: Found) -> None:
    """Fill in each part of a step alone, for all its micro-batches; so they are no sum of it."""
    model, device = cast("CaptioningModel", trainer.model), trainer.device
    pieces = trainer.params.accumulate
    with contextlib.closing(trainer.steps(0, 1)) as steps:
        prepared = next(steps)[0]
    inputs = trainer.preparer.to_inputs(prepared)
    table, log_count = model.decoder.token_embed.weight, trainer.vocabulary.log_count.to(device)
    hidden = torch.randn(len(inputs.targets), model.decoder.width, device=device)
    sizes, tokens = scale.model, trainer.model.vision_encoder.grid**2 + 1
    norm = LayerNorm(sizes.width).to(device)
    x = torch.randn(len(inputs.images), tokens, sizes.width, device=device, requires_grad=True)
    wide = torch.randn(
        len(inputs.images), tokens, 4 * sizes.width, device=device, requires_grad=True
    )
    model.train()

    def alone(forward: Callable[[], torch.Tensor]) -> float:
        def act() -> None:
            model.zero_grad(set_to_none=True)  # else gradients would be added up
            with mixed_precision(device):
                summed = forward()
            summed.backward()  # type: ignore[no-untyped-call]

        return pieces * mean_ms(device, act, scale.steps)

    def elements() -> torch.Tensor:
        changed = x + norm(x) + norm(x)
        return changed.sum() + functional.gelu(wide.to(torch.bfloat16)).float().sum()

    def optimizer() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), trainer.params.grad_clip)
        trainer.optimizer.step()

    found["part_encoder"] = alone(lambda: model.vision_encoder(inputs.images).float().sum())
    found["part_elements"] = scale.model.depth * alone(elements)
    found["part_head"] = alone(
        lambda: head_loss(hidden.requires_grad_(), table, log_count, inputs.targets)
    )
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    found["part_optimizer"] = mean_ms(device, optimizer, scale.steps)
    trainer.optimizer.zero_grad(set_to_none=True)
    found["part_inputs"] = pieces * mean_ms(
        device, lambda: trainer.preparer.to_inputs(prepared), scale.steps
    )
    trainer.loader.workers = 0
    with contextlib.closing(trainer.steps(0, 10**6)) as steps:
        found["part_data"] = mean_ms(device, lambda: next(steps), scale.steps)


def measure_attention(scale: Scale, device: torch.device, found: Found, backend: Attention) -> None:
    """Fill in attention by a backend, both ways."""
    make_deterministic(threads=torch.get_num_threads(), exact=False)
    tokens = (scale.model.image_size // scale.model.patch_size) ** 2 + 1
    shape = (scale.batch, tokens, 3, scale.model.heads, scale.model.width // scale.model.heads)
    qkv = torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True)
    gradient = torch.randn(*qkv[:, :, 0].transpose(1, 2).shape, device=device, dtype=qkv.dtype)

    def attention() -> None:
        qkv.grad = None
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        functional.scaled_dot_product_attention(q, k, v).backward(gradient)  # type: ignore[no-untyped-call]

    with attention_by(backend):
        found[f"attention_{backend}"] = mean_ms(device, attention, scale.steps)


def measure_losses(scale: Scale, device: torch.device, found: Found, backend: Attention) -> None:
    """Fill in the mean loss of the last tenth of some steps, by one backend, in small batches."""
    small = replace(scale, words=min(scale.words, 2000))
    # Not every backend has kernels that sum in one order.
    params = settings(small, batch_size=scale.loss_batch, deterministic=False)
    length = scale.lengths[0]
    with training(small, device, params, length, attention=backend) as (trainer, recorder):
        with contextlib.closing(trainer.steps(0, scale.loss_steps)) as steps:
            for micro in steps:
                trainer.take_step(micro, recorder)
        last = trainer.progress.history[-max(1, scale.loss_steps // 10) :]
        found[f"loss_{backend}"] = statistics.mean(one.loss for one in last)


def _inference(scale: Scale, device: torch.device) -> tuple[Computer, CaptioningModel, int, Any]:
    """Return computer, model, rows at a time and images [count, 384, 384]."""
    make_deterministic(threads=torch.get_num_threads())
    computer = Computer(device)
    model = CaptioningModel(scale.model).to(device).eval()
    shape = (min(scale.embedded, 512), 384, 384)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return computer, model, rows_at_once(OwnEncoder(model.vision_encoder), computer), pixels


def measure_embedding(scale: Scale, device: torch.device, found: Found) -> None:
    """Fill in embeddings."""
    computer, model, at_once, pixels = _inference(scale, device)
    encoder, count = OwnEncoder(model.vision_encoder), len(pixels)
    found["embed_rows"] = at_once

    def embed(images: int) -> None:
        chunks = [min(count, images - start) for start in range(0, images, count)]
        with contextlib.closing(computer.ahead(lambda size: pixels[:size], chunks)) as coming:
            for some in coming:
                encode(encoder, some, computer=computer, rows=at_once)

    embed(count)
    milliseconds = mean_ms(device, lambda: embed(scale.embedded), 1, warm_up=0)
    found["embed"] = 1000 * scale.embedded / milliseconds


def measure_captions(scale: Scale, device: torch.device, found: Found) -> None:
    """Fill in captions; weights at random, so that they run to their end."""
    computer, model, at_once, pixels = _inference(scale, device)

    def captions() -> None:
        for start in range(0, scale.studies, at_once):
            some = computer.put(pixels[: min(at_once, scale.studies - start)])
            write_reports(model, some, computer=computer, max_new_tokens=scale.lengths[0])

    found["captions"] = mean_ms(device, captions, 1, warm_up=0) / 1000


def measure_resume(scale: Scale, device: torch.device, found: Found) -> None:
    """Train in processes of their own, one of them killed: do both end with the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        ends = []
        for name, kill_after in (("straight", 0), ("killed", 3)):
            place = Path(folder) / name
            command = [sys.executable, __file__, "--child", str(place), "--device", str(device)]
            if kill_after:
                child = subprocess.Popen(command)
                while child.poll() is None and not list(place.glob("state-*[3-9].json")):
                    time.sleep(0.01)
                child.send_signal(signal.SIGKILL)
                child.wait()
            subprocess.run(command, check=True)
            ends.append((place / "digest").read_text())
        found["resume"] = float(ends[0] == ends[1])


def child(place: Path, device: torch.device) -> None:
    """Train TINY for some steps, a state after each; continue if there is one."""
    params = settings(TINY, compile=device.type == "cuda")
    with (
        training(TINY, device, params, TINY.lengths[0]) as (trainer, recorder),
        Checkpoints(place, keep=50) as states,
    ):
        if (state := states.newest()) is not None:
            trainer.load_state(state)
        with contextlib.closing(trainer.steps(trainer.progress.step, 40)) as steps:
            for micro in steps:
                trainer.take_step(micro, recorder)
                states.save(trainer.progress.step, trainer.state())
        digest = hashlib.sha256()
        for _, tensor in sorted(trainer.weights().items()):
            digest.update(tensor.numpy().tobytes())
        digest.update(repr([one.loss for one in trainer.progress.history]).encode())
    (place / "digest").write_text(digest.hexdigest())


def counted(scale: Scale, found: Found) -> None:
    """Fill in what needs no GPU: FLOPs, and the plan of a step on tensors without memory."""
    length = scale.lengths[0]
    found["flops"] = flops_of(scale, settings(scale), length) / 1e12
    work = Workload(length, length / 2, scale.words)
    found["planned"] = forecast(settings(scale), work).peak / 1e9


def parts(scale: Scale, device: torch.device, found: Found) -> dict[str, Callable[[], None]]:
    """Return what is measured in one go each, the most wanted first."""
    on_gpu = device.type == "cuda"
    kinds = [name for name in KINDS if on_gpu or "eager" in name]
    backends = BACKENDS if on_gpu else ()
    losses: list[Attention] = ["auto", *backends, "math"]
    return {
        "flops": partial(counted, scale, found),
        **{name: partial(measure_training, scale, device, found, name) for name in kinds},
        "embed": partial(measure_embedding, scale, device, found),
        "captions": partial(measure_captions, scale, device, found),
        **{
            f"attention_{name}": partial(measure_attention, scale, device, found, name)
            for name in backends
        },
        "resume": partial(measure_resume, scale, device, found),
        **{f"loss_{name}": partial(measure_losses, scale, device, found, name) for name in losses},
    }


@dataclass
class State:
    """What is known so far, on disk between two processes; one of them writes at a time."""

    found: Found = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    since: float = 0.0
    """When the first of ``left`` was begun; 0: none is under way."""

    @classmethod
    def read(cls, path: Path) -> State:
        """Read it."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(asdict(self)))
        beside.replace(path)

    def end_part(self, fault: str | None = None) -> None:
        """Take the first of what is left as done, or as failed."""
        name = self.left.pop(0)
        self.done.append(name)
        self.since = 0.0
        if fault is not None:
            self.failed[name] = fault


def work(scale: Scale, device: torch.device, path: Path) -> None:
    """Do what is left, part by part; a fault is the part's alone."""
    state = State.read(path)
    todo = parts(scale, device, state.found)
    while state.left:
        state.since = time.monotonic()
        state.write(path)
        fault = None
        try:
            todo[state.left[0]]()
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest goes on
            traceback.print_exc()
            fault = f"{type(error).__name__}: {error}".splitlines()[0]
        state.end_part(fault)
        state.write(path)
        gc.collect()  # else the last model's memory would count as the next one's
        if device.type == "cuda":
            torch.cuda.synchronize()  # raises where a kernel has spoilt the context: a new process
            torch.cuda.empty_cache()


def supervise(chosen: argparse.Namespace, scale: Scale, device: torch.device) -> State:
    """Have all parts done within the time, by as many processes as it takes."""
    until = time.monotonic() + 60 * chosen.minutes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.json"
        State(left=list(parts(scale, device, {}))).write(path)
        while (state := State.read(path)).left and time.monotonic() < until:
            state.since = time.monotonic()  # a process may hang before it begins
            state.write(path)
            command = [sys.executable, __file__, "--work", str(path), "--device", str(device)]
            process = subprocess.Popen(command + ["--tiny"] * chosen.tiny, process_group=0)
            fault = _watch(process, path, until, lambda state: keep(chosen, state, device))
            state = State.read(path)
            if state.since and time.monotonic() < until:
                state.end_part(fault)
                state.write(path)
        return State.read(path)


def _watch(
    process: subprocess.Popen[bytes], path: Path, until: float, on_part: Callable[[State], None]
) -> str:
    """Wait for a process; stop it with its children where it hangs; return how it ended."""
    seen, fault = 0, ""
    try:
        while process.poll() is None and not fault:
            time.sleep(0.1)
            state, now = State.read(path), time.monotonic()
            if len(state.done) > seen:
                seen = len(state.done)
                on_part(state)
            taken = now - state.since if state.since else 0.0
            if taken > PART_LIMIT_S or now > until:
                fault = f"stopped after {taken:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        ended = process.wait()
    return fault or f"its process ended with {ended}"


def main() -> None:
    """Measure where there is a GPU, print the table, keep it."""
    parser = argparse.ArgumentParser(description="Pretraining and inference on one GPU.")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, kept nowhere")
    parser.add_argument("--minutes", type=float, default=8.5, help="stop after so long")
    parser.add_argument("--out", type=Path, default=RESULT, help="the file that is written")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    device, scale = torch.device(chosen.device), TINY if chosen.tiny else FULL
    if chosen.child:
        child(chosen.child, device)
        return
    if chosen.work:
        work(scale, device, chosen.work)
        return
    started, state = time.monotonic(), State()
    if chosen.tiny or device.type == "cuda":
        state = supervise(chosen, scale, device)
        state.found["seconds"] = time.monotonic() - started
    else:
        counted(scale, state.found)
    if chosen.tiny:
        print("tiny: these figures show that the script runs, nothing else")
    for row in table(state).values():
        print(row.line())
    keep(chosen, state, device)


def table(state: State) -> dict[str, Row]:
    """Return the rows with what was found, and why where nothing was."""
    filled = {}
    for name, row in rows().items():
        part = row.part or name
        why_not = NO_TIME if part in state.left else NO_GPU
        if part in state.failed:
            why_not = f"failed: {state.failed[part]}"
        filled[name] = replace(row, value=state.found.get(name), why_not=why_not)
    return filled


def keep(chosen: argparse.Namespace, state: State, device: torch.device) -> None:
    """Write the file, unless sizes are tiny."""
    if chosen.tiny:
        return
    on_gpu = device.type == "cuda"
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device) if on_gpu else NO_GPU,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "setting": "ViT-L/14, 384 px, batch 128, half of the places padding, bfloat16 autocast; "
        "losses: batches of 16, 2000 words, not deterministic",
        "rows": {
            name: {
                "what": row.what, "unit": row.unit, "target": row.target,
                "value": row.why_not if row.value is None else _number(row.value),
            }
            for name, row in table(state).items()
        },
    }  # fmt: skip
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n")


def _number(value: float) -> float | str:
    return round(value, 4) if math.isfinite(value) else str(value)


if __name__ == "__main__":
    main()
