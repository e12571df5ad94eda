"""Films to features: `Encoder` beside a plain transformers pipeline, same weights, same PNG files.

    python benchmarks/bench_embed.py

A ViT-S/16 at 224 px (random weights: speed does not depend on them) reads 96 radiographs of the
demo's drawing, 1400 x 1200, PNG. One thread each, runs alternate. The pipeline is transformers'
``image-feature-extraction`` over the folder that `lapvqa export` writes, 32 films at a time, its
tensors kept as tensors; it squeezes a film into the square, where ours fits it in, so the features
are of other inputs. The time spent on the processor is kept too, which neighbours disturb less.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import ViTImageProcessorPil, ViTModel, pipeline

from lapvqa import Encoder, storage
from lapvqa.export import repository
from lapvqa.machine import Machine
from lapvqa.networks.weights import serialise
from lapvqa.params import ModelParams, RecipeParams
from lapvqa.pretrain.model import initial_model

SIZES = ModelParams(image_size=224, patch_size=16, width=384, depth=12, heads=6, pooled_grid=14)
FILMS, RUNS, BATCH = 96, 3, 32
RESULT = Path(__file__).parent / "results" / "embed-cpu.json"
TRAINING = {
    "objective": "captioning", "steps": 0, "train_pairs": 0,
    "params": {"lr": 1e-4, "weight_decay": 0.0, "batch_size": 1, "flip": False},
}  # fmt: skip


def write_films(folder: Path) -> list[str]:
    """Write smooth films with noise, which PNG packs about as well as radiographs."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:1400, 0:1200] / 200
    paths = []
    for number in range(FILMS):
        waves = 120 + 90 * np.sin(x + number) * np.cos(y - number)
        pixels = np.clip(waves + random.normal(0, 4, waves.shape), 0, 255).astype(np.uint8)
        paths.append(str(folder / f"{number:03d}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


def write_models(folder: Path) -> tuple[Path, Path]:
    """Write the same weights in our form and in that of transformers."""
    encoder = initial_model(SIZES, seed=0).vision_encoder.eval()
    own, theirs = folder / "own", folder / "theirs"
    storage.write_bytes(own / "encoder_final.pt", serialise(encoder.state_dict()))
    storage.write_json(own / "card.json", {"model": SIZES.model_dump()})
    for name, content in repository.contents(encoder, SIZES, TRAINING, RecipeParams()).items():
        storage.write_bytes(theirs / name, content)
    return own, theirs


def measured(run: Callable[[], object]) -> tuple[float, float]:
    """Return seconds on the clock and on the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        paths = write_films(Path(scratch))
        own, theirs = write_models(Path(scratch))
        encoder = Encoder.load(own, machine=Machine(workers=1, device="cpu"))
        peer = pipeline(
            "image-feature-extraction",
            model=ViTModel.from_pretrained(theirs, add_pooling_layer=False),
            image_processor=ViTImageProcessorPil.from_pretrained(theirs), device="cpu",
        )  # fmt: skip
        systems: dict[str, Callable[[], object]] = {
            "lapvqa": lambda: encoder(paths),
            "transformers": lambda: peer(paths, batch_size=BATCH, return_tensors=True),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
        for number in range(RUNS + 1):
            for name, run in systems.items():
                found = measured(run)
                if number:  # the first is a warm-up
                    times[name].append(found)
    told = {
        name: {
            "films_per_second": round(FILMS / statistics.median(one[0] for one in taken), 2),
            "processor_ms_per_film": round(
                1000 * statistics.median(one[1] for one in taken) / FILMS, 1
            ),
        }
        for name, taken in times.items()
    }
    ratio = told["lapvqa"]["films_per_second"] / told["transformers"]["films_per_second"]
    result = {
        "films": FILMS, "runs": RUNS, "threads": 1, **told,
        "ratio": round(ratio, 2),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    storage.write_json(RESULT, result)


if __name__ == "__main__":
    main()
