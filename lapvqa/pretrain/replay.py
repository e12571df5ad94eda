"""Replay some steps of a finished training, and compare their losses with the logged ones.

Equal losses, bit by bit, show that history.csv and the model beside it came from the present
parameters, data and code.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.job import Job
from lapvqa.networks.device import choose_device, make_deterministic
from lapvqa.params import ComputingParams, PretrainParams
from lapvqa.pretrain import history
from lapvqa.pretrain.checkpoint import Checkpoints
from lapvqa.pretrain.files import TRAINING_FILE
from lapvqa.pretrain.history import HISTORY_FILE
from lapvqa.pretrain.loader import Corpus, read_corpus
from lapvqa.pretrain.start import find_start
from lapvqa.pretrain.train import run_digest
from lapvqa.pretrain.trainer import Trainer


@dataclass(frozen=True)
class ComparedStep:
    """The loss of one step, as logged and as replayed."""

    step: int
    logged: float
    replayed: float


@dataclass(frozen=True)
class Replay:
    """The replayed steps; ``start`` is the step of the state that they started from."""

    start: int
    steps: list[ComparedStep]
    chain_agrees: bool

    @property
    def differing(self) -> list[ComparedStep]:
        """The steps whose losses differ in any bit."""
        return [step for step in self.steps if step.logged != step.replayed]


def replay(params: PretrainParams, job: Job, *, first: int, last: int) -> Replay:
    """Compute the steps ``first`` to ``last`` (from 1, both included) again, in one process.

    It starts from the newest state before them, or from the beginning; nothing is changed.
    Raises ConfigError if the logged training had other parameters, data or fewer steps.
    """
    make_deterministic(threads=job.computing.cpu_threads, exact=params.deterministic)
    corpus = read_corpus(job.project)
    folder = job.project.model_dir(params.objective)
    training = storage.read_json(folder / TRAINING_FILE, made_by="pretrain")
    _require_same(training, params, job.computing, corpus)
    path = storage.require(folder / HISTORY_FILE, made_by="pretrain")
    logged = history.read_csv(path.read_bytes())
    if not 1 <= first <= last <= len(logged):
        raise ConfigError(
            f"expected steps within 1:{len(logged)}, found {first}:{last}",
            hint="give --steps FIRST:LAST of history.csv",
        )
    digest = run_digest(params, corpus, attention=job.computing.attention)
    device = choose_device(job.machine)
    start = find_start(params, job.project)
    trainer = Trainer(
        params, corpus, device, training=job.machine.training, run=digest, start=start,
        attention=job.computing.attention,
    )  # fmt: skip
    states = Checkpoints(job.project.work_dir("pretrain") / digest)
    state = states.newest(at_most=first - 1)
    if state is not None:
        trainer.load_state(state)
    begun = trainer.progress.step
    with closing(trainer.steps(begun, last)) as steps:
        for micro in steps:
            trainer.take_step(micro, job.recorder)
    again = trainer.progress.history
    compared = [
        ComparedStep(record.step, record.loss, again[record.step - 1].loss)
        for record, _ in logged[first - 1 : last]
    ]
    return Replay(begun, compared, history.chain(again)[-1] == logged[last - 1][1])


def _require_same(
    training: dict[str, object], params: PretrainParams, computing: ComputingParams, corpus: Corpus
) -> None:
    differing = [
        name
        for name, now, logged in (
            ("parameters", params.model_dump(mode="json"), training["params"]),
            ("computing", computing.model_dump(mode="json"), training["computing"]),
            ("data", corpus.digest, training["data_digest"]),
        )
        if now != logged
    ]
    if differing:
        raise ConfigError(
            f"the logged training had other {' and '.join(differing)} than there are now",
            hint="restore params.yaml and data of that run (`git checkout`, `dvc checkout`), or "
            "`lapvqa run` first",
        )
