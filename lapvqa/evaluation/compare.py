"""Encoders beside each other: every system's primary metric per task, and how far from trained.

Reads result folders: results/<task> of the pipeline, evaluations/<name>/<task> of others. Values
and intervals are those of metrics.json; differences are made from predictions.parquet, on the same
draws of patients, and only where samples and truth are the same: two numbers of two test sets have
no difference.

Reports are written in two ways, so they have two lines: by the decoder that the pipeline's encoder
was pretrained with, and by a head taught on frozen tokens, which every encoder can have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lapvqa import storage
from lapvqa.evaluation import contract, differences, task_table
from lapvqa.evaluation.contract import Evaluation
from lapvqa.metrics import replicates
from lapvqa.metrics.bootstrap import Array, Estimate, Measures, draw_values
from lapvqa.metrics.paired import Difference
from lapvqa.params import BootstrapParams
from lapvqa.project import Project

REFERENCE = "trained"
"""The system that the others are compared with."""

OTHER_SAMPLES = "test sets differ"
OTHER_TRUTH = "truth differs"
NO_REFERENCE = "trained has none"

_TRUTH = (
    "sample", "label", "patient", "target", "question", "phrase", "reference", "truth",
    "true_labels", "true_boxes",
)  # fmt: skip
"""Columns of predictions that do not depend on the system."""

_AUC = "auc/"


@dataclass(frozen=True)
class Score:
    """A system's primary metric.

    ``difference``: minus the reference's; None with a ``note`` that says why, and of the reference
    itself. ``delong``: label -> p of the AUC's difference.
    """

    estimate: Estimate
    num_samples: int
    difference: Difference | None = None
    delong: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Line:
    """One task: the scores by system, and why the ``absent`` have none.

    ``writer`` of reports: "decoder" or "head"; else empty.
    """

    task: str
    writer: str
    metric: str
    scores: Mapping[str, Score]
    absent: Mapping[str, str]

    @property
    def name(self) -> str:
        """The task, and who writes."""
        return f"{self.task}, {self.writer}" if self.writer else self.task


@dataclass(frozen=True)
class Variant:
    """One line of a task: column -> system of the pipeline's results; ``alone``: others too."""

    writer: str
    systems: Mapping[str, str]
    alone: bool = True


_OWN = {REFERENCE: REFERENCE, "untrained": "untrained"}
_BASELINE = {"most_common": "most_common"}
_VARIANTS = {
    "rrg": (
        Variant("decoder", {**_OWN, **_BASELINE}, alone=False),
        Variant("head", {**{one: f"head_{one}" for one in _OWN}, **_BASELINE}),
    )
}


@dataclass(frozen=True)
class Result:
    """metrics.json of a folder and, where it was computed, the system that is meant."""

    folder: Path
    metrics: Mapping[str, Any]
    system: str

    @property
    def reason(self) -> str:
        """Why there is no score; empty if there is one."""
        if self.metrics["status"] != contract.OK:
            return str(self.metrics["reason"])
        return "" if self.system in self.metrics["systems"] else "this system was not judged"

    @property
    def samples(self) -> str:
        """The digest of the test samples."""
        return str(self.metrics["protocol"]["samples_sha256"])


def compare(project: Project, encoders: list[str], *, common: BootstrapParams) -> Iterator[Line]:
    """Yield the lines of all tasks: the pipeline's systems, then ``encoders`` by name."""
    for task in task_table.EVALUATIONS:
        folder = project.result_dir(task)
        others = {name: project.evaluations_dir(name) / task for name in encoders}
        for variant in _VARIANTS.get(task, (Variant("", _OWN),)):
            chosen = {column: (folder, name) for column, name in variant.systems.items()}
            if variant.alone:
                chosen |= {name: (other, name) for name, other in others.items()}
            line = compare_task(task, chosen, writer=variant.writer, common=common)
            if line.scores or variant.alone:
                yield line


def compare_task(
    task: str,
    chosen: Mapping[str, tuple[Path, str]],
    *,
    writer: str = "",
    common: BootstrapParams,
) -> Line:
    """Return one line; ``chosen``: column -> (folder of results, system in it)."""
    evaluation = task_table.find(task)
    results = {column: _read(*place) for column, place in chosen.items()}
    there = {column: one for column, one in results.items() if not one.reason}
    absent = {column: one.reason for column, one in results.items() if one.reason}
    reference = there.get(REFERENCE)
    drawn = None
    scores = {}
    for column, one in there.items():
        score = _score(one, evaluation.primary)
        if column == REFERENCE:
            scores[column] = score
        elif reference is None:
            scores[column] = _noted(score, NO_REFERENCE)
        elif one.samples != reference.samples:
            scores[column] = _noted(score, OTHER_SAMPLES)
        else:
            drawn = drawn or Drawn.read(reference, evaluation, common)
            scores[column] = _compared(score, Drawn.read(one, evaluation, common), drawn, common)
    return Line(task, writer, evaluation.primary, scores, absent)


@dataclass(frozen=True)
class Drawn:
    """A system's rows and its metrics on each draw of patients, ``values`` [1 + draws, k]."""

    primary: str
    rows: pa.Table
    measures: Measures
    values: Array

    @classmethod
    def read(cls, result: Result, evaluation: Evaluation, common: BootstrapParams) -> Drawn:
        """Read predictions and draw."""
        table = storage.read_table(
            result.folder / contract.PREDICTIONS,
            evaluation.schema,
            made_by=f"evaluate@{evaluation.task}",
        )
        heads = replicates.heads_by_system(pc.unique(table["system"]).to_pylist())[result.system]
        measured = replicates.measure_heads(evaluation.measure, table, heads)
        measures = replicates.mean_over_heads(measured)
        values = draw_values(
            measures.statistic, measures.patients, draws=common.bootstrap_draws, seed=common.seed
        )
        return cls(evaluation.primary, replicates.rows_of(table, result.system), measures, values)

    @property
    def truth(self) -> pa.Table:
        """What was to be predicted, in one order."""
        columns = [name for name in _TRUTH if name in self.rows.schema.names]
        keys = [(name, "ascending") for name in ("sample", "label") if name in columns]
        return self.rows.select(columns).sort_by(keys)


def _compared(score: Score, one: Drawn, reference: Drawn, common: BootstrapParams) -> Score:
    if not one.truth.equals(reference.truth):
        return _noted(score, OTHER_TRUTH)
    found = differences.differences(
        one.measures,
        (one.values, reference.values),
        (one.rows, reference.rows),
        confidence=common.confidence,
    )
    primary = found[one.primary]
    return Score(
        score.estimate,
        score.num_samples,
        Difference(**{key: primary[key] for key in ("value", "low", "high", "p_value")}),
        {
            name.removeprefix(_AUC): numbers["delong_p"]
            for name, numbers in found.items()
            if "delong_p" in numbers
        },
    )


def _noted(score: Score, note: str) -> Score:
    return Score(score.estimate, score.num_samples, note=note)


def _score(result: Result, primary: str) -> Score:
    found = result.metrics["systems"][result.system][primary]
    estimate = Estimate(found["value"], found["low"], found["high"])
    return Score(estimate, result.metrics["num_samples"])


def _read(folder: Path, system: str) -> Result:
    """Read metrics.json; a folder without one has not been computed yet."""
    path = folder / contract.METRICS
    if not path.exists():
        absent = {"status": contract.NOT_COMPUTED, "reason": "not evaluated yet"}
        return Result(folder, absent, system)
    return Result(folder, json.loads(path.read_bytes()), system)
