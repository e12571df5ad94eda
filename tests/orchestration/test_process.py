"""Children of the pipeline: their lines, their exit codes, and that they never outlive us."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from others_at_work import is_alive
from running_toy import wait_until

from lapvqa.errors import (
    EXIT_BAD_DATA,
    EXIT_FAULT,
    EXIT_INTERRUPTED,
    EXIT_USER,
    MissingArtifactError,
    NotAllowedError,
    StorageFullError,
)
from lapvqa.project import Project
from tasks import child_process
from tasks.work import failure

FAMILY = """
import os, pathlib, subprocess, sys, time
worker = subprocess.Popen(
    [sys.executable, "-c", "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(60)"]
)
pathlib.Path("pids").write_text(f"{os.getppid()} {os.getpid()} {worker.pid}")
print("ready", flush=True)
time.sleep(60)
"""


def run(code: str, folder: Path, lines: list[str]) -> int:
    return child_process.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder, environment=dict(os.environ), on_line=lines.append,
    )  # fmt: skip


def gone(folder: Path) -> bool:
    """Tell whether guard, child and its worker are all dead."""
    pids = [int(word) for word in (folder / "pids").read_text().split()]
    return not any(map(is_alive, pids))


def test_lines_come_whole_whatever_ends_them(tmp_path: Path) -> None:
    lines: list[str] = []
    code = """
        import os, sys, time
        os.write(1, "10 %\\r20 %\\nh\\u00e4lf".encode()[:-3])
        time.sleep(0.2)
        os.write(1, "h\\u00e4lf".encode()[-3:] + b" a line\\n\\n")
        os.write(2, b"from stderr\\nno end")
    """
    assert run(code, tmp_path, lines) == 0
    assert lines == ["10 %", "20 %", "hälf a line", "from stderr", "no end"]


def test_the_exit_code_is_the_childs(tmp_path: Path) -> None:
    assert run("raise SystemExit(3)", tmp_path, []) == 3
    assert run("import os; os.kill(os.getpid(), 9)", tmp_path, []) == 128 + 9


def test_a_child_that_leaves_a_process_behind_does_not_hold_us_up(tmp_path: Path) -> None:
    code = """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(child.pid, flush=True)
    """
    lines: list[str] = []
    began = time.monotonic()
    assert run(code, tmp_path, lines) == 0
    assert time.monotonic() - began < 10
    wait_until(lambda: not is_alive(int(lines[0])), seconds=60)


def test_an_exception_takes_the_whole_group_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "GRACE_S", 0.5)

    def refuse(_line: str) -> None:
        raise ValueError("a fault in the listener")

    with pytest.raises(ValueError, match="listener"):
        child_process.run(
            [sys.executable, "-c", FAMILY],
            cwd=tmp_path, environment=dict(os.environ), on_line=refuse,
        )  # fmt: skip
    wait_until(lambda: gone(tmp_path), seconds=60)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_the_whole_group_dies_with_its_starter(tmp_path: Path, by: signal.Signals) -> None:
    starter = f"""
        import os, sys
        from pathlib import Path
        from tasks import child_process
        child_process.run([sys.executable, "-c", {FAMILY!r}], cwd=Path.cwd(),
                    environment=dict(os.environ), on_line=print)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(starter)], cwd=tmp_path)
    wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
    assert not gone(tmp_path)
    parent.send_signal(by)
    parent.wait(timeout=60)
    wait_until(lambda: gone(tmp_path), seconds=60)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("ERROR: unexpected error - database or disk is full", "no space left"),
        ("ERROR: unexpected error - disk I/O error", "a database could not be written"),
        (f"OSError: [Errno 28] {os.strerror(errno.ENOSPC)}", "no space left"),
    ],
)
def test_a_disk_that_takes_no_more_is_no_fault_of_ours(
    tmp_path: Path, said: str, meant: str
) -> None:
    error = failure(Project(tmp_path), "tokens", 255, ["a line", said])
    assert isinstance(error, StorageFullError)
    assert error.message.startswith(f"tokens: {meant}")


@pytest.mark.parametrize(
    ("code", "said", "exit_code"),
    [
        (255, "failed to run: python -m lapvqa.stage ingest, exited with -9", 137),
        (255, "failed to run: python -m lapvqa.stage ingest, exited with -15", 143),
        (255, "failed to run: python -m lapvqa.stage ingest, exited with 130", EXIT_INTERRUPTED),
        (255, "failed to run: python -m lapvqa.stage ingest, exited with 3", EXIT_BAD_DATA),
        (255, "failed to run: python -m lapvqa.stage ingest, exited with 1", EXIT_FAULT),
        (137, "the last line before `dvc repro` itself was killed", 137),
        (255, "dvc said something else", EXIT_FAULT),
    ],
)
def test_a_stage_that_is_killed_from_outside_is_no_fault_of_ours(
    tmp_path: Path, code: int, said: str, exit_code: int
) -> None:
    error = failure(Project(tmp_path), "ingest", code, ["a line", said])
    assert error.exit_code == exit_code
    assert ("too little memory" in error.message) == (" -9" in said)


def test_a_place_that_dvc_may_not_write_is_no_fault_of_ours(tmp_path: Path) -> None:
    """As ``dvc repro`` says it, which ends with 255 for this as for all else."""
    page = tmp_path / "reports" / "index.html"
    said = f"ERROR: failed to reproduce 'report': [Errno 13] Permission denied: '{page}'"
    error = failure(Project(tmp_path), "report", 255, ["a line", said])
    assert isinstance(error, NotAllowedError)
    assert error.exit_code == EXIT_USER
    assert error.message == (
        "report: expected to read or write reports/ of the project, found: Permission denied"
    )
    assert error.hint.startswith("grant access")
    other = failure(Project(tmp_path), "report", 255, [f"a stage's own line: {said}"])
    assert not isinstance(other, NotAllowedError)


def test_a_stages_own_error_comes_back_with_its_class_and_exit_code(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((Path(__file__).parents[2] / "params.yaml").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "lapvqa.stage", "tokens"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == EXIT_USER, done.stderr
    project = Project(tmp_path)
    error = failure(project, "tokens", 255, [])
    assert isinstance(error, MissingArtifactError)
    assert error.exit_code == EXIT_USER
    assert "studies.parquet" in error.message
    assert "lapvqa run --stage ingest" in error.hint
