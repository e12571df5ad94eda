"""Compare encoders: every system's primary metric per task, and its difference from trained.

Reads result folders: results/<task> of the pipeline, evaluations/<name>/<task> of others. Values
and intervals are those of metrics.json; differences are made from predictions.parquet, on the same
draws of patients, and only where samples and truth are the same: two numbers of two test sets have
no difference. A task whose predictions have several writers has a line for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lapvqa import storage
from lapvqa.evaluation import differences, task_table
from lapvqa.evaluation.results import (
    BASELINE,
    METRICS,
    PAIRS,
    PREDICTIONS,
    Contamination,
    Interval,
    TaskResult,
    read_result,
)
from lapvqa.evaluation.task import EvaluationTask
from lapvqa.metrics import replicates
from lapvqa.metrics.bootstrap import Array, Measures, draw_values
from lapvqa.metrics.paired import Difference
from lapvqa.params import BootstrapParams
from lapvqa.project import Project

REFERENCE = "trained"
"""The system that the others are compared with."""

OTHER_SAMPLES = "test sets differ"
OTHER_TRUTH = "truth differs"
NO_REFERENCE = "trained has none"
_UNTRAINED = {untrained for _, untrained in PAIRS.values()} | {BASELINE}
"""Systems whose weights can know no image."""

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
    itself. ``no_interval``: why ``estimate`` has no interval, if so. ``delong``: label -> p of the
    AUC's difference. ``doubt``: why its training may know the test images; None if it does not.
    """

    estimate: Interval
    num_samples: int
    difference: Difference | None = None
    delong: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""
    no_interval: str = ""
    doubt: Contamination | None = None


@dataclass(frozen=True)
class ComparisonLine:
    """One task: the scores by system, and why the ``absent`` have none.

    ``writer``: see ``ComparedSystems``.
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
class SystemResult:
    """The metrics of a folder and the system in it that is meant."""

    folder: Path
    result: TaskResult
    system: str

    @property
    def reason(self) -> str:
        """Why there is no score; empty if there is one."""
        if not self.result.computed:
            return self.result.reason
        return "" if self.system in self.result.systems else "this system was not judged"

    @property
    def samples(self) -> str:
        """The digest of the test samples."""
        return str(self.result.protocol["samples_sha256"])

    def score(self, primary: str) -> Score:
        """Return the primary metric."""
        return Score(
            self.result.interval(self.system, primary), self.result.num_samples,
            doubt=None if self.system in _UNTRAINED else self.result.doubt,
            no_interval=self.result.why_no_interval(self.system),
        )  # fmt: skip


def compare(
    project: Project, encoders: list[str], *, common: BootstrapParams
) -> Iterator[ComparisonLine]:
    """Yield the lines of all tasks: the pipeline's systems, then ``encoders`` by name."""
    for task in task_table.find_all():
        folder = project.result_dir(task.name)
        others = {name: project.evaluations_dir(name) / task.name for name in encoders}
        for compared in task.lines:
            places = {column: (folder, system) for column, system in compared.systems.items()}
            if compared.external:
                places |= {name: (other, name) for name, other in others.items()}
            line = compare_task(task, places, writer=compared.writer, common=common)
            if line.scores or compared.external:
                yield line


def compare_task(
    task: EvaluationTask,
    places: Mapping[str, tuple[Path, str]],
    *,
    writer: str = "",
    common: BootstrapParams,
) -> ComparisonLine:
    """Return one line; ``places``: column -> (folder of results, system in it)."""
    results = {column: _read(task.name, *place) for column, place in places.items()}
    judged = {column: result for column, result in results.items() if not result.reason}
    absent = {column: result.reason for column, result in results.items() if result.reason}
    reference = judged.get(REFERENCE)
    drawn = None
    scores = {}
    for column, result in judged.items():
        score = result.score(task.primary)
        if column == REFERENCE:
            scores[column] = score
        elif reference is None:
            scores[column] = _noted(score, NO_REFERENCE)
        elif result.samples != reference.samples:
            scores[column] = _noted(score, OTHER_SAMPLES)
        else:
            drawn = drawn or Drawn.read(reference, task, common)
            scores[column] = _compared(score, Drawn.read(result, task, common), drawn, common)
    return ComparisonLine(task.name, writer, task.primary, scores, absent)


@dataclass(frozen=True)
class Drawn:
    """A system's rows and its metrics on each draw of patients, ``values`` [1 + draws, k]."""

    primary: str
    rows: pa.Table
    measures: Measures
    values: Array

    @classmethod
    def read(cls, result: SystemResult, task: EvaluationTask, common: BootstrapParams) -> Drawn:
        """Read predictions and draw."""
        table = storage.read_table(
            result.folder / PREDICTIONS, task.schema, made_by=f"evaluate@{task.name}"
        )
        return cls.of(table, result.system, task, common)

    @classmethod
    def of(
        cls, table: pa.Table, system: str, task: EvaluationTask, common: BootstrapParams
    ) -> Drawn:
        """Draw one system of a table of predictions."""
        heads = replicates.heads_by_system(pc.unique(table["system"]).to_pylist())[system]
        measures = replicates.mean_over_heads(replicates.measure_heads(task.measure, table, heads))
        values = draw_values(
            measures.statistic, measures.patients, draws=common.bootstrap_draws, seed=common.seed
        )
        return cls(task.primary, replicates.rows_of(table, system), measures, values)

    @property
    def truth(self) -> pa.Table:
        """The columns to be predicted, in one order."""
        return truth_of(self.rows)


def truth_of(rows: pa.Table) -> pa.Table:
    """Return the columns of one system's rows that all systems share, in one order."""
    columns = [name for name in _TRUTH if name in rows.schema.names]
    keys = [(name, "ascending") for name in ("sample", "label") if name in columns]
    return rows.select(columns).sort_by(keys)


def _compared(score: Score, system: Drawn, reference: Drawn, common: BootstrapParams) -> Score:
    if not system.truth.equals(reference.truth):
        return _noted(score, OTHER_TRUTH)
    by_metric = differences.differences(
        system.measures,
        (system.values, reference.values),
        (system.rows, reference.rows),
        confidence=common.confidence,
    )
    primary = by_metric[system.primary]
    return replace(
        score,
        difference=Difference(**{key: primary[key] for key in ("value", "low", "high", "p_value")}),
        delong={
            name.removeprefix(_AUC): numbers["delong_p"]
            for name, numbers in by_metric.items()
            if "delong_p" in numbers
        },
    )


def _noted(score: Score, note: str) -> Score:
    return replace(score, note=note)


def _read(task: str, folder: Path, system: str) -> SystemResult:
    """Read metrics.json; a folder without one has not been computed yet."""
    if not (folder / METRICS).exists():
        absent = TaskResult(task, computed=False, reason="not evaluated yet")
        return SystemResult(folder, absent, system)
    return SystemResult(folder, read_result(folder, task), system)
