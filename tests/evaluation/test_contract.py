"""The contract: predictions first, metrics from predictions alone, the same bytes again."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from jobs import make_job

from lapvqa import storage
from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.evaluation import contract, evaluate
from lapvqa.params import BootstrapParams
from lapvqa.probe.on_chexpert import TASK as CHEXPERT
from lapvqa.probe.on_nih14 import TASK as NIH14
from lapvqa.project import Project
from lapvqa.schemas import PROBE_PREDICTIONS

LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
COMMON = BootstrapParams(bootstrap_draws=200)


def predictions(*, missing: str = "", one_class: str = "") -> pa.Table:
    """Forty samples of twenty patients; trained scores follow the targets."""
    generator = np.random.default_rng(0)
    rows = []
    for label in LABELS:
        targets = generator.integers(0, 2, 40) * (label != one_class)
        for system, signal in (("trained", 1.0), ("untrained", 0.0)):
            scores = 1 / (1 + np.exp(-signal * (2 * targets - 1) - generator.normal(size=40)))
            rows += [
                (f"s{i:02d}", f"p{i // 2:02d}", system, label, int(targets[i]), float(scores[i]))
                for i in range(40)
                if label != missing
            ]
    return pa.Table.from_pylist(
        [dict(zip(PROBE_PREDICTIONS.names, row, strict=True)) for row in rows],
        schema=PROBE_PREDICTIONS,
    )


@pytest.fixture
def folder(project: Project) -> Path:
    return project.result_dir(CHEXPERT.name)


def publish(project: Project, table: pa.Table) -> dict:
    contract.publish(
        CHEXPERT,
        table,
        protocol={"c": 1e-7, "views": "frontal"},
        folder=project.result_dir(CHEXPERT.name),
        common=COMMON,
    )
    return json.loads((project.result_dir(CHEXPERT.name) / "metrics.json").read_text())


def without_value(metrics: dict) -> list[str]:
    """Return the lines of metrics that lack more than an interval."""
    return [line for line in metrics["undefined"] if "no interval" not in line]


def test_metrics_have_the_agreed_form(project: Project):
    metrics = publish(project, predictions())
    assert set(metrics) == {
        "task", "status", "primary", "num_samples", "num_patients", "systems", "differences",
        "seeds", "undefined", "protocol", "metrics",
    }  # fmt: skip
    assert (metrics["task"], metrics["status"]) == ("probe_chexpert", "ok")
    assert (metrics["num_samples"], metrics["num_patients"]) == (40, 20)
    names = {
        name
        for metric in ("auc", "auprc", "brier", "ece")
        for name in (f"mean_{metric}", *(f"{metric}/{label}" for label in LABELS))
    }
    assert set(metrics["systems"]) == {"trained", "untrained"}
    for values in [*metrics["systems"].values(), *metrics["differences"].values()]:
        assert set(values) == names
        # A draw's ECE lies above the sample's (lapvqa.metrics.classification), so may its interval.
        without = {name for name, one in values.items() if one["low"] is None}
        assert all("ece" in name for name in without)
        given = [one for name, one in values.items() if name not in without]
        assert all(one["low"] <= one["value"] <= one["high"] for one in given)
    assert all(re.fullmatch(r".*ece.*: no interval, too few patients", one)
               for one in metrics["undefined"])  # fmt: skip
    assert metrics["protocol"]["c"] == 1e-7


def test_the_headline_is_two_numbers_under_the_same_names_for_every_task(project: Project):
    metrics = publish(project, predictions())
    headline = json.loads((project.result_dir(CHEXPERT.name) / "headline.json").read_text())
    assert headline == {
        "primary": metrics["systems"]["trained"]["mean_auc"]["value"],
        "gain": metrics["differences"]["trained-untrained"]["mean_auc"]["value"],
    }


def test_difference_is_of_the_values_and_paired(project: Project):
    metrics = publish(project, predictions())
    trained, untrained = (metrics["systems"][name]["mean_auc"] for name in ("trained", "untrained"))
    difference = metrics["differences"]["trained-untrained"]["mean_auc"]
    assert difference["value"] == pytest.approx(trained["value"] - untrained["value"], abs=2e-6)
    assert difference["low"] > 0


def test_metrics_and_curves_come_from_predictions_alone(project: Project, folder: Path):
    publish(project, predictions())
    before = {name: (folder / name).read_bytes() for name in ("metrics.json", "curves.csv")}
    for name in before:
        (folder / name).unlink()
    other = Project(project.root / "elsewhere")
    other.result_dir(CHEXPERT.name).mkdir(parents=True)
    (folder / "predictions.parquet").rename(other.result_dir(CHEXPERT.name) / "predictions.parquet")
    contract.score(CHEXPERT, folder=other.result_dir(CHEXPERT.name), common=COMMON)
    for name, content in before.items():
        assert (other.result_dir(CHEXPERT.name) / name).read_bytes() == content


def test_the_same_predictions_give_the_same_bytes(project: Project, folder: Path):
    publish(project, predictions())
    files = ("predictions.parquet", "metrics.json", "curves.csv")
    first = [(folder / name).read_bytes() for name in files]
    publish(project, predictions())
    assert first == [(folder / name).read_bytes() for name in files]


def test_order_of_rows_does_not_matter_to_the_metrics(project: Project):
    table = predictions()
    expected = publish(project, table)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    assert publish(project, shuffled) == expected


def test_a_changed_prediction_changes_the_metrics(project: Project):
    table = predictions()
    expected = publish(project, table)
    scores = table["score"].to_numpy().copy()
    scores[:40] = 1 - scores[:40]
    changed = table.set_column(5, "score", pa.array(scores))
    assert publish(project, changed.cast(PROBE_PREDICTIONS)) != expected


def test_undefined_metrics_are_null_and_listed_with_the_reason(project: Project, folder: Path):
    metrics = publish(project, predictions(one_class="Edema"))
    null = {"value": None, "low": None, "high": None}
    assert metrics["systems"]["trained"]["auc/Edema"] == null
    unknown = {**null, "p_value": None, "delong_p": None}
    assert metrics["differences"]["trained-untrained"]["auc/Edema"] == unknown
    assert without_value(metrics) == ["auc/Edema: no positives", "auprc/Edema: no positives"]
    assert "NaN" not in (folder / "metrics.json").read_text()
    defined = [metrics["systems"]["trained"][f"auc/{name}"]["value"] for name in LABELS]
    mean = np.mean([value for value in defined if value is not None])
    assert metrics["systems"]["trained"]["mean_auc"]["value"] == pytest.approx(mean, abs=2e-6)


def test_a_label_without_rows_is_listed(project: Project):
    metrics = publish(project, predictions(missing="Edema"))
    why = "no predictions (one class only among the training images)"
    assert without_value(metrics) == [
        f"{metric}/Edema: {why}" for metric in ("auc", "auprc", "brier", "ece")
    ]


def test_curves_have_one_column_per_system(project: Project, folder: Path):
    publish(project, predictions())
    with (folder / "curves.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert set(rows[0]) == {"fpr", "trained", "untrained"}
    assert len(rows) <= 200
    area = {
        name: np.trapezoid([float(r[name]) for r in rows], [float(r["fpr"]) for r in rows])
        for name in ("trained", "untrained")
    }
    assert area["trained"] > area["untrained"]


@pytest.mark.parametrize("task", [CHEXPERT, NIH14])
def test_not_computed_leaves_every_file_and_says_why(project: Project, task):
    folder = project.result_dir(task.name)
    counts = contract.not_computed(task, "no data: set it", folder=folder, common=COMMON)
    assert counts == {"status": "not computed", "reason": "no data: set it"}
    assert json.loads((folder / "metrics.json").read_text()) == {
        "task": task.name, "status": "not computed", "reason": "no data: set it",
    }  # fmt: skip
    assert (folder / "curves.csv").read_text() == "fpr,trained,untrained\n"
    table = storage.read_table(folder / "predictions.parquet", PROBE_PREDICTIONS, made_by="x")
    assert table.num_rows == 0


def test_systems_on_different_samples_are_refused(project: Project):
    table = predictions()
    dropped = table.filter(
        [not (row["system"] == "untrained" and row["sample"] == "s03") for row in table.to_pylist()]
    )
    with pytest.raises(SchemaError, match=r"trained \(40 samples\) and untrained \(39 samples\)"):
        publish(project, dropped)


def test_an_empty_table_without_a_reason_is_refused(project: Project):
    with pytest.raises(SchemaError, match="empty table without a reason"):
        publish(project, PROBE_PREDICTIONS.empty_table())


def test_the_encoder_is_the_one_of_params_yaml(project: Project):
    assert evaluate.encoder_folder(make_job(project)) == project.model_dir("captioning")
    (project.model_dir("captioning") / "card.json").unlink()
    with pytest.raises(MissingArtifactError, match=r"card\.json"):
        evaluate.encoder_folder(make_job(project))
