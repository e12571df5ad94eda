"""ViT-L/14 at 384 px on one GPU: pretraining, its parts, embedding, captions. One table.

    python benchmarks/bench_gpu.py            # about ten minutes on an H200
    python benchmarks/bench_gpu.py --tiny     # the same code, tiny, wherever; nothing is kept

Trainer, objective, optimizer, ``generate`` and the loader's batches are those of the stage; images
are random uint8 in memory, reports 128 tokens of which half are padding. Each figure is the median
of several runs after a warm-up, between CUDA events on a GPU. Without a GPU the rows say
"not measured", and so does results/gpu.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lapvqa.images.report_pairs import Batch, Pair
from lapvqa.images.shards import ShardStore, add_shard
from lapvqa.networks.device import make_deterministic, mixed_precision
from lapvqa.networks.generation import generate
from lapvqa.networks.losses import head_loss
from lapvqa.params import ModelParams, PretrainParams
from lapvqa.pretrain.loader import Corpus
from lapvqa.pretrain.memory import forecast, workload_of
from lapvqa.pretrain.model import CaptioningModel, build_encoder
from lapvqa.pretrain.monitor import data_sheet_peak, flops_per_step, measured_peak
from lapvqa.pretrain.trainer import Trainer
from lapvqa.recorder import Recorder

RESULT = Path(__file__).parent / "results" / "gpu.json"
NOT_MEASURED = "not measured: no accelerator here"
BACKENDS = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


@dataclass(frozen=True)
class Scale:
    """How large and how often."""

    model: ModelParams
    batch: int
    length: int
    words: int
    runs: int
    embed_batch: int
    studies: int
    caption_batch: int


FULL = Scale(ModelParams(), 128, 128, 50257, 10, 256, 3269, 512)
TINY = Scale(
    ModelParams(
        image_size=64, patch_size=16, width=32, depth=2, heads=2, pooled_grid=2,
        decoder_width=32, decoder_depth=1, decoder_heads=2,
    ),
    4, 12, 500, 2, 4, 6, 4,
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table; ``value`` is None where nothing was measured."""

    what: str
    unit: str
    target: str = ""
    value: float | None = None
    note: str = ""

    def line(self) -> str:
        """Return it for a person."""
        found = NOT_MEASURED if self.value is None else f"{self.value:.4g} {self.unit}"
        return f"{self.what:52} {found:34} {self.target:22} {self.note}".rstrip()


def rows() -> dict[str, Row]:
    """Return the table before anything is measured."""
    found = {
        "train": Row("captioning, as set", "images/s", ">= 280, then 340"),
        "train_compiled": Row(
            "captioning, torch.compile per block", "images/s", ">= 280, then 340"
        ),
        "train_fast": Row("captioning, compiled, not deterministic", "images/s"),
        "train_half": Row("captioning, compiled, 50 % of the patches", "images/s", "650"),
        "mfu_measured": Row("best full run: MFU of the measured peak", "", "0.55, then 0.67"),
        "mfu_data_sheet": Row("best full run: MFU of the data sheet", "", "0.54"),
        "peak": Row("as set: peak memory", "GB", "of the plan +- 10 %"),
        "planned": Row("as set: peak memory by plan-memory", "GB"),
        "part_encoder": Row("encoder, forward and backward", "ms"),
        "part_head": Row("head and loss, forward and backward", "ms"),
        "part_optimizer": Row("optimizer step, with clipping", "ms"),
        "part_inputs": Row("images and tokens to the device, augmented", "ms"),
        "part_data": Row("reading a batch", "ms"),
        "embed": Row("embedding alone", "images/s", ">= 1280"),
        "embed_compiled": Row("embedding alone, compiled", "images/s", ">= 1280"),
        "captions": Row("captions of 3,269 studies, greedy", "s", "< 20"),
    }
    for name in BACKENDS:
        found[f"attention_{name}"] = Row(f"a block's attention, forward and backward: {name}", "ms")
    return found


class Clock:
    """Medians of runs after a warm-up, by CUDA's events on a GPU."""

    def __init__(self, device: torch.device, runs: int) -> None:
        self.device, self.runs = device, runs

    def milliseconds(self, act: Callable[[], Any], *, warm_up: int = 3) -> float:
        """Return the median of ``runs`` calls."""
        for _ in range(warm_up):
            act()
        return statistics.median(self._once(act) for _ in range(self.runs))

    def _once(self, act: Callable[[], Any]) -> float:
        if self.device.type != "cuda":
            started = time.perf_counter()
            act()
            return 1000 * (time.perf_counter() - started)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        start.record()
        act()
        end.record()
        torch.cuda.synchronize(self.device)
        return start.elapsed_time(end)


