"""Run one task on one set of encoders: the object that a judge is handed, and its call."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa

from lapvqa import storage
from lapvqa.datasets.image_folder import ImageFolder, open_folder
from lapvqa.errors import OtherArchiveError
from lapvqa.evaluation import contamination, contract, sealed
from lapvqa.evaluation.image_encoder import ImageEncoder, OwnEncoder
from lapvqa.evaluation.task import EvaluationTask
from lapvqa.job import Counts, Job
from lapvqa.params import BootstrapParams, EvaluateParams
from lapvqa.pretrain.files import load_encoder, untrained_encoder
from lapvqa.project import is_unrelated_demo

P = TypeVar("P", covariant=True)


@dataclass(frozen=True)
class EncoderSet:
    """The encoders that are judged together.

    ``load``: makes them, system -> encoder, when they are needed. ``results``: has a folder per
    task. ``model``: folder of the pipeline's own model, whose decoder report generation uses; None
    for external encoders. ``training``: digest of the pairs that the encoders were trained on, None
    if not known.
    """

    load: Callable[[], dict[str, ImageEncoder]]
    results: Path
    model: Path | None = None
    training: str | None = None


@dataclass(frozen=True)
class Evaluation(Generic[P]):
    """One task on one set of encoders; ``params``: the task's own section of params.yaml."""

    task: EvaluationTask
    encoders: EncoderSet
    params: P
    common: BootstrapParams
    job: Job

    @property
    def folder(self) -> Path:
        """Where predictions and metrics go."""
        return self.encoders.results / self.task.name

    def open_input(self) -> ImageFolder | None:
        """Return the task's data set; None if the inventory lists no file of it."""
        assert self.task.folder is not None
        return open_folder(self.task.folder.name, self.job)

    def without_input(self) -> Counts:
        """Record that the task's data set is not here, and what to set."""
        folder = self.task.folder
        assert folder is not None
        reason = folder.absent
        if is_unrelated_demo(folder.name, self.job.folders):
            reason = f"the demo's data go with the demo's archive only, {reason}"
        return self.not_computed(reason)

    def not_computed(self, reason: str) -> Counts:
        """Record that there is no result, and why; see ``contract.not_computed``."""
        return contract.not_computed(self.task, reason, folder=self.folder, common=self.common)

    def empty_extra(self) -> Path:
        """Return extra/, emptied: for the trained head, and what the report page shows."""
        return contract.empty_extra(self.folder)

    def publish(self, predictions: pa.Table, protocol: Mapping[str, Any]) -> Counts:
        """Write predictions, then score what was written; see ``contract.publish``.

        What the training may have known of them is looked up and said.
        """
        data_set = self.task.folder.name if self.task.folder else contamination.ARCHIVE
        training, project = self.encoders.training, self.job.project
        contaminated = contamination.examine(predictions, data_set, training, project)
        if contaminated:
            for why in contaminated.why:
                self.job.recorder.say(f"{contaminated.state}: {why}")
        return contract.publish(
            self.task,
            predictions,
            protocol=protocol,
            folder=self.folder,
            common=self.common,
            contaminated=contaminated,
            sealed=self._sealed(),
        )

    def shown(self, predictions: pa.Table) -> pa.Table:
        """Return the rows that may be seen: what a protocol counts."""
        return sealed.divide(predictions, self._sealed())[0]

    def _sealed(self) -> frozenset[str]:
        if not self.task.tests_archive:
            return frozenset()
        return sealed.sealed_patients(self.job.project)


def evaluate(
    task: EvaluationTask, encoders: EncoderSet, params: EvaluateParams, job: Job
) -> Counts:
    """Judge encoders by a task; raises what its judge does."""
    section = getattr(params, task.name)
    module, _, function = task.judge.partition(":")
    judge: Callable[[Evaluation[Any]], Counts] = getattr(importlib.import_module(module), function)
    configured = task.configured(section, job.project.root)
    evaluation = Evaluation(configured, encoders, section, params.common, job)
    try:
        return judge(evaluation)
    except OtherArchiveError as error:
        # The data are whole, and so is the archive: nobody made a mistake that should end a run.
        return evaluation.not_computed(f"{error.message}: {error.hint}")


def pipeline_encoders(job: Job) -> EncoderSet:
    """Return the pipeline's encoder and its untrained twin; results are the stages' outputs."""
    folder = encoder_folder(job)
    return EncoderSet(
        lambda: load_encoders(folder),
        job.project.root / "results",
        folder,
        contamination.training_of(folder),
    )


def encoder_folder(job: Job) -> Path:
    """Return the folder of the encoder that params.yaml names (models/<objective>)."""
    folder = job.model
    storage.require(folder / "card.json", made_by="export")
    storage.require(folder / "encoder_final.pt", made_by="export")
    return folder


def load_encoders(folder: Path) -> dict[str, ImageEncoder]:
    """Return the trained encoder of ``folder`` and its untrained twin, in eval mode."""
    return {
        "trained": OwnEncoder(load_encoder(folder)),
        "untrained": OwnEncoder(untrained_encoder(folder)),
    }
