"""Anybody's predictions are scored as the pipeline scores its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from cli_answer import Lapvqa
from sklearn.metrics import roc_auc_score

from lapvqa.datasets import chexpert
from lapvqa.errors import EXIT_BAD_DATA, EXIT_USER
from lapvqa.metrics.bootstrap import MIN_PATIENTS
from lapvqa.schemas import PROBE_PREDICTIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """Scores of 60 images in a folder with the repository's own settings."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(3)
    rows = [
        {
            "sample": f"image{image:02d}", "patient": f"patient{image // 2:02d}",
            "system": "theirs", "label": label, "target": int(generator.random() < 0.5),
            "score": float(generator.random()),
        }
        for image in range(60)
        for label in chexpert.LABELS
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, PROBE_PREDICTIONS)
    pq.write_table(table, "theirs.parquet")
    return table


def test_the_numbers_are_those_of_scikit_learn(predictions: pa.Table, lapvqa: Lapvqa) -> None:
    answer = lapvqa("score", "probe_chexpert", "theirs.parquet", "--json")
    assert answer.code == 0
    found = json.loads(answer.out)["systems"]["theirs"]
    areas = []
    for label in chexpert.LABELS:
        rows = [row for row in predictions.to_pylist() if row["label"] == label]
        areas.append(roc_auc_score([r["target"] for r in rows], [r["score"] for r in rows]))
    assert found["mean_auc"]["value"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert found["mean_auc"]["low"] < found["mean_auc"]["value"] < found["mean_auc"]["high"]
    shown = lapvqa("score", "probe_chexpert", "theirs.parquet")
    assert shown.code == 0
    assert "60 samples of 30 patients" in shown.out
    assert f"{np.mean(areas):.3f} [" in shown.out


def test_what_has_no_interval_is_not_called_undefined(
    predictions: pa.Table, lapvqa: Lapvqa
) -> None:
    few = predictions.filter(pc.is_in(predictions["patient"], pa.array(["patient00", "patient01",
                                                                        "patient02"])))  # fmt: skip
    pq.write_table(few, "few.parquet")
    shown = lapvqa("score", "probe_chexpert", "few.parquet")
    assert shown.code == 0
    assert f"no interval: fewer than {MIN_PATIENTS} patients" in shown.out
    content = json.loads(lapvqa("score", "probe_chexpert", "few.parquet", "--json").out)
    values = content["systems"]["theirs"]
    undefined = [
        line.removeprefix("undefined: ").partition(": ")[0]
        for line in shown.out.splitlines() if line.startswith("undefined: ")
    ]  # fmt: skip
    assert undefined == sorted(name for name in values if values[name]["value"] is None)


@pytest.mark.usefixtures("predictions")
def test_what_cannot_be_scored_is_named(lapvqa: Lapvqa) -> None:
    unknown = lapvqa("score", "probe_chexprt", "theirs.parquet")
    assert unknown.code == EXIT_USER
    assert "did you mean probe_chexpert?" in unknown.err
    absent = lapvqa("score", "rrg", "absent.parquet")
    assert absent.code == EXIT_USER
    assert "expected a file of predictions at absent.parquet, found nothing" in absent.err
    other = lapvqa("score", "rrg", "theirs.parquet")
    assert other.code == EXIT_BAD_DATA
    assert "columns" in other.err
    Path("README.md").write_text("no table")
    for name in ("README.md", "theirs.parquet"):
        theirs = lapvqa("score", "vqa", name)
        assert theirs.code == EXIT_BAD_DATA
        assert "give another file: Parquet with the columns sample, " in theirs.err
        assert "delete" not in theirs.err
        assert "lapvqa run" not in theirs.err
    strange = lapvqa("evaluate", "foo")
    assert strange.code == EXIT_USER
    assert "lapvqa score" not in strange.err
