"""BLEU, CIDEr-D and METEOR against golden values of pycocoevalcap; what CIDEr-D must obey."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapvqa.metrics.texts.meteor import MISSING, meteor_panel, meteor_score
from lapvqa.metrics.texts.ngrams import bleu_counts, cider_d, corpus_bleu, text_panel

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
REFERENCES = [pair[0].split() for pair in GOLDEN["pairs"]]
HYPOTHESES = [pair[1].split() for pair in GOLDEN["pairs"]]
EVERYONE = np.ones((1, len(REFERENCES)))


def _exact(found: object, expected: object) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_bleu_of_the_corpus_and_of_items_equals_coco_caption() -> None:
    counts = bleu_counts(REFERENCES, HYPOTHESES)
    _exact(corpus_bleu(counts, EVERYONE)[0], GOLDEN["bleu"]["corpus"])
    _exact(corpus_bleu(counts, np.eye(len(REFERENCES))).T, GOLDEN["bleu"]["items"])


def test_cider_equals_coco_caption() -> None:
    found = cider_d(REFERENCES, HYPOTHESES)
    _exact(found, GOLDEN["cider"]["items"])
    _exact(found.mean(), GOLDEN["cider"]["corpus"])


def test_meteor_from_the_jars_counts_equals_the_jar() -> None:
    counts = np.array(GOLDEN["meteor_counts"])
    _exact(meteor_score(counts), GOLDEN["meteor"]["items"])
    _exact(meteor_score(EVERYONE @ counts)[0], GOLDEN["meteor"]["corpus"])


def test_meteors_corpus_value_is_not_the_mean() -> None:
    assert abs(np.mean(GOLDEN["meteor"]["items"]) - GOLDEN["meteor"]["corpus"]) > 1e-3


def test_a_right_answer_of_one_word_has_a_bleu_4_near_nothing() -> None:
    found = corpus_bleu(bleu_counts([["yes"]], [["yes"]]), np.ones((1, 1)))[0]
    assert found == pytest.approx([1, 1e-3, 1e-4, 1e-18**0.25], rel=1e-6)


TEXTS = st.lists(st.sampled_from(["no", "effusion", "the", "lung", "clear", "."]), max_size=8)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=8)


@given(PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=80)
def test_the_order_of_samples_does_not_matter(pairs: list, random: object) -> None:
    mixed = list(enumerate(pairs))
    random.shuffle(mixed)
    references, hypotheses = zip(*pairs, strict=True)
    first = cider_d(references, hypotheses)
    second = cider_d(*zip(*(pair for _, pair in mixed), strict=True))
    np.testing.assert_allclose(first[[index for index, _ in mixed]], second, rtol=0, atol=1e-9)
    assert (first >= 0).all()
    assert (first <= 10 + 1e-9).all()


def test_cider_by_hand() -> None:
    # Two samples; every n-gram of the first is its own: idf log 2, cosine 1 at n = 1, 2; none of
    # 3 and 4. The second has no word in common.
    found = cider_d([["left", "lung"], ["clear"]], [["left", "lung"], ["edema"]])
    assert found == pytest.approx([10 * 2 / 4, 0])


def test_words_of_every_reference_are_worth_nothing_and_one_sample_alone_is_zero() -> None:
    assert cider_d([["the"], ["the"]], [["the"], ["the"]]).tolist() == [0, 0]
    assert cider_d([["left", "lung"]], [["left", "lung"]]).tolist() == [0]
    assert cider_d([["left"], ["right"]], [[], []]).tolist() == [0, 0]


def test_the_panel_of_text_metrics() -> None:
    panel = text_panel(["No effusion.", "Clear lungs."], ["No effusion.", ""])
    values = dict(zip(panel.names, panel.statistic(np.array([[1.0, 1], [1, 0]])).T, strict=True))
    assert values["bleu1"] == pytest.approx([np.exp(-1), 1])
    assert values["rougeL"] == pytest.approx([0.5, 1])
    assert values["cider_d"] == pytest.approx([7.5 / 2, 7.5])  # three tokens: no n-gram of four


def test_without_java_meteor_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    panel = meteor_panel(["a"], ["a"])
    assert panel.undefined == {"meteor": MISSING}
    assert MISSING == "not computed: java/pycocoevalcap not installed"
    assert np.isnan(panel.statistic(np.ones((3, 1)))).all()
