"""Answers: normalisation, exact match, token F1, closed, open and by type."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from lapvqa.metrics.texts.short_answers import (
    answers_panel,
    exact_match,
    is_closed,
    normalise,
    token_f1,
)

ANSWERS = st.sampled_from(["yes", "No.", "maybe", "", "left lung", "the left lung", "an edema"])


def _values(references: list[str], answers: list[str], types: list[str]) -> dict[str, float]:
    panel = answers_panel(references, answers, types=types)
    found = panel.statistic(np.ones((1, len(references))))[0]
    return dict(zip(panel.names, found, strict=True))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Left  lung.", "left lung"),
        ("Yes!", "yes"),
        ("an AP view", "ap view"),
        ("anterior", "anterior"),
        ("left-sided", "leftsided"),
        ("...", ""),
    ],
)
def test_normalisation(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


def test_token_f1_by_hand() -> None:
    # "small left effusion" / "left pleural effusion": 2 of 3 words on each side.
    assert token_f1("small left effusion", "left pleural effusion") == pytest.approx(2 / 3)
    assert token_f1("left", "left left left") == pytest.approx(2 * 1 / (1 + 3))
    assert token_f1("the", "") == 1.0
    assert token_f1("left", "") == token_f1("", "left") == 0.0
    assert exact_match("Yes", "yes.") == 1.0
    assert exact_match("yes", "yes it is") == 0.0


def test_closed_is_what_the_reference_says() -> None:
    assert is_closed("Yes.")
    assert is_closed("no")
    assert not is_closed("none")
    assert not is_closed("no effusion")


def test_groups_by_hand() -> None:
    found = _values(
        ["yes", "no", "left lung", "PA view"],
        ["yes", "yes", "lung", "pa view"],
        ["presence", "presence", "location", "view"],
    )
    assert found["exact_match"] == 0.5
    assert found["token_f1"] == pytest.approx((1 + 0 + 2 / 3 + 1) / 4)
    assert found["exact_match/closed"] == found["exact_match/type:presence"] == 0.5
    assert found["exact_match/open"] == 0.5
    assert found["exact_match/type:view"] == 1.0
    assert found["token_f1/type:location"] == pytest.approx(2 / 3)
    assert found["closed_f1/yes"] == pytest.approx(2 / 3)
    assert found["closed_f1/no"] == 0.0


@given(st.lists(st.tuples(ANSWERS, ANSWERS), min_size=1, max_size=20))
def test_closed_f1_equals_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    references, answers = map(list, zip(*pairs, strict=True))
    found = _values(references, answers, ["t"] * len(pairs))
    closed = [(normalise(a), normalise(b)) for a, b in pairs if is_closed(a)]
    for kind in ("yes", "no"):
        truth, given_answer = ([one[side] == kind for one in closed] for side in (0, 1))
        expected = f1_score(truth, given_answer, zero_division=np.nan) if closed else np.nan
        assert found[f"closed_f1/{kind}"] == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.tuples(ANSWERS, ANSWERS, st.sampled_from("ab")), min_size=1, max_size=12))
def test_weights_are_repetitions_and_order_does_not_matter(rows: list) -> None:
    times = [index % 3 for index in range(len(rows))]
    references, answers, types = map(list, zip(*rows, strict=True))
    panel = answers_panel(references, answers, types=types)
    weighted = panel.statistic(np.array([times], dtype=float))[0]
    again = [row for row, count in zip(rows, times, strict=True) for _ in range(count)][::-1]
    if not again:
        assert np.isnan(weighted).all()
        return
    repeated = _values(*map(list, zip(*again, strict=True)))
    for name, value in zip(panel.names, weighted, strict=True):
        if name != "closed_f1":  # its mean is over the answers that the whole sample shows
            assert repeated.get(name, np.nan) == pytest.approx(value, nan_ok=True)


def test_a_group_without_questions_is_undefined_with_its_reason() -> None:
    panel = answers_panel(["left"], ["left"], types=["location"])
    found = dict(zip(panel.names, panel.statistic(np.ones((1, 1)))[0], strict=True))
    assert np.isnan(found["exact_match/closed"])
    assert panel.undefined["exact_match/closed"] == "no closed question"
    assert "exact_match/open" not in panel.undefined
    assert np.isnan(found["closed_f1"])


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="1 references, but 2 question types"):
        answers_panel(["yes"], ["yes"], types=["a", "b"])
