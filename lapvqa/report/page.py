"""The stage report: write reports/index.html, one self-contained page, and reports/pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lapvqa import __version__, storage
from lapvqa.job import Job
from lapvqa.params import ReportParams
from lapvqa.project import Project
from lapvqa.report import charts, figures, sheets
from lapvqa.report.archive import read_archive, read_images
from lapvqa.report.curves import read_history
from lapvqa.report.names import TASKS, metric_name, system_name
from lapvqa.report.pixels import Archive
from lapvqa.report.results import Evaluation, flatten, headlines, read_evaluation
from lapvqa.report.sections import Section, make_section

_HERE = Path(__file__).parent


def run(params: ReportParams, job: Job) -> dict[str, int | float | str]:
    """Write the page from what the other stages wrote; MissingArtifactError names what lacks.

    ``machine`` changes nothing here: the same artefacts give the same bytes everywhere.
    """
    # The objective is part of the paths that dvc.yaml names, so DVC knows of this dependency.
    evaluations = [read_evaluation(task, job.project) for task in TASKS]
    computed = [item for item in evaluations if item.computed]
    images = read_images(job.project)
    steps = len(evaluations) + 1
    archive, sections = Archive(images, job.project), []
    for done, evaluation in enumerate(evaluations, start=1):
        sections.append(make_section(evaluation, archive, job.project, count=params.examples))
        job.recorder.progress(done, steps, unit="sections", note=evaluation.task.name)
    history = read_history(job.model / "history.csv")
    card = storage.read_json(job.model / "card.json", made_by="export")
    page = _environment().get_template("page.html").render(
        version=__version__,
        objective=job.objective,
        sections=sections,
        headlines=[row for item in computed for row in headlines(item)],
        confidence=_confidence(computed),
        examples_wanted=params.examples,
        history=history,
        loss_chart=charts.loss_chart(history),
        archive=read_archive(job.project, images),
        card=flatten(card),
    ).encode()  # fmt: skip
    storage.write_bytes(job.project.report_page, page)
    pictures = _write_pictures(sections, job.project)
    job.recorder.progress(steps, steps, unit="sections", note="page written")
    return {
        "evaluations": len(computed),
        "examples": sum(len(section.examples) for section in sections),
        "pictures": pictures,
        "bytes": len(page),
    }


def _write_pictures(sections: list[Section], project: Project) -> int:
    """Write one SVG per evaluation that has something to look at; return how many."""
    shutil.rmtree(project.pictures_dir, ignore_errors=True)
    project.pictures_dir.mkdir(parents=True)
    drawn = {section.evaluation.task.name: sheets.sheet(section) for section in sections}
    for task, picture in drawn.items():
        if picture is not None:
            storage.write_bytes(project.pictures_dir / f"{task}.svg", picture.encode())
    return sum(picture is not None for picture in drawn.values())


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
    environment.filters["system_name"] = system_name
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.globals["line_legend"] = figures.line_legend
    environment.globals["headline_track"] = charts.headline_track
    return environment


def _confidence(computed: list[Evaluation]) -> str:
    """Return the confidence of the intervals in per cent, as the evaluations recorded it."""
    found = {item.protocol.get("interval_confidence", "0.95") for item in computed} or {"0.95"}
    return " or ".join(f"{100 * float(share):g}" for share in sorted(found))
