"""Real steps of the real trainer, measured: by torch's profiler, or by the process's memory.

    python real_step.py FOLDER PARAMS_JSON LENGTH [LIMIT_MB]

prints the bytes that the process's memory grew by. With a limit the address space may grow by so
many MB, and training ends as it does where memory does not suffice.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import torch

from lapvqa.images.report_pairs import Pair
from lapvqa.images.shards import ShardStore, add_shard
from lapvqa.machine import Training
from lapvqa.networks.device import make_deterministic
from lapvqa.params import Attention, PretrainParams
from lapvqa.pretrain import train
from lapvqa.pretrain.allocations import Workload
from lapvqa.pretrain.loader import Corpus
from lapvqa.pretrain.monitor import peak_memory
from lapvqa.pretrain.trainer import Trainer
from lapvqa.recorder import Recorder

CPU = torch.device("cpu")


def corpus(folder: Path, *, count: int, length: int, words: int = 1000) -> Corpus:
    """Pairs whose reports all have ``length`` tokens to predict, of ``words`` different ones."""
    generator = np.random.default_rng(0)
    keys = [str(index) for index in range(count)]
    shard = add_shard(folder, keys, generator.integers(0, 255, (count, 384, 384), dtype=np.uint8))
    reports = generator.integers(0, words, (count, length + 1)).astype(np.uint16)
    pairs = [Pair(key, shard, row, "", reports[row], sided=False) for row, key in enumerate(keys)]
    return Corpus(pairs, [], ShardStore(folder), 0, "digest")


def trainer(
    folder: Path, params: PretrainParams, length: int, *, attention: Attention = "auto"
) -> Trainer:
    pairs = corpus(folder, count=params.batch_size, length=length)
    # No threads: the C library reserves 64 MB of addresses for each.
    threads = Training(loader_threads=0)
    return Trainer(params, pairs, CPU, training=threads, attention=attention)


def work(one: Trainer, length: int) -> Workload:
    return Workload(length, float(length), vocabulary=len(one.vocabulary), on_gpu=False)


def two_steps(one: Trainer, folder: Path) -> None:
    """The first makes the optimizer's state."""
    recorder = Recorder(folder / "record.jsonl", stage="pretrain", quiet=True)
    try:
        for micro in one.steps(0, 2):
            one.take_step(micro, recorder)
    finally:
        recorder.close()


def allocated(folder: Path, params: PretrainParams, length: int) -> tuple[int, Trainer]:
    """Return the most bytes of torch's allocator, by its profiler, from the model's making on."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        one = trainer(folder, params, length)
        two_steps(one, folder)
    events = profile.profiler.kineto_results.events()
    changes = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    sizes = np.cumsum([size for _, size in changes])
    return int(sizes.max()), one


def main() -> None:
    folder, params = Path(sys.argv[1]), PretrainParams.model_validate_json(sys.argv[2])
    make_deterministic(threads=1)
    small = params.model_copy(update={"batch_size": 2, "accumulate": 1})
    two_steps(trainer(folder / "small", small, 4), folder)  # libraries' own memory is there now
    one = trainer(folder, params, int(sys.argv[3]))
    if len(sys.argv) > 4:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + int(sys.argv[4]) * 10**6
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark becomes what is in use
    before = peak_memory(CPU)
    with train.explain_out_of_memory(one):
        two_steps(one, folder)
    sys.stdout.write(f"{peak_memory(CPU) - before}\n")


if __name__ == "__main__":
    main()
