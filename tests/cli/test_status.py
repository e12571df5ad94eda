"""``lapvqa status`` and ``plan``: on a fresh project, after a run, while one goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from cli_answer import Lapvqa

from flows.commands import status
from lapvqa import storage
from lapvqa.lineage import ledger
from lapvqa.lineage.recording import Commit
from lapvqa.lineage.runs import Run
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.retraining import minutes, wanted
from lapvqa.retraining.wanted import Round
from lapvqa.schemas import REJECTS
from tasks import ledger_lines

HOLD = """\
import sys, time
from pathlib import Path
from lapvqa import storage
with storage.lock(Path(sys.argv[1]), what="a run"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder_of(request: pytest.FixtureRequest):
    """Start a process that holds a lock, as a run or a stage does."""

    def start(lock: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True
        )
        request.addfinalizer(process.wait)
        request.addfinalizer(process.kill)
        assert process.stdout is not None
        request.addfinalizer(process.stdout.close)
        assert process.stdout.readline() == "held\n"
        return process

    return start


def test_a_lock_is_seen_without_touching_it_and_ends_with_its_process(tmp_path, holder_of) -> None:
    lock = tmp_path / "run.lock"
    assert storage.holder(lock) == ""
    process = holder_of(lock)
    assert storage.holder(lock).startswith(f"process {process.pid} on ")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lock.read_text(), "a killed holder leaves its name behind"
    assert storage.holder(lock) == ""


def test_progress_is_the_last_whole_line(tmp_path: Path) -> None:
    project = Project(tmp_path)
    recorder = Recorder(project.record("tokens"), stage="tokens", machine_readable=True)
    recorder.progress(10, 10, unit="reports", note="first")
    recorder.close()
    written = time.time()
    with project.record("tokens").open("a") as handle:
        entry = {
            "t": written - 4, "kind": "progress", "stage": "tokens", "done": 40, "total": 100,
            "unit": "reports", "rate": 10.0, "eta_s": 6.0, "note": "",
        }  # fmt: skip
        handle.write(json.dumps(entry) + "\n" + '{"t": 1, "kind": "pro')
    found = status.progress_of(project, "tokens")
    assert (found.done, found.total, found.rate) == (40, 100, 10.0)
    passed = time.time() - written
    assert 2.0 - passed <= found.eta_s <= 2.0, "counted down since the line was written"


def test_progress_of_a_long_record_reads_its_end_only(tmp_path: Path) -> None:
    project = Project(tmp_path)
    recorder = Recorder(project.record("pretrain"), stage="pretrain", machine_readable=True)
    for step in range(3000):
        recorder.metrics({"loss": 1.0, "filler_" + "x" * 50: 0.0}, step=step)
    recorder.progress(7, 7, unit="steps")
    recorder.close()
    found = status.progress_of(project, "pretrain")
    assert found.done == 7
    assert time.time() - found.started < 60


def test_a_fresh_project(toy: Project, lapvqa: Lapvqa) -> None:
    for name in ("data", "results", "reports", ".lapvqa"):
        subprocess.run(["rm", "-r", str(toy.root / name)], check=True)
    toy.dvc_lock.unlink()
    answer = lapvqa("status")
    assert answer.code == 0
    assert "running: nothing" in answer.out
    assert answer.out.count("never run") == 6
    assert "rejected" not in answer.out


def test_after_a_run(toy: Project, lapvqa: Lapvqa) -> None:
    facts = {"stage": "tokens", "started": 1.7e9, "seconds": 75.0, "ids": {},
             "counts": {"tokenised": 181, "rejected": 88}}  # fmt: skip
    storage.write_json(toy.run_file("tokens"), facts)
    reject = {"kind": "file", "file": "x.dcm", "stage": "ingest", "reason": "truncated",
              "detail": "d", "remedy": "r", "sha256": None}  # fmt: skip
    rows = [reject, reject, reject | {"reason": "not_dicom"}]
    storage.write_table(toy.rejects, pa.Table.from_pylist(rows, schema=REJECTS), REJECTS)
    out = lapvqa("status").out
    assert "up to date" in out
    tokens = next(line for line in out.splitlines() if line.startswith("tokens "))
    for part in ("1 min 15 s", "rejected 88, tokenised 181", "2023-11-1"):
        assert part in tokens
    assert "rejected, data/rejects.parquet: file truncated 2, file not_dicom 1\n" in out
    assert "x.dcm" not in out


def test_what_was_restored_is_told_of_by_the_run_that_computed_it(
    toy: Project, lapvqa: Lapvqa
) -> None:
    facts = {"stage": "tokens", "started": 1.7e9, "seconds": 75.0, "ids": {},
             "counts": {"tokenised": 181}}  # fmt: skip
    storage.write_json(toy.run_file("tokens"), facts)
    ledger_lines.complete(toy, Commit(None, None))
    other = {**facts, "started": 1.8e9, "counts": {"reason": "no data here: set it"}}
    storage.write_json(toy.run_file("tokens"), other)
    of_other = Run("tokens", 1.8e9, 75.0, outs={"data/tokens": "f" * 32}, counts=other["counts"])
    ledger.append(toy, ledger.RUN, of_other.payload())
    out = lapvqa("status").out
    assert "up to date, tokenised 181\n" in out
    assert "2023-11-1" in out
    assert "no data here" not in out

    toy.ledger.unlink()  # nothing tells any more who computed it
    ledger.append(toy, ledger.RUN, of_other.payload())
    out = lapvqa("status").out
    tokens = next(line for line in out.splitlines() if line.startswith("tokens "))
    assert tokens.split() == ["tokens", "up", "to", "date"]


def test_what_is_wanted_and_what_has_arrived(toy: Project, lapvqa: Lapvqa) -> None:
    out = lapvqa("status").out
    assert "wanted" not in out
    assert "retraining" not in out
    wanted.want(toy, "drift", kind="acquisition")
    event = {"at": "2026-11-29T10:00:00+00:00", "event": "study", "study": "s1", "bytes": 2048}
    storage.write_bytes(toy.arrivals, json.dumps(event).encode() + b"\n")
    out = lapvqa("status").out
    assert "an evaluation is wanted: drift acquisition" in out
    assert "arrived since the last training: 1 study, 2.0 kB" in out
    assert "retraining: wait: causes still come in" in out


def test_what_a_failed_round_trained_answers_nothing(toy: Project, lapvqa: Lapvqa) -> None:
    now = datetime.now(UTC)
    wanted.want(toy, "hand", who="somebody", now=now - timedelta(minutes=2))
    began = now - timedelta(minutes=1)
    ledger.append(toy, ledger.RUN, Run("pretrain", began.timestamp(), 1.0).payload())
    assert "a retraining is wanted" not in lapvqa("status").out
    minutes.close(toy, Round("id", began.isoformat(), ()), "failed", "a full disk", now)
    assert "a retraining is wanted: hand somebody" in lapvqa("status").out


def test_while_a_run_goes_on(toy: Project, lapvqa: Lapvqa, holder_of) -> None:
    holder_of(toy.run_lock)
    (toy.state / "work").mkdir(parents=True)
    holder_of(toy.state / "work" / "evaluate@rrg.lock")
    recorder = Recorder(toy.record("evaluate@rrg"), stage="evaluate@rrg", machine_readable=True)
    recorder.progress(3, 3, unit="reports", note="beam")
    (toy.root / "results/rrg/metrics.json").unlink()  # DVC removes outputs first
    out = lapvqa("status").out
    assert "running: process " in out
    assert "evaluate@rrg: 3/3 reports" in out
    (row,) = [line for line in out.splitlines() if line.startswith("evaluate@rrg ")]
    assert " running" in row


def test_a_failed_stage_shows_its_error(toy: Project, lapvqa: Lapvqa) -> None:
    failure = {
        "error": "RejectBudgetError",
        "message": "9 of 10 files",
        "hint": "h",
        "exit_code": 3,
    }
    storage.write_json(toy.failure("ingest"), failure)
    assert "failed: 9 of 10 files" in lapvqa("status").out


def test_plan_names_exactly_the_stages_concerned(toy: Project, lapvqa: Lapvqa) -> None:
    toy.params.write_text(toy.params.read_text().replace("max_length: 64 ", "max_length: 128 "))
    disk, _, rest = lapvqa("plan").out.partition("\n")
    assert disk.startswith("disk: up to ")  # of the evaluations' features alone
    assert "training" not in disk
    assert rest == (
        "tokens: params.tokens.max_length 64 -> 128\n"
        "evaluate@probe_nih14: upstream tokens\n"
        "evaluate@rrg: upstream tokens\n"
        "report: upstream evaluate@probe_nih14, evaluate@rrg\n"
        "up to date: inventory, ingest\n"
    )


def test_plan_names_a_source_that_the_last_run_did_not_read(
    toy: Project, lapvqa: Lapvqa, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    toy.local.write_text(f"paths: {{source: {other}}}\n")
    first = lapvqa("plan").out.partition("\n")[0]
    assert first == f"source: {other}; the last run read {toy.root / 'demo' / 'mimic-cxr'}"


def test_plan_asks_dvc_where_dvc_yaml_uses_what_is_unknown_here(
    toy: Project, lapvqa: Lapvqa
) -> None:
    text = toy.dvc_yaml.read_text()
    toy.dvc_yaml.write_text(text.replace("toy.py tokens\n", "toy.py tokens\n    frozen: false\n"))
    toy.params.write_text(toy.params.read_text().replace("examples: 8 ", "examples: 9 "))
    answer = lapvqa("plan")
    assert answer.code == 0
    assert answer.out == (
        "inventory: always looks for new files; what it finds may concern others\n"
        "report: parameter report modified\n"
        "up to date: ingest, tokens, evaluate@probe_nih14, evaluate@rrg\n"
    )


def test_plan_runs_nothing(toy: Project, lapvqa: Lapvqa) -> None:
    before = toy.dvc_lock.read_bytes()
    (toy.root / "reports/index.html").unlink()
    assert "output reports/index.html missing" in lapvqa("plan").out
    assert toy.dvc_lock.read_bytes() == before
    assert not (toy.root / "reports/index.html").exists()


def test_run_with_nothing_to_do_says_so_stage_by_stage(toy: Project, lapvqa: Lapvqa) -> None:
    answer = lapvqa("run")
    assert answer.code == 0
    lines = answer.out.splitlines()
    stages = ["inventory", "ingest", "tokens", "evaluate@probe_nih14", "evaluate@rrg", "report"]
    assert lines[:-1] == [f"{name}: up to date" for name in stages]
    assert lines[-1].startswith("nothing to do (")


def test_run_of_one_stage_that_is_up_to_date(toy: Project, lapvqa: Lapvqa) -> None:
    assert "tokens: up to date\n" in lapvqa("run", "--stage", "tokens").out
    toy.params.write_text(toy.params.read_text().replace("max_length: 64 ", "max_length: 65 "))
    assert "ingest: up to date\n" in lapvqa("run", "--stage", "ingest").out


@pytest.mark.parametrize("width", [80, 120])
def test_each_stage_is_a_row_at_any_width_and_nothing_of_it_is_cut(
    toy: Project, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    words = [f"word{number}" for number in range(40)]
    facts = {"stage": "tokens", "started": 1.7e9, "seconds": 75.0, "ids": {},
             "counts": {"reason": f"no data here: {' '.join(words)}"}}  # fmt: skip
    storage.write_json(toy.run_file("tokens"), facts)
    monkeypatch.setenv("COLUMNS", str(width))
    out = lapvqa("status").out
    at = out.index("stage ")
    lines = out[at : out.index("champion:")].splitlines()[1:]
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if not line.startswith((" ", "with counts"))]
    assert [line.split()[0] for line in rows] == [
        "inventory", "ingest", "tokens", "evaluate@probe_nih14", "evaluate@rrg", "report",
    ]  # fmt: skip
    assert "not computed: no data" in " ".join(rows[2].split())
    assert set(words) <= set(out.split())
