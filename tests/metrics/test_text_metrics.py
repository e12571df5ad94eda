"""BLEU against sacrebleu and by hand, ROUGE against its library, weights as resampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from lapvqa.metrics.panel import weighted_mean
from lapvqa.metrics.texts.ngrams import bleu_counts, corpus_bleu, rouge_f1, tokenise

WORDS = st.sampled_from(["no", "effusion", "the", "left", "lung", "is", "clear", "."])
TEXTS = st.lists(WORDS, max_size=14)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8)


def _bleu(references: list[list[str]], hypotheses: list[list[str]]) -> np.ndarray:
    return corpus_bleu(bleu_counts(references, hypotheses), np.ones((1, len(references))))[0]


@settings(max_examples=300)
@given(PAIRS)
def test_bleu_4_equals_sacrebleu(pairs: list[tuple[list[str], list[str]]]) -> None:
    # Where an order has no match coco-caption's constants leave a trace and sacrebleu gives 0:
    # one shared sentence gives every order a match.
    shared = ["the", "left", "lung", "is"]
    references, hypotheses = map(list, zip(*pairs, (shared, shared), strict=True))
    theirs = sacrebleu.corpus_bleu(
        [" ".join(tokens) for tokens in hypotheses],
        [[" ".join(tokens) for tokens in references]],
        smooth_method="none",
        tokenize="none",
        use_effective_order=False,
    )
    assert _bleu(references, hypotheses)[3] == pytest.approx(theirs.score / 100, abs=1e-6)


def test_bleu_1_to_4_equal_sacrebleu_on_report_like_text() -> None:
    generator = np.random.default_rng(0)
    words = ["the", "left", "lung", "is", "clear", "no", "pleural", "effusion", "."]
    references = [list(generator.choice(words, 30)) for _ in range(50)]
    hypotheses = [
        [word if generator.random() < 0.8 else "seen" for word in tokens][: 30 - index % 5]
        for index, tokens in enumerate(references)
    ]
    ours = _bleu(references, hypotheses)
    for order in range(1, 5):
        scorer = sacrebleu.metrics.BLEU(
            max_ngram_order=order, smooth_method="none", tokenize="none", effective_order=False
        )
        theirs = scorer.corpus_score(
            [" ".join(tokens) for tokens in hypotheses], [[" ".join(line) for line in references]]
        )
        assert ours[order - 1] == pytest.approx(theirs.score / 100, abs=1e-6)


def test_bleu_by_hand() -> None:
    reference = tokenise("no left effusion is seen today")
    hypothesis = tokenise("no left effusion seen")
    # Matches 4 of 4 words, 2 of 3 pairs, 1 of 2 triples, 0 of 1 quadruple; 4 words against 6.
    penalty = math.exp(1 - 6 / 4)
    expected = [
        1.0 * penalty,
        math.sqrt(1 * 2 / 3) * penalty,
        (1 * 2 / 3 * 1 / 2) ** (1 / 3) * penalty,
        (1 * 2 / 3 * 1 / 2 * 1e-15) ** (1 / 4) * penalty,
    ]
    assert _bleu([reference], [hypothesis]) == pytest.approx(expected, abs=1e-6)


def test_repeated_words_are_clipped() -> None:
    assert _bleu([["the", "lung"]], [["the", "the", "the", "the"]])[0] == pytest.approx(1 / 4)


def test_corpus_bleu_is_not_the_mean_of_samples() -> None:
    references = [["clear"], tokenise("no acute process is seen")]
    hypotheses = [["clear"], tokenise("no acute disease is seen")]
    whole = _bleu(references, hypotheses)[1]
    alone = [
        _bleu([reference], [hypothesis])[1]
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]
    assert whole == pytest.approx(math.sqrt(5 / 6 * 2 / 4), abs=1e-6)
    assert abs(whole - np.mean(alone)) > 0.1


def test_empty_outputs_lower_the_score_and_are_no_error() -> None:
    reference = tokenise("no acute process is seen")
    assert _bleu([reference], [[]]) == pytest.approx([0, 0, 0, 0], abs=1e-6)
    full = _bleu([reference, reference], [reference, reference])
    half = _bleu([reference, reference], [reference, []])
    assert full == pytest.approx([1, 1, 1, 1], abs=1e-6)
    assert half == pytest.approx([math.exp(-1)] * 4, abs=1e-6)
    assert rouge_f1(["clear", ""], ["", ""]).tolist() == [[0, 0, 0], [0, 0, 0]]


@settings(max_examples=60)
@given(PAIRS, st.data())
def test_weights_are_repetitions(
    pairs: list[tuple[list[str], list[str]]], data: st.DataObject
) -> None:
    times = data.draw(
        st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)).filter(any)
    )
    references, hypotheses = map(list, zip(*pairs, strict=True))
    weighted = corpus_bleu(
        bleu_counts(references, hypotheses), np.array([times, [1] * len(pairs)], dtype=float)
    )
    repeated = [pair for pair, count in zip(pairs, times, strict=True) for _ in range(count)]
    expected = _bleu([pair[0] for pair in repeated], [pair[1] for pair in repeated])
    assert weighted[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert weighted[1] == pytest.approx(_bleu(references, hypotheses), rel=1e-9, abs=1e-12)


@settings(max_examples=60)
@given(PAIRS)
def test_rouge_is_that_of_its_library(pairs: list[tuple[list[str], list[str]]]) -> None:
    references, hypotheses = (
        [" ".join(tokens) for tokens in side] for side in zip(*pairs, strict=True)
    )
    ours = rouge_f1(references, hypotheses)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    for row, reference, hypothesis in zip(ours, references, hypotheses, strict=True):
        theirs = scorer.score(reference, hypothesis)
        assert row.tolist() == [theirs[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")]


def test_rouge_by_hand_without_stemming() -> None:
    # One word of two in common, no pair: "effusions" is not "effusion" without a stemmer.
    rows = rouge_f1(["left effusion"], ["left effusions"])
    assert rows == pytest.approx(np.array([[0.5, 0.0, 0.5]]))
    means = weighted_mean(np.array([[1.0], [0.0]]), np.array([[1.0, 1.0], [3.0, 1.0]]))
    assert means.tolist() == [[0.5], [0.75]]


def test_tokens_of_a_report() -> None:
    assert tokenise("No ___ line, 3.5 cm.") == ["no", "___", "line", ",", "3", ".", "5", "cm", "."]
