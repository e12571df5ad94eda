"""What the linear probes share: features of the frozen encoder, one recipe, one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from lapvqa.config import Machine
from lapvqa.evaluation import contract, features
from lapvqa.evaluation.features import ImageFolder
from lapvqa.layout import Layout
from lapvqa.params import BootstrapParams
from lapvqa.probe import recipe, scoring
from lapvqa.probe.dataset import ProbeDataset
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


def evaluation(task: str, labels: tuple[str, ...]) -> contract.Evaluation:
    """Return how a probe on ``labels`` is scored: the AUC of each, and their mean."""
    return contract.Evaluation(
        task=task,
        schema=PROBE_PREDICTIONS,
        primary="mean_auc",
        measure=partial(scoring.measure, labels=labels),
        curves=partial(_curves, labels=labels),
        curve_columns=scoring.CURVE_COLUMNS,
    )


def _curves(predictions: pa.Table, *, labels: tuple[str, ...]) -> contract.Table:
    rows = scoring.mean_curves(predictions, labels=labels)
    return contract.Table(columns=scoring.CURVE_COLUMNS, rows=rows)


def run(
    task: ProbeTask, common: BootstrapParams, layout: Layout, machine: Machine, recorder: Recorder
) -> contract.Counts:
    """Write results/<task>: predictions, then metrics and curves; raises SourceError."""
    source = features.open_folder(task.folder, layout, machine)
    if source is None:
        return contract.not_computed(task.evaluation, task.absent, layout=layout, common=common)
    listed = task.read(source)
    listed.check(source.present(listed.images))
    found = features.extract(
        features.load_systems(contract.encoder_folder(layout)),
        source,
        listed.images,
        layout=layout,
        machine=machine,
        recorder=recorder,
    )
    dataset = listed.keep(found.readable)
    predictions, protocol = recipe.predict(
        dataset, found.systems, c_grid=task.c_grid, workers=machine.workers
    )
    if not predictions.num_rows:
        return contract.not_computed(
            task.evaluation, recipe.UNDEFINED, layout=layout, common=common
        )
    described = {
        **protocol,
        **task.protocol,
        **recipe.describe_unreadable(listed, dataset),
        **{f"left_out_{reason}": count for reason, count in listed.left_out.items()},
        **{f"encoder_sha256_{name}": digest for name, digest in found.encoders.items()},
    }
    return contract.publish(
        task.evaluation, predictions, protocol=described, layout=layout, common=common
    )
