"""The tests that a look makes: parity by hand, false alarms, exact p, the error that is spent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lapvqa.drift import features, greys, shares, spending
from lapvqa.drift.permutation import permute


def series(rng: np.random.Generator, patients: int, width: int = 16) -> tuple:
    """Features of patients with 1 to 12 films each, which are alike; no drift."""
    counts = rng.choice([1, 1, 2, 12], patients)
    owners = np.repeat(np.arange(patients), counts)
    own = rng.normal(size=(patients, width))
    return own[owners] + 0.2 * rng.normal(size=(len(owners), width)), owners


def divided(rng: np.random.Generator, patients: int, new: int) -> np.ndarray:
    in_window = np.zeros(patients, bool)
    in_window[rng.permutation(patients)[:new]] = True
    return in_window


def test_mmd_is_that_of_pairs_counted_one_by_one() -> None:
    rng = np.random.default_rng(0)
    values, owners = series(rng, 9, width=3)
    weights = rng.uniform(0.2, 1, len(owners))
    in_window = divided(rng, 9, 4)
    new = in_window[owners]
    pairs = [(i, j) for i in range(len(owners)) for j in range(len(owners))
             if owners[i] != owners[j]]  # fmt: skip
    width = np.median([np.square(values[i] - values[j]).sum() for i, j in pairs])

    def mean(first: bool, second: bool) -> float:
        chosen = [(i, j) for i, j in pairs if new[i] == first and new[j] == second]
        products = np.array([weights[i] * weights[j] for i, j in chosen])
        near = [np.exp(-np.square(values[i] - values[j]).sum() / width) for i, j in chosen]
        return float((products * near).sum() / products.sum())

    expected = mean(True, True) + mean(False, False) - 2 * mean(True, False)
    found = features.kernel(values, owners, weights).statistic(in_window[None].astype(float))
    assert found[0] == pytest.approx(expected, rel=1e-9)


def test_a_series_of_one_patient_is_no_drift() -> None:
    """5 % of 200 divisions of undrifted patients alarm; by images it is a third and more."""
    rng = np.random.default_rng(1)
    by_patient = by_image = 0
    for number in range(200):
        values, owners = series(rng, 40)
        in_window = divided(rng, 40, 12)
        ones = np.ones(len(owners))
        kernel = features.kernel(features.standardised(values), owners, ones)
        by_patient += permute(kernel.statistic, in_window, rng, draws=300).p <= 0.05
        if number >= 50:
            continue
        single = features.kernel(features.standardised(values), np.arange(len(owners)), ones)
        by_image += permute(single.statistic, in_window[owners], rng, draws=300).p <= 0.05
    assert by_patient <= 18  # 200 draws of .05 exceed it once in 400 times
    assert by_image > 15


def test_p_is_exact_under_early_stopping() -> None:
    """Values without drift: p <= x in a share x of all repeats, for small x and for large."""
    rng = np.random.default_rng(2)
    counts = shares.Counts(rng.random((30, 4)), "abcd", {"one": slice(0, 4)})
    found = np.array([
        permute(counts.statistic, divided(rng, 30, 10), rng, draws=400).p for _ in range(1000)
    ])  # fmt: skip
    for level in (0.05, 0.2, 0.5, 0.8):
        assert (found <= level).mean() == pytest.approx(level, abs=0.045)


def test_what_findings_explain_is_no_alarm_among_patients_of_equal_findings() -> None:
    rng = np.random.default_rng(3)
    finding = np.repeat([0, 1], 60)
    plain = within = changed = 0
    for _ in range(40):
        new = rng.random(120) < np.where(finding == 1, 0.8, 0.2)  # prevalence, nothing else
        values = rng.normal(size=(120, 8)) + 2 * finding[:, None]
        for moved in (False, True):
            shown = values + 1.5 * moved * new[:, None]
            kernel = features.kernel(shown, np.arange(120), np.ones(120)).statistic
            p = permute(kernel, new, rng, draws=300, strata=finding).p
            within, changed = within + (p <= 0.05 and not moved), changed + (p <= 0.05 and moved)
            plain += not moved and permute(kernel, new, rng, draws=300).p <= 0.05
    assert (plain, changed) == (40, 40)
    assert within <= 6


def test_a_shift_of_the_size_that_is_said_to_be_seen_is_seen() -> None:
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(25):
        values, owners = series(rng, 60)
        values, in_window = features.standardised(values), divided(rng, 60, 20)
        new, ones = in_window[owners], np.ones(len(owners))
        test = permute(features.kernel(values, owners, ones).statistic, in_window, rng, draws=300)
        shift = features.detectable_shift(values, owners, new, test.seen_from(0.05))
        assert shift is not None
        known = values[~new] - values[~new].mean(axis=0)
        axis = np.linalg.svd(known, full_matrices=False)[2][0]
        moved = values + shift * (known @ axis).std() * axis * new[:, None]
        again = features.kernel(moved, owners, ones).statistic
        found += permute(again, in_window, rng, draws=300).p <= 0.05
    assert found >= 14  # .8 is said; the alternative varies more than the null


def test_psi_and_tv_by_hand() -> None:
    answers = {"view": np.array(["AP", "AP", "PA", "PA"])}
    counts = shares.count(answers, np.array([0, 1, 1, 2]), np.ones(4))
    groups = np.array([[1.0, 0, 0]])
    new, old = np.array([1.5, 0.5]) / 2, np.array([1.5, 2.5]) / 4
    assert counts.statistic(groups)[0] == pytest.approx(((new - old) * np.log(new / old)).sum())
    assert counts.distance("view")(groups)[0] == pytest.approx(abs(1 - 1 / 3))
    assert counts.shares(np.array([True, False, False]))["view"]["AP"] == (1 / 3, 1.0)


def test_the_classifier_tells_apart_by_other_patients_alone() -> None:
    """Each patient has a mark of its own: by images it would tell all, by patients nothing."""
    rng = np.random.default_rng(5)
    owners = np.repeat(np.arange(60), 4)
    values = (10 * np.eye(60))[owners] + rng.normal(size=(240, 60))
    new = divided(rng, 60, 30)[owners]
    assert features.tell_apart(values, owners, new, np.ones(240)) == pytest.approx(0.5, abs=0.15)
    values[new, 0] += 10
    found = features.tell_apart(values, owners, new, np.ones(240))
    assert found is not None
    assert found > 0.95
    scores = features.propensity(values, owners, new)
    assert found == pytest.approx(roc_auc_score(new, scores), abs=1e-9)


@settings(max_examples=50)
@given(st.lists(st.floats(1, 40 * 86400), min_size=1, max_size=60), st.floats(0.05, 2))
def test_looks_of_any_rhythm_spend_no_more_than_the_rate(gaps: list[float], rate: float) -> None:
    years = sum(gaps) / (365.25 * 86400)
    assert sum(spending.level(rate, gap) for gap in gaps) <= rate * years + 1e-9


def test_a_look_right_after_another_has_nothing_to_spend() -> None:
    assert spending.level(0.5, 60) == 0
    assert spending.level(0.5, 10 * 365 * 86400) == spending.MOST
    assert 1 / (spending.draws(0.01, 8) + 1) < 0.01 / 8


def test_greys_tell_the_noise_of_a_film() -> None:
    rng = np.random.default_rng(6)
    ramp = np.tile(np.linspace(20, 220, 384), (384, 1))
    films = np.stack([ramp, *(ramp + rng.normal(0, sd, ramp.shape) for sd in (2, 8))])
    found = greys.describe(np.clip(np.rint(films), 0, 255).astype(np.uint8))
    noise = np.exp(found[:, 8]) - 0.1
    assert noise[0] < 0.6
    assert noise[1:] == pytest.approx([2, 8], rel=0.1)
    inside = np.rint(ramp[64:-64, 64:-64])
    assert found[0, 3] == pytest.approx(np.median(inside))
