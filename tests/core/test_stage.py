"""The entry point of a stage: what it prints, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from others_at_work import is_alive

from lapvqa import stage
from lapvqa.project import Project
from lapvqa.recorder import PROGRESS_PREFIX, Recorder


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lapvqa.stage", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_unknown_stage_lists_the_stages(tmp_path: Path) -> None:
    done = _run(tmp_path, "tokenise")
    assert done.returncode == 2
    assert "inventory, ingest, tokens" in done.stderr


def test_a_folder_without_parameters_is_the_users_error(tmp_path: Path) -> None:
    done = _run(tmp_path, "tokens")
    assert done.returncode == 2
    assert "expected params.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_our_own_fault_is_named_as_ours(
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "params.yaml").write_text((repository / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(stage.STAGES, "tokens", ("no.such.module", lambda params: params))
    # The test's own parent must not kill it.
    monkeypatch.setattr(stage.runtime, "die_with_parent", lambda: None)
    assert stage.main(["tokens"]) == 70
    assert "fault of LAPVQA" in capsys.readouterr().err


def test_a_stage_dies_with_its_parent() -> None:
    child = (
        "from lapvqa.runtime import die_with_parent; import time\n"
        "die_with_parent(); print('ready', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "p.stdout.readline(); print(p.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while is_alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(grandchild)


def test_recorder_keeps_lines_and_prints_progress_for_a_listener(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(Project(tmp_path).record("a@b"), stage="a@b", machine_readable=True)
    recorder.progress(1, 2, unit="files")
    recorder.metrics({"loss": 1.5}, step=3)
    recorder.progress(2, 2, unit="files")
    recorder.close()
    lines = (tmp_path / ".lapvqa/records/a-b.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds[0] == "start"
    assert kinds.count("metrics") == 1
    printed = [
        json.loads(line.removeprefix(PROGRESS_PREFIX))
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(PROGRESS_PREFIX)
    ]
    assert printed[-1]["done"] == printed[-1]["total"] == 2


def test_a_resumed_stage_is_not_taken_for_a_fast_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path / "r.jsonl", stage="s", machine_readable=True)
    for now, done in ((0.0, 900), (100.0, 901), (110.0, 902)):
        monkeypatch.setattr("lapvqa.recorder.time.monotonic", lambda now=now: now)
        recorder.progress(done, 1000, unit="steps")
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    shown = [line for line in lines if line["kind"] == "progress"]
    assert shown[-1]["rate"] == pytest.approx(2 / 110, abs=1e-3)
    assert shown[-1]["eta_s"] == pytest.approx(98 / (2 / 110), rel=1e-3)
