"""What the linear probes share: features of the frozen encoder, one recipe, one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lapvqa.datasets.labelled import ProbeDataset
from lapvqa.datasets.pictures import read_or_none
from lapvqa.evaluation import contract, features, image_folder
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.evaluation.image_folder import ImageFolder
from lapvqa.evaluation.subject import Subject
from lapvqa.job import Counts, Job
from lapvqa.params import BootstrapParams
from lapvqa.probe import recipe, scoring
from lapvqa.schemas import PROBE_PREDICTIONS


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """One data set to probe on.

    ``folder``: its name in ``inventory`` of params.yaml; ``absent``: what to say without it;
    ``read``: lists its images and labels; ``protocol``: how it is read.
    """

    evaluation: contract.Evaluation
    folder: str
    absent: str
    read: Callable[[ImageFolder], ProbeDataset]
    c_grid: list[float]
    protocol: Mapping[str, str]


@dataclass(frozen=True)
class Features:
    """``readable`` [n]: false where a file is missing or broken; ``systems``: [readable, D]."""

    readable: NDArray[np.bool_]
    systems: dict[str, NDArray[np.float32]]


def evaluation(task: str, labels: tuple[str, ...]) -> contract.Evaluation:
    """Return how a probe on ``labels`` is scored: the AUC of each, and their mean."""
    return contract.Evaluation(
        task=task,
        schema=PROBE_PREDICTIONS,
        primary="mean_auc",
        measure=partial(scoring.measure, labels=labels),
        curves=partial(scoring.curves, labels=labels),
        curve_columns=scoring.CURVE_COLUMNS,
    )


def judge(task: ProbeTask, subject: Subject, common: BootstrapParams, job: Job) -> Counts:
    """Write predictions, then metrics and curves; raises SourceError."""
    folder = subject.folder(task.evaluation.task)
    source = image_folder.open_folder(task.folder, job)
    if source is None:
        return contract.not_computed(task.evaluation, task.absent, folder=folder, common=common)
    listed = task.read(source)
    listed.check(source.present(listed.images))
    encoders = subject.load()
    found = extract(encoders, source, listed.images, job=job)
    dataset = listed.keep(found.readable)
    predictions, protocol = recipe.predict(
        dataset, found.systems, c_grid=task.c_grid, workers=job.machine.workers
    )
    if not predictions.num_rows:
        return contract.not_computed(
            task.evaluation, recipe.UNDEFINED, folder=folder, common=common
        )
    described = {
        **protocol,
        **task.protocol,
        **recipe.describe_unreadable(listed, dataset),
        **{f"left_out_{reason}": count for reason, count in listed.left_out.items()},
        **features.describe(encoders),
    }
    return contract.publish(
        task.evaluation, predictions, protocol=described, folder=folder, common=common
    )


def extract(
    encoders: Mapping[str, ImageEncoder], source: ImageFolder, paths: Sequence[str], *, job: Job
) -> Features:
    """Return the mean over the tokens of each encoder for each image of ``paths``."""
    read = image_folder.decode(source, paths, read_or_none, job=job)
    systems = {}
    for name, encoder in encoders.items():
        store = features.open_store(encoder, "mean", job=job)
        store.fill(
            read.digests,
            read.pixels,
            progress=partial(job.recorder.progress, unit="images", note=name),
        )
        systems[name] = store.take(read.digests)
    return Features(read.readable, systems)
