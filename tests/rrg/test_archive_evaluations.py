"""The evaluations that every archive has: a probe on its own labels, and retrieval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from jobs import make_job
from watched_computing import nothing_outside

from lapvqa import schemas, storage
from lapvqa.errors import SourceError
from lapvqa.evaluation.evaluate import evaluate, pipeline_encoders
from lapvqa.evaluation.sealed import write_rule
from lapvqa.identity import Keyring, key_id
from lapvqa.machine import Machine
from lapvqa.probe.on_archive import TASK as PROBE
from lapvqa.probe.own_labels import read_own_table
from lapvqa.recorder import Recorder
from lapvqa.retrieval.linear_map import LinearMap, ReportWords, Studies, ranks
from lapvqa.retrieval.task import TASK as RETRIEVAL

MACHINE = Machine(workers=1, device="cpu")


@pytest.fixture
def run(project, evaluate_params):
    """Evaluate a task in the project of corners; return metrics.json."""
    project = project.project
    storage.write_table(
        project.inventory("labels"), schemas.INVENTORY.empty_table(), schemas.INVENTORY
    )

    def run(task) -> dict[str, Any]:
        recorder = Recorder(project.record("stage"), stage="stage")
        job = make_job(project, MACHINE, recorder)
        try:
            with nothing_outside():
                evaluate(task, pipeline_encoders(job), evaluate_params(), job)
        finally:
            recorder.close()
        return storage.read_json(project.result_dir(task.name) / "metrics.json", made_by="x")

    return run


def own_table(project, text: str) -> None:
    """Put a table of labels into the project's folder labels, listed, and ingest's key."""
    folder = project.root / "labels"
    folder.mkdir()
    (folder / "ours.csv").write_text(text)
    rows = [{"path": "ours.csv", "size": 1, "mtime_ns": 1}]
    storage.write_table(
        project.inventory("labels"), pa.Table.from_pylist(rows, schemas.INVENTORY),
        schemas.INVENTORY,
    )  # fmt: skip
    key = project.state / "deid.key"
    key.parent.mkdir(exist_ok=True)
    key.write_text("0" * 64)
    source = schemas.INVENTORY.empty_table().replace_schema_metadata(
        {"deid_key": key_id(b"0" * 64)}
    )
    storage.write_table(project.inventory("source"), source, schemas.INVENTORY)


def test_reports_make_labels_where_the_archive_has_none(project, run):
    metrics = run(PROBE)  # the archive labels test studies alone: nothing could learn from them
    assert metrics["protocol"]["label_source"] == (
        "what the rules of the labeler read in English reports"
    )
    trained = metrics["systems"]["trained"]
    assert trained["auc/Pneumothorax"]["value"] > 0.9  # the corner that shows it is bright
    assert trained["auc/Edema"]["value"] is None if "auc/Edema" in trained else True
    assert metrics["num_samples"] == 16


def test_the_archives_labels_come_before_its_reports(project, run):
    rows = []
    for row in storage.read_table(project.project.images, schemas.IMAGES, made_by="x").to_pylist():
        number = int(row["study_key"].removeprefix("study"))
        labels = dict.fromkeys(schemas.CHEXPERT_LABELS)
        rows.append({"study_key": row["study_key"], **labels, "Fracture": number // 4 % 2 or None})
    project.write_labels(rows)
    metrics = run(PROBE)
    assert metrics["protocol"]["label_source"] == "the archive's labels"
    predicted = {name for name in metrics["systems"]["trained"] if name.startswith("auc/")}
    assert predicted == {"auc/Fracture"}  # the only one with both classes
    assert metrics["systems"]["trained"]["auc/Fracture"]["value"] < 0.9  # nothing shows it


def test_a_table_of_ones_own_comes_first_and_other_columns_are_named(project, run):
    images = storage.read_table(project.project.images, schemas.IMAGES, made_by="x").to_pylist()
    bright = [0] * 16 + [1] * 12 + [0] * 24 + [0, 1, 0, 0] * 6
    lines = [f"{row['image_key']},{age},{bright[place]}" for place, row in enumerate(images)
             for age in (20 + place,)]  # fmt: skip
    own_table(project.project, "\n".join(["image_key,age,Left side", *lines, "elsewhere,9,1"]))
    metrics = run(PROBE)
    protocol = metrics["protocol"]
    assert protocol["label_source"] == "the table in labels/"
    assert protocol["columns_left_out"] == "age"
    assert (protocol["label_rows"], protocol["label_rows_not_stored"]) == (77, 1)
    assert metrics["systems"]["trained"]["auc/Left side"]["value"] > 0.9


def test_a_table_is_read_by_identifiers_and_refused_in_words(tmp_path: Path):
    keyring = Keyring(b"k" * 32)
    path = tmp_path / "a.csv"
    path.write_text("StudyInstanceUID,PatientID,Edema,Mass\ns501,1,1,\n502,0,-1,0\n")
    table = read_own_table(path, keyring)
    assert table.names == ("Edema", "Mass")
    assert table.ignored == ("PatientID",)
    assert table.values == {keyring.study("501"): [1, None], keyring.study("502"): [-1, 0]}
    for text, said in (
        ("name,Edema\nx,1\n", "a column that names images or studies"),
        ("study_id,age\n1,40\n", "expected columns of labels"),
        ("study_id,Edema\n1,1\n1,0\n", "found one twice"),
    ):
        path.write_text(text)
        with pytest.raises(SourceError, match=said):
            read_own_table(path, keyring)


def test_without_films_of_a_split_the_probe_says_so(project, run):
    images = storage.read_table(project.project.images, schemas.IMAGES, made_by="x")
    kept = [row for row in images.to_pylist() if row["split"] != "validate"]
    project.project.images.unlink()
    storage.write_table(
        project.project.images, pa.Table.from_pylist(kept, schemas.IMAGES), schemas.IMAGES
    )
    assert "among the patients of validate" in run(PROBE)["reason"]
    assert "split validate" in run(RETRIEVAL)["reason"]


def test_films_find_their_reports_and_back(project, run):
    metrics = run(RETRIEVAL)
    assert metrics["num_samples"] == 16
    assert metrics["protocol"]["reports"] == 4
    trained = metrics["systems"]["trained"]
    assert trained["mean_mrr"]["value"] > 0.9  # which corner is bright says which report
    assert trained["recall1/report"]["value"] > 0.8
    assert trained["mean_recall5"]["value"] == 1  # of four
    first = (project.project.result_dir("retrieval") / "predictions.parquet").read_bytes()
    run(RETRIEVAL)
    assert (project.project.result_dir("retrieval") / "predictions.parquet").read_bytes() == first


def test_sealed_patients_are_ranked_among_themselves(project, run):
    write_rule(project.project, share=0.5, round_name="", opened="", shown=[])
    metrics = run(RETRIEVAL)
    folder = project.project.result_dir("retrieval")
    apart = storage.read_table(
        folder / "sealed.parquet", schemas.RETRIEVAL_PREDICTIONS, made_by="x"
    )
    sealed = len(set(apart["sample"].to_pylist()))
    assert 0 < sealed < 16
    assert metrics["protocol"]["films"] == 16 - sealed
    assert set(apart["films"].to_pylist()) == {sealed}


def test_ranks_are_those_of_a_plain_search():
    generator = np.random.default_rng(1)
    likeness = generator.integers(0, 4, (9, 5)).astype(float)  # ties
    group = np.array([0, 1, 2, 3, 4, 0, 1, 1, 3])
    found = ranks(likeness, group)
    for film, own in enumerate(group):
        row = likeness[film]
        places = [1 + sum(row > row[own]), sum(row >= row[own])]  # first and last of the tie
        assert found.report[film] == np.mean(places)
        best = max(likeness[other, own] for other in range(9) if group[other] == own)
        others = [likeness[other, own] for other in range(9) if group[other] != own]
        first, last = 1 + sum(v > best for v in others), 1 + sum(v >= best for v in others)
        assert found.film[film] == (first + last) / 2


def test_an_encoder_that_says_nothing_is_in_the_middle():
    words = ReportWords([[1, 2], [3], [4, 5]], 10)
    studies = Studies(np.ones((3, 4)), words.vectors([[1, 2], [3], [4, 5]]), list("abc"))
    found = LinearMap(*studies[:2], penalty=1.0).rank(studies)
    assert found.report.tolist() == found.film.tolist() == [2, 2, 2]


def test_the_map_is_scikit_learns_ridge():
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(0)
    features = generator.normal(size=(30, 6))
    words = ReportWords([[int(i % 7), int(i % 5) + 10] for i in range(30)], 50).vectors(
        [[int(i % 7), int(i % 5) + 10] for i in range(30)]
    )
    own = LinearMap(features, words, penalty=0.5)
    scaled = StandardScaler().fit_transform(features)
    peer = Ridge(alpha=0.5 * 30).fit(scaled, words.toarray())
    assert np.allclose(own._weights, peer.coef_.T, atol=1e-10)
    assert json.dumps(own.penalty) == "0.5"
