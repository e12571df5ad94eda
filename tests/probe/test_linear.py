"""The probe itself: parity with scikit-learn's own pipeline, signal, chance, undefined labels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lapvqa.datasets.labelled import ProbeDataset, Rows
from lapvqa.probe import head_file, judge, scoring
from lapvqa.probe.linear import fit_and_predict

LABELS = ("a", "b")
NOT_KNOWN = np.full((1, 2), -1, dtype=np.int8)  # a validation that takes no part


def problem(seed: int = 0, n: int = 200, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, width)) * 3 + 10
    logits = np.stack([x[:, 0] - 10, x[:, 1] - 12], axis=1) + generator.normal(size=(n, 2))
    return x, (logits > 0).astype(np.int8)


def test_equal_to_scikit_learns_pipeline_for_one_c():
    x, y = problem()
    found = fit_and_predict((x[:100], y[:100]), (x[:1], NOT_KNOWN), x[150:], c_grid=[0.5])
    for label in range(2):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=2000))
        model.fit(x[:100], y[:100, label])
        np.testing.assert_allclose(
            found.scores[:, label], model.predict_proba(x[150:])[:, 1], atol=1e-9
        )


def test_the_kept_head_gives_the_same_probabilities(tmp_path):
    x, y = problem()
    y[:, 1] = 1  # one class: not defined
    found = fit_and_predict((x[:100], y[:100]), (x[:1], NOT_KNOWN), x[150:], c_grid=[0.5])
    head_file.save(found.head, LABELS, tmp_path / head_file.FILE)
    kept, labels = head_file.load(tmp_path / head_file.FILE)
    assert labels == ["a", "b"]
    np.testing.assert_allclose(kept.predict(x[150:]), found.scores, atol=1e-12)
    assert np.isnan(found.scores[:, 1]).all()


def test_c_is_chosen_on_validation_then_refitted_on_both():
    x, y = problem()
    train, validate, test = slice(0, 60), slice(60, 140), slice(140, 200)
    grid = [1e-4, 1.0, 100.0]
    found = fit_and_predict((x[train], y[train]), (x[validate], y[validate]), x[test], c_grid=grid)
    scaler = StandardScaler().fit(x[train])
    means = []
    for c in grid:
        aucs = []
        for label in range(2):
            model = LogisticRegression(C=c, max_iter=2000)
            model.fit(scaler.transform(x[train]), y[train, label])
            scores = model.decision_function(scaler.transform(x[validate]))
            aucs.append(roc_auc_score(y[validate, label], scores))
        means.append(np.mean(aucs))
    assert found.c == grid[int(np.argmax(means))]
    assert found.validation_mean_auc == pytest.approx(max(means), abs=1e-12)
    model = LogisticRegression(C=found.c, max_iter=2000)
    model.fit(scaler.transform(x[:140]), y[:140, 0])
    expected = model.predict_proba(scaler.transform(x[test]))[:, 1]
    np.testing.assert_allclose(found.scores[:, 0], expected, atol=1e-9)


def test_the_test_images_change_nothing_in_the_fit():
    x, y = problem()
    parts = (x[:100], y[:100]), (x[100:150], y[100:150])
    alone = fit_and_predict(*parts, x[150:160], c_grid=[0.1, 1.0])
    with_others = fit_and_predict(
        *parts, np.concatenate([x[150:160], x[:50] * 99]), c_grid=[0.1, 1]
    )
    np.testing.assert_allclose(alone.scores, with_others.scores[:10], atol=1e-12)


def test_unknown_targets_are_left_out_of_their_label_only():
    x, y = problem()
    masked = y.copy()
    masked[:50, 0] = -1
    found = fit_and_predict((x[:100], masked[:100]), (x[:1], NOT_KNOWN), x[150:], c_grid=[1.0])
    scaler = StandardScaler().fit(x[:100])
    model = LogisticRegression(C=1.0, max_iter=2000)
    model.fit(scaler.transform(x[50:100]), y[50:100, 0])
    expected = model.predict_proba(scaler.transform(x[150:]))[:, 1]
    np.testing.assert_allclose(found.scores[:, 0], expected, atol=1e-9)


def test_a_label_without_both_classes_in_training_has_no_scores():
    x, y = problem()
    y[:150, 1] = 0
    y[120, 1] = 1  # among the validation patients alone: not enough
    found = fit_and_predict((x[:100], y[:100]), (x[100:150], y[100:150]), x[150:], c_grid=[1.0])
    assert np.isnan(found.scores[:, 1]).all()
    assert np.isfinite(found.scores[:, 0]).all()


def test_without_a_label_to_judge_by_the_strongest_regularisation_is_taken():
    x, y = problem()
    y[100:150] = 0
    found = fit_and_predict((x[:100], y[:100]), (x[100:150], y[100:150]), x[150:], c_grid=[9, 0.1])
    assert found.c == 0.1
    assert found.validation_mean_auc is None


def test_constant_features_do_no_harm():
    x, y = problem()
    x[:, 3] = 7.0
    found = fit_and_predict((x[:100], y[:100]), (x[100:150], y[100:150]), x[150:], c_grid=[1.0])
    assert np.isfinite(found.scores).all()


def test_the_number_of_workers_changes_nothing():
    x, y = problem()
    parts = (x[:100], y[:100]), (x[100:150], y[100:150]), x[150:]
    one, two = (fit_and_predict(*parts, c_grid=[0.1, 1.0], workers=n) for n in (1, 2))
    np.testing.assert_array_equal(one.scores, two.scores)


def test_fits_that_do_not_converge_are_counted(monkeypatch: pytest.MonkeyPatch):
    x, y = problem()
    parts = (x[:100], y[:100]), (x[100:150], y[100:150]), x[150:]
    assert fit_and_predict(*parts, c_grid=[1.0]).not_converged == 0
    monkeypatch.setattr("lapvqa.probe.linear._MAX_ITERATIONS", 2)
    assert fit_and_predict(*parts, c_grid=[1.0]).not_converged == 2


def test_an_empty_grid_is_refused():
    x, y = problem()
    with pytest.raises(ValueError, match="at least one C"):
        fit_and_predict((x, y), (x, y), x, c_grid=[])


def dataset_of(targets: np.ndarray, sizes: tuple[int, int, int]) -> ProbeDataset:
    parts, start = [], 0
    for name, size in zip("uvw", sizes, strict=True):
        names = tuple(f"{name}{i:04d}" for i in range(size))
        patients = tuple(f"{name}{i // 2}" for i in range(size))
        parts.append(Rows(names, names, patients, names, targets[start : start + size]))
        start += size
    return ProbeDataset("d", LABELS, *parts)


def auc(predictions, system: str) -> float:
    rows = predictions.filter([name == system for name in predictions["system"].to_pylist()])
    measures = scoring.measure(rows, labels=LABELS)
    return float(measures.statistic(np.ones((1, len(measures.samples))))[0, 0])


def test_planted_signal_gives_one_and_noise_gives_a_half_and_permuted_labels_too():
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 2, (600, 2)).astype(np.int8)
    planted = np.concatenate([targets * 2.0, generator.normal(size=(600, 8))], axis=1)
    noise = generator.normal(size=(600, 10))
    features = {"trained": planted.astype(np.float32), "untrained": noise.astype(np.float32)}
    dataset = dataset_of(targets, (300, 100, 200))
    predictions, protocol = judge.predict(dataset, features, c_grid=[0.1, 1.0])
    assert auc(predictions, "trained") > 0.999
    assert auc(predictions, "untrained") == pytest.approx(0.5, abs=0.1)
    assert protocol["images_test"] == 200
    assert protocol["patients_test"] == 100
    permuted = dataset_of(generator.permutation(targets), (300, 100, 200))
    predictions, _ = judge.predict(permuted, features, c_grid=[0.1, 1.0])
    assert auc(predictions, "trained") == pytest.approx(0.5, abs=0.1)


def test_predictions_are_deterministic_and_hold_test_images_only():
    x, y = problem(n=120)
    dataset = dataset_of(y, (60, 30, 30))
    features = {"trained": x.astype(np.float32)}
    first, _ = judge.predict(dataset, features, c_grid=[0.1, 1.0])
    second, _ = judge.predict(dataset, features, c_grid=[1.0, 0.1])
    assert first.equals(second)
    assert set(first["sample"].to_pylist()) == set(dataset.test.samples)
    assert first.num_rows == 30 * 2


def test_unknown_targets_are_null_and_undefined_labels_have_no_rows():
    x, y = problem(n=120)
    y[:60, 1] = 1
    y[95, 0] = -1
    dataset = dataset_of(y, (60, 30, 30))
    predictions, _ = judge.predict(dataset, {"trained": x.astype(np.float32)}, c_grid=[1.0])
    assert set(predictions["label"].to_pylist()) == {"a"}
    assert predictions["target"].null_count == 1
    measures = scoring.measure(predictions, labels=LABELS)
    assert measures.undefined["auc/b"] == scoring.NOT_PREDICTED
    values = measures.statistic(np.ones((1, 30)))[0]
    assert values[0] == values[1]
    assert np.isnan(values[2])
