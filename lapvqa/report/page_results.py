"""Results as the page shows them: names and order of systems and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from lapvqa.evaluation.results import (
    BASELINE,
    BETTER,
    CANNOT_TELL,
    NO_VALUE,
    PAIRS,
    WORSE,
    Headline,
    HeadSpread,
    Interval,
    Systems,
    TaskResult,
    lacking,
    read_result,
)
from lapvqa.evaluation.task import EvaluationTask
from lapvqa.project import Project

V = TypeVar("V")

SYSTEMS = {
    "trained": "trained encoder",
    "untrained": "untrained encoder",
    "head_trained": "head on the trained encoder",
    "head_untrained": "head on the untrained encoder",
    BASELINE: "most common report",
}
"""Systems in the order shown. Untrained: the same architecture with its initial weights."""

METRICS = {
    "auc": "AUC",
    "auprc": "AUPRC",
    "brier": "Brier score (lower is better)",
    "ece": "ECE (lower is better)",
    "exact_match": "Exact match",
    "token_f1": "F1 of words",
    "closed_f1": "F1 of yes and no",
    "finding_f1_micro": "Finding F1, micro",
    "finding_f1_macro": "Finding F1, macro",
    "finding_f1": "Finding F1",
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "cider_d": "CIDEr-D (0 to 10)",
    "meteor": "METEOR",
    "ap40": "AP at IoU 0.4",
    "ap50": "AP at IoU 0.5",
    "coco_ap": "AP of COCO",
    "coco_ap50": "AP of COCO at IoU 0.5",
    "mrr": "Reciprocal rank",
    "recall1": "Found first",
    "recall5": "Found among 5",
    "recall10": "Found among 10",
    "miou": "Mean IoU",
    "acc25": "Share with IoU of 0.25 and more",
    "acc50": "Share with IoU of 0.5 and more",
    "pointing": "Share with the centre in a true box",
    "chexbert_f1_micro14": "CheXbert F1, 14 labels, micro",
    "chexbert_f1_macro14": "CheXbert F1, 14 labels, macro",
    "chexbert_f1_micro5": "CheXbert F1, 5 labels, micro",
    "chexbert_f1_macro5": "CheXbert F1, 5 labels, macro",
    "radgraph_simple": "RadGraph F1, simple",
    "radgraph_partial": "RadGraph F1, partial",
    "radgraph_complete": "RadGraph F1, complete",
    "bertscore_precision": "BERTScore, precision",
    "bertscore_recall": "BERTScore, recall",
    "bertscore_f1": "BERTScore, F1",
}
"""Families of metrics in the order shown: a metric without ``mean_`` and without its group."""

ORDER = {name: place for place, name in enumerate(METRICS)}


def family(key: str) -> str:
    """Return the family of a metric: ``auc`` of mean_auc and of auc/Edema."""
    return key.partition("/")[0].removeprefix("mean_")


def metric_name(key: str) -> str:
    """Return the readable name of a metric key: ``AUC, Pleural Thickening``."""
    base, _, group = key.partition("/")
    name = family(key)
    shown = METRICS.get(name, name)
    if base.startswith("mean_"):
        shown = f"Mean {shown}"
    group = group.removeprefix("type:")
    return f"{shown}, {group.replace('_', ' ')}" if group else shown


def short_name(key: str) -> str:
    """Return the name of a metric among others of its family: the group alone, if it has one."""
    _, _, group = key.partition("/")
    return group.removeprefix("type:").replace("_", " ") or metric_name(key)


def system_name(name: str) -> str:
    """Return what a system is called; an encoder's own name stays."""
    return SYSTEMS.get(name, name)


