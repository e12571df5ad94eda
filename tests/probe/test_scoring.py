"""Scoring reads predictions alone, in any order, and refuses tables that cannot be scored."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from lapvqa.errors import SchemaError
from lapvqa.probe import scoring
from lapvqa.schemas import PROBE_PREDICTIONS

LABELS = ("a", "b")


def table(rows: list[tuple]) -> pa.Table:
    names = PROBE_PREDICTIONS.names
    return pa.Table.from_pylist(
        [dict(zip(names, row, strict=True)) for row in rows], schema=PROBE_PREDICTIONS
    )


def sample_rows(system: str = "trained") -> list[tuple]:
    generator = np.random.default_rng(0)
    return [
        (f"s{i}", f"p{i // 2}", system, label, int(generator.integers(0, 2)), generator.random())
        for label in LABELS
        for i in range(20)
    ]


def values(rows: list[tuple]) -> dict[str, float]:
    measures = scoring.measure(table(rows), labels=LABELS)
    found = measures.statistic(np.ones((1, len(measures.samples))))[0]
    return dict(zip(measures.names, found.tolist(), strict=True))


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        ("auc", roc_auc_score),
        ("auprc", average_precision_score),
        ("brier", brier_score_loss),
    ],
)
def test_equal_to_scikit_learn_whatever_the_order_of_rows(metric, reference):
    rows = sample_rows()
    expected = [
        reference(
            [row[4] for row in rows if row[3] == label],
            [row[5] for row in rows if row[3] == label],
        )
        for label in LABELS
    ]
    found = values(rows)
    assert values(rows[::-1]) == found
    np.testing.assert_allclose([found[f"{metric}/{one}"] for one in LABELS], expected, atol=1e-12)
    assert found[f"mean_{metric}"] == pytest.approx(np.mean(expected))


def test_calibration_error_by_hand():
    rows = [
        (f"s{i}", f"p{i}", "trained", "a", target, score)
        for i, (target, score) in enumerate([(1, 0.95), (1, 0.95), (0, 0.95), (0, 0.05)])
    ]
    found = values(rows)
    assert found["ece/a"] == pytest.approx(3 / 4 * (0.95 - 2 / 3) + 1 / 4 * 0.05)
    assert found["mean_ece"] == found["ece/a"]  # b is not predicted
    assert np.isnan(found["ece/b"])


def test_a_label_that_is_not_predicted_is_undefined_for_that_reason():
    rows = [row for row in sample_rows() if row[3] == "a"]
    measures = scoring.measure(table(rows), labels=LABELS)
    assert {measures.undefined[f"{one}/b"] for one in scoring.METRICS} == {scoring.NOT_PREDICTED}
    assert not any(name.endswith("/a") for name in measures.undefined)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("s0", "p0", "trained", "c", 1, 0.5), "labels a, b, found c"),
        (("s0", "p0", "trained", "a", 1, 0.5), "repeated rows"),
        (("s9", "p0", "trained", "a", 1, float("nan")), "NaN or infinity"),
        (("s0", "p9", "trained", "b", 1, 0.5), "under two"),
    ],
)
def test_a_table_that_cannot_be_scored_is_refused(change, message):
    rows = sample_rows()[:5]
    with pytest.raises(SchemaError, match=message):
        scoring.measure(table([*rows, change]), labels=LABELS)


def test_mean_curves_start_at_zero_end_at_one_and_never_fall():
    both = table([*sample_rows(), *sample_rows("untrained")])
    rows = scoring.curves(both, labels=LABELS).rows
    curves = np.array(rows, dtype=float)
    assert rows[0] == (0.0, 0.0, 0.0)
    assert rows[-1] == (1.0, 1.0, 1.0)
    assert len(rows) <= 200
    assert (np.diff(curves, axis=0) >= 0).all()


def test_curves_have_a_column_for_each_system_present_trained_first():
    rows = [row for name in ("siglip", "clip", "untrained", "trained") for row in sample_rows(name)]
    curves = scoring.curves(table(rows), labels=LABELS)
    assert curves.columns == ("fpr", "trained", "untrained", "clip", "siglip")
    assert curves.rows[-1] == (1.0,) * 5
    alone = scoring.curves(table(sample_rows("clip")), labels=LABELS)
    assert alone.columns == ("fpr", "clip")
