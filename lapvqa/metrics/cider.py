"""CIDEr-D of generated text: tf-idf cosine of n-grams with clipping and a length penalty.

Vedantam, Zitnick & Parikh, CVPR 2015, as coco-caption computes it under the name Cider
(``pycocoevalcap`` 1.2): n = 1..4, document frequencies from the references of the evaluated set,
idf = log(number of samples / frequency), clipped terms, Gaussian penalty with sigma 6 on the
difference in length, mean over n, times 10. Its length is the number of word pairs, so texts of
no word and of one are of one length; kept, for parity.

The value depends on the set: never compare subsets, and one sample alone scores 0 (log 1).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lapvqa.metrics.bootstrap import Array

MAX_ORDER = 4
SIGMA = 6.0

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class _Vector:
    """Tf-idf terms and their norm for each order, and the length in word pairs."""

    terms: tuple[Mapping[Ngram, float], ...]
    norms: tuple[float, ...]
    length: int


def cider_d(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> Array:
    """Return CIDEr-D of each sample, [n], 0..10; both sides are lists of tokens.

    The corpus's value is the mean. An empty hypothesis or reference scores 0. In a bootstrap the
    document frequencies stay those of the whole set.
    """
    counted = [_counts(tokens) for tokens in references]
    frequency = Counter(ngram for counts in counted for ngram in counts)
    known: dict[tuple[Ngram, Ngram], float] = {}
    values = []
    for reference, hypothesis, counts in zip(references, hypotheses, counted, strict=True):
        pair = (tuple(reference), tuple(hypothesis))
        if pair not in known:
            vectors = (
                _vector(one, frequency, len(references)) for one in (_counts(hypothesis), counts)
            )
            known[pair] = 10 * _similarity(*vectors)
        values.append(known[pair])
    return np.array(values, dtype=np.float64)


def _counts(tokens: Sequence[str]) -> Counter[Ngram]:
    return Counter(
        ngram
        for order in range(1, MAX_ORDER + 1)
        for ngram in zip(*(tokens[start:] for start in range(order)), strict=False)
    )


def _vector(counts: Mapping[Ngram, int], frequency: Mapping[Ngram, int], total: int) -> _Vector:
    terms: tuple[dict[Ngram, float], ...] = tuple({} for _ in range(MAX_ORDER))
    for ngram, count in counts.items():
        idf = math.log(total) - math.log(max(1, frequency.get(ngram, 0)))
        terms[len(ngram) - 1][ngram] = count * idf
    norms = tuple(math.sqrt(sum(value**2 for value in one.values())) for one in terms)
    pairs = sum(count for ngram, count in counts.items() if len(ngram) == 2)
    return _Vector(terms, norms, pairs)


def _similarity(hypothesis: _Vector, reference: _Vector) -> float:
    total = 0.0
    for order in range(MAX_ORDER):
        theirs = reference.terms[order]
        shared = sum(
            min(value, theirs[ngram]) * theirs[ngram]
            for ngram, value in hypothesis.terms[order].items()
            if ngram in theirs
        )
        norm = hypothesis.norms[order] * reference.norms[order]
        total += shared / norm if norm > 0 else 0.0
    apart = hypothesis.length - reference.length
    return total / MAX_ORDER * math.exp(-(apart**2) / (2 * SIGMA**2))