def corpus(folder: Path, scale: Scale) -> Corpus:
    """Random images; reports of which a third have ``length`` tokens, the others a quarter.

    The words are dealt in turn, so that all occur and the table is as large as it can be.
    """
    rng, count = np.random.default_rng(0), 2 * scale.batch
    keys = [str(index) for index in range(count)]
    shard = add_shard(folder, keys, rng.integers(0, 256, (count, 384, 384), dtype=np.uint8))
    words = np.resize(rng.permutation(scale.words).astype(np.uint16), scale.words + scale.length)
    pairs: list[Pair] = []
    start = 0
    while start < scale.words or len(pairs) < count:
        length = scale.length if len(pairs) % 3 == 0 else scale.length // 4
        first = start % scale.words
        tokens = words[first : first + length + 1]
        pairs.append(Pair(str(len(pairs)), shard, len(pairs) % count, "", tokens, sided=False))
        start += length
    return Corpus(pairs, [], ShardStore(folder), 0, "random")


@contextlib.contextmanager
def training(
    scale: Scale, device: torch.device, *, exact: bool = True, **changes: Any
) -> Iterator[tuple[Trainer, Recorder]]:
    """A trainer of its own, and a recorder for its steps."""
    torch.compiler.reset()
    make_deterministic(threads=torch.get_num_threads(), exact=exact)
    with tempfile.TemporaryDirectory() as folder:
        params = PretrainParams(
            model=scale.model, epochs=1000, batch_size=scale.batch, lr=1e-4, warmup_steps=10,
            deterministic=exact, **changes,
        )  # fmt: skip
        recorder = Recorder(Path(folder) / "record.jsonl", stage="pretrain", quiet=True)
        trainer = Trainer(params, corpus(Path(folder), scale), device)
        try:
            yield trainer, recorder
        finally:
            recorder.close()
            if device.type == "cuda":
                torch.cuda.empty_cache()


def train_ms(trainer: Trainer, recorder: Recorder, clock: Clock) -> float:
    """Return the milliseconds of a whole step, reading included, as the stage takes it."""
    batches = trainer.loader.batches(0, 10**6)

    def step() -> None:
        trainer.take_step(next(batches), recorder)

    try:
        return clock.milliseconds(step, warm_up=5)
    finally:
        batches.close()


def measure_training(
    scale: Scale, device: torch.device, clock: Clock, found: dict[str, float], versions: list[str]
) -> None:
    """Fill in the whole step, and of the first the memory and the parts."""
    kinds: dict[str, dict[str, Any]] = {
        "train": {},
        "train_compiled": {"compile": True},
        "train_fast": {"compile": True, "exact": False},
        "train_half": {"compile": True, "keep_patches": 0.5},
    }
    for name in versions:
        with training(scale, device, **kinds[name]) as (trainer, recorder):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            seconds = train_ms(trainer, recorder, clock) / 1000
            found[name] = scale.batch / seconds
            if device.type == "cuda" and name == "train":
                found["peak"] = torch.cuda.max_memory_allocated(device) / 1e9
            if name == "train":
                found["planned"] = forecast(trainer.params, workload_of(trainer)).peak / 1e9
                measure_parts(trainer, clock, found)
            if name != "train_half":
                add_mfu(trainer, seconds, found)


def add_mfu(trainer: Trainer, seconds: float, found: dict[str, float]) -> None:
    """Keep the better MFU; FLOPs as ``monitor.flops_per_step`` counts them."""
    (batch,) = next(trainer.loader.batches(0, 1))
    rate = flops_per_step(
        trainer.params, images=len(batch.indices), positions=batch.inputs.numel(),
        targets=trainer.loader.num_targets(batch.indices), vocabulary=len(trainer.vocabulary),
    ) / seconds  # fmt: skip
    found["mfu_measured"] = max(found.get("mfu_measured", 0), rate / measured_peak(trainer.device))
    data_sheet = data_sheet_peak(trainer.device)
    if data_sheet:
        found["mfu_data_sheet"] = max(found.get("mfu_data_sheet", 0), rate / data_sheet)


def measure_parts(trainer: Trainer, clock: Clock, found: dict[str, float]) -> None:
    """Fill in encoder, head, optimizer, inputs, reading: each alone, so no sum of the step."""
    model, device = trainer.model, trainer.device
    assert isinstance(model, CaptioningModel)
    (batch,) = next(trainer.loader.batches(0, 1))
    inputs = trainer.preparer.for_training(batch, 0)
    table, log_count = model.decoder.token_embed.weight, trainer.vocabulary.log_count.to(device)
    hidden = torch.randn(len(inputs.targets), model.decoder.width, device=device)
    model.train()

    def encoder() -> None:
        model.zero_grad(set_to_none=True)  # else gradients would be added up
        with mixed_precision(device):
            summed = model.vision_encoder(inputs.images).float().sum()
        summed.backward()  # type: ignore[no-untyped-call]

    def head() -> None:
        model.zero_grad(set_to_none=True)
        with mixed_precision(device):
            loss = head_loss(hidden.requires_grad_(), table, log_count, inputs.targets)
        loss.backward()  # type: ignore[no-untyped-call]

    def optimizer() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), trainer.params.grad_clip)
        trainer.optimizer.step()

    found["part_encoder"] = clock.milliseconds(encoder)
    found["part_head"] = clock.milliseconds(head)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    found["part_optimizer"] = clock.milliseconds(optimizer)
    trainer.optimizer.zero_grad(set_to_none=True)
    found["part_inputs"] = clock.milliseconds(lambda: trainer.preparer.for_training(batch, 0))
    plain = read_when_asked(trainer)
    found["part_data"] = clock.milliseconds(lambda: next(plain))
    plain.close()


