"""Stage evaluate@rrg on a project that was trained for real, and its scoring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from watched_computing import as_on_a_gpu, calls

from lapvqa import schemas, storage
from lapvqa.errors import ConfigError, MissingArtifactError, SchemaError
from lapvqa.evaluation import contract
from lapvqa.evaluation.report_studies import TargetReport, most_common, read_studies, read_targets
from lapvqa.params import BootstrapParams
from lapvqa.report.page_results import read_page_result
from lapvqa.rrg import scoring
from lapvqa.rrg.task import TASK

COMMON = BootstrapParams(bootstrap_draws=50)


@pytest.fixture
def params(evaluate_params: Any) -> Any:
    return evaluate_params()


def test_a_trained_model_names_the_findings_and_the_baselines_do_not(
    project: Any, params: Any
) -> None:
    metrics = project.evaluate(params)
    assert (metrics["status"], metrics["num_samples"], metrics["num_patients"]) == ("ok", 16, 16)
    systems = metrics["systems"]
    assert systems["trained"]["finding_f1_micro"]["value"] > 0.9
    assert systems["trained"]["bleu4"]["value"] > 0.5
    assert systems["untrained"]["finding_f1_micro"]["value"] < 0.2
    # The most common training report says that nothing is wrong.
    assert systems["most_common"]["finding_f1_micro"]["value"] == 0
    assert metrics["differences"]["trained-most_common"]["finding_f1_micro"]["low"] > 0.5
    assert metrics["protocol"]["finding_truth"] == scoring.FROM_LABELS
    assert metrics["protocol"]["most_common_training_studies"] == 16
    assert "finding_f1/Lung Lesion: no study shows it" in " ".join(metrics["undefined"])


def test_a_gpus_precision_names_the_findings_too_with_every_module(
    project: Any, params: Any
) -> None:
    with as_on_a_gpu(), calls() as seen:
        metrics = project.evaluate(params)
    assert {"VisionEncoder", "TransformerDecoder", "Linear"} <= set(seen)
    assert {name for name, states in seen.items() if states != {True}} == set()
    assert metrics["systems"]["trained"]["finding_f1_micro"]["value"] > 0.9
    assert metrics["systems"]["head_trained"]["bleu4"]["value"] is not None


def test_predictions_hold_references_and_truth(project: Any, params: Any) -> None:
    project.evaluate(params)
    rows = [row for row in project.predictions() if row["system"] == "trained"]
    assert [row["sample"] for row in rows] == sorted(row["sample"] for row in rows)
    by_reference = {row["reference"]: row["truth"] for row in rows}
    assert by_reference == {
        "No acute process.": ["No Finding"],
        "There is a left pleural effusion.": ["Pleural Effusion"],
        "Right pneumothorax.": ["Pneumothorax"],
        "Moderate cardiomegaly.": ["Cardiomegaly"],
    }
    assert all(row["patient"] == f"p-{row['sample']}" for row in rows)


def test_equal_runs_write_equal_bytes(project: Any, params: Any) -> None:
    folder = project.project.result_dir("rrg")
    project.evaluate(params)
    first = {path.name: path.read_bytes() for path in folder.rglob("*.*")}
    assert sorted(first) == [
        "curves.csv", "files.json", "head.pt", "headline.json", "metrics.json",
        "predictions.parquet",
        "sealed.parquet",
    ]  # fmt: skip
    project.evaluate(params)
    assert {path.name: path.read_bytes() for path in folder.rglob("*.*")} == first


def test_references_are_not_cut_where_tokens_are(project: Any, params: Any) -> None:
    studies = storage.read_table(project.project.studies, schemas.STUDIES, made_by="ingest")
    long = " ".join(["The lungs are clear."] * 20)
    reports = [f"\n FINDINGS: {long}"] * len(studies)
    column = studies.schema.get_field_index("report")
    studies = studies.set_column(column, "report", pa.array(reports, pa.string()))
    storage.write_table(project.project.studies, studies, schemas.STUDIES)
    tokens = storage.read_table(project.project.tokens_dir, schemas.TOKENS, made_by="tokens")
    spans = [[{"name": "findings", "start": 12, "end": 12 + len(long)}]] * len(tokens)
    column = tokens.schema.get_field_index("spans")
    tokens = tokens.set_column(column, "spans", pa.array(spans, pa.list_(schemas.SPAN)))
    (path,) = project.project.tokens_dir.iterdir()
    storage.write_table(path, tokens, schemas.TOKENS)
    project.evaluate(params)
    assert {row["reference"] for row in project.predictions()} == {long}


def test_without_labels_the_reference_text_is_the_truth(project: Any, params: Any) -> None:
    project.write_labels([])
    metrics = project.evaluate(params)
    assert all(row["truth"] is None for row in project.predictions())
    assert metrics["protocol"]["finding_truth"] == scoring.FROM_REFERENCES
    assert metrics["protocol"]["studies_with_truth"] == 0
    assert metrics["systems"]["trained"]["finding_f1_micro"]["value"] > 0.9


def test_one_frontal_image_stands_for_a_study(project: Any, params: Any, image_row: Any) -> None:
    rows = [
        image_row("study60", "b", "test", row=61),
        image_row("study60", "a", "test", row=62),
        image_row("study60", "0", "test", row=63, view="LATERAL"),
        image_row("study61", "c", "test", row=64, view=""),
        image_row("study61", "e", "test", row=66, view="FRONTAL"),
        image_row("study62", "d", "test", row=65, view="LL"),
    ]
    table = pa.Table.from_pylist(rows, schemas.IMAGES)
    storage.write_table(project.project.images, table, schemas.IMAGES)
    targets = read_targets(project.project)
    studies, without_image = read_studies(project.project, targets, split="test")
    assert [(study.study_key, study.row) for study in studies] == [("study60", 62), ("study61", 66)]
    # 16 test studies have a report; of these study62 has no frontal image and 13 have none at all.
    assert without_image == 14


def test_nothing_to_write_about_is_said(project: Any, params: Any) -> None:
    table = schemas.IMAGES.empty_table()
    storage.write_table(project.project.images, table, schemas.IMAGES)
    metrics = project.evaluate(params)
    assert metrics["status"] == "not computed"
    assert "split test" in metrics["reason"]
    assert project.predictions() == []


def test_a_model_of_pairs_has_no_decoder_but_its_encoder_a_head(
    pair_project: Any, params: Any
) -> None:
    metrics = pair_project.evaluate(params)
    assert set(metrics["systems"]) == {"head_trained", "head_untrained", "most_common"}
    assert set(metrics["differences"]) == {"head_trained-head_untrained"}
    assert read_page_result(TASK, pair_project.project).result.computed


def test_a_decoder_without_so_many_positions(project: Any, evaluate_params: Any) -> None:
    too_long = evaluate_params(max_new_tokens=513)
    with pytest.raises(ConfigError, match=r"max_new_tokens is 513, the decoder has 512"):
        project.evaluate(too_long)


def test_without_a_model_the_stage_to_run_is_named(project: Any, params: Any) -> None:
    (project.project.model_dir("captioning") / "card.json").unlink()
    with pytest.raises(MissingArtifactError, match="export"):
        project.evaluate(params)


def test_metrics_come_from_predictions_alone(project: Any, params: Any, tmp_path: Path) -> None:
    metrics = project.evaluate(params)
    for name in ("data", "models"):
        (project.project.root / name).rename(tmp_path / f"moved-{name}")
    contract.score(TASK, folder=project.project.result_dir("rrg"), common=params.common)
    path = project.project.result_dir("rrg") / "metrics.json"
    assert json.loads(path.read_text()) == metrics


def test_reports_given_to_the_wrong_studies_score_low(project: Any, params: Any) -> None:
    right = project.evaluate(params)["systems"]["trained"]["finding_f1_micro"]["value"]
    path = project.project.result_dir("rrg") / "predictions.parquet"
    table = storage.read_table(path, schemas.RRG_PREDICTIONS, made_by="evaluate@rrg")
    texts = table["hypothesis"].to_pylist()
    column = table.schema.get_field_index("hypothesis")
    moved = table.set_column(column, "hypothesis", pa.array([*texts[1:], texts[0]]))
    wrong = contract.metrics_of(TASK, moved, common=COMMON)
    assert wrong["systems"]["trained"]["finding_f1_micro"]["value"] < right - 0.5


def test_most_common_prefers_the_first_of_equals() -> None:
    texts = ["b", "a", "c", "a", "b"]
    targets = {
        f"{index}": TargetReport("patient", "train" if index < 5 else "test", text)
        for index, text in enumerate([*texts, "c", "c"])
    }
    assert most_common(targets) == ("a", 2)


def _rows(truths: list[list[str] | None], hypotheses: list[str]) -> pa.Table:
    rows = [
        {
            "sample": f"s{index}",
            "patient": f"p{index}",
            "system": system,
            "reference": "Left pleural effusion.",
            "hypothesis": hypothesis,
            "truth": truth,
        }
        for system in scoring.SYSTEMS
        for index, (truth, hypothesis) in enumerate(zip(truths, hypotheses, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=schemas.RRG_PREDICTIONS)


def _values(predictions: pa.Table) -> dict[str, float | None]:
    metrics = contract.metrics_of(TASK, predictions, common=COMMON)
    return {name: one["value"] for name, one in metrics["systems"]["trained"].items()}


def _in_languages(predictions: pa.Table, **numbers: int) -> pa.Table:
    """The same with a protocol that says in which languages the references are."""
    protocol = json.dumps(scoring.describe_languages(numbers))
    return predictions.replace_schema_metadata({"lapvqa.protocol": protocol})


def test_what_reads_english_is_not_computed_of_another_language() -> None:
    table = _rows([["Pleural Effusion"], ["Edema"]], ["Kleiner Erguss links.", "Left edema."])
    english = _values(table)
    assert english["finding_f1_micro"] is not None
    assert english == _values(_in_languages(table, en=95, unknown=5))
    foreign = _in_languages(table, de=90, en=10)
    values = _values(foreign)
    named = {name for name, value in values.items() if value is None}
    readers = ("finding_f1", "rouge", "meteor", "chexbert", "radgraph")
    assert {name for name in values if name.startswith(readers)} <= named
    assert {name: values[name] for name in ("bleu1", "cider_d")} == {
        name: english[name] for name in ("bleu1", "cider_d")
    }
    metrics = contract.metrics_of(TASK, foreign, common=COMMON)
    said = [line for line in metrics["undefined"] if "finding_f1_micro" in line]
    assert "it reads English; of 100 references are not: 90 de" in said[0]
    assert all(value is None for row in scoring.curves(foreign).rows for value in row[1:])


def test_words_that_nothing_separates_are_not_counted() -> None:
    table = _rows([None], ["未见异常。"])
    place = table.schema.get_field_index("reference")
    table = table.set_column(place, "reference", pa.array(["两肺未见异常。"] * len(table)))
    values = _values(_in_languages(table, zh=1))
    assert {values[name] for name in ("bleu4", "cider_d", "rougeL", "finding_f1_micro")} == {None}


def test_the_judge_says_in_which_languages_the_references_are(project: Any, params: Any) -> None:
    path = project.project.report_languages
    rows = storage.read_table(path, schemas.REPORT_LANGUAGES, made_by="tokens")
    german = pa.array(["de"] * len(rows), pa.string())
    rows = rows.set_column(rows.schema.get_field_index("language"), "language", german)
    storage.write_table(path, rows, schemas.REPORT_LANGUAGES)
    metrics = project.evaluate(params)
    assert metrics["protocol"]["references_in_de"] == 16
    trained = metrics["systems"]["trained"]
    assert trained["finding_f1_micro"]["value"] is None
    assert trained["bleu4"]["value"] > 0.5


def test_f1_by_hand() -> None:
    table = _rows(
        [["Edema"], ["Edema", "Pneumothorax"], ["No Finding"], ["Fracture"]],
        ["Mild edema.", "Pneumothorax. No edema.", "Possible edema.", "Atelectasis."],
    )
    values = _values(table)
    # Edema: 1 hit, 1 missed. Pneumothorax: 1 hit. Atelectasis: 1 false. Fracture is not looked for.
    assert values["finding_f1_micro"] == pytest.approx(4 / 6, abs=1e-6)
    assert values["finding_f1/Edema"] == pytest.approx(2 / 3, abs=1e-6)
    assert values["finding_f1_macro"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    assert values["finding_f1/Atelectasis"] == 0
    assert values["finding_f1/Cardiomegaly"] is None


def test_studies_without_labels_count_for_words_only() -> None:
    table = _rows([["Edema"], None], ["Edema.", "Pneumothorax and cardiomegaly."])
    assert _values(table)["finding_f1_micro"] == 1
    assert scoring.truth_source(table) == scoring.FROM_LABELS


def test_curves_have_a_row_per_finding() -> None:
    rows = scoring.curves(_rows([["Edema"]], ["Edema and pneumothorax."])).rows
    by_finding = {row[0]: row[1:] for row in rows}
    count = len(rows[0]) - 1
    assert by_finding["Edema"] == (1.0,) * count
    assert by_finding["Pneumothorax"] == (0.0,) * count
    assert by_finding["Atelectasis"] == (None,) * count


def test_a_study_written_twice_is_refused() -> None:
    table = _rows([["Edema"]], ["Edema."])
    with pytest.raises(SchemaError, match="one row per study and system"):
        contract.metrics_of(TASK, pa.concat_tables([table, table]), common=COMMON)
