"""BLEU, ROUGE and CIDEr-D of generated text: no weights, no Java.

BLEU is the corpus BLEU of coco-caption (``pycocoevalcap``): n-gram counts summed over the corpus,
no smoothing, tiny constants against division by zero, brevity penalty on summed lengths
(Papineni et al. 2002; the reference length is the only reference's). A bootstrap draw therefore
needs only each sample's counts. ROUGE is F1, mean over samples (Lin 2004), of lower-case runs of
a-z and digits, without a stemmer: the values of rouge-score 0.1.2, whose import takes seconds.

CIDEr-D is the tf-idf cosine of n-grams with clipping and a length penalty: Vedantam, Zitnick &
Parikh, CVPR 2015, as coco-caption computes it under the name Cider (``pycocoevalcap`` 1.2):
n = 1..4, document frequencies from the references of the evaluated set, idf = log(number of
samples / frequency), clipped terms, Gaussian penalty with sigma 6 on the difference in length,
mean over n, times 10. Its length is the number of word pairs, so texts of no word and of one are of
one length; kept, for parity. The value depends on the set: never compare subsets, and one sample
alone scores 0 (log 1).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import LCSseq

from lapvqa.metrics.bootstrap import Array
from lapvqa.metrics.panel import Panel, weighted_mean

MAX_ORDER = 4
BLEU_NAMES = tuple(f"bleu{order}" for order in range(1, MAX_ORDER + 1))
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
SIGMA = 6.0
"""Of CIDEr-D's length penalty."""

TOKENISATION = "lower case; runs of letters, digits and underscores, every other sign alone"

_TINY, _SMALL = 1e-15, 1e-9  # coco-caption's constants
_TOKEN = re.compile(r"\w+|[^\w\s]")
_ROUGE_TOKEN = re.compile(r"[a-z0-9]+")

Ngram = tuple[str, ...]


def text_panel(references: Sequence[str], hypotheses: Sequence[str]) -> Panel:
    """Return bleu1..bleu4, rouge1, rouge2, rougeL and cider_d of texts with one reference each.

    BLEU and CIDEr-D have the tokens of ``tokenise``, ROUGE its library's.
    """
    expected = [tokenise(reference) for reference in references]
    written = [tokenise(hypothesis) for hypothesis in hypotheses]
    counts = bleu_counts(expected, written)
    means = np.column_stack([rouge_f1(references, hypotheses), cider_d(expected, written)])

    def statistic(weights: Array) -> Array:
        return np.column_stack([corpus_bleu(counts, weights), weighted_mean(means, weights)])

    return Panel(names=(*BLEU_NAMES, *ROUGE_TYPES, "cider_d"), statistic=statistic)


@dataclass(frozen=True)
class BleuCounts:
    """Counts of n samples, from which any weighting of them has its corpus BLEU.

    ``correct`` and ``guessed`` are [n, 4]: clipped matches and n-grams of the hypothesis, order 1
    to 4; ``hypothesis_length`` and ``reference_length`` are [n] tokens.
    """

    correct: Array
    guessed: Array
    hypothesis_length: Array
    reference_length: Array


def tokenise(text: str) -> list[str]:
    """Split text for BLEU: see ``TOKENISATION``; ``___`` is one token."""
    return _TOKEN.findall(text.lower())


def bleu_counts(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]
) -> BleuCounts:
    """Count matches of each hypothesis with its one reference; both are lists of tokens."""
    rows = [
        [_matches(reference, hypothesis, order) for order in range(1, MAX_ORDER + 1)]
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]
    hypothesis_length = np.array([len(tokens) for tokens in hypotheses], dtype=np.float64)
    orders = np.arange(MAX_ORDER)
    return BleuCounts(
        correct=np.array(rows, dtype=np.float64).reshape(-1, MAX_ORDER),
        guessed=np.maximum(hypothesis_length[:, None] - orders, 0.0),
        hypothesis_length=hypothesis_length,
        reference_length=np.array([len(tokens) for tokens in references], dtype=np.float64),
    )


def corpus_bleu(counts: BleuCounts, weights: Array) -> Array:
    """Return BLEU-1 to BLEU-4 for each row of ``weights`` [D, n]: [D, 4] in 0..1."""
    precisions = (weights @ counts.correct + _TINY) / (weights @ counts.guessed + _SMALL)
    bleu = np.cumprod(precisions, axis=1) ** (1 / np.arange(1, MAX_ORDER + 1))
    length = weights @ counts.hypothesis_length + _TINY
    ratio = length / (weights @ counts.reference_length + _SMALL)
    # A ratio of about 1e-15 (empty hypothesis) gives exp(-1e15), 0.
    penalty = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return np.asarray(bleu * penalty[:, None])


def _matches(reference: Sequence[str], hypothesis: Sequence[str], order: int) -> int:
    """Count n-grams of the hypothesis that the reference has, each as often as it has them."""
    return (Counter(_ngrams(reference, order)) & Counter(_ngrams(hypothesis, order))).total()


def _ngrams(tokens: Sequence[str], order: int) -> Iterator[Ngram]:
    return zip(*(tokens[start:] for start in range(order)), strict=False)


def rouge_f1(references: Sequence[str], hypotheses: Sequence[str]) -> Array:
    """Return each sample's F1 of ROUGE-1, ROUGE-2 and ROUGE-L: [n, 3] in 0..1.

    An empty text, or one without a-z and digits, scores 0.
    """
    known: dict[tuple[str, str], list[float]] = {}
    pairs = list(zip(references, hypotheses, strict=True))
    for pair in pairs:
        if pair not in known:
            known[pair] = _rouge(*(_ROUGE_TOKEN.findall(text.lower()) for text in pair))
    return np.array([known[pair] for pair in pairs], dtype=np.float64).reshape(-1, 3)


def _rouge(reference: Sequence[str], hypothesis: Sequence[str]) -> list[float]:
    longest = LCSseq.similarity(reference, hypothesis)
    common = [(_matches(reference, hypothesis, order), order - 1) for order in (1, 2)]
    return [
        _f1(shared, len(reference) - fewer, len(hypothesis) - fewer)
        for shared, fewer in (*common, (longest, 0))
    ]


def _f1(shared: int, expected: int, found: int) -> float:
    if not shared:
        return 0.0
    precision, recall = shared / found, shared / expected
    return 2 * precision * recall / (precision + recall)


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
            sides = (_counts(hypothesis), counts)
            vectors = (_vector(side, frequency, len(references)) for side in sides)
            known[pair] = 10 * _similarity(*vectors)
        values.append(known[pair])
    return np.array(values, dtype=np.float64)


def _counts(tokens: Sequence[str]) -> Counter[Ngram]:
    orders = range(1, MAX_ORDER + 1)
    return Counter(ngram for order in orders for ngram in _ngrams(tokens, order))


def _vector(counts: Mapping[Ngram, int], frequency: Mapping[Ngram, int], total: int) -> _Vector:
    terms: tuple[dict[Ngram, float], ...] = tuple({} for _ in range(MAX_ORDER))
    for ngram, count in counts.items():
        idf = math.log(total) - math.log(max(1, frequency.get(ngram, 0)))
        terms[len(ngram) - 1][ngram] = count * idf
    norms = tuple(math.sqrt(sum(value**2 for value in of_order.values())) for of_order in terms)
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
