"""SIGKILL and Ctrl-C at any moment: the next run continues and ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_dicom import dicom_bytes, ramp, write_project
from others_at_work import files_below, working_in

from lapvqa import storage
from lapvqa.project import Project

NUM_KILLS = int(os.environ.get("LAPVQA_KILLS", "5"))
NUM_FILES = 12 * NUM_KILLS


def start(project: Project, stage: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lapvqa.stage", stage],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(project: Project, stage: str) -> str:
    process = start(project, stage)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def digests(project: Project) -> dict[str, str]:
    files = sorted(path for path in (project.root / "data").rglob("*") if path.is_file())
    return {str(path.relative_to(project.root)): storage.sha256_file(path) for path in files}


def wait_until_gone(project: Project) -> None:
    deadline = time.monotonic() + 60
    while working_in(project.root) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not working_in(project.root), "a worker outlived the stage"


def chunks(project: Project) -> int:
    """Number of finished groups in the work store."""
    return len(files_below(project.work_dir("ingest"), "rows-*.parquet"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for number in range(NUM_FILES):
        study = folder / f"s{number:03}"
        study.mkdir()
        pixels = ramp(12, rows=700, cols=500 + number)
        attributes = {"SOPInstanceUID": f"1.2.{number}", "StudyInstanceUID": f"1.3.{number}"}
        (study / "a.dcm").write_bytes(dicom_bytes(pixels, PatientID=str(number), **attributes))
        (folder / f"s{number:03}.txt").write_text(f"FINDINGS: Study {number}.")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(60 * NUM_KILLS)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    tmp_path: Path, archive: Path
) -> None:
    straight = write_project(tmp_path / "straight", archive, shard_images=4, workers=2)
    killed = write_project(tmp_path / "killed", archive, shard_images=4, workers=2)
    (tmp_path / "shared.key").write_text("0123456789abcdef")
    for project in (straight, killed):
        with project.local.open("a") as handle:
            handle.write(f"\ndeid_key_file: {tmp_path / 'shared.key'}\n")
        finish(project, "inventory")
    started = time.monotonic()
    finish(straight, "ingest")
    duration = time.monotonic() - started

    moments = random.Random(0)
    progressed = [0]
    for kill in range(NUM_KILLS):
        process = start(killed, "ingest")
        if kill % 2:  # at any moment; otherwise while results are being written
            time.sleep(duration * moments.uniform(0.2, 0.9))
        else:
            while chunks(killed) == progressed[-1] and process.poll() is None:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.05))
        if kill == 1:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
        process.communicate(timeout=60)
        wait_until_gone(killed)
        progressed.append(chunks(killed))
    assert progressed == sorted(progressed), "finished work was lost"
    assert progressed[1] > 0
    finish(killed, "ingest")
    assert digests(killed) == digests(straight)
    assert not list(killed.root.rglob("*.tmp")), "a partial file was left behind"


def test_ctrl_c_says_that_the_next_run_continues(tmp_path: Path, archive: Path) -> None:
    project = write_project(tmp_path, archive, shard_images=4, workers=2)
    finish(project, "inventory")
    process = start(project, "ingest")
    assert process.stdout is not None
    for line in process.stdout:
        if "workers" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the next run continues" in output
    assert "Traceback" not in output
    wait_until_gone(project)
