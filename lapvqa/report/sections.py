"""The page's section of each evaluation: figures of its numbers, and examples to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pyarrow as pa
from markupsafe import Markup

from lapvqa import storage
from lapvqa.evaluation.results import PREDICTIONS
from lapvqa.evaluation.task import ExampleKind
from lapvqa.metrics.boxes.phrase_grounding import Several
from lapvqa.metrics.replicates import first_heads
from lapvqa.project import Project
from lapvqa.report import charts
from lapvqa.report.box_examples import (
    DETECTION_RULE,
    GROUNDING_RULE,
    TRUE,
    DetectionExample,
    GroundingExample,
    box_legend,
    detection_examples,
    grounding_examples,
)
from lapvqa.report.examples import ArchivePictures
from lapvqa.report.page_results import PageResult
from lapvqa.report.patients import Patients
from lapvqa.report.text_examples import (
    ANSWER_RULE,
    REPORT_RULE,
    AnswerExample,
    ReportExample,
    answer_examples,
    report_examples,
)

Example = AnswerExample | DetectionExample | GroundingExample | ReportExample


@dataclass(frozen=True)
class PageSection:
    """One evaluation; its record's ``examples`` names the template for them, too."""

    result: PageResult
    chart: Markup = Markup("")
    roc: Sequence[charts.PlotPanel] = ()
    calibration: Sequence[charts.PlotPanel] = ()
    examples: Sequence[Example] = ()
    rule: str = ""
    hidden: bool = False
    """The films and texts are patients', and nobody asked for them."""
    legend: Markup = field(default=Markup(""))

    @property
    def kind(self) -> ExampleKind:
        """How the predictions are shown."""
        return self.result.task.examples


def make_section(
    result: PageResult,
    pictures: ArchivePictures,
    patients: Patients,
    project: Project,
    *,
    count: int,
) -> PageSection:
    """Read an evaluation's predictions and make its figures and examples.

    Raises MissingArtifactError and SchemaError that name what lacks.
    """
    task = result.task
    if not result.result.computed:
        return PageSection(result)
    path = project.result_dir(task.name) / PREDICTIONS
    table = storage.read_table(path, task.schema, made_by=f"evaluate@{task.name}")
    predictions = first_heads(table)
    chart = charts.interval_chart(result)
    if task.examples == "probe":
        return PageSection(
            result, chart,
            roc=charts.roc_charts(result, predictions),
            calibration=charts.calibration_charts(result, predictions),
        )  # fmt: skip
    if not patients.may_show(task):
        return PageSection(result, chart, hidden=True)
    shown = patients.without_flagged(predictions)
    examples, rule = _examples(result, shown, pictures, project, count)
    lines = Markup("")
    if task.examples in ("detection", "grounding"):
        lines = box_legend([TRUE, *result.systems])
    return PageSection(result, chart, examples=examples, rule=rule, legend=lines)


def _examples(
    result: PageResult,
    predictions: pa.Table,
    pictures: ArchivePictures,
    project: Project,
    count: int,
) -> tuple[Sequence[Example], str]:
    task = result.task
    match task.examples:
        case "answers":
            return answer_examples(predictions, pictures, count=count), ANSWER_RULE
        case "reports":
            return report_examples(predictions, pictures, count=count), REPORT_RULE
        case "detection":
            folder = project.result_dir(task.name)
            return detection_examples(predictions, folder, count=count), DETECTION_RULE
        case "grounding":
            several = cast(Several, result.protocol.get("scored_several_boxes", "union"))
            phrases = grounding_examples(
                predictions, pictures, task=task.name, count=count, several=several
            )
            return phrases, GROUNDING_RULE
        case _:
            return (), ""
