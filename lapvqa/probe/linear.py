"""Logistic regressions on frozen features, one per label."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lapvqa.metrics.classification import UNKNOWN, mean_and_class_aurocs

Features = NDArray[np.float64]
Targets = NDArray[np.int8]

_MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class LinearHead:
    """The fitted regressions: of features ``mean``, ``scale`` [D]; ``coef`` [L, D], ``intercept``
    [L], NaN for a label without both classes in training."""

    mean: Features
    scale: Features
    coef: Features
    intercept: Features

    def predict(self, features: Features) -> Features:
        """Map features [n, D] to probabilities [n, L]."""
        standard = (features - self.mean) / self.scale
        scores: Features = expit(standard @ self.coef.T + self.intercept)
        return scores


@dataclass(frozen=True)
class Probe:
    """Probabilities [n, L] for the test (NaN for a label without both classes in training).

    ``c``: the inverse regularisation chosen; ``validation_mean_auc``: what it was chosen by, None
    if no label has both classes among the validation patients; ``not_converged``: number of final
    fits stopped by the iteration limit; ``head``: what was fitted.
    """

    scores: NDArray[np.float64]
    c: float
    validation_mean_auc: float | None
    not_converged: int
    head: LinearHead


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
        models = _fit(pool, both_x, both_y, c, defined)
        scores = _scores(models, test_x)
    not_converged = sum(model is not None and _was_stopped(model) for model in models)
    return Probe(scores, c, best, not_converged, _head(scaler, models))


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
        scores = _scores(_fit(pool, train_x, train_y, c, defined), validate_x)
        statistic = mean_and_class_aurocs(validate_y[:, defined], scores[:, defined])
        means.append(float(statistic(np.ones((1, len(validate_y))))[0, 0]))
    best = int(np.argmax(means))
    return grid[best], means[best]


def _fit(
    pool: ThreadPoolExecutor, x: Features, y: Targets, c: float, defined: Sequence[bool]
) -> list[LogisticRegression | None]:
    """Fit each defined label; None for the others."""

    def fit(label: int) -> LogisticRegression | None:
        if not defined[label]:
            return None
        known = y[:, label] != UNKNOWN
        return LogisticRegression(C=c, max_iter=_MAX_ITERATIONS).fit(x[known], y[known, label])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead
        return list(pool.map(fit, range(y.shape[1])))


def _scores(models: Sequence[LogisticRegression | None], x: Features) -> Features:
    """Return probabilities [n, L], NaN where there is no model."""
    scores = np.full((len(x), len(models)), np.nan)
    for label, model in enumerate(models):
        if model is not None:
            scores[:, label] = model.predict_proba(x)[:, 1]
    return scores


def _was_stopped(model: LogisticRegression) -> bool:
    return int(model.n_iter_[0]) >= _MAX_ITERATIONS


def _head(scaler: StandardScaler, models: Sequence[LogisticRegression | None]) -> LinearHead:
    width = len(scaler.mean_)
    coef = [np.full(width, np.nan) if model is None else model.coef_[0] for model in models]
    intercept = [np.nan if model is None else model.intercept_[0] for model in models]
    return LinearHead(scaler.mean_, scaler.scale_, np.stack(coef), np.array(intercept))


def _both_classes(targets: Targets) -> bool:
    return bool((targets == 1).any() and (targets == 0).any())
