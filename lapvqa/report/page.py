"""The stage report: write reports/index.html, one self-contained page, and reports/pictures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment

from lapvqa import __version__, storage
from lapvqa.evaluation import task_table
from lapvqa.evaluation.results import MEANINGS
from lapvqa.job import Counts, Job
from lapvqa.pages.templates import templates
from lapvqa.params import ReportParams
from lapvqa.project import Project
from lapvqa.report import charts, figures, task_pictures
from lapvqa.report.archive_counts import count_archive, read_images
from lapvqa.report.charts import read_history
from lapvqa.report.examples import ArchivePictures
from lapvqa.report.model_card import read_model_card
from lapvqa.report.page_results import (
    PageResult,
    lacking_in_words,
    metric_name,
    read_page_result,
    system_name,
    verdict_in_words,
)
from lapvqa.report.patients import read_patients
from lapvqa.report.sections import PageSection, make_section

_TEMPLATES = Path(__file__).with_name("templates")


def run(params: ReportParams, job: Job) -> Counts:
    """Write the page from what the other stages wrote; MissingArtifactError names what lacks.

    The machine changes nothing here: the same artefacts give the same bytes everywhere.
    """
    # The objective is part of the paths that dvc.yaml names, so DVC knows of this dependency.
    results = [read_page_result(task, job.project) for task in task_table.find_all()]
    computed = [result for result in results if result.result.computed]
    images = read_images(job.project)
    steps = len(results) + 1
    pictures, sections = ArchivePictures(images, job.project), []
    tasks, wanted = [result.task for result in results], params.patients == "show"
    patients = read_patients(tasks, job.project, images, wanted=wanted)
    for done, result in enumerate(results, start=1):
        sections.append(
            make_section(result, pictures, patients, job.project, count=params.examples)
        )
        job.recorder.progress(done, steps, unit="sections", note=result.task.name)
    history = read_history(job.model / "history.csv")
    card = storage.read_json(job.model / "card.json", made_by="export")
    page = _environment().get_template("page.html").render(
        version=__version__,
        objective=job.objective,
        sections=sections,
        patients=patients,
        shows_patients=any(
            section.examples and patients.is_of_patients(section.result.task)
            for section in sections
        ),
        verdict=verdict_in_words(results),
        meanings=MEANINGS,
        lacking=lacking_in_words(results),
        any_computed=bool(computed),
        confidence=_confidence(computed),
        examples_wanted=params.examples,
        history=history,
        loss_chart=charts.loss_chart(history),
        archive=count_archive(job.project, images),
        card=read_model_card(card),
        parallel_share=_parallel_share(card),
    ).encode()  # fmt: skip
    storage.write_bytes(job.project.report_page, page)
    num_pictures = _write_pictures(sections, job.project)
    job.recorder.progress(steps, steps, unit="sections", note="page written")
    return {
        "evaluations": len(computed),
        "examples": sum(len(section.examples) for section in sections),
        "pictures": num_pictures,
        "bytes": len(page),
    }


def _write_pictures(sections: list[PageSection], project: Project) -> int:
    """Write one SVG per evaluation that has something to look at; return how many."""
    shutil.rmtree(project.pictures_dir, ignore_errors=True)
    project.pictures_dir.mkdir(parents=True)
    drawn = {section.result.task.name: task_pictures.draw_picture(section) for section in sections}
    for task, picture in drawn.items():
        if picture is not None:
            storage.write_bytes(project.pictures_dir / f"{task}.svg", picture.encode())
    return sum(picture is not None for picture in drawn.values())


def _environment() -> Environment:
    environment = templates(_TEMPLATES)
    environment.filters["metric_name"] = metric_name
    environment.filters["system_name"] = system_name
    environment.globals["line_legend"] = figures.line_legend
    environment.globals["headline_track"] = charts.headline_track
    return environment


def _parallel_share(card: dict[str, Any]) -> float:
    """Return which share of the training reports was written from the film alone; 0 if unknown."""
    training = card.get("training")
    return float(training.get("parallel_share", 0.0)) if isinstance(training, dict) else 0.0


def _confidence(computed: list[PageResult]) -> str:
    """Return the confidence of the intervals in per cent, as the evaluations recorded it."""
    shares = {result.protocol.get("interval_confidence", "0.95") for result in computed} or {"0.95"}
    return " or ".join(f"{100 * float(share):g}" for share in sorted(shares))
