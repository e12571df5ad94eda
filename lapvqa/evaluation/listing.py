"""The evaluations by name; each is imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from lapvqa.errors import ConfigError

if TYPE_CHECKING:
    from lapvqa.evaluation.contract import Evaluation
    from lapvqa.layout import Layout
    from lapvqa.params import EvaluateParams

EVALUATIONS = {
    "probe_chexpert": "lapvqa.evaluation.probe_chexpert",
    "probe_nih14": "lapvqa.evaluation.probe_nih14",
    "vqa": "lapvqa.evaluation.vqa",
    "diffvqa": "lapvqa.evaluation.diffvqa",
    "rrg": "lapvqa.evaluation.rrg",
    "ad": "lapvqa.evaluation.ad",
    "pg": "lapvqa.evaluation.pg",
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


def configured(task: str, params: EvaluateParams, layout: Layout) -> Evaluation:
    """Return the evaluation of a task, scored as params.yaml says."""
    if task == "rrg":
        from lapvqa.evaluation.rrg import with_weights

        return with_weights(params, layout)
    return find(task)