@dataclass(frozen=True)
class PageResult:
    """One evaluation: its record, whose words introduce it, and its numbers or why it has none."""

    task: EvaluationTask
    result: TaskResult

    @cached_property
    def systems(self) -> Systems:
        """The systems in the order shown."""
        return _ordered(self.result.systems, SYSTEMS)

    @cached_property
    def differences(self) -> Systems:
        """The differences, those of trained and untrained first."""
        return _ordered(self.result.differences, list(map("-".join, PAIRS.values())))

    @cached_property
    def headlines(self) -> list[Headline]:
        """The rows of the page's first table."""
        return list(self.result.headlines()) if self.result.computed else []

    @cached_property
    def seeds(self) -> dict[str, HeadSpread]:
        """The primary metric of systems with several heads."""
        return {system: each[self.result.primary] for system, each in self.result.seeds.items()}

    @cached_property
    def metrics(self) -> list[str]:
        """Metric keys in the order shown: the primary, whole metrics, then those of groups."""
        primary = self.result.primary
        return sorted(
            self.result.metrics, key=lambda key: (key != primary, "/" in key, _rank(key), key)
        )

    @property
    def main_metrics(self) -> list[str]:
        """Metrics over all samples that any system has a value of; the primary in any case."""
        return [
            key
            for key in self.metrics
            if key == self.result.primary
            or ("/" not in key and any(self.interval(system, key).value is not None
                                       for system in self.systems))
        ]  # fmt: skip

    @property
    def charted_metrics(self) -> list[str]:
        """Metrics of the families that the task's figure shows."""
        return [key for key in self.metrics if family(key) in self.task.charted]

    @property
    def charted_names(self) -> list[str]:
        """What the task's figure shows, each once, by their readable names."""
        families = dict.fromkeys(family(key) for key in self.charted_metrics)
        return [METRICS.get(name, name) for name in families]

    @property
    def undefined(self) -> list[str]:
        """Why numbers or intervals lack, with the metrics' readable names."""
        return [_named(line) for line in self.result.undefined]

    @property
    def protocol(self) -> dict[str, str]:
        """How it was measured, as text."""
        return flatten(self.result.protocol)

    def interval(self, system: str, metric: str) -> Interval:
        """Return one metric of one system; undefined if it has none."""
        return self.result.interval(system, metric)


def read_page_result(task: EvaluationTask, project: Project) -> PageResult:
    """Read one metrics.json; MissingArtifactError if absent, SchemaError if malformed."""
    return PageResult(task, read_result(project.result_dir(task.name), task.name))


def verdict_in_words(results: Sequence[PageResult]) -> str:
    """Return what pretraining was worth in one sentence: each task's main metric, by its interval.

    Of a task with several writers the first counts.
    """
    said = {item.task.title: item.headlines[0].verdict for item in results if item.headlines}
    if not said:
        return "No evaluation was computed, so nothing says what pretraining was worth."
    if len(said) > 1 and len(set(said.values())) == 1:
        words = _VERDICTS[next(iter(said.values()))]
        return f"In all {len(said)} tasks the encoder is, after its training, {words}."
    parts = []
    for verdict, words in _VERDICTS.items():
        titles = [title for title, found in said.items() if found == verdict]
        if titles:
            parts.append(f"{words} in {len(titles)} ({'; '.join(titles)})")
    tasks = "task" if len(said) == 1 else "tasks"
    return f"Of {len(said)} {tasks} the encoder is, after its training, {', '.join(parts)}."


_VERDICTS = {
    BETTER: "better",
    WORSE: "worse",
    CANNOT_TELL: "not told apart from before",
    NO_VALUE: "not judged",
}


def lacking_in_words(results: Sequence[PageResult]) -> str:
    """Return why the first table lacks values or intervals; empty if it lacks none."""
    titles = {item.task.name: item.task.title for item in results if item.result.computed}
    found = lacking(item.result for item in results if item.result.computed)
    said = []
    for why, tasks in found.items():
        all_of_them = len(tasks) == len(titles) > 1
        where = "all tasks" if all_of_them else "; ".join(titles[task] for task in tasks)
        said.append(f"{why[:1].upper()}{why[1:]} ({where}).")
    return " ".join(said)


def _rank(key: str) -> int:
    return ORDER.get(family(key), len(ORDER))


def _ordered(values: Mapping[str, V], first: Any) -> dict[str, V]:
    """Return ``values`` with the names of ``first`` first, the others by name."""
    known = [name for name in first if name in values]
    return {name: values[name] for name in [*known, *sorted(set(values) - set(known))]}


def _named(line: str) -> str:
    """Return "metric: reason" with the metric's readable name."""
    # A group may hold a colon ("type:open"), followed by no blank.
    key, colon, reason = line.partition(": ")
    return f"{metric_name(key)}{colon}{reason}"


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
