"""The endpoints of the rule: an evaluation's metric, on sealed patients or on those who are shown.

``rrg.finding_f1_micro``: metric ``finding_f1_micro`` of evaluation ``rrg``, of the predictions that
every encoder can have (of reports: those of the head). An evaluation on the archive's own patients
has a sealed share; a public data set has none, everybody sees its results. So only the former may
say that a candidate is better; the latter may only keep it out.

A metric that the scoring of its evaluation does not give is refused here, before anything is
trained or asked; whether a group (``auc/Edema``) is among the predictions is known once these are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from lapvqa.errors import ConfigError, no_such
from lapvqa.evaluation import task_table
from lapvqa.evaluation.task import EvaluationTask
from lapvqa.gate.verdict import Rule
from lapvqa.metrics import record
from lapvqa.params import GateParams

_ERRORS = {"brier", "ece"}


@dataclass(frozen=True)
class Endpoint:
    """One metric of one evaluation."""

    name: str
    task: EvaluationTask
    metric: str

    @property
    def systems(self) -> dict[str, str]:
        """trained, untrained -> the system of the pipeline's results."""
        line = next(line for line in self.task.lines if line.external)
        return dict(line.systems)


def find_all(params: GateParams) -> dict[str, Endpoint]:
    """Return every endpoint of the rule by name; ConfigError for one that cannot be judged."""
    names = dict.fromkeys([*params.primary, *params.margins])
    endpoints = {name: _find(name) for name in names}
    for name in params.primary:
        if not endpoints[name].task.tests_archive:
            raise ConfigError(
                f"gate.primary: {name} is of a public data set, whose results everybody has seen",
                hint="name a metric of an evaluation on the archive's own patients, such as "
                f"{_examples()}; a public one may stand under gate.margins",
            )
    return endpoints


def tasks(endpoints: Iterable[Endpoint]) -> dict[str, EvaluationTask]:
    """Return the evaluations that the endpoints are of."""
    return {endpoint.task.name: endpoint.task for endpoint in endpoints}


def make_rule(params: GateParams) -> Rule:
    """Return the rule of params.yaml."""
    return Rule(
        tuple(params.primary), dict(params.margins), params.slice_margin, params.worthwhile,
        params.guard_level, params.successor_margin,
    )  # fmt: skip


def _find(name: str) -> Endpoint:
    task, _, metric = name.partition(".")
    endpoint = Endpoint(name, task_table.find(task), metric)
    if record.base_name(metric) in _ERRORS:
        raise ConfigError(
            f"gate: {name} is an error, smaller is better",
            hint="name a metric of which more is better",
        )
    known = _metrics(task)
    families = {record.base_name(one) for one in known}
    is_group = "/" in metric and record.base_name(metric) in families
    if metric not in known and not is_group:
        shown = f"{metric!r} (gate, params.yaml)"
        raise no_such(f"metric of evaluation {task}", metric, known, shown=shown)
    return endpoint


@cache
def _metrics(task: str) -> tuple[str, ...]:
    """Return the metrics that a task's scoring gives whatever it scores.

    Groups that come with the data, as a type of question, are not among them.
    """
    scored = task_table.find(task)
    return scored.measure(scored.schema.empty_table()).names


def _examples() -> str:
    own = [task for task in task_table.find_all() if task.tests_archive]
    return ", ".join(f"{task.name}.{task.primary}" for task in own)
