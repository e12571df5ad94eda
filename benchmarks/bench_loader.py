"""Batches of 128 shuffled images, beside a Hugging Face dataset of PNGs in torch's DataLoader.

    python benchmarks/bench_loader.py

6,000 rows of 64 drawn radiographs, 384 px: ours from Arrow shards, the peer's from the Arrow files
that ``save_to_disk`` writes. Both follow one order; every pixel of an epoch is compared first.
The files are in the page cache, unless said. One core and one thread each, but all cores for the
peer with two workers, whose start is not counted. Ours pads the reports' tokens too.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lapvqa.images.geometry import fit_image
from lapvqa.images.report_pairs import Pair, epoch_order
from lapvqa.images.shards import ShardStore, add_shard
from lapvqa.images.transforms import MEAN, STD, to_input
from lapvqa.pretrain.loader import Loader, Plan
from lapvqa.synth.anatomy import sample_anatomy
from lapvqa.synth.patient_history import sample_findings, stream
from lapvqa.synth.radiograph import Exposure, render

ROWS, DISTINCT, SHARD_ROWS, BATCH, ALTERNATIONS, SEED = 6_000, 64, 500, 128, 7, 0
RESULT = Path(__file__).parent / "results" / "loader-cpu.json"

Batches = Iterator[Tensor]


def draw_images() -> NDArray[np.uint8]:
    """Return radiographs with findings as they are stored, uint8 [64, 384, 384]."""
    exposures = [
        Exposure(
            sample_anatomy(stream(seed, 0)), sample_findings(stream(seed, 1)), "PA", 640, 0.9,
            (seed, 2),
        )
        for seed in range(DISTINCT)
    ]  # fmt: skip
    return np.stack([fit_image(render(one).film.displayed())[0] for one in exposures])


def write_shards(folder: Path, drawn: NDArray[np.uint8], chosen: NDArray[np.int64]) -> list[Pair]:
    """Write ours; return pairs of reports of about 220 tokens."""
    rng = np.random.default_rng(SEED)
    pairs = []
    for start in range(0, ROWS, SHARD_ROWS):
        rows = chosen[start : start + SHARD_ROWS]
        name = add_shard(folder, [str(start + row) for row in range(len(rows))], drawn[rows])
        for row in range(len(rows)):
            tokens = rng.integers(0, 50256, max(8, int(rng.normal(220, 60)))).astype(np.uint16)
            pairs.append(Pair(str(start + row), name, row, "", tokens, sided=False))
    return pairs


def write_peer(folder: Path, drawn: NDArray[np.uint8], chosen: NDArray[np.int64]) -> Any:
    """Write the peer's; return it mapped from disk."""
    files = [cv2.imencode(".png", image)[1].tobytes() for image in drawn]
    column = [{"bytes": files[row], "path": None} for row in chosen.tolist()]
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": column}, features).save_to_disk(str(folder))
    return datasets.load_from_disk(str(folder))


def ours_uint8(loader: Loader, epoch: int) -> Batches:
    """The batches as they are: uint8 [B, 384, 384], to be normalised on the device."""
    first = epoch * loader.plan.steps_per_epoch
    for (batch,) in loader.batches(first, first + loader.plan.steps_per_epoch):
        yield batch.images


def ours_float32(loader: Loader, epoch: int) -> Batches:
    """The model's input: float32 [B, 1, 384, 384], normalised on this core."""
    for images in ours_uint8(loader, epoch):
        yield to_input(images, images.shape[-1])


def ours_float32_rgb(loader: Loader, epoch: int) -> Batches:
    """What the peer gives: float32 [B, 3, 384, 384], in one buffer, good until the next batch."""
    rgb = torch.empty(BATCH, 3, 384, 384)
    for images in ours_uint8(loader, epoch):
        for start in range(0, len(images), 8):  # so many as stay in the cache
            rgb[start : start + 8] = to_input(images[start : start + 8], 384)
        yield rgb


def hugging_face(data: Any, epoch: int, *, transform: Callable[..., Any], workers: int) -> Batches:
    """A DataLoader over the PNG column, decoded and converted batch by batch."""
    order = epoch_order(ROWS, seed=SEED, epoch=epoch).tolist()
    loader = DataLoader(
        data.with_transform(transform), batch_size=BATCH, sampler=order, num_workers=workers
    )
    for batch in loader:
        yield batch["image"]


def grey_uint8(rows: dict[str, list[Any]]) -> dict[str, list[Tensor]]:
    """Decode; uint8 [384, 384]."""
    return {"image": [torch.from_numpy(np.array(image)) for image in rows["image"]]}


def rgb_float32(rows: dict[str, list[Any]]) -> dict[str, list[Tensor]]:
    """Decode and convert as vision models are fed: float32 [3, 384, 384], normalised."""
    grey_as_rgb = (np.array(image.convert("RGB")) for image in rows["image"])
    pixels = (torch.from_numpy(one).permute(2, 0, 1).float() for one in grey_as_rgb)
    return {"image": [((one / 255 - MEAN) / STD).contiguous() for one in pixels]}


