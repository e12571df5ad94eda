"""What the runs of bakeoff.py gave: mean AUC with intervals, a table, a figure.

All of it is made from the predictions and facts that the runs left, so a figure can be drawn anew
without training.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa import storage
from lapvqa.evaluation.task import EvaluationTask
from lapvqa.metrics.bootstrap import Array, draw_values, interval
from lapvqa.params import BootstrapParams
from lapvqa.probe.on_chexpert import TASK as CHEXPERT
from lapvqa.probe.on_nih14 import TASK as NIH14
from lapvqa.schemas import PROBE_PREDICTIONS

LAST, LOWEST = "last", "lowest validation loss"
UNTRAINED = "untrained"
_TITLES = {"chexpert": "CheXpert", "nih14": "NIH"}
_MARKERS = "osD^vP"
_SIZES = ("images_", "patients_")
EVALUATIONS: dict[str, EvaluationTask] = {"chexpert": CHEXPERT, "nih14": NIH14}


@dataclass(frozen=True)
class Run:
    """A finished run: its facts, and per task and system the mean AUC: observed, then draws."""

    facts: dict[str, Any]
    values: dict[str, dict[str, Array]]

    @classmethod
    def read(cls, folder: Path, common: BootstrapParams) -> Run:
        """Read what ``run_job`` wrote, and score its predictions."""
        facts = storage.read_json(folder / "run.json", made_by="bakeoff")
        values: dict[str, dict[str, Array]] = {}
        for task in facts["protocols"]:
            table = storage.read_table(
                folder / f"{task}.parquet", PROBE_PREDICTIONS, made_by="bakeoff"
            )
            values[task] = {
                row["system"]: _mean_auc(EVALUATIONS[task], table, row["system"], common)
                for row in facts["rows"]
            }
        return cls(facts, values)


def _mean_auc(task: EvaluationTask, table: pa.Table, system: str, common: BootstrapParams) -> Array:
    measures = task.measure(table.filter(pc.equal(table["system"], system)))
    values = draw_values(
        measures.statistic, measures.patients, draws=common.bootstrap_draws, seed=common.seed
    )
    first: Array = values[:, measures.names.index("mean_auc")]
    return first


def summarise(runs: Sequence[Run], common: BootstrapParams) -> dict[str, Any]:
    """Return the rows of all probed weights, means over seeds, and differences at the end.

    An interval is that of the mean over the seeds when patients are drawn again: all seeds and
    contenders see the same draws. It does not cover the seeds; their values stand beside it.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.facts["contender"], []).append(run)
    tasks = list(runs[0].values)
    start, end = _ends(runs[0])
    rows = []
    for name, group in groups.items():
        for system in group[0].values[tasks[0]]:
            scores = {task: _scores(group, task, system, (start, end), common) for task in tasks}
            rows.append({**_describe(name, system, group), **scores})
    differences = {
        f"{a} - {b}": {
            task: _estimate(_mean(groups[a], task, end) - _mean(groups[b], task, end), common)
            for task in tasks
        }
        for a, b in combinations(groups, 2)
    }
    return {"rows": rows, "differences_at_the_end": differences}


def _scores(
    group: Sequence[Run], task: str, system: str, ends: tuple[str, str], common: BootstrapParams
) -> dict[str, Any]:
    mean, start, end = (_mean(group, task, one) for one in (system, *ends))
    return {
        **_estimate(mean, common),
        "gain": _estimate(mean - start, common),
        "beside_last": _estimate(mean - end, common),
        "seeds": [float(run.values[task][system][0]) for run in group],
        "probe_validation": [
            run.facts["protocols"][task][f"validation_mean_auc_{system}"] for run in group
        ],
    }


def _mean(group: Sequence[Run], task: str, system: str) -> Array:
    found: Array = np.mean([run.values[task][system] for run in group], axis=0)
    return found


def _estimate(values: Array, common: BootstrapParams) -> dict[str, float | None]:
    return interval(values, confidence=common.confidence)._asdict()


def _ends(run: Run) -> tuple[str, str]:
    """Return the systems before the first step and after the last."""
    systems = {row["epoch"]: row["system"] for row in run.facts["rows"] if row["weights"] == LAST}
    return systems[min(systems)], systems[max(systems)]


def _describe(name: str, system: str, group: Sequence[Run]) -> dict[str, Any]:
    found = [next(row for row in run.facts["rows"] if row["system"] == system) for run in group]
    losses = [row["validation"]["val_loss"] for row in found]
    return {
        "contender": name,
        "weights": found[0]["weights"],
        "epoch": [row["epoch"] for row in found] if system == LOWEST else found[0]["epoch"],
        "steps": statistics.mean(row["steps"] for row in found),
        "samples": statistics.mean(row["samples"] for row in found),
        "train_cpu_s": statistics.mean(row["train_cpu_s"] for row in found),
        "train_wall_s": statistics.mean(row["train_wall_s"] for row in found),
        "val_loss": {"mean": statistics.mean(losses), "seeds": losses},
        "validation": {
            key: statistics.mean(row["validation"][key] for row in found)
            for key in found[0]["validation"]
        },
    }


