"""A result whose test images training may know says so, where a gate, a page and a person look."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from demo_project import ingested
from jobs import make_job
from planting import Archive, raise_firewall
from rich.console import Console

from flows.commands.run_summary import show_doubts
from lapvqa import storage
from lapvqa.evaluation import task_table
from lapvqa.evaluation.contamination import NOT_COMPARED, OTHER, examine
from lapvqa.evaluation.evaluate import EncoderSet, Evaluation
from lapvqa.evaluation.results import (
    CONTAMINATED,
    MEANINGS,
    METRICS,
    STATED_TRAINING,
    TRAINING_UNKNOWN,
    UNKNOWN_TRAINING,
    Contamination,
    read_result,
    state_of,
)
from lapvqa.images.report_pairs import digest_pairs, read_pairs
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.schemas import ANSWER_PREDICTIONS


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """A project where one film of the archive's test is in training."""
    project = ingested(tmp_path_factory, tmp_path_factory.mktemp("leaky"))
    archive = Archive(project)
    archive.add("copy", archive.pixels(archive.of_split("test")[0]))
    archive.write()
    return archive


def trained_on(project: Project) -> str:
    pairs = [pair for split in ("train", "validate") for pair in read_pairs(project, split)[0]]
    return digest_pairs(pairs)


def answers(archive: Archive, *more: str) -> pa.Table:
    """Predictions about every test image of the archive, and ``more``."""
    names = [row["image_key"] for row in archive.of_split("test")]
    rows = [
        {
            "sample": f"question about {name}", "patient": name, "system": "trained",
            "image": name, "type": "view", "question": "which?", "reference": "pa",
            "hypothesis": "pa",
        }
        for name in (*names, *more)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=ANSWER_PREDICTIONS)


def counts(archive: Archive, training: str | None, *more: str) -> dict[str, int]:
    found = examine(answers(archive, *more), "archive", training, archive.project)
    return dict(found.counts) if found else {}


def test_what_training_has_lost_contaminates_nothing(leaky: Archive) -> None:
    assert raise_firewall(leaky.project).counts["excluded_images"] == 1
    assert counts(leaky, trained_on(leaky.project)) == {}


def test_what_training_keeps_is_counted_by_reason(leaky: Archive) -> None:
    outcome = raise_firewall(leaky.project, on_leak="stamp")
    assert (outcome.excluded, outcome.counts["shared_images"]) == ({}, 1)
    assert counts(leaky, trained_on(leaky.project))["film"] == 1


def test_training_on_other_images_or_on_nobody_knows_what_is_not_accepted(leaky: Archive) -> None:
    raise_firewall(leaky.project, on_leak="stamp")
    before = trained_on(leaky.project)
    raise_firewall(leaky.project)
    tested = len(leaky.of_split("test"))
    assert counts(leaky, before) == {OTHER: tested}
    assert counts(leaky, None) == {TRAINING_UNKNOWN: tested}


def test_an_image_that_was_not_compared_is_counted(leaky: Archive) -> None:
    raise_firewall(leaky.project)
    assert counts(leaky, trained_on(leaky.project), "from elsewhere") == {NOT_COMPARED: 1}


def publish(archive: Archive, training: str | None, folder: Path) -> dict[str, Any]:
    """Publish predictions as a judge does; return metrics.json."""
    project, task = archive.project, task_table.find("rrg")
    params = load_params(project.params).evaluate
    record = task_table.find("vqa")
    own = type(record)(**{**vars(record), "folder": task.folder})
    encoders = EncoderSet(dict, folder, training=training)
    run = Evaluation(own, encoders, params.vqa, params.common, make_job(project))
    run.empty_extra()
    run.publish(answers(archive), {})
    metrics: dict[str, Any] = storage.read_json(folder / "vqa" / METRICS, made_by="x")
    return metrics


def test_the_stamp_stands_in_the_metrics_and_is_told(leaky: Archive, tmp_path: Path) -> None:
    raise_firewall(leaky.project)
    sound = publish(leaky, trained_on(leaky.project), tmp_path / "sound")
    assert sound["contaminated"] is False
    stamped = publish(leaky, None, tmp_path / "outside")["contaminated"]
    assert stamped["counts"] == {TRAINING_UNKNOWN: len(leaky.of_split("test"))}
    said = f"vqa: unknown training: {stamped['why'][0]}; {MEANINGS[UNKNOWN_TRAINING]}\n"
    assert told_of(tmp_path / "outside") == said
    assert told_of(tmp_path / "sound") == ""
    raise_firewall(leaky.project, on_leak="stamp")
    publish(leaky, trained_on(leaky.project), tmp_path / "stamped")
    assert told_of(tmp_path / "stamped").startswith("vqa: contaminated: 1 of ")


def told_of(folder: Path) -> str:
    """What a person reads of the result in a folder."""
    shown = io.StringIO()
    show_doubts([read_result(folder / "vqa", "vqa")], Console(file=shown, width=400))
    return shown.getvalue()


def test_what_is_stated_of_a_training_takes_the_place_of_not_knowing_alone(
    leaky: Archive, tmp_path: Path
) -> None:
    raise_firewall(leaky.project)
    publish(leaky, None, tmp_path)
    storage.write_json(tmp_path / "encoder.json", {"trained_on": "photographs of cats"})
    doubt = read_result(tmp_path / "vqa", "vqa").doubt
    assert doubt is not None
    assert doubt.state == STATED_TRAINING
    assert doubt.why[0].startswith("photographs of cats (as stated")
    found = Contamination(("2 of 3 test images",), {"film": 2})
    assert found.stated("photographs of cats") == found, "what was found stays found"
    assert state_of([TRAINING_UNKNOWN, "film"]) == CONTAMINATED
    assert state_of([OTHER]) == UNKNOWN_TRAINING, "nothing was found: its images are not known"
    assert state_of([OTHER, "film"]) == CONTAMINATED
