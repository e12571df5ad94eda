"""DeLong: the definition by loops, mlstatkit's golden values, clusters, size under the null."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lapvqa.metrics.bootstrap import draw_values
from lapvqa.metrics.classification import mean_and_class_aurocs
from lapvqa.metrics.paired import auc_covariance, delong_test

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


def _problem(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    targets = (generator.random(n) < 0.4).astype(np.int8)
    shared = generator.normal(size=n)
    scores = np.stack(
        [targets * shift + shared + generator.normal(size=n) for shift in (0.5, 1.0, 1.5)], axis=1
    )
    return targets, np.round(scores, 1)  # ties


def _by_definition(targets: np.ndarray, scores: np.ndarray, clusters: list) -> np.ndarray:
    """Obuchowski 1997 with loops over pairs: kernel, components, sums by cluster."""
    ill, well = np.flatnonzero(targets == 1), np.flatnonzero(targets == 0)
    kernel = np.array(
        [[[(x > y) + 0.5 * (x == y) for y in scores[well, k]] for x in scores[ill, k]]
         for k in range(scores.shape[1])]
    )  # fmt: skip
    aucs = kernel.mean(axis=(1, 2))
    v10, v01 = kernel.mean(axis=2) - aucs[:, None], kernel.mean(axis=1) - aucs[:, None]
    s10 = s01 = s11 = 0
    for patient in set(clusters):
        a = v10[:, [clusters[i] == patient for i in ill]].sum(axis=1)
        b = v01[:, [clusters[i] == patient for i in well]].sum(axis=1)
        s10, s01, s11 = s10 + np.outer(a, a), s01 + np.outer(b, b), s11 + np.outer(a, b)
    i10, i01 = len({clusters[i] for i in ill}), len({clusters[i] for i in well})
    everyone, m, n = len(set(clusters)), len(ill), len(well)
    cross = everyone / (everyone - 1) * (s11 + s11.T) / (m * n)
    return i10 / (i10 - 1) * s10 / m**2 + i01 / (i01 - 1) * s01 / n**2 + cross


@pytest.mark.parametrize("per_patient", [1, 3])
def test_equal_to_the_definition_by_loops(per_patient: int) -> None:
    targets, scores = _problem(0)
    clusters = [f"p{i // per_patient}" for i in range(60)]
    found = auc_covariance(targets, scores, clusters)
    np.testing.assert_allclose(
        found.covariance, _by_definition(targets, scores, clusters), rtol=0, atol=1e-12
    )
    for index, auc in enumerate(found.aucs):
        assert auc == pytest.approx(roc_auc_score(targets, scores[:, index]), abs=1e-12)


def test_equal_to_mlstatkit_with_one_sample_per_patient() -> None:
    case = GOLDEN["delong"]
    found = delong_test(
        np.array(case["targets"], dtype=np.int8),
        np.array(case["second"]),
        np.array(case["first"]),
        [str(i) for i in range(80)],
        confidence=0.95,
    )
    assert found.z == pytest.approx(case["z"], abs=1e-6)
    assert found.p_value == pytest.approx(case["p"], abs=1e-6)


def test_clusters_widen_and_agree_with_the_bootstrap() -> None:
    generator = np.random.default_rng(3)
    diseased = np.repeat(generator.random(400) < 0.5, 3).astype(np.int8)
    person = np.repeat(generator.normal(size=400), 3)
    scores = np.stack([diseased * 0.7 + person + generator.normal(size=1200) * 0.5], axis=1)
    patients = [f"p{i // 3}" for i in range(1200)]
    by_patient = auc_covariance(diseased, scores, patients).covariance[0, 0] ** 0.5
    by_image = auc_covariance(diseased, scores, [str(i) for i in range(1200)])
    drawn = draw_values(
        mean_and_class_aurocs(diseased[:, None], scores), patients, draws=1000, seed=0
    )[1:, 1].std()
    assert by_patient > 1.4 * by_image.covariance[0, 0] ** 0.5
    assert by_patient == pytest.approx(drawn, rel=0.1)


def test_order_of_samples_does_not_matter_and_sides_swap() -> None:
    targets, scores = _problem(5)
    clusters = [f"p{i // 2}" for i in range(60)]
    order = np.random.default_rng(0).permutation(60)
    one = delong_test(targets, scores[:, 0], scores[:, 1], clusters, confidence=0.95)
    other = delong_test(
        targets[order], scores[order, 1], scores[order, 0], [clusters[i] for i in order],
        confidence=0.95,
    )  # fmt: skip
    assert one.difference == pytest.approx(-other.difference)
    assert one.low == pytest.approx(-other.high)
    assert one.p_value == pytest.approx(other.p_value)


def test_unknown_targets_are_left_out() -> None:
    targets, scores = _problem(6)
    more = np.concatenate([targets, [-1, -1]]).astype(np.int8)
    extended = np.vstack([scores, [[9, 9, 9], [-9, -9, -9]]])
    clusters = [str(i) for i in range(60)]
    first = auc_covariance(targets, scores, clusters)
    second = auc_covariance(more, extended, [*clusters, "x", "y"])
    np.testing.assert_allclose(first.covariance, second.covariance, rtol=1e-12)


def test_too_few_patients_of_a_kind_give_no_variance() -> None:
    targets = np.array([1, 1, 0, 0, 0, 0, 0], dtype=np.int8)
    scores = np.arange(7.0)[:, None]
    assert auc_covariance(targets, scores, ["a", "a", *"bcdef"]) is None
    assert auc_covariance(np.zeros(7, dtype=np.int8), scores, list("abcdefg")) is None


def test_two_against_three_patients_have_no_test_and_two_against_four_have() -> None:
    targets = np.array([1, 1, 0, 0, 0, 0], dtype=np.int8)
    scores = np.array([3.0, 1, 2, 0, 4, 5])[:, None]
    assert auc_covariance(targets[:5], scores[:5], list("abcde")) is None
    assert auc_covariance(targets, scores, list("abcdef")) is not None


def test_the_same_ranking_has_no_test() -> None:
    targets, scores = _problem(7)
    clusters = [str(i) for i in range(60)]
    found = delong_test(targets, scores[:, 0], 2 * scores[:, 0] + 1, clusters, confidence=0.95)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert found.z is None
    assert found.p_value is None


def test_the_test_rejects_5_in_100_under_the_null_and_sees_a_planted_difference() -> None:
    generator = np.random.default_rng(8)
    rejected = {0.0: 0, 0.8: 0}
    for better in rejected:
        for _ in range(600):
            diseased = np.repeat(generator.random(100) < 0.5, 2).astype(np.int8)
            person = np.repeat(generator.normal(size=100), 2)
            first, second = (
                diseased * shift + person + generator.normal(size=200) for shift in (1, 1 + better)
            )
            patients = [f"p{i // 2}" for i in range(200)]
            found = delong_test(diseased, second, first, patients, confidence=0.95)
            rejected[better] += found.p_value < 0.05
    assert 0.03 <= rejected[0.0] / 600 <= 0.07
    assert rejected[0.8] / 600 > 0.9
