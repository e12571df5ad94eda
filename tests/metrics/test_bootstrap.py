"""Intervals: coverage by simulation, patients as the unit, paired draws, undefined draws."""

from __future__ import annotations

import numpy as np
import pytest
from resampling import clustered_interval
from scipy.stats import binomtest

from lapvqa.metrics.bootstrap import Estimate, draw_values, interval
from lapvqa.metrics.classification import mean_and_class_aurocs
from lapvqa.metrics.paired import from_draws


def weighted_mean(values: np.ndarray):
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_deterministic_and_independent_of_chunking(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=300)
    clusters = [f"p{i % 70}" for i in range(300)]
    whole = draw_values(weighted_mean(values), clusters, draws=200, seed=4)
    monkeypatch.setattr("lapvqa.metrics.bootstrap._CHUNK_BYTES", 8 * 300 * 7)
    pieces = draw_values(weighted_mean(values), clusters, draws=200, seed=4)
    np.testing.assert_allclose(whole, pieces, rtol=0, atol=1e-12)
    assert not np.array_equal(
        whole, draw_values(weighted_mean(values), clusters, draws=200, seed=5)
    )


def test_row_zero_is_the_observed_value() -> None:
    values = np.arange(10.0)
    drawn = draw_values(weighted_mean(values), [str(i) for i in range(10)], draws=5, seed=0)
    assert drawn[0] == 4.5


def test_whole_patients_are_drawn() -> None:
    clusters = ["a", "a", "b", "c", "c", "c", "d", "e", "f"]
    seen = []

    def spy(weights: np.ndarray) -> np.ndarray:
        seen.append(weights)
        return weights.sum(axis=1)

    draw_values(spy, clusters, draws=50, seed=0)
    weights = np.concatenate(seen[1:])
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[:, [0, 2, 3, 6, 7, 8]].sum(axis=1) == 6).all()


def test_more_samples_of_the_same_patients_do_not_narrow_the_interval() -> None:
    generator = np.random.default_rng(0)
    per_patient = generator.normal(size=60)
    patients = [f"p{i}" for i in range(60)]
    once = clustered_interval(
        weighted_mean(per_patient), patients, draws=400, confidence=0.95, seed=0
    )
    thrice = clustered_interval(
        weighted_mean(np.tile(per_patient, 3)), patients * 3, draws=400, confidence=0.95, seed=0
    )
    assert once == pytest.approx(thrice)
    naive = clustered_interval(
        weighted_mean(np.tile(per_patient, 3)),
        [str(i) for i in range(180)],
        draws=400,
        confidence=0.95,
        seed=0,
    )
    assert naive.high - naive.low < 0.7 * (once.high - once.low)


def test_paired_differences_are_tighter_than_unpaired_ones() -> None:
    generator = np.random.default_rng(0)
    shared = generator.normal(size=200)
    first, second = shared + 0.1, shared + generator.normal(scale=0.1, size=200)
    clusters = [str(i) for i in range(200)]
    a, b = (draw_values(weighted_mean(x), clusters, draws=500, seed=0) for x in (first, second))
    c = draw_values(weighted_mean(second), clusters, draws=500, seed=1)
    paired, unpaired = (interval(a - other, confidence=0.95) for other in (b, c))
    assert paired.low > 0
    assert paired.high - paired.low < 0.3 * (unpaired.high - unpaired.low)


def test_undefined_observation_has_no_numbers() -> None:
    assert interval(np.array([np.nan, 0.5, 0.5]), confidence=0.95) == Estimate(None, None, None)


def test_one_positive_patient_gets_a_value_without_interval() -> None:
    targets = np.zeros((60, 1), dtype=np.int8)
    targets[0] = 1
    scores = np.random.default_rng(0).normal(size=(60, 1))
    patients = [str(i) for i in range(60)]
    found = clustered_interval(
        mean_and_class_aurocs(targets, scores), patients, draws=200, confidence=0.95, seed=0
    )
    assert found[1].value is not None
    assert found[1].low is None
    assert found[1].high is None


def test_an_interval_that_excludes_its_value_is_none() -> None:
    draws = np.linspace(0.2, 0.3, 100)
    assert interval(np.array([0.1, *draws]), confidence=0.95) == (0.1, None, None)
    assert interval(np.array([0.25, *draws]), confidence=0.95).low is not None
    same = np.array([1.0, *np.full(100, 1.0 - 2**-53)])  # equal but for the last bit
    assert interval(same, confidence=0.95).low == pytest.approx(1.0)


@pytest.mark.parametrize("patients", range(1, 9))
def test_few_patients_have_no_interval_and_no_p(patients: int) -> None:
    """As many as could not reach 0.05 by an exact sign test, which is computed here.

    Nor have others a smaller p than that test gives to patients who all agree.
    """
    rows = np.repeat(np.arange(float(patients)), 20)
    clusters = [f"p{row:.0f}" for row in rows]
    first, second = (
        draw_values(weighted_mean(rows + shift), clusters, draws=200, seed=0) for shift in (1, 0)
    )
    difference = from_draws(("m",), first, second, patients=patients, confidence=0.95)["m"]
    assert difference.value == pytest.approx(1)
    exact = float(binomtest(patients, patients).pvalue)
    can_tell = exact <= 0.05
    assert difference.p_value == (pytest.approx(max(exact, 2 / 201)) if can_tell else None)
    assert (difference.low is not None) == can_tell
    assert (interval(first, confidence=0.95).low is not None) == can_tell


def test_no_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        draw_values(weighted_mean(np.array([])), [], draws=10, seed=0)


def test_a_statistic_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="one row of values per draw"):
        draw_values(lambda weights: np.zeros(1), list("abcdef"), draws=10, seed=0)


def test_interval_covers_the_truth_about_95_times_in_100() -> None:
    """Clustered binormal scores with a known AUROC; 400 studies of 120 patients x 2 images."""
    generator = np.random.default_rng(11)
    shift = 1.0
    total_sd = np.sqrt(1.0 + 0.5)
    from scipy.stats import norm

    truth = norm.cdf(shift / (total_sd * np.sqrt(2)))
    patients = [f"p{i // 2}" for i in range(240)]
    covered = 0
    for _ in range(400):
        diseased = np.repeat(generator.random(120) < 0.4, 2)
        person = np.repeat(generator.normal(scale=np.sqrt(0.5), size=120), 2)
        scores = diseased * shift + person + generator.normal(size=240)
        found = clustered_interval(
            mean_and_class_aurocs(diseased.astype(np.int8)[:, None], scores[:, None]),
            patients, draws=200, confidence=0.95, seed=int(generator.integers(2**31)),
        )[1]  # fmt: skip
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.98  # three standard errors of a true 0.95
