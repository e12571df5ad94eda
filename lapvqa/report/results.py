"""Metrics of the evaluations, as the page shows them: read from results/<task>/metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lapvqa.errors import SchemaError
from lapvqa.project import Project
from lapvqa.report.names import ORDER, SYSTEMS, Task, family, metric_name
from lapvqa.storage import read_json

PAIRS = (("trained", "untrained"), ("head_trained", "head_untrained"))
"""Systems that differ in nothing but whether the encoder was trained."""


@dataclass(frozen=True)
class Interval:
    """A metric with its confidence limits; ``None`` where it is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


UNDEFINED = Interval(None)


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: its numbers, or the reason why there are none.

    ``seeds``: values and sd of the primary metric of systems with several heads.
    """

    task: Task
    computed: bool
    reason: str = ""
    primary: str = ""
    num_samples: int = 0
    num_patients: int = 0
    systems: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    differences: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    undefined: tuple[str, ...] = ()
    protocol: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """Metric keys in the order shown: the primary, whole metrics, then those of groups."""
        found = {key for metrics in self.systems.values() for key in metrics}
        return sorted(found, key=lambda key: (key != self.primary, "/" in key, _rank(key), key))

    @property
    def main_metrics(self) -> list[str]:
        """Metrics over all samples that any system has a value of; the primary in any case."""
        return [
            key
            for key in self.metrics
            if key == self.primary
            or ("/" not in key and any(self.interval(name, key).value is not None
                                       for name in self.systems))
        ]  # fmt: skip

    @property
    def charted_metrics(self) -> list[str]:
        """Metrics of the families that the task's figure shows."""
        return [key for key in self.metrics if family(key) in self.task.charted]

    def interval(self, system: str, metric: str) -> Interval:
        """Return one metric of one system; undefined if the file does not have it."""
        return self.systems.get(system, {}).get(metric, UNDEFINED)

    def difference(self, pair: tuple[str, str], metric: str) -> Interval:
        """Return how far the first system is above the second; undefined if not compared."""
        return self.differences.get("-".join(pair), {}).get(metric, UNDEFINED)


@dataclass(frozen=True)
class Headline:
    """A row of the page's first table: a task's primary metric before and after pretraining."""

    evaluation: Evaluation
    systems: tuple[str, str]
    trained: Interval
    untrained: Interval
    difference: Interval


def headlines(evaluation: Evaluation) -> list[Headline]:
    """Return a row for each pair of systems that the evaluation has."""
    primary = evaluation.primary
    return [
        Headline(
            evaluation,
            pair,
            evaluation.interval(pair[0], primary),
            evaluation.interval(pair[1], primary),
            evaluation.difference(pair, primary),
        )
        for pair in PAIRS
        if any(name in evaluation.systems for name in pair)
    ]


def read_evaluation(task: Task, project: Project) -> Evaluation:
    """Read one metrics.json; MissingArtifactError if absent, SchemaError if malformed."""
    path = project.result_dir(task.name) / "metrics.json"
    raw = read_json(path, made_by=f"evaluate@{task.name}")
    try:
        if raw["status"] != "ok":
            return Evaluation(task, computed=False, reason=str(raw["reason"]))
        return Evaluation(
            task,
            computed=True,
            primary=raw["primary"],
            num_samples=raw["num_samples"],
            num_patients=raw["num_patients"],
            systems=_intervals(_ordered(raw["systems"])),
            differences=_intervals(_compared(raw.get("differences", {}))),
            undefined=tuple(_named(str(line)) for line in raw.get("undefined", [])),
            protocol=flatten(raw.get("protocol", {})),
            seeds={name: one[raw["primary"]] for name, one in raw.get("seeds", {}).items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise SchemaError(
            f"results/{task.name}/metrics.json: expected the fields of an evaluation, "
            f"found none under {error}",
            hint=f"run `lapvqa run --stage evaluate@{task.name}` again",
        ) from error


def _rank(key: str) -> int:
    return ORDER.get(family(key), len(ORDER))


def _named(line: str) -> str:
    """Return "metric: reason" with the metric's readable name."""
    # A group may hold a colon ("type:open"), followed by no blank.
    key, colon, reason = line.partition(": ")
    return f"{metric_name(key)}{colon}{reason}"


def _ordered(systems: dict[str, Any]) -> dict[str, Any]:
    names = [name for name in SYSTEMS if name in systems]
    return {name: systems[name] for name in names + sorted(set(systems) - set(names))}


def _compared(differences: dict[str, Any]) -> dict[str, Any]:
    """Return the differences with those of trained and untrained first."""
    names = [name for name in map("-".join, PAIRS) if name in differences]
    return {name: differences[name] for name in names + sorted(set(differences) - set(names))}


def _intervals(raw: dict[str, Any]) -> dict[str, dict[str, Interval]]:
    return {
        name: {
            key: Interval(item["value"], item.get("low"), item.get("high"))
            for key, item in metrics.items()
        }
        for name, metrics in raw.items()
    }


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Return nested mappings as ``a.b: text``, keys sorted; for facts of any shape."""
    if not isinstance(value, dict):
        return {prefix or "value": _text(value)}
    flat: dict[str, str] = {}
    for key in sorted(value, key=str):
        flat |= flatten(value[key], f"{prefix}.{key}" if prefix else str(key))
    return flat


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
