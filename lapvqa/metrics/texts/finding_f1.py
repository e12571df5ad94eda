"""F1 of findings: sets of labels known to be true against sets of labels predicted.

F1 = 2 TP / (2 TP + FP + FN). Without a true positive it is 0, precision and recall being 0 by
convention (as scikit-learn's ``zero_division=0``). A label neither true nor predicted anywhere
has no F1: NaN, null in files.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lapvqa.metrics.bootstrap import Array
from lapvqa.metrics.panel import weighted_ratio


@dataclass(frozen=True)
class FindingCounts:
    """True positives, false positives and false negatives: each [n, labels], 0 or 1."""

    labels: tuple[str, ...]
    true_positive: Array
    false_positive: Array
    false_negative: Array

    @property
    def in_truth(self) -> NDArray[np.bool_]:
        """Which labels are true for at least one sample: [labels]."""
        return np.asarray((self.true_positive + self.false_negative).any(axis=0))


def finding_counts(
    truth: Sequence[Set[str]], predicted: Sequence[Set[str]], *, labels: tuple[str, ...]
) -> FindingCounts:
    """Compare two sequences of label sets; labels outside ``labels`` are ignored."""
    if len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} truths, but {len(predicted)} predictions")
    is_true, is_predicted = _indicator(truth, labels), _indicator(predicted, labels)
    return FindingCounts(
        labels=labels,
        true_positive=is_true * is_predicted,
        false_positive=(1 - is_true) * is_predicted,
        false_negative=is_true * (1 - is_predicted),
    )


def f1_by_label(counts: FindingCounts, weights: Array) -> Array:
    """Return F1 of each label under each row of ``weights`` [D, n]: [D, labels]."""
    return _f1(*_totals(counts, weights))


def micro_f1(counts: FindingCounts, weights: Array) -> Array:
    """Return F1 over all samples and labels together, for each row of ``weights`` [D, n]: [D]."""
    return _f1(*(total.sum(axis=1) for total in _totals(counts, weights)))


def macro_f1(counts: FindingCounts, weights: Array) -> Array:
    """Return the mean F1 of the labels that the truth shows, for each row of ``weights``: [D].

    The labels are those of the whole sample; one that a draw lacks altogether is left out of
    that draw's mean. NaN if the truth shows no label.
    """
    by_label = f1_by_label(counts, weights)[:, counts.in_truth]
    defined = np.isfinite(by_label)
    total = np.where(defined, by_label, 0.0).sum(axis=1)
    return weighted_ratio(total, defined.sum(axis=1))


def _indicator(sets: Sequence[Set[str]], labels: tuple[str, ...]) -> Array:
    rows = [[float(label in members) for label in labels] for members in sets]
    return np.array(rows, dtype=np.float64).reshape(-1, len(labels))


def _totals(counts: FindingCounts, weights: Array) -> tuple[Array, Array, Array]:
    return (
        weights @ counts.true_positive,
        weights @ counts.false_positive,
        weights @ counts.false_negative,
    )


def _f1(true_positive: Array, false_positive: Array, false_negative: Array) -> Array:
    return weighted_ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative)
