"""Do features of two groups of patients come from one distribution? MMD, and what explains it.

Squared maximum mean discrepancy (Gretton et al., JMLR 13 (2012)) of an RBF kernel, as wide as the
median distance. The patient is the unit: only pairs of two patients count, so that a series of one
patient's films, which are alike, moves nothing; and whole patients are permuted. n films of P
patients, D = width of the features.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lapvqa.drift.permutation import Array, Groups, Statistic
from lapvqa.metrics.classification import auroc

_FOLDS, _STEPS, _FARTHEST = 5, 14, 8.0
_STRATA = 5


@dataclass(frozen=True)
class Kernel:
    """Kernel sums between patients [P, P], zero within one; ``sizes`` [P]: sums of weights."""

    between: Array
    sizes: Array

    @property
    def statistic(self) -> Statistic:
        """The squared MMD of any division of the patients, unbiased."""
        from_each, all_pairs = self.between.sum(axis=1), float(self.between.sum())
        total, squares = float(self.sizes.sum()), self.sizes**2

        def mmd(groups: Groups) -> Array:
            inside = np.einsum("bp,bp->b", groups @ self.between, groups)
            across = groups @ from_each - inside
            outside = all_pairs - inside - 2 * across
            size, square = groups @ self.sizes, groups @ squares
            rest, rest_square = total - size, squares.sum() - square
            value: Array = (
                inside / (size**2 - square)
                + outside / (rest**2 - rest_square)
                - 2 * across / (size * rest)
            )
            return value

        return mmd


def standardised(features: Array) -> Array:
    """Return features [n, D] of mean 0 and deviation 1, taken over both groups together."""
    deviation = features.std(axis=0)
    return np.asarray((features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1))


def kernel(features: Array, patients: NDArray[np.intp], weights: Array) -> Kernel:
    """Return the kernel between patients, of films [n, D] with the number and weight of each."""
    distances = _squared_distances(features)
    of_others = patients[:, None] != patients[None]
    width = float(np.median(distances[of_others])) or 1.0
    values = np.exp(-distances / width) * weights[:, None] * weights[None]
    starts = np.zeros((int(patients.max()) + 1, len(patients)))
    starts[patients, np.arange(len(patients))] = 1
    between = starts @ values @ starts.T
    np.fill_diagonal(between, 0)
    return Kernel(between, starts @ weights)


def detectable_shift(
    features: Array, patients: NDArray[np.intp], in_window: NDArray[np.bool_], mmd: float
) -> float | None:
    """Return how far all films must move to reach this squared MMD; None where none would do.

    In deviations along the first principal axis of the reference, the way in which films differ
    most: 0.5 is half the difference between two typical films. ``in_window`` is by film.
    """
    known = features[~in_window]
    owners = patients[~in_window]
    centred = known - known.mean(axis=0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    place = centred @ axis
    apart = place[:, None] - place[None]
    of_others = owners[:, None] != owners[None]
    distances = _squared_distances(known)
    width = float(np.median(distances[of_others])) or 1.0
    deviation = float(place.std())
    same = float(np.exp(-distances / width)[of_others].mean())

    def reached(shift: float) -> float:
        moved = distances - 2 * shift * deviation * apart + (shift * deviation) ** 2
        return 2 * same - 2 * float(np.exp(-moved / width)[of_others].mean())

    low, high = 0.0, _FARTHEST
    if reached(high) < mmd:
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < mmd else (low, middle)
    return high


def tell_apart(
    features: Array, patients: NDArray[np.intp], in_window: NDArray[np.bool_], weights: Array
) -> float | None:
    """Return the AUC of a logistic regression that tells new films from old, patients apart.

    The explanation of an alarm: .5 is chance. None where there are too few patients to fold.
    """
    scores = propensity(features, patients, in_window)
    if scores is None:
        return None
    value = auroc(in_window.astype(np.int8), scores, weights[None])
    return float(value[0])


def propensity(
    features: Array, patients: NDArray[np.intp], in_window: NDArray[np.bool_]
) -> Array | None:
    """Return of each row the probability that it is new, told by the rows of other patients."""
    scores = np.zeros(len(features))
    if len(np.unique(patients)) < 2 * _FOLDS:
        return None
    for train, test in GroupKFold(_FOLDS).split(features, groups=patients):
        if in_window[train].all() or not in_window[train].any():
            return None
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[train], in_window[train])
        scores[test] = model.predict_proba(features[test])[:, 1]
    return scores


def strata_of(scores: Array) -> NDArray[np.intp]:
    """Return fifths of a score: within one, patients are alike in what the score is made of.

    Rosenbaum and Rubin, JASA 79 (1984): five strata take away nine tenths of the difference.
    """
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, _STRATA + 1)[1:-1]))
    return np.searchsorted(edges, scores, side="right").astype(np.intp)


def _squared_distances(features: Array) -> Array:
    squares = np.square(features).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * features @ features.T
    return np.asarray(np.maximum(distances, 0))
