"""Words of a report predicted from a film's features, and the ranks that follow.

Reports are TF-IDF vectors of their words (Salton & Buckley 1988, sublinear counts) over GPT-2's
tokens, which every language has. Ridge regression of all words at once has a closed form, so it
costs one matrix of features however many words there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lapvqa.text.bpe import VOCABULARY

Array = NDArray[np.float64]
Real = TypeVar("Real", np.float32, np.float64)


class ReportWords:
    """The words of training reports, and any report as a vector of them."""

    def __init__(self, training: Sequence[Sequence[int]], most_words: int) -> None:
        counts = _counts(training)
        reports_with = np.asarray((counts > 0).sum(axis=0)).ravel()
        commonest = np.argsort(-reports_with, kind="stable")[:most_words]
        self.columns = np.sort(commonest[reports_with[commonest] > 0])
        self._weigh = TfidfTransformer(sublinear_tf=True).fit(counts[:, self.columns])

    def vectors(self, reports: Sequence[Sequence[int]]) -> csr_matrix:
        """Return token ids of n reports as vectors [n, words] of length 1, or 0 without a word."""
        return csr_matrix(self._weigh.transform(_counts(reports)[:, self.columns]))


class Studies(NamedTuple):
    """Features [n, D] of films, words [n, W] of their reports, and these reports' texts."""

    features: Array
    words: csr_matrix
    texts: Sequence[str]


@dataclass(frozen=True)
class Ranks:
    """Of each of n studies the place of its own report and of its own film, 1 is the first.

    Ties count half, as in an AUC: an encoder that tells nothing apart is in the middle.
    """

    report: Array
    film: Array

    def mean_reciprocal(self) -> float:
        """Return the mean of 1 / rank over both directions."""
        return float((1 / self.report).mean() + (1 / self.film).mean()) / 2


class LinearMap:
    """Ridge regression of words on features, both less their means; ``penalty`` per film."""

    def __init__(self, features: Array, words: csr_matrix, *, penalty: float) -> None:
        self.penalty = penalty
        self._scaler = StandardScaler().fit(features)
        scaled = self._scaler.transform(features)
        self._mean = np.asarray(words.mean(axis=0))
        gram = scaled.T @ scaled + penalty * len(scaled) * np.eye(scaled.shape[1])
        # Columns of ``scaled`` sum to 0, so the means of the words need not be subtracted.
        self._weights = linalg.solve(gram, (words.T @ scaled).T, assume_a="pos")

    def rank(self, studies: Studies) -> Ranks:
        """Rank the reports for each film and the films for each report, by the cosine of words."""
        names, first, group = np.unique(
            np.asarray(studies.texts), return_index=True, return_inverse=True
        )
        predicted = self._scaler.transform(studies.features) @ self._weights
        words = studies.words[first].toarray() - self._mean
        return ranks(unit(predicted) @ unit(words).T, group)


def choose_map(train: Studies, validate: Studies, *, grid: Iterable[float]) -> LinearMap:
    """Choose the penalty by the ranks on ``validate``, and fit on both."""
    with threadpool_limits(1, user_api="blas"):
        scores = {
            penalty: LinearMap(train.features, train.words, penalty=penalty)
            .rank(validate)
            .mean_reciprocal()
            for penalty in sorted(grid, reverse=True)
        }
        best = max(scores, key=lambda penalty: scores[penalty])  # of equals the strongest
        features = np.concatenate([train.features, validate.features])
        return LinearMap(features, vstack([train.words, validate.words]).tocsr(), penalty=best)


def ranks(likeness: Array, group: NDArray[np.int64]) -> Ranks:
    """Return places by ``likeness`` [n films, m different reports]; ``group`` [n]: film's report.

    A report's films are those of its group, of which the best place counts.
    """
    films = np.arange(len(likeness))
    own = likeness[films, group][:, None]
    report = 1 + (likeness > own).sum(axis=1) + ((likeness == own).sum(axis=1) - 1) / 2
    same = group[:, None] == np.arange(likeness.shape[1])
    best = np.where(same, likeness, -np.inf).max(axis=0)
    others = np.where(same, -np.inf, likeness)
    film = 1 + (others > best).sum(axis=0) + (others == best).sum(axis=0) / 2
    return Ranks(report, film[group])


def unit(vectors: NDArray[Real]) -> NDArray[Real]:
    """Return vectors [n, D] at length 1; one of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    at_one: NDArray[Real] = np.zeros_like(vectors)
    np.divide(vectors, lengths, out=at_one, where=lengths > 0)
    return at_one


def _counts(reports: Sequence[Sequence[int]]) -> csr_matrix:
    rows = np.repeat(np.arange(len(reports)), [len(ids) for ids in reports])
    columns = np.concatenate([np.asarray(ids, np.int64) for ids in reports])
    return csr_matrix((np.ones(len(columns)), (rows, columns)), shape=(len(reports), VOCABULARY))
