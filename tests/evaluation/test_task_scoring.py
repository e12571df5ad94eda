"""From predictions to numbers, task by task: by hand, in any order of rows, any system's name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from lapvqa import storage
from lapvqa.ad import scoring as ad_scoring
from lapvqa.datasets.vindr_tables import CLASSES
from lapvqa.errors import SchemaError
from lapvqa.evaluation import answer_scoring, contract, differences
from lapvqa.metrics import record
from lapvqa.metrics.bootstrap import Measures, draw_values
from lapvqa.metrics.paired import delong_test
from lapvqa.params import BootstrapParams, MetricWeightsParams
from lapvqa.pg import scoring as pg_scoring
from lapvqa.probe import scoring as probe_scoring
from lapvqa.probe.on_chexpert import TASK as CHEXPERT
from lapvqa.rrg import scoring as rrg_scoring
from lapvqa.schemas import (
    ANSWER_PREDICTIONS,
    DETECTION_PREDICTIONS,
    GROUNDING_PREDICTIONS,
    PROBE_PREDICTIONS,
    RRG_PREDICTIONS,
)
from lapvqa.text import labeler

COMMON = BootstrapParams(bootstrap_draws=200)
LABELS = ("a", "b")
Values = dict[str, float]


def answers(*rows: tuple[str, str, str], system: str = "trained") -> pa.Table:
    """Rows of type, reference and answer."""
    return pa.Table.from_pylist(
        [
            {
                "sample": f"q{index}", "patient": f"p{index // 2}", "system": system,
                "image": "i", "reference_image": None, "reversed": None, "type": kind,
                "question": "is it so?", "reference": reference, "hypothesis": answer,
            }
            for index, (kind, reference, answer) in enumerate(rows)
        ],
        schema=ANSWER_PREDICTIONS,
    )  # fmt: skip


Boxes = list[tuple[str, tuple[float, ...]]]


def detections(*rows: tuple[Boxes, Boxes], system: str = "trained") -> pa.Table:
    """Rows of true and found boxes; the first found is the surest."""
    return pa.Table.from_pylist(
        [
            {
                "sample": f"i{index}", "patient": f"i{index}", "system": system,
                "true_labels": [name for name, _ in true], "true_boxes": [box for _, box in true],
                "found_labels": [name for name, _ in found],
                "found_boxes": [box for _, box in found],
                "found_scores": [0.9 - 0.1 * rank for rank in range(len(found))],
            }
            for index, (true, found) in enumerate(rows)
        ],
        schema=DETECTION_PREDICTIONS,
    )  # fmt: skip


def groundings(
    *rows: tuple[list[tuple[float, ...]], tuple[float, ...] | None], system: str = "trained"
) -> pa.Table:
    """Rows of true boxes and the found one."""
    return pa.Table.from_pylist(
        [
            {
                "sample": f"g{index}", "patient": f"p{index}", "system": system, "image": "i",
                "category": "Edema", "phrase": "here", "true_boxes": true, "found_box": found,
            }
            for index, (true, found) in enumerate(rows)
        ],
        schema=GROUNDING_PREDICTIONS,
    )  # fmt: skip


def probes(
    number: int = 40, *, system: str = "trained", seed: int = 0, known: bool = True
) -> pa.Table:
    """Targets of two labels, the same for every seed; scores that follow them."""
    targets = np.random.default_rng(1).integers(0, 2, (2, number))
    scores = 0.3 * targets + 0.7 * np.random.default_rng(seed).random((2, number))
    return pa.Table.from_pylist(
        [
            {
                "sample": f"s{index:03d}", "patient": f"p{index // 2}", "system": system,
                "label": label, "target": int(targets[k, index]) if known else None,
                "score": scores[k, index],
            }
            for k, label in enumerate(LABELS)
            for index in range(number)
        ],
        schema=PROBE_PREDICTIONS,
    )  # fmt: skip


def reports(*rows: tuple[str, str], system: str = "trained") -> pa.Table:
    """Rows of reference and written report, truth from the reference."""
    return pa.Table.from_pylist(
        [
            {
                "sample": f"s{index}", "patient": f"p{index}", "system": system,
                "reference": reference, "hypothesis": written, "truth": None,
            }
            for index, (reference, written) in enumerate(rows)
        ],
        schema=RRG_PREDICTIONS,
    )  # fmt: skip


def values(measures: Measures) -> Values:
    row = measures.statistic(np.ones((1, len(measures.samples))))[0]
    return dict(zip(measures.names, row.tolist(), strict=True))


union = partial(pg_scoring.measure, several="union")
SQUARE, SHIFTED, FAR = (0.0, 0.0, 10.0, 10.0), (5.0, 0.0, 15.0, 10.0), (50.0, 50.0, 60.0, 60.0)
EDEMA = "There is pulmonary edema."
EFFUSION = "Small left pleural effusion is seen."

ANSWERS = answers(
    ("presence", "yes", "Yes."),
    ("presence", "no", "yes"),
    ("location", "left lung", "the left lower lung"),
    ("location", "right lung", ""),
)
DETECTIONS = detections(
    ([("ILD", SQUARE)], [("ILD", FAR), ("ILD", SQUARE)]),
    ([("ILD", SQUARE), ("Atelectasis", FAR)], [("ILD", SQUARE)]),
    ([], [("ILD", FAR)]),
    ([], []),
)
GROUNDINGS = groundings(
    ([SQUARE], SQUARE),
    ([SQUARE], SHIFTED),
    ([SQUARE], None),
    ([SQUARE, FAR], SQUARE),
)
REPORTS = reports((EDEMA, EDEMA), (EFFUSION, ""), ("No acute process.", EDEMA))

Scored = tuple[Callable[[pa.Table], Measures], pa.Table]
TASKS: dict[str, Scored] = {
    "answers": (answer_scoring.measure, ANSWERS),
    "detection": (ad_scoring.measure, DETECTIONS),
    "grounding": (union, GROUNDINGS),
    "probe": (partial(probe_scoring.measure, labels=LABELS), probes()),
    "rrg": (rrg_scoring.measure, REPORTS),
}


@pytest.mark.parametrize("task", TASKS)
def test_the_order_of_rows_does_not_matter(task: str) -> None:
    measure, table = TASKS[task]
    turned = measure(table.take(np.arange(table.num_rows)[::-1]))
    straight = measure(table)
    assert (turned.samples, turned.patients) == (straight.samples, straight.patients)
    np.testing.assert_array_equal(list(values(turned).values()), list(values(straight).values()))


@pytest.mark.parametrize("task", TASKS)
def test_a_sample_given_twice_is_refused(task: str) -> None:
    measure, table = TASKS[task]
    with pytest.raises(SchemaError, match="one row per"):
        measure(pa.concat_tables([table, table.slice(0, 1)]))


@pytest.mark.parametrize("task", TASKS)
def test_every_metric_is_described_and_what_has_no_value_says_why(task: str) -> None:
    measures = TASKS[task][0](TASKS[task][1])
    described = record.describe(measures.names, num_items=len(measures.samples))
    assert set(described) == {record.base_name(name) for name in measures.names}
    undefined = {name for name, value in values(measures).items() if np.isnan(value)}
    assert undefined <= set(measures.undefined)
    drawn = measures.statistic(np.ones((3, len(measures.samples))))
    assert drawn.shape == (3, len(measures.names))


def test_answers_by_hand() -> None:
    found = values(answer_scoring.measure(ANSWERS))
    assert found["exact_match"] == 1 / 4
    assert found["exact_match/closed"] == found["exact_match/type:presence"] == 1 / 2
    assert found["exact_match/open"] == found["exact_match/type:location"] == 0
    # left lung in "left lower lung", the article gone: precision 2/3, recall 1; "" matches nothing.
    assert found["token_f1/type:location"] == pytest.approx((0.8 + 0) / 2)
    # Words yes . | yes | the left lower lung |: 3 of 7 are matched by the references' 6.
    assert found["bleu1"] == pytest.approx(3 / 7, abs=1e-6)
    assert found["rougeL"] == pytest.approx((1 + 0 + 2 * 2 / 6 + 0) / 4)


def test_right_answers_score_one_and_empty_ones_nothing() -> None:
    texts = ("left pleural effusion is new today", "the heart is larger than it was", "yes")
    right = values(answer_scoring.measure(answers(*(("t", text, text) for text in texts))))
    for name in ("exact_match", "token_f1", "closed_f1", "bleu1", "bleu4", "rouge1", "rougeL"):
        assert right[name] == pytest.approx(1), name
    empty = values(answer_scoring.measure(answers(*(("t", text, "") for text in texts))))
    for name in ("exact_match", "token_f1", "bleu1", "bleu4", "rouge2", "cider_d"):
        assert empty[name] == pytest.approx(0, abs=1e-12), name


def test_answer_curves_follow_types_and_systems() -> None:
    table = pa.concat_tables(
        [ANSWERS, *(answers(("presence", "yes", "yes"), system=name) for name in ("vit", "clip"))]
    )
    curves = answer_scoring.curves(table)
    assert curves.columns == ("type", "trained", "clip", "vit")
    assert curves.rows == (("location", 0.0, None, None), ("presence", 0.5, 1.0, 1.0))


def test_detection_by_hand_with_images_without_boxes() -> None:
    measures = ad_scoring.measure(DETECTIONS)
    found = values(measures)
    # ILD by score: 0.9 far (image 0), square (1), far (2) are one threshold; then 0.8 square (0).
    # Recall 1/2 at precision 1/3, recall 1 at precision 2/4: the envelope is 1/2 throughout.
    assert found["ap40/ILD"] == found["ap50/ILD"] == pytest.approx(0.5)
    assert found["ap40/Atelectasis"] == 0
    assert found["mean_ap40"] == pytest.approx(0.25)
    assert np.isnan(found["ap40/Cardiomegaly"])
    assert measures.undefined["ap40/Cardiomegaly"] == "no image has a true box of it"
    assert measures.samples == ("i0", "i1", "i2", "i3")


def test_what_is_found_in_an_image_without_true_boxes_counts_against() -> None:
    with_normal = detections(
        ([("ILD", SQUARE)], [("ILD", FAR), ("ILD", SQUARE)]), ([], [("ILD", FAR), ("ILD", FAR)])
    )
    alone = with_normal.slice(0, 1)
    assert values(ad_scoring.measure(alone))["ap40/ILD"] == pytest.approx(1 / 2)
    assert values(ad_scoring.measure(with_normal))["ap40/ILD"] == pytest.approx(1 / 4)


def test_perfect_boxes_score_one_by_every_rule() -> None:
    every = [(name, SQUARE) for name in CLASSES]
    found = values(ad_scoring.measure(detections((every, every), ([], []))))
    assert set(found.values()) == {1.0}


def test_detection_curves_are_ap40_by_class() -> None:
    curves = ad_scoring.curves(
        pa.concat_tables([DETECTIONS, detections(([("ILD", SQUARE)], []), system="untrained")])
    )
    assert curves.columns == ad_scoring.CURVE_COLUMNS
    by_class = {row[0]: row[1:] for row in curves.rows}
    assert tuple(by_class) == CLASSES
    assert by_class["ILD"] == (pytest.approx(0.5), 0.0)
    assert by_class["Atelectasis"] == (0.0, None)
    assert by_class["Cardiomegaly"] == (None, None)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("found_labels", ["Flu"], "found_labels among .* found Flu"),
        ("found_labels", [], "a box for every label in found_labels"),
        ("found_scores", [], "a score for every found box"),
        ("true_labels", [], "a box for every label in true_labels"),
        ("found_boxes", [(9.0, 0.0, 1.0, 1.0)], "x0 < x1"),
        ("found_boxes", [None], "four numbers"),
    ],
)
def test_boxes_that_cannot_be_scored_are_refused(column: str, value: list, message: str) -> None:
    row = detections(([("ILD", SQUARE)], [("ILD", SQUARE)])).to_pylist()[0]
    table = pa.Table.from_pylist([{**row, column: value}], schema=DETECTION_PREDICTIONS)
    with pytest.raises(SchemaError, match=message):
        ad_scoring.measure(table)


def test_grounding_by_hand() -> None:
    found = values(union(GROUNDINGS))
    # IoU 1, 1/3 (50 of 150), 0 without a box, 1/2 of the two boxes together.
    assert found["miou"] == pytest.approx((1 + 1 / 3 + 0 + 1 / 2) / 4)
    assert (found["acc25"], found["acc50"]) == (3 / 4, 2 / 4)
    assert found["pointing"] == 3 / 4  # the shifted box's centre is on the edge
    best = values(pg_scoring.measure(GROUNDINGS, several="best"))
    assert best["miou"] == pytest.approx((1 + 1 / 3 + 0 + 1) / 4)


def test_perfect_boxes_of_phrases_score_one() -> None:
    found = values(union(groundings(([SQUARE], SQUARE), ([FAR], FAR))))
    assert set(found.values()) == {1.0}


def test_grounding_curves_are_shares_of_phrases_by_iou() -> None:
    curves = pg_scoring.curves(GROUNDINGS, several="union")
    assert curves.columns == ("iou", "trained")
    shares = {round(float(point), 2): share for point, share in curves.rows}
    assert len(shares) == 101
    assert [shares[one] for one in (0.0, 0.01, 0.33, 0.34, 0.5, 0.51, 1.0)] == [
        1, 3 / 4, 3 / 4, 2 / 4, 2 / 4, 1 / 4, 1 / 4,
    ]  # fmt: skip
    best = pg_scoring.curves(GROUNDINGS, several="best")
    assert best.rows[-1] == (1.0, 2 / 4)


def test_reports_have_the_metrics_of_texts_and_say_which_weights_are_missing() -> None:
    measures = rrg_scoring.measure(REPORTS)
    found = values(measures)
    missing = "not computed: weights not given"
    for name in ("chexbert_f1_micro14", "radgraph_partial", "bertscore_f1"):
        assert measures.undefined[name] == missing
        assert np.isnan(found[name])
    assert found["finding_f1_micro"] == pytest.approx(2 / 4)  # one right, one missed, one invented
    assert 0 < found["cider_d"] < 10
    same = reports((EDEMA, EDEMA), (EFFUSION, EFFUSION))
    assert values(rrg_scoring.measure(same))["bleu4"] == pytest.approx(1)


def test_given_folders_are_below_the_project_and_reach_their_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: f"weights/{name}" for name in ("chexbert", "radgraph", "bertscore")}
    found = rrg_scoring.find_weights(MetricWeightsParams(**folders), tmp_path)
    assert found.chexbert == tmp_path / "weights/chexbert"
    assert rrg_scoring.find_weights(MetricWeightsParams(), tmp_path) == rrg_scoring.NO_WEIGHTS
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    undefined = rrg_scoring.measure(REPORTS, weights=found).undefined
    assert undefined["chexbert_f1_micro5"] == "not computed: f1chexbert not installed"
    assert undefined["radgraph_simple"] == "not computed: radgraph not installed"
    assert undefined["bertscore_f1"] == "not computed: bert_score not installed"


def test_report_curves_have_a_column_for_each_system_present() -> None:
    names = ("most_common", "head_trained", "trained")
    curves = rrg_scoring.curves(
        pa.concat_tables([reports((EDEMA, EDEMA), system=name) for name in names])
    )
    assert curves.columns == ("finding", "trained", "head_trained", "most_common")
    assert [row[0] for row in curves.rows] == list(labeler.FINDINGS)
    assert {row[0]: row[1:] for row in curves.rows}["Edema"] == (1.0, 1.0, 1.0)


def compared(first: pa.Table, second: pa.Table) -> dict[str, differences.Numbers]:
    measure = partial(probe_scoring.measure, labels=LABELS)
    measures = measure(first), measure(second)
    drawn = [draw_values(one.statistic, one.patients, draws=200, seed=0) for one in measures]
    return differences.differences(
        measures[0], (drawn[0], drawn[1]), (first, second), confidence=0.95
    )


def test_differences_carry_an_interval_a_p_and_for_aurocs_delongs() -> None:
    first, second = probes(), probes(seed=5)
    found = compared(first, second)
    for label in LABELS:
        pairs = [
            [row for row in table.to_pylist() if row["label"] == label] for table in (first, second)
        ]
        targets = np.array([row["target"] for row in pairs[0]])
        scores = [np.array([row["score"] for row in rows]) for rows in pairs]
        expected = delong_test(
            targets, *scores, [row["patient"] for row in pairs[0]], confidence=0.95
        )
        one = found[f"auc/{label}"]
        assert one["delong_p"] == pytest.approx(expected.p_value)
        aurocs = [roc_auc_score(targets, score) for score in scores]
        assert one["value"] == pytest.approx(aurocs[0] - aurocs[1])
        assert one["low"] <= one["value"] <= one["high"]
        assert 0 < one["p_value"] <= 1
    assert "delong_p" not in found["mean_auc"]
    assert "delong_p" not in found["auprc/a"]


def test_delong_does_not_depend_on_the_order_of_rows_and_is_null_where_undefined() -> None:
    first, second = probes(), probes(seed=5)
    turned = second.take(np.arange(second.num_rows)[::-1])
    assert compared(first, turned) == compared(first, second)
    nothing_known = compared(probes(known=False), probes(known=False, seed=5))
    empty = {"value": None, "low": None, "high": None, "p_value": None, "delong_p": None}
    assert nothing_known["auc/a"] == empty


def test_the_contract_takes_a_foreign_systems_name() -> None:
    table = probes(system="clip")
    task = replace(
        CHEXPERT,
        name="probe_x",
        measure=partial(probe_scoring.measure, labels=LABELS),
        curves=partial(probe_scoring.curves, labels=LABELS),
    )
    metrics = contract.metrics_of(task, table, common=COMMON)
    assert set(metrics["systems"]) == {"clip"}
    assert metrics["differences"] == {}
    assert task.curves(table).columns == ("fpr", "clip")


def test_a_phrase_without_a_box_is_written_and_read_back(tmp_path: Path) -> None:
    row = {
        "sample": "a", "patient": "p", "system": "theirs", "image": "i", "category": "Edema",
        "phrase": "here", "true_boxes": [[0.0, 0.0, 10.0, 10.0]],
    }  # fmt: skip
    rows = [{**row, "found_box": None}, {**row, "sample": "b", "found_box": [0.0, 0.0, 10.0, 10.0]}]
    table = pa.Table.from_pylist(rows, schema=GROUNDING_PREDICTIONS)
    storage.write_table(tmp_path / "predictions.parquet", table, GROUNDING_PREDICTIONS)
    found = storage.read_table(
        tmp_path / "predictions.parquet", GROUNDING_PREDICTIONS, made_by="somebody"
    )
    assert found["found_box"].to_pylist() == [None, [0.0, 0.0, 10.0, 10.0]]
    names = pg_scoring.measure(found, several="union").names
    values = pg_scoring.measure(found, several="union").statistic(np.ones((1, 2)))[0]
    assert dict(zip(names, values, strict=True))["miou"] == 0.5
