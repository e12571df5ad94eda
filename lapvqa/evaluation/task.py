"""The record of one evaluation: everything that the code outside its folder knows of it.

A record imports no torch, so that the page, the tables and `lapvqa score` do without. What trains
and predicts is named by ``judge`` and imported when the evaluation runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from lapvqa.metrics.bootstrap import Measures

ExampleKind = Literal["probe", "answers", "reports", "detection", "grounding", "none"]
"""How the page shows predictions: a probe's curves, or one of four sorts of examples."""


MeasureRows = Callable[[pa.Table], Measures]
"""One system's rows -> its metrics."""


@dataclass(frozen=True, kw_only=True)
class CurveTable:
    """A small table for plots: written as curves.csv."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class InputFolder:
    """A public data set's folder: its ``name`` in ``inventory`` of params.yaml.

    ``data``: what is looked for; ``holds``: the files that the folder is known by;
    ``of_archive``: it asks about images of the archive, whose patients' keys it has.
    """

    name: str
    data: str
    holds: str
    of_archive: bool = False

    @property
    def absent(self) -> str:
        """Why there is no result without the folder, and what to set."""
        return (
            f"no {self.data} here: set inventory.{self.name} in params.yaml, or "
            f"paths.{self.name} in local.yaml, to the folder that holds {self.holds}"
        )


@dataclass(frozen=True)
class ComparedSystems:
    """One line of the comparison of encoders: its column -> the system in the pipeline's results.

    ``writer``: who writes the predictions, where a task has several; ``external``: other encoders
    stand on this line too.
    """

    systems: Mapping[str, str] = field(
        default_factory=lambda: {"trained": "trained", "untrained": "untrained"}
    )
    writer: str = ""
    external: bool = True


@dataclass(frozen=True, kw_only=True)
class EvaluationTask:
    """One evaluation.

    ``judge``: ``module:function``, called with a ``contract.Evaluation``. ``folder``: its data,
    if not the archive's own.

    Scoring: ``schema`` of its predictions has at least the columns sample, patient, system.
    ``measure`` and ``curves`` see nothing but predictions: ``measure`` the rows of one system,
    ``curves`` all rows. ``measure_with`` makes ``measure`` of the task's section of params.yaml and
    the project's folder, where scoring depends on them. ``compared`` lists pairs (a, b) of systems
    whose difference a - b is reported.

    Words: ``title`` and ``about`` introduce the numbers on the page, ``charted`` are the families
    of metrics that its figure shows, ``examples`` how predictions are shown.
    """

    name: str
    judge: str
    folder: InputFolder | None = None

    schema: pa.Schema
    primary: str
    measure: MeasureRows
    curves: Callable[[pa.Table], CurveTable]
    curve_columns: tuple[str, ...]
    measure_with: Callable[[Any, Path], MeasureRows] | None = None
    compared: tuple[tuple[str, str], ...] = (("trained", "untrained"),)
    lines: Sequence[ComparedSystems] = (ComparedSystems(),)

    title: str
    about: str
    charted: tuple[str, ...]
    examples: ExampleKind

    @property
    def tests_archive(self) -> bool:
        """Whether its test patients are the archive's own: only these can be sealed."""
        return self.folder is None or self.folder.of_archive

    @property
    def judge_module(self) -> str:
        """The module of ``judge``, where the closure of the stage's code starts."""
        return self.judge.partition(":")[0]

    def configured(self, params: Any, root: Path) -> EvaluationTask:
        """Return the task as it is scored with its section of params.yaml; raises ConfigError."""
        if self.measure_with is None:
            return self
        return replace(self, measure=self.measure_with(params, root))
