"""What the page shows of each evaluation: figures of its numbers, and examples to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pyarrow as pa
from markupsafe import Markup

from lapvqa import storage
from lapvqa.metrics.boxes.phrase_grounding import Several
from lapvqa.metrics.replicates import first_heads
from lapvqa.project import Project
from lapvqa.report import answers, charts, detection, grounding, written
from lapvqa.report.answers import AnswerExample, answer_examples
from lapvqa.report.boxes import TRUE, legend
from lapvqa.report.detection import DetectionExample, detection_examples
from lapvqa.report.grounding import GroundingExample, grounding_examples
from lapvqa.report.pixels import Archive
from lapvqa.report.results import Evaluation
from lapvqa.report.written import ReportExample, report_examples
from lapvqa.schemas import (
    ANSWER_PREDICTIONS,
    DETECTION_PREDICTIONS,
    GROUNDING_PREDICTIONS,
    PROBE_PREDICTIONS,
    RRG_PREDICTIONS,
)

Example = AnswerExample | DetectionExample | GroundingExample | ReportExample

_SCHEMAS = {
    "probe": PROBE_PREDICTIONS,
    "answers": ANSWER_PREDICTIONS,
    "reports": RRG_PREDICTIONS,
    "detection": DETECTION_PREDICTIONS,
    "grounding": GROUNDING_PREDICTIONS,
}
_KINDS = {
    "probe_chexpert": "probe",
    "probe_nih14": "probe",
    "vqa": "answers",
    "diffvqa": "answers",
    "rrg": "reports",
    "ad": "detection",
    "pg": "grounding",
}


@dataclass(frozen=True)
class Section:
    """One evaluation; ``kind`` names the sort of ``examples``, and of the template for them."""

    evaluation: Evaluation
    kind: str
    chart: Markup = Markup("")
    roc: Sequence[charts.Panel] = ()
    calibration: Sequence[charts.Panel] = ()
    examples: Sequence[Example] = ()
    rule: str = ""
    legend: Markup = field(default=Markup(""))


def make_section(
    evaluation: Evaluation, archive: Archive, project: Project, *, count: int
) -> Section:
    """Read an evaluation's predictions and make its figures and examples.

    Raises MissingArtifactError and SchemaError that name what lacks.
    """
    task = evaluation.task.name
    kind = _KINDS[task]
    if not evaluation.computed:
        return Section(evaluation, kind)
    path = project.result_dir(task) / "predictions.parquet"
    predictions = first_heads(storage.read_table(path, _SCHEMAS[kind], made_by=f"evaluate@{task}"))
    chart = charts.interval_chart(evaluation)
    if kind == "probe":
        return Section(
            evaluation, kind, chart,
            roc=charts.roc_charts(evaluation, predictions),
            calibration=charts.calibration_charts(evaluation, predictions),
        )  # fmt: skip
    examples, rule = _examples(evaluation, kind, predictions, archive, project, count)
    lines = Markup("")
    if kind in ("detection", "grounding"):
        lines = legend([TRUE, *evaluation.systems])
    return Section(evaluation, kind, chart, examples=examples, rule=rule, legend=lines)


def _examples(
    evaluation: Evaluation,
    kind: str,
    predictions: pa.Table,
    archive: Archive,
    project: Project,
    count: int,
) -> tuple[Sequence[Example], str]:
    if kind == "answers":
        return answer_examples(predictions, archive, count=count), answers.RULE
    if kind == "reports":
        return report_examples(predictions, archive, count=count), written.RULE
    if kind == "detection":
        return detection_examples(predictions, project, count=count), detection.RULE
    several = cast(Several, evaluation.protocol.get("scored_several_boxes", "union"))
    found = grounding_examples(predictions, archive, count=count, several=several)
    return found, grounding.RULE
