"""The record of a linear probe on the mean of the encoder's tokens, whatever the data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lapvqa.datasets.labelled import ProbeDataset
from lapvqa.evaluation.task import EvaluationTask
from lapvqa.probe import scoring
from lapvqa.schemas import PROBE_PREDICTIONS


@dataclass(frozen=True, kw_only=True)
class ProbeTask(EvaluationTask):
    """A probe on one data set.

    ``read``: the listed files (``ImageFolder``) and the task's parameters -> images and labels;
    ``protocol``: the parameters -> how the labels are read.
    """

    read: Callable[[Any, Any], ProbeDataset]
    protocol: Callable[[Any], Mapping[str, str]]


def probe_task(labels: tuple[str, ...], **fields: Any) -> ProbeTask:
    """Return a probe on ``labels``, scored by the AUC of each and their mean."""
    return ProbeTask(
        judge="lapvqa.probe.judge:judge",
        schema=PROBE_PREDICTIONS,
        primary="mean_auc",
        measure=partial(scoring.measure, labels=labels),
        curves=partial(scoring.curves, labels=labels),
        curve_columns=scoring.CURVE_COLUMNS,
        charted=("auc",),
        examples="probe",
        **fields,
    )
