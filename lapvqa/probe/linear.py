"""Logistic regressions on frozen features, one per label."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from lapvqa.metrics.auc import UNKNOWN, mean_and_class_aurocs

Features = NDArray[np.float64]
Targets = NDArray[np.int8]

_MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class Probe:
    """Probabilities [n, L] for the test (NaN for a label without both classes in training).

    ``c``: the inverse regularisation chosen; ``validation_mean_auc``: what it was chosen by, None
    if no label has both classes among the validation patients; ``not_converged``: number of final
    fits stopped by the iteration limit.
    """

    scores: NDArray[np.float64]
    c: float
    validation_mean_auc: float | None
    not_converged: int


def fit_and_predict(
    train: tuple[Features, Targets],
    validate: tuple[Features, Targets],
    test: Features,
    *,
    c_grid: Sequence[float],
) -> Probe:
    """Choose C by mean validation AUROC, refit on train and validate, predict the test.

    One C serves all labels: with few positives a choice per label follows noise. Ties go to the
    stronger regularisation. Features are standardised by the training images' mean and deviation.
    Targets are 1, 0 or UNKNOWN, which leaves an image out for that label.
    """
    if not c_grid:
        raise ValueError("expected at least one C to choose from, found an empty c_grid")
    scaler = StandardScaler().fit(train[0])
    train_x, validate_x, test_x = (scaler.transform(x) for x in (train[0], validate[0], test))
    c, best = _choose(train_x, train[1], validate_x, validate[1], sorted(c_grid))
    both_x, both_y = np.concatenate([train_x, validate_x]), np.concatenate([train[1], validate[1]])
    # A label is left to training patients to define; validation alone may not bring it in.
    defined = [_both_classes(column) for column in train[1].T]
    scores, not_converged = _predict(both_x, both_y, test_x, c, defined)
    return Probe(scores, c, best, not_converged)


def _choose(
    train_x: Features, train_y: Targets, validate_x: Features, validate_y: Targets,
    grid: Sequence[float],
) -> tuple[float, float | None]:  # fmt: skip
    defined = [
        _both_classes(fitted) and _both_classes(judged)
        for fitted, judged in zip(train_y.T, validate_y.T, strict=True)
    ]
    if not any(defined):
        return grid[0], None
    means = []
    for c in grid:
        scores, _ = _predict(train_x, train_y, validate_x, c, defined)
        statistic = mean_and_class_aurocs(validate_y[:, defined], scores[:, defined])
        means.append(float(statistic(np.ones((1, len(validate_y))))[0, 0]))
    best = int(np.argmax(means))
    return grid[best], means[best]


def _predict(
    x: Features, y: Targets, wanted_x: Features, c: float, defined: Sequence[bool]
) -> tuple[NDArray[np.float64], int]:
    """Fit each defined label and return (probabilities [n, L], fits that did not converge)."""
    scores = np.full((len(wanted_x), y.shape[1]), np.nan)
    not_converged = 0
    for label in np.flatnonzero(defined):
        known = y[:, label] != UNKNOWN
        model = LogisticRegression(C=c, max_iter=_MAX_ITERATIONS)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(x[known], y[known, label])
        not_converged += any(issubclass(one.category, ConvergenceWarning) for one in caught)
        scores[:, label] = model.predict_proba(wanted_x)[:, 1]
    return scores, not_converged


def _both_classes(targets: Targets) -> bool:
    return bool((targets == 1).any() and (targets == 0).any())