def latencies(batches: Batches, *, skip: int, count: int) -> list[float]:
    """Return the seconds of each of ``count`` batches after the first ``skip``."""
    for _ in islice(batches, skip):
        pass
    seconds, started = [], time.perf_counter()
    for _ in islice(batches, count):
        now = time.perf_counter()
        seconds.append(now - started)
        started = now
    return seconds


def compare_pixels(loader: Loader, data: Any) -> int:
    """Compare an epoch of grey and two batches of RGB bit by bit; return how many images."""
    peer = hugging_face(data, 0, transform=grey_uint8, workers=0)
    compared = 0
    for own in islice(ours_uint8(loader, 0), ROWS // BATCH):  # the peer's last batch is short
        assert torch.equal(own, next(peer)), "pixels differ"
        compared += len(own)
    colour = hugging_face(data, 0, transform=rgb_float32, workers=0)
    for own in islice(ours_float32_rgb(loader, 0), 2):
        assert torch.equal(own, next(colour)), "inputs differ"
    return compared


def cold(folder: Path, pairs: list[Pair], plan: Plan) -> float:
    """Return images/s of an epoch of ours whose files the page cache was asked to give up."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    loader = Loader(pairs, ShardStore(folder), plan, workers=0)
    started = time.perf_counter()
    for _ in ours_uint8(loader, 0):
        pass
    return plan.steps_per_epoch * BATCH / (time.perf_counter() - started)


def main() -> None:
    """Compare pixels, alternate, print, keep."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    drawn = draw_images()
    chosen = np.random.default_rng(SEED).integers(0, DISTINCT, ROWS)
    load_before = os.getloadavg()[0]
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "shards"
        pairs = write_shards(shards, drawn, chosen)
        data = write_peer(Path(folder) / "peer", drawn, chosen)
        plan = Plan(ROWS, BATCH, seed=SEED)
        os.sched_setaffinity(0, {max(cores)})
        cold_rates = [cold(shards, pairs, plan) for _ in range(3)]
        loader = Loader(pairs, ShardStore(shards), plan, workers=0)
        compared = compare_pixels(loader, data)
        epoch = plan.steps_per_epoch
        contenders: dict[str, tuple[Callable[[int], Batches], int, int, bool]] = {
            "ours_uint8": (partial(ours_uint8, loader), 0, epoch, True),
            "ours_float32": (partial(ours_float32, loader), 0, epoch, True),
            "ours_float32_rgb": (partial(ours_float32_rgb, loader), 0, epoch, True),
            "peer_uint8": (_peer(data, grey_uint8, 0), 0, 4, True),
            "peer_float32_rgb": (_peer(data, rgb_float32, 0), 0, 4, True),
            "peer_float32_rgb_2_workers": (_peer(data, rgb_float32, 2), 4, 8, False),
        }
        seconds: dict[str, list[list[float]]] = {name: [] for name in contenders}
        for turn in range(ALTERNATIONS):
            for name, (start, skip, count, one_core) in contenders.items():
                os.sched_setaffinity(0, {max(cores)} if one_core else cores)
                seconds[name].append(latencies(start(turn), skip=skip, count=count))
    result = {
        "rows": ROWS,
        "distinct_images": DISTINCT,
        "png_bytes_per_image": round(
            statistics.mean(len(cv2.imencode(".png", image)[1]) for image in drawn)
        ),
        "batch": BATCH,
        "images_compared": compared,
        "identical_pixels": True,
        "alternations": ALTERNATIONS,
        "load_average": [load_before, os.getloadavg()[0]],
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("datasets", "numpy", "pillow", "torch")},
        "images_per_s_median_min_max": {
            name: _spread([len(turn) * BATCH / sum(turn) for turn in turns], 0)
            for name, turns in seconds.items()
        },
        "ours_uint8_page_cache_dropped_images_per_s": _spread(cold_rates, 0),
        "batch_ms_median_p99": {name: _percentiles(turns) for name, turns in seconds.items()},
        "batches_timed": {name: sum(map(len, turns)) for name, turns in seconds.items()},
        "times_as_fast_median_min_max": {
            f"{own} : {peer}": _ratios(seconds[own], seconds[peer])
            for own, peer in (
                ("ours_uint8", "peer_uint8"),
                ("ours_uint8", "peer_float32_rgb"),
                ("ours_float32", "peer_float32_rgb"),
                ("ours_float32_rgb", "peer_float32_rgb"),
                ("ours_float32_rgb", "peer_float32_rgb_2_workers"),
            )
        },
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _peer(data: Any, transform: Callable[..., Any], workers: int) -> Callable[[int], Batches]:
    return partial(hugging_face, data, transform=transform, workers=workers)


def _ratios(own: list[list[float]], peer: list[list[float]]) -> list[float]:
    """Return how many times as many images/s, turn by turn."""
    pairs = zip(own, peer, strict=True)
    return _spread([statistics.mean(b) / statistics.mean(a) for a, b in pairs], 1)


def _spread(values: list[float], digits: int) -> list[float]:
    return [round(one, digits) for one in (statistics.median(values), min(values), max(values))]


def _percentiles(turns: list[list[float]]) -> list[float]:
    every = [1000 * one for turn in turns for one in turn]
    return [round(float(one), 2) for one in np.percentile(every, [50, 99])]


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


if __name__ == "__main__":
    main()
