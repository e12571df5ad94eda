"""What training, captions and probes cost in this version and in another one, turn about.

    git worktree add ../before COMMIT
    python benchmarks/beside.py ../before PROJECT [--turns 7]

PROJECT is a folder with a finished `lapvqa demo`: its data/ and demo/ are read, beside each
version's own params.yaml. Each version is a process of its own with one thread; they take turns,
and whoever began one turn comes second in the next. A ratio is this version's seconds over the
other's of the same turn: below 1 this one is faster. Beside other work processor seconds are the
ones to believe. What is computed is digested: "same bytes" says that both gave equal losses,
weights, tokens or tables.

step       a step as bench_train.py measures it, ``ours_cut``
epoch      an epoch of the demo's training with validation and states, by ``Trainer.train``
captions   the cases of bench_generate.py
intervals  the table of bench_probe.py
probe      features of CheXpert's images and the probe, as the evaluation makes them
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

HERE = Path(__file__).resolve()


class Hash(Protocol):
    """What a turn feeds its results into."""

    def update(self, data: bytes, /) -> None:
        """Take in bytes."""


Turn = Callable[[int, Hash], None]


def steps_of_training() -> Turn:
    """Return a turn of two steps."""
    import bench_train
    import torch

    from lapvqa.networks.vocabulary import CutVocabulary
    from lapvqa.pretrain.model import initial_model

    corpus = bench_train.make_reports(2000)
    vocabulary = CutVocabulary(corpus)
    model = initial_model(bench_train.SIZES, seed=0)
    vocabulary.cut(model)
    step = bench_train.our_step(model.train(), vocabulary)
    size = bench_train.SIZES.image_size

    def turn(number: int, found: Hash) -> None:
        for index in range(2 * number, 2 * number + 2):
            reports = corpus[index * bench_train.BATCH : (index + 1) * bench_train.BATCH]
            generator = torch.Generator().manual_seed(index)
            images = torch.randn(bench_train.BATCH, 1, size, size, generator=generator)
            found.update(repr(step(images, reports)).encode())

    return turn


def epoch_of_training(project: Path) -> Turn:
    """Return a turn of an epoch from scratch, of another seed each time."""
    import torch

    from lapvqa.params import load_params
    from lapvqa.pretrain.checkpoint import Checkpoints
    from lapvqa.pretrain.loader import read_corpus
    from lapvqa.pretrain.trainer import Trainer
    from lapvqa.project import Project
    from lapvqa.recorder import Recorder

    opened = Project(project)
    params, corpus = load_params(opened.params).pretrain, read_corpus(opened)

    def turn(number: int, found: Hash) -> None:
        asked = params.model_copy(update={"seed": number, "epochs": 1})
        trainer = Trainer(asked, corpus, torch.device("cpu"))
        with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder)) as states:
            recorder = Recorder(Path(folder) / "record.jsonl", stage="beside", quiet=True)
            trainer.train(states, recorder)
            recorder.close()
        found.update(repr([one.loss for one in trainer.progress.history]).encode())
        for _, weights in sorted(trainer.model.state_dict().items()):
            found.update(weights.numpy().tobytes())

    return turn


def captions() -> Turn:
    """Return a turn that writes the captions of all cases."""
    import bench_generate
    import torch

    from lapvqa.networks.generation import BEGIN, continue_prompts

    decoder = bench_generate.make_decoder()

    def turn(number: int, found: Hash) -> None:
        for case in bench_generate.CASES:
            texts = continue_prompts(
                decoder, bench_generate.make_visual(case, number),
                torch.full((case.batch, 1), BEGIN),
                max_new_tokens=bench_generate.MAX_NEW_TOKENS, num_beams=case.beams,
            )  # fmt: skip
            found.update(repr(texts).encode())

    return turn


def intervals() -> Turn:
    """Return a turn that draws the table of AUROCs."""
    import bench_probe

    predictions = bench_probe.make_predictions()

    def turn(number: int, found: Hash) -> None:
        found.update(bench_probe.ours(*predictions).tobytes())

    return turn


def probe(project: Path) -> Turn:
    """Return a turn that probes an encoder which nobody has seen yet, so that nothing is stored."""
    import bakeoff

    from lapvqa.params import load_params
    from lapvqa.pretrain.model import initial_model
    from lapvqa.project import Project
    from lapvqa.recorder import Recorder

    opened = Project(project)
    params = load_params(opened.params)

    def turn(number: int, found: Hash) -> None:
        encoder = initial_model(params.pretrain.model, seed=1000 + number).vision_encoder.eval()
        with tempfile.TemporaryDirectory() as folder:
            recorder = Recorder(Path(folder) / "record.jsonl", stage="beside", quiet=True)
            table, _ = bakeoff.probe(
                "chexpert", {"one": encoder}, params=params, project=opened, recorder=recorder
            )
            recorder.close()
        found.update(repr(table.to_pylist()).encode())

    return turn


CASES: dict[str, Callable[[Path], Turn]] = {
    "step": lambda _: steps_of_training(),
    "epoch": epoch_of_training,
    "captions": lambda _: captions(),
    "intervals": lambda _: intervals(),
    "probe": probe,
}


def serve(version: Path, project: Path) -> None:
    """Take a turn of a case for each line that comes in; answer with its seconds and digest."""
    import torch

    import lapvqa

    assert Path(lapvqa.__file__).is_relative_to(version), lapvqa.__file__
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr
    turns: dict[str, Turn] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("data", "demo"):
            (Path(folder) / name).symlink_to(project / name)
        (Path(folder) / "params.yaml").symlink_to(version / "params.yaml")
        for line in sys.stdin:
            name, number = json.loads(line)
            if name not in turns:
                turns[name] = CASES[name](Path(folder))
            found = hashlib.sha256()
            wall, cpu = time.perf_counter(), time.process_time()
            turns[name](number, found)
            seconds = time.perf_counter() - wall, time.process_time() - cpu
            print(json.dumps([*seconds, found.hexdigest()]), file=answers, flush=True)


class Version:
    """A process of one version."""

    def __init__(self, checkout: Path, project: Path) -> None:
        paths = os.pathsep.join([str(checkout), str(checkout / "benchmarks")])
        # -P: else this file's folder would come before the checkout's.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(HERE), "--serve", str(checkout), str(project)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def turn(self, name: str, number: int) -> tuple[float, float, str]:
        """Return wall seconds, processor seconds and digest."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([name, number]), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{name}: the process of one version has ended, see above")
        wall, cpu, digest = json.loads(line)
        return wall, cpu, digest


