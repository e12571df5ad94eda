"""The whole path on a small archive: nothing gets out, nothing to do twice, elsewhere and back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from canaries import CANARY, REPORT, UID, holding
from conftest import BIN, Scratch, change
from mlflow import MlflowClient

from lapvqa import schemas, storage
from lapvqa.evaluation.results import read_result
from lapvqa.evaluation.task_table import EVALUATIONS
from lapvqa.identity import DEMO_KEY, Keyring
from lapvqa.pretrain.files import load_encoder, load_model
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import locked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_no_canary_gets_out(finished: Scratch) -> None:
    assert CANARY not in finished.output
    assert "identity_in_report" in finished.lapvqa("rejects").stdout
    assert "reports by what their text became" in finished.lapvqa("status").stdout
    assert len(list(finished.root.rglob("*.parquet"))) > 10
    assert (finished.root / ".lapvqa/mlflow.db").exists()
    assert (finished.root / ".lapvqa/prefect/prefect.db").exists()
    assert holding(finished.root, CANARY, CANARY[:16], UID) == set()


def test_the_search_would_find_a_canary_that_is_there(finished: Scratch, tmp_path: Path) -> None:
    shutil.copytree(finished.root / "data", tmp_path / "data")
    studies = tmp_path / "data/studies.parquet"
    table = pq.read_table(studies)
    reports = [f"{REPORT} {text}" for text in table["report"].to_pylist()]
    column = table.column_names.index("report")
    pq.write_table(table.set_column(column, "report", [reports]), studies)
    assert holding(tmp_path, CANARY) == {"data/studies.parquet"}


def test_a_second_run_does_nothing_and_says_so(finished: Scratch) -> None:
    before = finished.lock
    done = finished.lapvqa("run")
    for stage in ("inventory", "ingest", "tokens", "firewall", "pretrain", "export", "report"):
        assert any(stage in line and "up to date" in line for line in done.stdout.splitlines()), (
            done.stdout
        )
    assert finished.lock == before


def test_what_goes_in_comes_out_or_is_rejected(finished: Scratch) -> None:
    project = Project(finished.root)
    read = {
        "inventory": storage.read_table(
            project.inventory("source"), schemas.INVENTORY, made_by="inventory"
        ),
        "images": storage.read_table(project.images, schemas.IMAGES, made_by="ingest"),
        "studies": storage.read_table(project.studies, schemas.STUDIES, made_by="ingest"),
        "rejects": storage.read_table(project.rejects, schemas.REJECTS, made_by="ingest"),
        "companions": storage.read_table(project.companions, schemas.COMPANIONS, made_by="ingest"),
        "tokens": storage.read_table(project.tokens_dir, schemas.TOKENS, made_by="tokens"),
        "token_rejects": storage.read_table(
            project.token_rejects, schemas.REJECTS, made_by="tokens"
        ),
    }
    rejected = [kind for kind in read["rejects"]["kind"].to_pylist() if kind == "file"]
    beside = read["companions"].num_rows
    assert read["inventory"].num_rows == read["images"].num_rows + len(rejected) + beside
    assert read["studies"].num_rows == read["tokens"].num_rows + read["token_rejects"].num_rows
    patients: dict[str, set[str]] = {}
    for row in read["studies"].select(["patient_key", "split"]).to_pylist():
        patients.setdefault(row["patient_key"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in patients.values())


def test_weights_load_from_the_files_alone(finished: Scratch) -> None:
    folder = Project(finished.root).model_dir("captioning")
    model, encoder = load_model(folder), load_encoder(folder)
    model.vision_encoder.load_state_dict(
        torch.load(folder / "encoder_final.pt", map_location="cpu", weights_only=True)
    )
    images = torch.zeros(2, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.vision_encoder(images), encoder(images))
        assert encoder(images).shape == (2, 16, 32)


def test_every_metric_has_an_interval_that_holds_it(finished: Scratch) -> None:
    for task in ("probe_chexpert", "probe_nih14", "rrg"):
        metrics = json.loads((finished.root / "results" / task / "metrics.json").read_text())
        assert metrics["status"] == "ok", metrics
        assert metrics["contaminated"] is False, metrics
        for system in metrics["systems"].values():
            for name, estimate in system.items():
                if estimate["value"] is not None and estimate["low"] is not None:
                    assert estimate["low"] <= estimate["value"] + 0.3, name
                    assert estimate["low"] <= estimate["high"], name
        predictions = pq.read_table(finished.root / "results" / task / "predictions.parquet")
        assert {"trained", "untrained"} <= set(predictions["system"].to_pylist())


def test_mlflow_has_each_evaluations_metrics_on_its_run_and_on_the_pipelines(
    finished: Scratch,
) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{Project(finished.root).mlflow_db}")
    runs = {run.data.tags["lapvqa.stage"]: run.data for run in client.search_runs(["1"])}
    for task in EVALUATIONS:
        result = read_result(finished.root / "results" / task, task)
        value = result.interval("trained", result.primary).value
        assert runs[f"evaluate@{task}"].metrics[f"trained.{result.primary}"] == value
        assert runs[""].metrics[f"{task}.{result.primary}"] == value
    assert runs[""].params["pretrain.epochs"] == "2"
    assert runs[""].metrics["pretrain.steps"] > 0


def test_lineage_reaches_the_inventory(finished: Scratch) -> None:
    done = finished.lapvqa("lineage", "results/probe_chexpert/metrics.json", "--json")
    text = json.dumps(json.loads(done.stdout))
    for part in ("data/inventory", "data/images", "data/tokens", "encoder_final.pt"):
        assert part in text


def test_plan_names_exactly_the_stages_concerned(finished: Scratch) -> None:
    original = (finished.root / "params.yaml").read_text()
    try:
        change(finished.root / "params.yaml", {"evaluate": {"rrg": {"max_new_tokens": 13}}})
        text = finished.lapvqa("plan").stdout
        assert "evaluate.rrg.max_new_tokens 12 -> 13" in text
        stale = {line.split()[0] for line in text.splitlines() if "max_new" in line}
        assert "evaluate@rrg" in " ".join(stale) or "evaluate@rrg" in text
        assert "evaluate@probe_chexpert" not in _lines_that_run(text)
        assert "report" in _lines_that_run(text)
    finally:
        (finished.root / "params.yaml").write_text(original)


def _lines_that_run(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "up to date" not in line)


def test_another_archive_and_back(finished: Scratch, corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(finished.root, tmp_path / "lapvqa", symlinks=True)
    project = Scratch(tmp_path / "lapvqa")
    project.lapvqa("run", "--source", str(_a_fifth(corpus / "mimic-cxr", tmp_path / "fifth")))
    results = project.root / "results"
    metrics = {
        path.parent.name: json.loads(path.read_text()) for path in results.glob("*/metrics.json")
    }
    assert metrics.pop("rrg")["status"] == metrics.pop("retrieval")["status"] == "ok"
    own = metrics.pop("probe_archive")  # so few test patients may show no finding
    assert own["status"] == "ok" or "demo" not in own["reason"]
    assert len(metrics) == 6
    for task in metrics.values():
        assert task["status"] == "not computed"
        assert task["reason"].startswith("the demo's data go with the demo's archive only")
    assert (project.root / "reports/index.html").is_file()

    project.lapvqa("run", "--source", "demo/mimic-cxr")
    assert project.lock == finished.lock


def test_an_erased_patient_is_nowhere(finished: Scratch, tmp_path: Path) -> None:
    """DVC's cache and a remote, MLflow, Prefect, pages, predictions; killed once on the way."""
    shutil.copytree(finished.root, tmp_path / "lapvqa", symlinks=True)
    project = Scratch(tmp_path / "lapvqa")
    remote, dvc = tmp_path / "remote", str(BIN / "dvc")
    project.run(dvc, "remote", "add", "-d", "store", str(remote))
    project.run(dvc, "push", "-q", "--run-cache")
    raw, words = _test_patient(project)
    before = holding(project.root, *words)
    assert {name.split("/")[0] for name in before} >= {"data", "results", ".dvc"}
    assert holding(remote, *words)
    pages = [md5 for path, md5 in locked(Project(project.root))["report"].outs.items()]
    page = remote / f"files/md5/{pages[0][:2]}/{pages[0][2:]}"
    assert page.exists()

    for path in (project.root / "demo/mimic-cxr/files").rglob(raw):
        shutil.rmtree(path)  # its owner has let go of it
    erase = [str(BIN / "lapvqa"), "erase", "--patient", raw, "--request", "R1", "--yes"]
    process = subprocess.Popen(
        erase, cwd=project.root, env=project.environment,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("erase: remove"):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "state: complete" in project.run(*erase).stdout
    assert not page.exists()
    assert holding(project.root, *words) | holding(remote, *words) == set()
    receipt = next((project.root / "erasures").glob("*[!e].json"))
    assert "the proof holds" in project.lapvqa("erase", "--check", str(receipt)).stdout
    told = json.loads(receipt.read_text())
    assert {one["store"] for one in told["stores"]} >= {"DVC cache", "DVC remote store"}
    assert "rrg" in [metric["task"] for metric in told["metrics"]]
    assert "pretrain" in _lines_that_run(project.lapvqa("plan").stdout)


def _test_patient(project: Scratch) -> tuple[str, list[str]]:
    """A patient whose report was generated: the raw id, and what must be found nowhere."""
    asked = pq.read_table(project.root / "results/rrg/predictions.parquet").to_pylist()
    images = pq.read_table(project.root / "data/images.parquet").to_pylist()
    key = next(row["patient"] for row in asked)
    own = [row for row in images if row["patient_key"] == key]
    folders = (project.root / "demo/mimic-cxr/files").glob("*/p*")
    ring = Keyring(DEMO_KEY)
    raw = next(f.name for f in folders if ring.patient(f.name.removeprefix("p")) == key)
    names = ("study_key", "image_key", "file_sha256", "pixels_sha256")
    return raw, [key, raw, *{row[name] for row in own for name in names}]


def _a_fifth(archive: Path, part: Path) -> Path:
    """Copy two of the archive's ten groups of patients, and the tables of all."""
    for group in ("p12", "p14"):
        shutil.copytree(archive / "files" / group, part / "files" / group)
    for table in archive.glob("*.csv.gz"):
        shutil.copy2(table, part)
    return part
