"""What the linear probes share: features of the frozen encoder, one recipe, one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lapvqa.config import Machine
from lapvqa.evaluation import contract, features, folders
from lapvqa.evaluation.folders import ImageFolder
from lapvqa.evaluation.frozen import FrozenEncoder
from lapvqa.evaluation.subject import Subject
from lapvqa.layout import Layout
from lapvqa.params import BootstrapParams
from lapvqa.probe import recipe, scoring
from lapvqa.probe.dataset import ProbeDataset
from lapvqa.probe.images import read_image
from lapvqa.recorder import Recorder
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


def run(
    task: ProbeTask,
    subject: Subject,
    common: BootstrapParams,
    layout: Layout,
    machine: Machine,
    recorder: Recorder,
) -> contract.Counts:
    """Write predictions, then metrics and curves; raises SourceError."""
    folder = subject.folder(task.evaluation.task)
    source = folders.open_folder(task.folder, layout, machine)
    if source is None:
        return contract.not_computed(task.evaluation, task.absent, folder=folder, common=common)
    listed = task.read(source)
    listed.check(source.present(listed.images))
    encoders = subject.load()
    found = extract(
        encoders, source, listed.images, layout=layout, machine=machine, recorder=recorder
    )
    dataset = listed.keep(found.readable)
    predictions, protocol = recipe.predict(
        dataset, found.systems, c_grid=task.c_grid, workers=machine.workers
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
    encoders: Mapping[str, FrozenEncoder],
    source: ImageFolder,
    paths: Sequence[str],
    *,
    layout: Layout,
    machine: Machine,
    recorder: Recorder,
) -> Features:
    """Return the mean over the tokens of each encoder for each image of ``paths``."""
    read = folders.decode(source, paths, read_image, layout=layout, machine=machine)
    systems = {}
    for name, encoder in encoders.items():
        store = features.open_store(encoder, "mean", layout=layout, machine=machine)
        store.fill(
            read.digests,
            read.pixels,
            progress=partial(recorder.progress, unit="images", note=name),
        )
        systems[name] = store.take(read.digests)
    return Features(read.readable, systems)
