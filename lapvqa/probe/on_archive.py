"""Linear probe on the archive's own images, labelled by its owner, its tables or its reports."""

from __future__ import annotations

from functools import partial

from lapvqa.evaluation.task import EvaluationTask
from lapvqa.probe import scoring
from lapvqa.schemas import PROBE_PREDICTIONS

TASK = EvaluationTask(
    name="probe_archive",
    judge="lapvqa.probe.judge_archive:judge",
    schema=PROBE_PREDICTIONS,
    primary="mean_auc",
    measure=partial(scoring.measure, labels=None),
    curves=partial(scoring.curves, labels=None),
    curve_columns=scoring.CURVE_COLUMNS,
    title="Linear probe, the archive's own findings",
    about="The same probe on this archive's frontal films, tested on its own test patients. Its "
    "labels are a table of your own, else those that the archive brings, else what the rules of "
    "the labeler read in English reports: the protocol says which.",
    charted=("auc",),
    examples="probe",
)
