"""The evaluations by name; each is imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from lapvqa.errors import ConfigError

if TYPE_CHECKING:
    from lapvqa.evaluation.contract import Evaluation
    from lapvqa.params import EvaluateParams
    from lapvqa.project import Project

EVALUATIONS = {
    "probe_chexpert": "lapvqa.probe.chexpert",
    "probe_nih14": "lapvqa.probe.nih14",
    "vqa": "lapvqa.vqa.task",
    "diffvqa": "lapvqa.diffvqa.task",
    "rrg": "lapvqa.rrg.task",
    "ad": "lapvqa.ad.task",
    "pg": "lapvqa.pg.task",
}
"""Task -> the module that computes it (``run``) and says how it is scored (``EVALUATION``)."""


def find(task: str) -> Evaluation:
    """Return the evaluation of a task; ConfigError names the nearest known one."""
    if task not in EVALUATIONS:
        near = difflib.get_close_matches(task, EVALUATIONS, n=1)
        raise ConfigError(
            f"expected a task of {', '.join(EVALUATIONS)}, found {task!r}",
            hint=f"did you mean {near[0]}?" if near else "see `lapvqa score --help`",
        )
    evaluation: Evaluation = importlib.import_module(EVALUATIONS[task]).EVALUATION
    return evaluation


def configured(task: str, params: EvaluateParams, project: Project) -> Evaluation:
    """Return the evaluation of a task, scored as params.yaml says."""
    if task == "rrg":
        from lapvqa.rrg.task import with_weights

        return with_weights(params, project)
    return find(task)
