"""Logistic regressions on frozen features, one per label."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lapvqa.metrics.classification import UNKNOWN, mean_and_class_aurocs

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
    workers: int = 1,
) -> Probe:
    """Choose C by mean validation AUROC, refit on train and validate, predict the test.

    One C serves all labels: with few positives a choice per label follows noise. Ties go to the
    stronger regularisation. Features are standardised by the training images' mean and deviation.
    Targets are 1, 0 or UNKNOWN, which leaves an image out for that label. ``workers`` labels are
    fitted at a time, each on one core: the result does not depend on it.
    """
    if not c_grid:
        raise ValueError("expected at least one C to choose from, found an empty c_grid")
    scaler = StandardScaler().fit(train[0])
    train_x, validate_x, test_x = (scaler.transform(x) for x in (train[0], validate[0], test))
    # A BLAS of several threads is slower here (they wait for each other at every small product)
    # and rounds by their number.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        c, best = _choose(pool, train_x, train[1], validate_x, validate[1], sorted(c_grid))
        both_x = np.concatenate([train_x, validate_x])
        both_y = np.concatenate([train[1], validate[1]])
        # A label is left to training patients to define; validation alone may not bring it in.
        defined = [_both_classes(column) for column in train[1].T]
        scores, not_converged = _predict(pool, both_x, both_y, test_x, c, defined)
    return Probe(scores, c, best, not_converged)


def _choose(
    pool: ThreadPoolExecutor,
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
        scores, _ = _predict(pool, train_x, train_y, validate_x, c, defined)
        statistic = mean_and_class_aurocs(validate_y[:, defined], scores[:, defined])
        means.append(float(statistic(np.ones((1, len(validate_y))))[0, 0]))
    best = int(np.argmax(means))
    return grid[best], means[best]


def _predict(
    pool: ThreadPoolExecutor, x: Features, y: Targets, wanted_x: Features, c: float,
    defined: Sequence[bool],
) -> tuple[NDArray[np.float64], int]:  # fmt: skip
    """Fit each defined label and return (probabilities [n, L], fits that did not converge)."""

    def fit(label: int) -> LogisticRegression:
        known = y[:, label] != UNKNOWN
        return LogisticRegression(C=c, max_iter=_MAX_ITERATIONS).fit(x[known], y[known, label])

    labels = np.flatnonzero(defined).tolist()
    scores = np.full((len(wanted_x), y.shape[1]), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead
        models = list(pool.map(fit, labels))
    for label, model in zip(labels, models, strict=True):
        scores[:, label] = model.predict_proba(wanted_x)[:, 1]
    return scores, sum(int(model.n_iter_[0]) >= _MAX_ITERATIONS for model in models)


def _both_classes(targets: Targets) -> bool:
    return bool((targets == 1).any() and (targets == 0).any())
