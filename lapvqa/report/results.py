"""Metrics of the evaluations, as the page shows them: read from results/<task>/metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lapvqa.errors import SchemaError
from lapvqa.layout import Layout
from lapvqa.storage import read_json


@dataclass(frozen=True)
class Task:
    """What a reader must know about one evaluation before its numbers."""

    name: str
    title: str
    about: str


TASKS = (
    Task(
        "probe_chexpert",
        "Linear probe, CheXpert-5",
        "A logistic regression per finding on the frozen encoder's features; area under the ROC "
        "curve on patients that neither the encoder nor the probe was trained on. Five findings.",
    ),
    Task(
        "probe_nih14",
        "Linear probe, NIH ChestX-ray14",
        "The same probe on the fourteen findings of NIH ChestX-ray14, on its official test list.",
    ),
    Task(
        "rrg",
        "Report generation",
        "The decoder writes the report of a study it never saw. Finding F1 compares the findings "
        "asserted in the text with those known of the study; BLEU and ROUGE compare words with "
        "the reference report. The baseline answers every study with the most common training "
        "report.",
    ),
)

SYSTEMS = {
    "trained": "trained encoder",
    "untrained": "untrained encoder",
    "most_common": "most common report",
}
"""Systems in the order shown. Untrained: the same architecture with its initial weights."""

METRIC_NAMES = {
    "mean_auc": "Mean AUC",
    "finding_f1_micro": "Finding F1, micro",
    "finding_f1_macro": "Finding F1, macro",
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
}
"""Names of metrics in the order shown; those of single labels follow."""

LABEL_METRICS = {"auc/": "{}", "finding_f1/": "F1, {}"}
"""Prefix of the metrics of single labels, and how they are shown."""


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


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: its numbers, or the reason why there are none."""

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

    @property
    def metrics(self) -> list[str]:
        """Metric keys in the order shown: the primary, the known ones, then the labels."""
        found = {key for metrics in self.systems.values() for key in metrics}
        ranked = [self.primary, *METRIC_NAMES]
        known = [key for key in dict.fromkeys(ranked) if key in found]
        return known + sorted(found - set(known))

    def interval(self, system: str, metric: str) -> Interval:
        """Return one metric of one system; undefined if the file does not have it."""
        return self.systems.get(system, {}).get(metric, Interval(None))


def metric_name(key: str) -> str:
    """Return the readable name of a metric key."""
    for prefix, shown in LABEL_METRICS.items():
        if key.startswith(prefix):
            return shown.format(key.removeprefix(prefix).replace("_", " "))
    return METRIC_NAMES.get(key, key)


def read_evaluation(task: Task, layout: Layout) -> Evaluation:
    """Read one metrics.json; MissingArtifactError if absent, SchemaError if malformed."""
    path = layout.result_dir(task.name) / "metrics.json"
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
            differences=_intervals(raw.get("differences", {})),
            undefined=tuple(_named(str(line)) for line in raw.get("undefined", [])),
            protocol=flatten(raw.get("protocol", {})),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise SchemaError(
            f"results/{task.name}/metrics.json: expected the fields of an evaluation, "
            f"found none under {error}",
            hint=f"run `lapvqa run --stage evaluate@{task.name}` again",
        ) from error


def _named(line: str) -> str:
    """Return "metric: reason" with the metric's readable name."""
    key, colon, reason = line.partition(": ")
    return f"{metric_name(key)}{colon}{reason}"


def _ordered(systems: dict[str, Any]) -> dict[str, Any]:
    names = [name for name in SYSTEMS if name in systems]
    return {name: systems[name] for name in names + sorted(set(systems) - set(names))}


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
