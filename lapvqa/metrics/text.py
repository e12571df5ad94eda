"""BLEU and ROUGE of generated text, as statistics of per-sample weights.

BLEU is the corpus BLEU of coco-caption (``pycocoevalcap``): n-gram counts summed over the corpus,
no smoothing, tiny constants against division by zero, brevity penalty on summed lengths
(Papineni et al. 2002; the reference length is the only reference's). A bootstrap draw therefore
needs only each sample's counts. ROUGE is the rouge-score library's F1, mean over samples
(Lin 2004); ``use_stemmer`` False, its own tokens (lower case, letters a-z and digits).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer

Array = NDArray[np.float64]

MAX_ORDER = 4
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")

_TINY, _SMALL = 1e-15, 1e-9  # coco-caption's constants
_TOKEN = re.compile(r"\w+|[^\w\s]")

TOKENISATION = "lower case; runs of letters, digits and underscores, every other sign alone"


@dataclass(frozen=True)
class BleuCounts:
    """What corpus BLEU needs of each of n samples.

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
    return _bleu(
        weights @ counts.correct,
        weights @ counts.guessed,
        weights @ counts.hypothesis_length,
        weights @ counts.reference_length,
    )


def item_bleu(counts: BleuCounts) -> Array:
    """Return BLEU-1 to BLEU-4 of each sample alone: [n, 4], coco-caption's second result.

    A correct answer of one word has no pair to match, so its BLEU-2 is 1e-3 and its BLEU-4
    3e-5: the mean over samples is not the corpus's BLEU and is no substitute for it.
    """
    return _bleu(counts.correct, counts.guessed, counts.hypothesis_length, counts.reference_length)


def rouge_f1(references: Sequence[str], hypotheses: Sequence[str]) -> Array:
    """Return each sample's F1 of ROUGE-1, ROUGE-2 and ROUGE-L: [n, 3] in 0..1.

    An empty text, or one without a-z and digits, scores 0.
    """
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer=False)
    known: dict[tuple[str, str], list[float]] = {}
    for pair in zip(references, hypotheses, strict=True):
        if pair not in known:
            scores = scorer.score(*pair)
            known[pair] = [scores[name].fmeasure for name in ROUGE_TYPES]
    rows = [known[pair] for pair in zip(references, hypotheses, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, len(ROUGE_TYPES))


def weighted_mean(values: Array, weights: Array) -> Array:
    """Return the mean of ``values`` [n, k] under each row of ``weights`` [D, n]: [D, k]."""
    return np.asarray(weights @ values / weights.sum(axis=1, keepdims=True))


def _bleu(correct: Array, guessed: Array, length: Array, reference_length: Array) -> Array:
    """Return coco-caption's BLEU-1 to BLEU-4 of counts [m, 4] and lengths [m]: [m, 4]."""
    precisions = (correct + _TINY) / (guessed + _SMALL)
    bleu = np.cumprod(precisions, axis=1) ** (1 / np.arange(1, MAX_ORDER + 1))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    # A ratio of about 1e-15 (empty hypothesis) gives exp(-1e15), 0.
    penalty = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return np.asarray(bleu * penalty[:, None])


def _matches(reference: Sequence[str], hypothesis: Sequence[str], order: int) -> int:
    """Count n-grams of the hypothesis that the reference has, each as often as it has them."""
    return (_ngrams(reference, order) & _ngrams(hypothesis, order)).total()


def _ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))
