"""F1 of findings against scikit-learn, by hand, and where it has no value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from lapvqa.metrics.texts.finding_f1 import f1_by_label, finding_counts, macro_f1, micro_f1

LABELS = ("Edema", "Pneumothorax", "Atelectasis")
SETS = st.sets(st.sampled_from(LABELS))
PAIRS = st.lists(st.tuples(SETS, SETS), min_size=1, max_size=12)
ONE = ("Edema",)


def _matrix(sets: list[set[str]]) -> np.ndarray:
    return np.array([[label in found for label in LABELS] for found in sets], dtype=int)


@given(PAIRS)
def test_f1_equals_scikit_learn(pairs: list[tuple[set[str], set[str]]]) -> None:
    truth, predicted = map(list, zip(*pairs, strict=True))
    counts = finding_counts(truth, predicted, labels=LABELS)
    everyone = np.ones((1, len(pairs)))
    by_label = f1_by_label(counts, everyone)[0]
    theirs = f1_score(_matrix(truth), _matrix(predicted), average=None, zero_division=np.nan)
    assert by_label == pytest.approx(np.asarray(theirs), nan_ok=True)
    if any(truth) or any(predicted):
        expected = f1_score(_matrix(truth), _matrix(predicted), average="micro")
        assert micro_f1(counts, everyone)[0] == pytest.approx(expected)
    shown = _matrix(truth).any(axis=0)
    if shown.any():
        assert macro_f1(counts, everyone)[0] == pytest.approx(np.asarray(theirs)[shown].mean())


def test_by_hand() -> None:
    truth = [{"Edema"}, {"Edema", "Pneumothorax"}, set()]
    predicted = [{"Edema"}, {"Pneumothorax"}, {"Edema"}]
    counts = finding_counts(truth, predicted, labels=LABELS)
    weights = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    # Edema: 1 hit, 1 false, 1 missed; Pneumothorax: 1 hit.
    assert micro_f1(counts, weights) == pytest.approx([4 / 6, 1.0, 0.0])
    assert macro_f1(counts, weights) == pytest.approx([(0.5 + 1) / 2, 1.0, 0.0])


def test_no_true_positive_is_zero_and_nothing_at_all_is_undefined() -> None:
    everyone = np.ones((1, 1))
    missed = finding_counts([{"Edema"}], [set()], labels=ONE)
    assert f1_by_label(missed, everyone).tolist() == [[0.0]]
    nothing = finding_counts([set()], [set()], labels=ONE)
    assert np.isnan(f1_by_label(nothing, everyone)).all()
    assert np.isnan(micro_f1(nothing, everyone)).all()
    assert np.isnan(macro_f1(nothing, everyone)).all()


def test_labels_outside_the_list_do_not_count() -> None:
    counts = finding_counts([{"Edema", "Fracture"}], [{"Edema"}], labels=ONE)
    assert micro_f1(counts, np.ones((1, 1))).tolist() == [1.0]


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 truths, but 1 predictions"):
        finding_counts([set(), set()], [set()], labels=ONE)
