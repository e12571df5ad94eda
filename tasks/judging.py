"""One encoder judged by one evaluation, in this process, with its records and its ledger entry."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lapvqa.evaluation.task_table import find
from lapvqa.project import Project
from tasks.display import Display, StageOutcome

if TYPE_CHECKING:
    from lapvqa.job import Counts


def judge_encoder(name: str, path: Path, task: str, project: Project, display: Display) -> None:
    """Judge the encoder at ``path`` into evaluations/<name>/<task>; raises what its judge does.

    The caller holds the run lock: a run at work would replace images and tables meanwhile.
    """
    from lapvqa.evaluation import external_encoders
    from lapvqa.evaluation.evaluate import evaluate
    from lapvqa.job import open_job
    from lapvqa.params import load_params
    from lapvqa.recorder import Recorder

    params = load_params(project.params).evaluate
    began, started, stage = time.time(), time.monotonic(), f"evaluate@{task}"
    display.begin(stage, name)
    record = project.record(f"encoder-{name}@{task}")
    recorder = Recorder(record, stage=stage, machine_readable=True, listener=_listener(display))
    try:
        job = open_job(project, recorder)
        encoder = external_encoders.external_encoder(name, path, project)
        counts = evaluate(find(task), encoder, params, job)
        recorder.summary(counts)
    finally:
        recorder.close()
    _record(project, name, task, began, time.monotonic() - started, counts)
    absent = str(counts.get("reason", ""))
    display.end(StageOutcome(stage, "ran", time.monotonic() - started, name, absent))


def _record(
    project: Project, name: str, task: str, began: float, seconds: float, counts: Counts
) -> None:
    """Tell the ledger, so that `lapvqa lineage` can be asked for it."""
    from lapvqa.evaluation import external_encoders
    from lapvqa.lineage import environment, evaluations, recording
    from lapvqa.lineage.origins import EVALUATION
    from lapvqa.lineage.runs import Run
    from tasks import results

    folder = project.evaluations_dir(name).relative_to(project.root)
    metrics = (f"{folder}/{task}/metrics.json",)
    run = Run(
        EVALUATION, began, seconds, counts=counts, environment=environment.facts(project),
        metrics=results.metric_values(project.root, metrics),
    )  # fmt: skip
    evaluations.record(
        project, run, name=name, task=task, commit=recording.read_commit(project.root),
        encoder=external_encoders.read_encoders(project)[name]["digest"],
    )  # fmt: skip


def _listener(display: Display) -> Callable[[str], None]:
    from lapvqa.recorder import PROGRESS_PREFIX

    def take(line: str) -> None:
        if line.startswith(PROGRESS_PREFIX):
            display.progress(json.loads(line.removeprefix(PROGRESS_PREFIX)))
        else:
            display.say(line)

    return take
