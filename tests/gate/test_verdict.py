"""The gate promotes what is shown to be better, names what is missing, and cannot be worn out."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, false_discovery_control, norm

from lapvqa.evaluation.sealed import is_reserved
from lapvqa.gate.budget import Budget, PastLook
from lapvqa.gate.verdict import Evidence, Outcome, Paired, Rule, decide, holm

RULE = Rule(primary=("nih",), margins={"chexpert": 0.01}, slice_margin=0.02, worthwhile=0.005)
BETTER, SAME, WORSE = (Paired(value, 0.002, 500) for value in (0.02, 0.0, -0.03))
paireds = st.builds(
    Paired,
    st.floats(-0.1, 0.1),
    st.one_of(st.just(0.0), st.floats(1e-4, 0.05)),
    st.integers(10, 10_000),
)


def evidence(**changes: object) -> Evidence:
    values: dict[str, object] = {
        "champion": {"nih": BETTER, "chexpert": SAME},
        "anchor": {"nih": BETTER, "chexpert": SAME},
        "slices": {"view AP": {"nih": SAME}, "sex F": {"nih": BETTER}},
    }
    return Evidence(**(values | changes))  # type: ignore[arg-type]


def test_a_better_candidate_is_promoted() -> None:
    assert decide(RULE, evidence(), 0.025).outcome is Outcome.PROMOTE


@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({"champion": {"nih": WORSE, "chexpert": SAME}}, Outcome.REJECT, "no gain"),
        ({"champion": {"nih": BETTER, "chexpert": WORSE}}, Outcome.REJECT, "chexpert against"),
        ({"anchor": {"nih": WORSE, "chexpert": SAME}}, Outcome.REJECT, "nih against the anchor"),
        ({"anchor": {"nih": BETTER, "chexpert": WORSE}}, Outcome.REJECT, "the anchor"),
        ({"slices": {"sex F": {"nih": WORSE}}}, Outcome.REJECT, "nih in sex F"),
        ({"champion": {"nih": BETTER}}, Outcome.INCONCLUSIVE, "chexpert: no comparison"),
        ({"faults": ("the test set is contaminated",)}, Outcome.INCONCLUSIVE, "contaminated"),
        (
            {"champion": {"nih": Paired(0.005, 0.01, 500), "chexpert": SAME}},
            Outcome.INCONCLUSIVE,
            "not shown to be better",
        ),
        (
            {"champion": {"nih": BETTER, "chexpert": Paired(0.0, 0.01, 500)}},
            Outcome.INCONCLUSIVE,
            "within its margin",
        ),
    ],
)
def test_what_is_not_shown_is_not_promoted(
    changes: dict[str, object], outcome: Outcome, reason: str
) -> None:
    verdict = decide(RULE, evidence(**changes), 0.025)
    assert verdict.outcome is outcome
    assert any(reason in said for said in verdict.reasons), verdict.reasons


ROUGH, LOST = Paired(0.0, 0.01, 500), Paired(-0.1, 0.01, 500)
SUCCESSOR = replace(RULE, guard_level=0.05, successor_margin=0.02)


@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({"champion": {"nih": LOST, "chexpert": SAME}}, Outcome.PROMOTE, "need not be better"),
        ({}, Outcome.PROMOTE, "nih: better than the champion"),
        ({"anchor": {}}, Outcome.PROMOTE, "need not be better"),
        ({"anchor": {}, "champion": {"nih": SAME, "chexpert": SAME}}, Outcome.PROMOTE, "need not"),
        (
            {"anchor": {}, "champion": {"nih": LOST, "chexpert": SAME}},
            Outcome.REJECT, "nih against the champion",
        ),
        ({"anchor": {"nih": LOST, "chexpert": SAME}}, Outcome.REJECT, "nih against the anchor"),
        (
            {"anchor": {"nih": replace(ROUGH, error=0.02), "chexpert": SAME}},
            Outcome.INCONCLUSIVE, "nih against the anchor: not shown to be within its margin",
        ),
        ({"champion": {"nih": SAME, "chexpert": WORSE}}, Outcome.REJECT, "chexpert against"),
        ({"slices": {"sex F": {"nih": WORSE}}}, Outcome.REJECT, "nih in sex F"),
        ({"faults": ("foreign predictions",)}, Outcome.INCONCLUSIVE, "foreign"),
    ],
)  # fmt: skip
def test_the_successor_of_a_contaminated_champion_need_not_be_better(
    changes: dict[str, object], outcome: Outcome, reason: str
) -> None:
    same = {"nih": SAME, "chexpert": SAME}
    found = evidence(**{"anchor": same, **changes, "contaminated": True})
    verdict = decide(SUCCESSOR, found, 0.0025)
    assert verdict.outcome is outcome, verdict.reasons
    assert any(reason in said for said in verdict.reasons), verdict.reasons
    assert verdict.needed_patients is None or outcome is Outcome.INCONCLUSIVE
    assert decide(SUCCESSOR, found, 0.0).outcome is Outcome.INCONCLUSIVE


@given(paireds, paireds, paireds, st.floats(1e-4, 0.2))
def test_what_replaces_a_champion_replaces_a_contaminated_one(
    nih: Paired, chexpert: Paired, first: Paired, level: float
) -> None:
    found = Evidence({"nih": nih, "chexpert": chexpert}, {"nih": first, "chexpert": chexpert})
    if decide(SUCCESSOR, found, level).outcome is Outcome.PROMOTE:
        easier = replace(found, contaminated=True)
        assert decide(SUCCESSOR, easier, level).outcome is Outcome.PROMOTE


def test_a_spent_budget_refuses_whatever_the_evidence() -> None:
    verdict = decide(RULE, evidence(), 0.0)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "spent" in verdict.reasons[0]


@given(paireds, paireds, st.floats(1e-4, 0.2))
def test_no_reason_tells_a_number_of_the_test_set(
    nih: Paired, chexpert: Paired, level: float
) -> None:
    verdict = decide(RULE, Evidence({"nih": nih, "chexpert": chexpert}, {}), level)
    assert not any(character.isdigit() for said in verdict.reasons for character in said)


@given(paireds, paireds, st.floats(1e-4, 0.2))
def test_a_stricter_level_promotes_no_more(nih: Paired, chexpert: Paired, level: float) -> None:
    found = Evidence({"nih": nih, "chexpert": chexpert}, {})
    if decide(RULE, found, level / 2).outcome is Outcome.PROMOTE:
        assert decide(RULE, found, level).outcome is Outcome.PROMOTE


@given(paireds, st.floats(0, 0.05))
def test_p_is_that_of_a_normal_test(paired: Paired, margin: float) -> None:
    if paired.error:
        expected = norm.sf((paired.value + margin) / paired.error)
        expected = max(expected, binomtest(paired.patients, paired.patients).pvalue / 2)
        assert paired.p_better(margin) == pytest.approx(expected, abs=1e-12)


@given(st.floats(0.001, 0.05), st.floats(0.002, 0.02), st.integers(50, 5000))
def test_the_patients_asked_for_would_do(error: float, effect: float, patients: int) -> None:
    paired, level = Paired(0.0, error, patients), 0.025
    count = paired.needed(level, effect=effect)
    assert count is not None
    then = error * math.sqrt(patients / count)
    power = NormalDist().cdf(effect / then - NormalDist().inv_cdf(1 - level))
    assert power >= 0.8 - 1e-9


@given(st.dictionaries(st.text(min_size=1), st.floats(1e-6, 1), min_size=1, max_size=6))
def test_holm_rejects_no_less_than_bonferroni_and_no_more_than_benjamini(
    p_values: dict[str, float],
) -> None:
    level = 0.05
    rejected = holm(p_values, level)
    assert {name for name, p in p_values.items() if p <= level / len(p_values)} <= rejected
    adjusted = false_discovery_control(list(p_values.values()))
    loosest = {name for name, q in zip(p_values, adjusted, strict=True) if q <= level + 1e-12}
    assert rejected <= loosest


def test_holm_takes_no_p_that_is_not_a_number() -> None:
    assert holm({"a": math.nan}, 0.05) == set()
    assert holm({"a": 0.001, "b": math.nan}, 0.05) <= {"a"}


@given(st.lists(st.booleans(), max_size=200), st.floats(0.01, 0.2), st.floats(0.01, 1))
def test_looks_never_spend_more_than_the_budget(
    promoted: list[bool], total: float, share: float
) -> None:
    budget, past = Budget(total, share), list[PastLook]()
    for one in promoted:
        level = budget.level(past)
        assert 0 <= level <= budget.left(past) + 1e-12
        past.append(PastLook(level, one and level > 0))
    assert sum(look.level for look in past if not look.promoted) <= total + 1e-9


def test_a_budget_that_is_spent_stays_spent() -> None:
    budget, past = Budget(0.05, 0.5), list[PastLook]()
    while budget.level(past):
        past.append(PastLook(budget.level(past), promoted=False))
    assert len(past) < 20
    assert budget.level(past) == 0


def test_the_share_of_reserved_patients_is_fixed_and_as_asked() -> None:
    keys = [f"{number:016x}" for number in range(20_000)]
    reserved = np.array([is_reserved(key, share=0.1) for key in keys])
    assert abs(reserved.mean() - 0.1) < 0.01
    more = np.array([is_reserved(key, share=0.2) for key in keys])
    assert (more >= reserved).all(), "a larger share keeps those of a smaller one"