def read_when_asked(trainer: Trainer) -> Iterator[list[Batch]]:
    """Batches that are read when they are asked for, by the process itself."""
    loader = trainer.loader
    return type(loader)(loader.pairs, loader.store, loader.plan, workers=0, pin=loader.pin).batches(
        0, 10**6
    )


def measure_attention(
    scale: Scale, device: torch.device, clock: Clock, found: dict[str, float]
) -> None:
    """Fill in each backend that can compute it; a CPU has none of them."""
    make_deterministic(threads=torch.get_num_threads(), exact=False)
    tokens = (scale.model.image_size // scale.model.patch_size) ** 2 + 1
    shape = (scale.batch, tokens, 3, scale.model.heads, scale.model.width // scale.model.heads)
    qkv = torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True)
    gradient = torch.randn(*qkv[:, :, 0].transpose(1, 2).shape, device=device, dtype=qkv.dtype)

    def attention() -> None:
        qkv.grad = None
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        nn.functional.scaled_dot_product_attention(q, k, v).backward(gradient)

    for name, backend in BACKENDS.items():
        with sdpa_kernel(backend):
            try:
                found[f"attention_{name}"] = clock.milliseconds(attention)
            except RuntimeError as error:
                print(f"attention by {name}: {str(error).splitlines()[0]}")


@torch.no_grad()
def measure_inference(
    scale: Scale, device: torch.device, clock: Clock, found: dict[str, float], *, compiled: bool
) -> None:
    """Fill in embedding and captions, weights at random, so that captions run to their end."""
    model = CaptioningModel(scale.model).to(device).eval()
    pixels = torch.randint(
        0, 256, (scale.embed_batch, 1, *[scale.model.image_size] * 2), dtype=torch.uint8
    )
    pixels = pixels.to(device)

    def embed() -> None:
        with mixed_precision(device):
            model.vision_encoder(pixels.float().div_(255).sub_(0.5).div_(0.25))

    found["embed"] = 1000 * scale.embed_batch / clock.milliseconds(embed)

    def captions() -> None:
        for start in range(0, scale.studies, scale.caption_batch):
            count = min(scale.caption_batch, scale.studies - start)
            some = pixels[torch.arange(count, device=device) % len(pixels)]
            with mixed_precision(device):
                generate(model, some.float().div_(255), max_new_tokens=scale.length)

    found["captions"] = Clock(device, 1).milliseconds(captions, warm_up=1) / 1000
    if compiled:
        model.vision_encoder = torch.compile(build_encoder(scale.model).to(device).eval())
        found["embed_compiled"] = 1000 * scale.embed_batch / clock.milliseconds(embed)


def measure(scale: Scale, device: torch.device, *, compiled: bool = True) -> dict[str, float]:
    """Measure all that the table has."""
    found: dict[str, float] = {}
    clock = Clock(device, scale.runs)
    if device.type == "cuda":
        measure_attention(scale, device, clock, found)
    kinds = ["train", "train_compiled", "train_fast", "train_half"] if compiled else ["train"]
    measure_training(scale, device, clock, found, kinds)
    measure_inference(scale, device, clock, found, compiled=compiled)
    return found


def main() -> None:
    """Measure where there is a GPU, print the table, keep it."""
    parser = argparse.ArgumentParser(description="Pretraining and inference on one GPU.")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, kept nowhere")
    tiny = parser.parse_args().tiny
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    found: dict[str, float] = {}
    if tiny:
        found = measure(TINY, device, compiled=on_gpu)
    elif on_gpu:
        found = measure(FULL, device)
    table = {name: replace(row, value=found.get(name)) for name, row in rows().items()}
    if tiny:
        print("tiny: these figures show that the script runs, nothing else")
    for row in table.values():
        print(row.line())
    if not tiny:
        keep(table, device)


def keep(table: dict[str, Row], device: torch.device) -> None:
    """Write results/gpu.json."""
    on_gpu = device.type == "cuda"
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device) if on_gpu else NOT_MEASURED,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "setting": "ViT-L/14, 384 px, batch 128, 128 positions, half of them padding, bfloat16",
        "rows": {
            name: {
                "what": row.what,
                "unit": row.unit,
                "target": row.target,
                "value": NOT_MEASURED if row.value is None else round(row.value, 4),
            }
            for name, row in table.items()
        },
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
