"""What a machine's cron is given: it looks when the clock's minute comes, and catches up once."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flows.commands import schedule, timers
from lapvqa.project import Project
from lapvqa.retraining import clock, minutes, wanted

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")
minute = st.sampled_from(["*", "*/5", "0", "15,45", "37", "7-9", "1,31"])
hour = st.sampled_from(["*", "2", "*/6", "8-18"])


@given(minute, hour, st.sampled_from(ZONES), st.sampled_from(ZONES), st.integers(0, 400))
@example("0", "2", "America/New_York", "UTC", 72)  # the night in which that hour is left out
def test_the_line_looks_at_each_minute_of_the_clock(
    tmp_path_factory: pytest.TempPathFactory, minute: str, hour: str, zone: str, here: str, day: int
) -> None:
    """Where zones are whole hours apart; else within a quarter of an hour."""
    project = Project(tmp_path_factory.getbasetemp() / "clocks")
    now = datetime(2027, 1, 1, tzinfo=UTC) + timedelta(days=day)
    cron = f"{minute} {hour} * * *"
    clock.keep(project, clock.Schedule(cron, zone, now.isoformat()))
    looks = " ".join(timers.crontab_line(project).split()[:5])
    asks = clock.upcoming(cron, zone, now, count=1)[0].astimezone(UTC)
    (seen,) = clock.upcoming(looks, here, asks - timedelta(minutes=1), count=1)
    late = seen.astimezone(UTC) - asks
    half_hour = {zone, here} & {"Asia/Kolkata"} and zone != here
    assert late <= (timedelta(minutes=15) if half_hour else timedelta(0))


def test_what_crontab_runs_is_a_decision_and_after_downtime_one(
    ruled: Callable[..., Project], repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nothing may be trained, so that a decision is all that comes of it.
    project = ruled(freeze=[{"from": "2000-01-01", "until": "2999-12-31"}])
    (project.root / "dvc.yaml").write_text("stages: {}\n")
    assert schedule.print_crontab(project, cron="37 2 * * *", zone="Europe/Berlin") == 0
    why, told, line = capsys.readouterr().out.splitlines()
    assert why.startswith("# Asks each quarter of an hour")
    assert told.startswith("# clock '37 2 * * *', next (Europe/Berlin): ")
    assert line.startswith("*/15,37 * * * * cd ")
    kept = clock.load(project)
    assert kept is not None
    assert (kept.cron, kept.zone) == ("37 2 * * *", "Europe/Berlin")
    down = datetime.now(UTC) - timedelta(days=10)
    clock.keep(project, replace(kept, since=down.isoformat()))
    look = line.split(maxsplit=5)[5].strip().replace("\\%", "%")
    for _ in range(2):
        subprocess.run(["sh", "-c", look], check=True, env={"PYTHONPATH": str(repository)})
    (cause,) = wanted.load(project).causes
    assert (cause.cause, cause.count) == ("clock", 1)
    (said,) = [one.payload for one in minutes.ledger.entries(project) if one.payload]
    assert said["decision"] == "wait: no training begins before 3000-01-01 00:00"
    assert "no training begins before" in project.log("cron").read_text()


def test_systemd_is_told_of_the_clock_that_it_looks_at(
    ruled: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    project = ruled()
    assert schedule.print_systemd(project, cron=None, zone=None) == 0
    assert "# no clock" in capsys.readouterr().out
    assert schedule.print_systemd(project, cron="0 3 * * *", zone="UTC") == 0
    printed = capsys.readouterr().out
    assert "Persistent=true" in printed
    assert "# clock '0 3 * * *', next (UTC): " in printed
    assert "% retrain" not in printed


@pytest.mark.parametrize(
    "folder", ["clone", "la pvqa", "50 %i", "a\"b'c", "Röntgen", "back\\slash\\", "$HOME ${PATH}"]
)
def test_systemd_looks_in_a_folder_of_any_name(
    ruled: Callable[..., Project], repository: Path, tmp_path: Path, folder: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    plain = ruled(freeze=[{"from": "2000-01-01", "until": "2999-12-31"}])
    project = Project(tmp_path / folder)
    project.root.mkdir()
    shutil.move(plain.params, project.params)
    (project.root / "dvc.yaml").write_text("stages: {}\n")
    schedule.print_systemd(project, cron="0 3 * * *", zone="UTC")
    printed = capsys.readouterr().out
    units = dict(re.findall(r"^# \S+/systemd/user/(\S+)\n(.*?)(?=^#)", printed, re.S | re.M))
    service, timer = units
    assert re.fullmatch(r"lapvqa-[A-Za-z0-9:_.-]+\.service", service)
    assert timer == service.replace(".service", ".timer")
    assert f"# systemctl --user enable --now {timer}\n" in printed
    # As systemd reads it: quotes and backslashes, then specifiers and variables.
    (asks,) = re.findall("^ExecStart=(.*)$", units[service], re.M)
    words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(asks)]
    clock.keep(project, clock.Schedule("0 3 * * *", "UTC", "2026-01-01T00:00:00+00:00"))
    subprocess.run(words, check=True, cwd="/", env={"PYTHONPATH": str(repository)})
    assert [one.cause for one in wanted.load(project).causes] == ["clock"]
    if not (verify := shutil.which("systemd-analyze")):
        return
    for name, text in units.items():
        (tmp_path / name).write_text(text)
    told = subprocess.run(
        [verify, "--user", "verify", tmp_path / service, tmp_path / timer],
        env={"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (told.returncode, told.stderr) == (0, "")


def test_folders_of_one_name_have_units_of_their_own(tmp_path: Path) -> None:
    first, second = (timers.unit_name(Project(tmp_path / at / "chest")) for at in "ab")
    assert first != second
    assert len(timers.unit_name(Project(tmp_path / ("x" * 255)))) < 200
