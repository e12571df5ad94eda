"""The table of evaluations: a line per task. A record is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lapvqa.errors import no_such

if TYPE_CHECKING:
    from lapvqa.evaluation.task import EvaluationTask, ExampleKind

EVALUATIONS = {
    "probe_chexpert": "lapvqa.probe.on_chexpert",
    "probe_nih14": "lapvqa.probe.on_nih14",
    "probe_archive": "lapvqa.probe.on_archive",
    "retrieval": "lapvqa.retrieval.task",
    "vqa": "lapvqa.vqa.task",
    "diffvqa": "lapvqa.diffvqa.task",
    "rrg": "lapvqa.rrg.task",
    "ad": "lapvqa.ad.task",
    "pg": "lapvqa.pg.task",
}
"""Task -> the module whose ``TASK`` is its record, in the order of the page and the tables.

The key is the task's section of ``evaluate`` in params.yaml, its key of ``evaluate`` in dvc.yaml
and the name of its stage; tests/evaluation/test_task_table.py holds them together.
"""

HUB_TASKS = {
    "probe_chexpert": "image-classification",
    "probe_nih14": "image-classification",
    "probe_archive": "image-classification",
    "vqa": "visual-question-answering",
    "diffvqa": "visual-question-answering",
    "rrg": "image-to-text",
    "ad": "object-detection",
    "pg": "object-detection",
}
"""Task -> what Hugging Face calls such a task, for the model card; others have none."""


def find(task: str) -> EvaluationTask:
    """Return the record of a task; ConfigError names the nearest known one."""
    if task not in EVALUATIONS:
        raise no_such("task", task, EVALUATIONS)
    record: EvaluationTask = importlib.import_module(EVALUATIONS[task]).TASK
    return record


def find_all() -> list[EvaluationTask]:
    """Return the records of all tasks, in the order of the table."""
    return [find(task) for task in EVALUATIONS]


def shown_as(kind: ExampleKind) -> list[str]:
    """Return the tasks whose predictions are shown so, in the order of the table."""
    return [task.name for task in find_all() if task.examples == kind]
