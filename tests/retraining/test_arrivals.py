"""What has arrived: repeats, disorder, a line in writing, and what is still busy."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lapvqa.arrivals import Arrival
from lapvqa.project import Project
from lapvqa.retraining import arrivals
from lapvqa.retraining.arrivals import Arrived

QUIET = timedelta(minutes=30)

NOW = datetime(2027, 3, 10, 12, 0, tzinfo=UTC)
END = NOW + timedelta(hours=1)


def line(minute: int, study: str | None, kind: str = "study", size: int = 10) -> str:
    at = (NOW + timedelta(minutes=minute)).isoformat()
    told = {"at": at, "event": kind, "source": "PACS", "study": study, "files": 1, "bytes": size}
    return json.dumps(told) + "\n"


def test_repeats_count_once_and_reports_add_their_bytes(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.state.mkdir()
    assert arrivals.between(project, None, END, quiet=QUIET) == Arrived()
    lines = [
        line(0, "a"), line(1, "a"), line(2, "b"), line(3, "a", "report", 1),
        line(3, "before", "amended"), line(3, "b", "amended", 0), line(4, None, "report"),
        "torn {\n", line(-1, "late"), line(5, "c")[:20],
    ]  # fmt: skip
    with project.arrivals.open("w") as file:
        file.write("".join(lines))
    known = arrivals.between(project, None, END, quiet=QUIET)
    assert (known.studies, known.amended, known.bytes, known.last) == (
        3,
        1,
        41,
        NOW + timedelta(minutes=3),
    )
    with project.arrivals.open("a") as file:  # the line that was in writing, and one more
        file.write(line(5, "c")[20:] + line(40, "d"))
    assert arrivals.between(project, None, END, quiet=QUIET).studies == 5
    assert arrivals.between(project, NOW + timedelta(minutes=5), END, quiet=QUIET) == Arrived(
        1, 10, NOW + timedelta(minutes=40), NOW + timedelta(minutes=40)
    )
    assert arrivals.between(project, None, NOW, quiet=QUIET).studies == 2, "a, and who came late"


@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from("abcdef")), min_size=1))
def test_a_busy_stretch_begins_after_the_last_quiet_time(told: list[tuple[int, str]]) -> None:
    events = [
        Arrival(NOW + timedelta(minutes=minute), study, "study", 1)
        for minute, study in sorted(told)
    ]
    found = arrivals.add_up(events, quiet=QUIET)
    assert found.studies == found.bytes == len({study for _, study in told})
    times = [event.at for event in events]
    assert found.busy_since in times
    assert found.last == times[-1]
    busy = [at for at in times if at >= found.busy_since]
    assert all(b - a <= QUIET for a, b in zip(busy, busy[1:], strict=False))
    before = [at for at in times if at < found.busy_since]
    assert not before or found.busy_since - before[-1] > QUIET