def table(summary: Mapping[str, Any]) -> str:
    """Return what a person reads: the weights at the start and at the end, in Markdown."""
    rows = summary["rows"]
    end = max(row["epoch"] for row in rows if row["weights"] == LAST)
    start = next(row for row in rows if row["epoch"] == 0)
    shown = [row for row in rows if row["epoch"] == end or row["weights"] == LOWEST]
    tasks = [task for task in _TITLES if task in start]
    head = ["encoder", "weights", "steps", "samples", "seconds", "validation loss"]
    head += [f"{_TITLES[task]} [95 %] (seeds)" for task in tasks]
    lines = [head, ["---"] * len(head)]
    lines.append([UNTRAINED, "", "0", "0", "0", "", *(_cell(start[task]) for task in tasks)])
    for row in shown:
        lines.append([
            row["contender"], row["weights"], f"{row['steps']:.0f}", f"{row['samples']:.0f}",
            f"{row['train_cpu_s']:.0f}", f"{row['val_loss']['mean']:.3f}",
            *(_cell(row[task]) for task in tasks),
        ])  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(found: Mapping[str, Any]) -> str:
    seeds = ", ".join(f"{one:.3f}" for one in found["seeds"])
    return f"{found['value']:.3f} {_bounds(found)} ({seeds})"


def _bounds(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return "[no interval]"
    return f"[{found['low']:.3f}, {found['high']:.3f}]"


def plot(summary: Mapping[str, Any], path: Path) -> None:
    """Draw quality against samples and against seconds: a line per contender, bands of seeds."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in summary["rows"] if row["weights"] == LAST]
    tasks = [task for task in _TITLES if task in rows[0]]
    figure, axes = plt.subplots(
        len(tasks), 2, figsize=(10, 0.9 + 3.5 * len(tasks)), sharey="row", squeeze=False
    )
    ways = {"samples": "samples seen", "train_cpu_s": "processor seconds of training (one core)"}
    for task, line_of_axes in zip(tasks, axes, strict=True):
        for (way, label), axis in zip(ways.items(), line_of_axes, strict=True):
            _draw(axis, rows, task=task, way=way)
            axis.set_xlabel(label)
        line_of_axes[0].set_ylabel(f"{_TITLES[task]}, mean AUC of the probe")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.suptitle("The demo's encoder while it trains: mean and range of the seeds", fontsize=12)
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def _draw(axis: Any, rows: Sequence[Mapping[str, Any]], *, task: str, way: str) -> None:
    for number, name in enumerate(dict.fromkeys(row["contender"] for row in rows)):
        mine = [row for row in rows if row["contender"] == name]
        x, seeds = [row[way] for row in mine], [row[task]["seeds"] for row in mine]
        axis.plot(
            x, [row[task]["value"] for row in mine],
            _MARKERS[number] + "-", color=f"C{number}", ms=5, label=name,
        )  # fmt: skip
        axis.fill_between(
            x, [min(one) for one in seeds], [max(one) for one in seeds],
            color=f"C{number}", alpha=0.15, linewidth=0,
        )  # fmt: skip
    start = next(row for row in rows if row["epoch"] == 0)
    axis.axhline(start[task]["value"], color="0.3", ls="--", lw=1, label=UNTRAINED)
    axis.grid(alpha=0.3)


def circumstances(runs: Sequence[Run], *, processes: int) -> dict[str, Any]:
    """Return how the figures were made, and what they are."""
    first = runs[0].facts
    return {
        "what": "linear probe of frozen encoders, mean AUC over classes; value: mean over seeds; "
        "low, high: its 95 % interval over patients of the test, seeds as they are; gain: over "
        "the same contender before its first step; beside_last: over its last step; "
        "probe_validation: the probe's own validation",
        "warning": "the test is predicted at each point: the curves describe, nothing may be "
        "chosen by them; the recipe was chosen earlier by this test, for captioning",
        "val_loss": "captioning: nats per token; InfoNCE and sigmoid: of batches; CoCa: the sum of "
        "both; comparable only between runs of one contender",
        "seconds": "of training steps alone, reading included, probes and averages not; wall "
        "beside processor (cpu) seconds says how busy the machine was",
        "processes_at_once": processes,
        "threads_each": 1,
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "scikit-learn", "numpy")},
        "recipe": {
            key: value for key, value in first["params"].items() if key not in ("objective", "seed")
        },
        "data": {key: first[key] for key in ("train_pairs", "validate_pairs", "data_digest")},
        "probes": {
            task: {key: value for key, value in protocol.items() if key.startswith(_SIZES)}
            for task, protocol in first["protocols"].items()
        },
    }


def rounded(value: Any) -> Any:
    """Round floats to six decimals, everywhere inside."""
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
