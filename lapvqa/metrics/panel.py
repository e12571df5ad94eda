"""A panel: named statistics of the same samples, side by side.

Each metric's module makes a panel; ``side_by_side`` joins them, ``measures`` adds whose samples
they are. A name is ``metric`` or ``metric/group`` (a class, a question type).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lapvqa.metrics.bootstrap import Array, Measures, Statistic


@dataclass(frozen=True, kw_only=True)
class Panel:
    """``statistic``: weights [D, n] -> [D, k], one column per name; NaN where undefined.

    ``undefined``: name -> why it has no value on these samples.
    """

    names: tuple[str, ...]
    statistic: Statistic
    undefined: Mapping[str, str] = field(default_factory=dict)


def side_by_side(*panels: Panel) -> Panel:
    """Join panels of the same samples; ValueError if two use one name."""
    names = tuple(name for panel in panels for name in panel.names)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"expected every name once, found twice: {', '.join(repeated)}")

    def statistic(weights: Array) -> Array:
        return np.column_stack([panel.statistic(weights) for panel in panels])

    undefined = {name: why for panel in panels for name, why in panel.undefined.items()}
    return Panel(names=names, statistic=statistic, undefined=undefined)


def not_computed(names: tuple[str, ...], why: str) -> Panel:
    """Return a panel of metrics that have no value, and why: null in files."""

    def statistic(weights: Array) -> Array:
        return np.full((len(weights), len(names)), np.nan)

    return Panel(names=names, statistic=statistic, undefined=dict.fromkeys(names, why))


def without(panel: Panel, names: Iterable[str], why: str) -> Panel:
    """Return ``panel`` where ``names`` have no value, and why."""
    absent = set(names)
    columns = [place for place, name in enumerate(panel.names) if name in absent]

    def statistic(weights: Array) -> Array:
        values = panel.statistic(weights).copy()
        values[:, columns] = np.nan
        return values

    undefined = {**panel.undefined, **dict.fromkeys(absent, why)}
    return Panel(names=panel.names, statistic=statistic, undefined=undefined)


def measures(panel: Panel, *, samples: Sequence[str], patients: Sequence[str]) -> Measures:
    """Say whose samples a panel weighs: sample and patient of each column of the weights."""
    if len(samples) != len(patients):
        raise ValueError(f"{len(samples)} samples, but {len(patients)} patients")
    return Measures(
        names=panel.names,
        samples=tuple(samples),
        patients=tuple(patients),
        statistic=panel.statistic,
        undefined=panel.undefined,
    )


def with_mean(classes: Array) -> Array:
    """Put the mean of the defined classes before them: [D, L] -> [D, 1 + L]; NaN where none is."""
    defined = np.isfinite(classes)
    number = defined.sum(axis=1)
    total = np.where(defined, classes, 0).sum(axis=1)
    mean = np.divide(total, number, out=np.full(len(classes), np.nan), where=number > 0)
    return np.column_stack([mean, classes])


def class_names(metric: str, labels: Sequence[str]) -> tuple[str, ...]:
    """Return ``mean_metric`` and ``metric/label`` for each label: the columns of ``with_mean``."""
    return (f"mean_{metric}", *(f"{metric}/{label}" for label in labels))


def class_reasons(metric: str, reasons: Mapping[str, str]) -> dict[str, str]:
    """Return why ``metric/label`` is undefined, from label -> reason, and why the mean would be."""
    named = {f"{metric}/{label}": reason for label, reason in reasons.items()}
    return {f"mean_{metric}": "no class is defined", **named}


def weighted_ratio(top: Array, bottom: Array) -> Array:
    """Divide; NaN where nothing is weighed. Any shapes that broadcast."""
    shape = np.broadcast_shapes(top.shape, bottom.shape)
    ratio: Array = np.divide(top, bottom, out=np.full(shape, np.nan), where=bottom > 0)
    return ratio


def weighted_mean(values: Array, weights: Array) -> Array:
    """Return the mean of ``values`` [n, k] under each row of ``weights`` [D, n]: [D, k]."""
    return np.asarray(weights @ values / weights.sum(axis=1, keepdims=True))
