"""What a run shows at its end."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from flows.commands import outcome, screen
from lapvqa import storage
from lapvqa.layout import Layout
from lapvqa.schemas import REJECTS

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    return Layout(tmp_path)


def shown(layout: Layout, part: str) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    getattr(outcome, part)(layout, console)
    return console.export_text()


def estimate(value: float | None, low: float | None, high: float | None) -> dict[str, object]:
    return {"value": value, "low": low, "high": high}


def test_results_stand_beside_the_untrained_ones_with_intervals(project: Layout) -> None:
    systems = {
        "trained": {"mean_auc": estimate(0.912, 0.881, 0.94), "auc/Edema": estimate(0.9, 0.8, 1)},
        "untrained": {"mean_auc": estimate(0.61, None, None), "auc/Edema": estimate(0.6, 0.5, 1)},
    }
    metrics = {"task": "probe_nih14", "status": "ok", "primary": "mean_auc", "systems": systems}
    storage.write_json(project.result_dir("probe_nih14") / "metrics.json", metrics)
    text = shown(project, "show_results")
    header = next(line for line in text.splitlines() if "metric" in line)
    assert header.index("trained") < header.index("untrained")
    row = next(line for line in text.splitlines() if "mean_auc" in line)
    assert "0.912 [0.881, 0.940]" in row
    assert "0.610" in row
    assert "95% interval" in text
    assert "auc/Edema" not in text, "per label: the report page"


def test_most_common_has_a_column_of_its_own(project: Layout) -> None:
    value = {"finding_f1": estimate(0.5, 0.4, 0.6)}
    systems = {"trained": value, "untrained": value, "most_common": value}
    metrics = {"task": "rrg", "status": "ok", "primary": "finding_f1", "systems": systems}
    storage.write_json(project.result_dir("rrg") / "metrics.json", metrics)
    assert "most common" in shown(project, "show_results")


def test_what_was_not_computed_says_why(project: Layout) -> None:
    metrics = {"task": "probe_chexpert", "status": "not computed", "reason": "no such folder"}
    storage.write_json(project.result_dir("probe_chexpert") / "metrics.json", metrics)
    row = next(line for line in shown(project, "show_results").splitlines() if "probe" in line)
    assert "not computed" in row
    assert "no such folder" in row


def test_counts_add_up(project: Layout) -> None:
    def rejects(*reasons: tuple[str, str]) -> pa.Table:
        rows = [
            {"kind": kind, "file": "f", "stage": "s", "reason": reason, "detail": "d",
             "remedy": "r", "sha256": None}
            for kind, reason in reasons
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, schema=REJECTS)

    three = pa.schema([("a", pa.int8())])
    storage.write_table(project.images, pa.table({"a": [1, 2, 3]}, schema=three), three)
    storage.write_table(
        project.tokens_dir / "tokens-00000.parquet", pa.table({"a": [1]}, schema=three), three
    )
    found = rejects(("file", "truncated"), ("file", "truncated"), ("report", "empty"))
    storage.write_table(project.rejects, found, REJECTS)
    storage.write_table(project.token_rejects, rejects(("study", "no_report")), REJECTS)
    assert shown(project, "show_counts").splitlines() == [
        "5 files = 3 ingested + 2 rejected (truncated 2)",
        "2 studies = 1 reports tokenised + 1 without (no_report 1)",
    ]


def test_where_to_look(project: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    text = shown(project, "show_places")
    assert f"mlflow ui --backend-store-uri sqlite:///{project.mlflow_db}" in text
    assert f"PREFECT_HOME={project.prefect_home} prefect server start" in text
    assert "dvc metrics show" in text
    # What the embedded server leaves in the environment is no served mode.
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:8123/api")
    monkeypatch.setenv("PREFECT_HOME", str(project.prefect_home))
    assert "8123" not in shown(project, "show_places")
    monkeypatch.delenv("PREFECT_HOME")
    assert "http://127.0.0.1:8123/api" in shown(project, "show_places")
    project.local.write_text(
        "servers: {prefect_api_url: 'http://p/api', mlflow_tracking_uri: 'http://m'}\n"
    )
    text = shown(project, "show_places")
    assert "http://p/api" in text
    assert "http://m" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.04 s"), (12.34, "12.3 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_spans(seconds: float, text: str) -> None:
    assert screen.span(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(12, "12 B"), (3.4e6, "3.4 MB"), (4.7e12, "4.7 TB")]
)
def test_sizes(num_bytes: float, text: str) -> None:
    assert screen.size(num_bytes) == text