def spread(ratios: list[float]) -> str:
    """Return median and range."""
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def compare(name: str, mine: Version, other: Version, *, turns: int) -> str:
    """Return a row of the table; the first turn warms up and counts for nothing."""
    wall, cpu, seconds, same = [], [], [], True
    for number in range(turns + 1):
        ours: Any = None
        if number % 2:
            ours = mine.turn(name, number)
        theirs = other.turn(name, number)
        ours = ours or mine.turn(name, number)
        same &= ours[2] == theirs[2]
        if number:
            wall.append(ours[0] / theirs[0])
            cpu.append(ours[1] / theirs[1])
            seconds.append(theirs[1])
    bytes_ = "yes" if same else "no"
    return (
        f"| {name} | {statistics.median(seconds):.2f} | {spread(cpu)} | {spread(wall)} | {bytes_} |"
    )


def main() -> None:
    """Alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="checkout of the other version")
    parser.add_argument("project", type=Path)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=tuple(CASES), choices=tuple(CASES))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    checkout, project = chosen.other.resolve(), chosen.project.resolve()
    if chosen.serve:
        serve(checkout, project)
        return
    mine, other = Version(HERE.parents[1], project), Version(checkout, project)
    print("| | the other's processor s | ratio of processor s | of wall s | same bytes |")
    print("|---|---|---|---|---|")
    for name in chosen.only:
        print(compare(name, mine, other, turns=chosen.turns), flush=True)
    print(f"{chosen.turns} turns after one that warms up; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
