"""What a run shows at its end."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from flows.commands import comparison, run_summary, terminal
from lapvqa import storage
from lapvqa.evaluation.compare import ComparisonLine, Score
from lapvqa.evaluation.results import Interval
from lapvqa.evaluation.task_table import EVALUATIONS
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.schemas import COMPANIONS, REJECTS
from lapvqa.uptodate import staleness
from lapvqa.uptodate.staleness import StageState

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    return Project(tmp_path)


def shown(project: Project, part: str) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    getattr(run_summary, part)(project, console)
    return console.export_text()


def estimate(value: float | None, low: float | None, high: float | None) -> dict[str, object]:
    return {"value": value, "low": low, "high": high}


def write_metrics(
    project: Project, task: str, metric: str, *, differences: object = None, **systems: object
) -> None:
    found = {name: {metric: value, "auc/Edema": value} for name, value in systems.items()}
    metrics = {
        "task": task, "status": "ok", "primary": metric, "systems": found,
        "differences": differences or {},
    }  # fmt: skip
    storage.write_json(project.result_dir(task) / "metrics.json", metrics)


@pytest.mark.parametrize(
    ("stage", "told"),
    [(None, {"vqa", "ad"}), ("report", {"vqa", "ad"}), ("evaluate@ad", {"ad"}), ("ingest", set())],
)
def test_results_of_other_data_are_not_shown_after_one_stage(
    project: Project, stage: str | None, told: set[str]
) -> None:
    for task in ("vqa", "ad"):
        one = estimate(0.5, 0.4, 0.6)
        write_metrics(project, task, "mean_auc", trained=one, untrained=one)
    console = Console(width=140, record=True, file=io.StringIO())
    run_summary.show(project, console, stage)
    table = re.findall(r"^(vqa|ad) mean_auc", console.export_text(), re.MULTILINE)
    assert set(table) == told


def test_results_stand_beside_the_untrained_ones_with_intervals(project: Project) -> None:
    write_metrics(
        project, "probe_nih14", "mean_auc",
        trained=estimate(0.912, 0.881, 0.94), untrained=estimate(0.61, None, None),
        differences={"trained-untrained": {"mean_auc": estimate(0.302, 0.2, 0.4)}},
    )  # fmt: skip
    text = shown(project, "show_results")
    header = next(line for line in text.splitlines() if "task" in line)
    assert header.index("trained") < header.index("untrained") < header.index("difference")
    row = next(line for line in text.splitlines() if "mean_auc" in line)
    assert row.split() == [
        "probe_nih14", "mean_auc", "0.912", "[0.881,", "0.940]", "0.610",
        "+0.302", "[+0.200,", "+0.400]", "better",
    ]  # fmt: skip
    assert "95% interval" in text
    assert "auc/Edema" not in text, "per label: the report page"


def test_why_there_is_no_interval_is_said_once(project: Project) -> None:
    bare = estimate(0.7, None, None)
    for task in ("rrg", "vqa"):
        write_metrics(project, task, "exact_match", trained=bare, untrained=bare)
        path = project.result_dir(task) / "metrics.json"
        content = json.loads(path.read_bytes())
        content |= {"num_patients": 4, "protocol": {"interval_min_patients": 6}}
        storage.write_json(path, content)
    text = " ".join(shown(project, "show_results").split())
    assert "no interval: fewer than 6 patients (vqa, rrg)" in text


def test_why_there_is_no_value_is_said(project: Project) -> None:
    none = estimate(None, None, None)
    write_metrics(project, "probe_nih14", "mean_auc", trained=none, untrained=none)
    path = project.result_dir("probe_nih14") / "metrics.json"
    content = json.loads(path.read_bytes())
    storage.write_json(path, content | {"undefined": ["mean_auc: no class is defined"]})
    text = " ".join(shown(project, "show_results").split())
    assert "no value: no class is defined (probe_nih14)" in text
    assert "cannot tell" not in text


def test_a_comparison_says_why_there_is_no_interval(project: Project) -> None:
    lines = [
        ComparisonLine(task, "", "exact_match", {"trained": score}, {})
        for task, score in (
            ("vqa", Score(Interval(0.7), 4, no_interval="fewer than 6 patients")),
            ("rrg", Score(Interval(0.7, 0.6, 0.8), 40)),
        )
    ]
    console = Console(width=100, record=True, file=io.StringIO())
    comparison.show(lines, console, load_params(project.params).evaluate.common)
    assert "no interval: fewer than 6 patients (vqa)" in console.export_text()


def test_a_narrow_terminal_loses_no_number(project: Project) -> None:
    one, less = estimate(0.512, 0.481, 0.54), estimate(0.401, 0.336, 0.459)
    gain = estimate(0.111, 0.05, 0.2)
    for task in EVALUATIONS:
        write_metrics(
            project, task, "finding_f1_micro", trained=one, untrained=less,
            differences={"trained-untrained": {"finding_f1_micro": gain}},
        )  # fmt: skip
    console = Console(width=80, record=True, file=io.StringIO())
    run_summary.show_results(project, console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    for text in ("[0.481, 0.540]", "[0.336, 0.459]", "[+0.050, +0.200]", "finding_f1_micro"):
        assert sum(text in line for line in lines) == len(EVALUATIONS)
    assert not any("…" in line for line in lines)


def test_reports_have_a_row_by_decoder_one_by_head_and_a_baseline(project: Project) -> None:
    names = ("trained", "untrained", "head_trained", "head_untrained", "most_common")
    values = {name: estimate(k / 10, 0.0, 1.0) for k, name in enumerate(names, start=1)}
    write_metrics(project, "rrg", "finding_f1_micro", **values)
    lines = shown(project, "show_results").splitlines()
    decoder, head = (next(line for line in lines if one in line) for one in ("rrg ", "rrg, head"))
    assert "0.100 [" in decoder
    assert "0.200 [" in decoder
    assert "0.300 [" in head
    assert "0.400 [" in head
    assert any("most common report" in line and "0.500" in line for line in lines)


def test_what_was_not_computed_says_why(project: Project) -> None:
    metrics = {"task": "probe_chexpert", "status": "not computed", "reason": "no such folder"}
    storage.write_json(project.result_dir("probe_chexpert") / "metrics.json", metrics)
    row = next(line for line in shown(project, "show_results").splitlines() if "probe" in line)
    assert "not computed" in row
    assert "no such folder" in row


def test_counts_add_up(project: Project) -> None:
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
    beside = [{"path": "a.txt", "kind": "other", "what": "text"}]
    table = pa.Table.from_pylist(beside, schema=COMPANIONS)
    storage.write_table(project.companions, table, COMPANIONS)
    first = "6 files = 3 ingested + 2 rejected (truncated 2) + 1 that are no images"
    assert shown(project, "show_counts").splitlines()[0] == first


def test_where_to_look(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    text = shown(project, "show_places")
    assert "lapvqa open mlflow" in text
    assert "lapvqa open prefect" in text
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


@pytest.mark.parametrize("stage", [None, "ingest"])
@pytest.mark.parametrize("stale", [False, True])
def test_a_page_of_before_is_called_so(
    project: Project, monkeypatch: pytest.MonkeyPatch, stage: str | None, stale: bool
) -> None:
    project.report_page.parent.mkdir(parents=True)
    project.report_page.write_text("page")
    states = [StageState("ingest", False, []), StageState("report", stale, [])]
    monkeypatch.setattr(staleness, "check", lambda _: states)
    console = Console(width=140, record=True, file=io.StringIO())
    run_summary.show(project, console, stage)
    (line,) = [one for one in console.export_text().splitlines() if "report page" in one]
    assert ("brings it up to date" in line) == (stale and stage is not None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.04 s"), (12.34, "12.3 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_spans(seconds: float, text: str) -> None:
    assert terminal.span(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(12, "12 B"), (3.4e6, "3.4 MB"), (4.7e12, "4.7 TB")]
)
def test_sizes(num_bytes: float, text: str) -> None:
    assert terminal.size(num_bytes) == text
