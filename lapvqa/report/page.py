"""The stage report: write reports/index.html, one self-contained page."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lapvqa import __version__, storage
from lapvqa.config import Machine
from lapvqa.layout import Layout
from lapvqa.params import ReportParams, load_params
from lapvqa.recorder import Recorder
from lapvqa.report import charts, figures
from lapvqa.report.archive import read_archive, read_images
from lapvqa.report.curves import read_history
from lapvqa.report.examples import Example, pick_examples
from lapvqa.report.results import (
    SYSTEMS,
    TASKS,
    Evaluation,
    flatten,
    metric_name,
    read_evaluation,
)
from lapvqa.schemas import PROBE_PREDICTIONS, RRG_PREDICTIONS

_HERE = Path(__file__).parent


def run(
    params: ReportParams, layout: Layout, machine: Machine, recorder: Recorder
) -> dict[str, int | float | str]:
    """Write the page from what the other stages wrote; MissingArtifactError names what lacks.

    ``machine`` changes nothing here: the same artefacts give the same bytes everywhere.
    """
    # The objective is part of the paths that dvc.yaml names, so DVC knows of this dependency.
    objective = load_params(layout.params).pretrain.objective
    evaluations = [read_evaluation(task, layout) for task in TASKS]
    computed = [item for item in evaluations if item.computed]
    recorder.progress(1, 3, unit="sections", note="results read")
    images = read_images(layout)
    examples = _examples(evaluations, images, layout, count=params.examples)
    recorder.progress(2, 3, unit="sections", note="examples chosen")
    history = read_history(layout.model_dir(objective) / "history.csv")
    card = storage.read_json(layout.model_dir(objective) / "card.json", made_by="export")
    template = _environment().get_template("page.html")
    page = template.render(
        version=__version__,
        objective=objective,
        evaluations=evaluations,
        headlines=computed,
        confidence=_confidence(computed),
        interval_charts={item.task.name: charts.interval_chart(item) for item in computed},
        roc_charts={item.task.name: _roc_charts(item, layout) for item in computed},
        examples=examples,
        examples_wanted=params.examples,
        history=history,
        loss_chart=charts.loss_chart(history),
        archive=read_archive(layout, images),
        card=flatten(card),
    ).encode()
    storage.write_bytes(layout.report_page, page)
    recorder.progress(3, 3, unit="sections", note="page written")
    return {"evaluations": len(computed), "examples": len(examples), "bytes": len(page)}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["metric_name"] = metric_name
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.globals["system_names"] = SYSTEMS
    environment.globals["line_legend"] = figures.line_legend
    return environment


def _confidence(computed: list[Evaluation]) -> str:
    """Return the confidence of the intervals in per cent, as the evaluations recorded it."""
    found = {item.protocol.get("interval_confidence", "0.95") for item in computed} or {"0.95"}
    return " or ".join(f"{100 * float(share):g}" for share in sorted(found))


def _roc_charts(evaluation: Evaluation, layout: Layout) -> list[charts.Panel]:
    if not charts.is_auc(evaluation):
        return []
    task = evaluation.task.name
    path = layout.result_dir(task) / "predictions.parquet"
    predictions = storage.read_table(path, PROBE_PREDICTIONS, made_by=f"evaluate@{task}")
    return charts.roc_charts(evaluation, predictions)


def _examples(
    evaluations: list[Evaluation], images: pa.Table, layout: Layout, *, count: int
) -> list[Example]:
    rrg = next(item for item in evaluations if item.task.name == "rrg")
    if not rrg.computed or not count:
        return []
    path = layout.result_dir("rrg") / "predictions.parquet"
    predictions = storage.read_table(path, RRG_PREDICTIONS, made_by="evaluate@rrg")
    return pick_examples(predictions, images, layout, count=count)
