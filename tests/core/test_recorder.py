"""Progress: the rate is of the count that is under way."""

from __future__ import annotations

import json
import time
from pathlib import Path

from lapvqa.recorder import Recorder


def test_the_rate_follows_a_count_through_its_notes_and_starts_anew_with_the_next(
    tmp_path: Path,
) -> None:
    recorder = Recorder(tmp_path / "r.jsonl", stage="s", quiet=True, machine_readable=True)
    recorder._interval = 0
    for system in ("trained", "untrained"):
        for done in (1, 2, 4):
            recorder.progress(done, 4, unit="steps", note=f"{system}, loss {done}")
            time.sleep(0.01)
    recorder.close()
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    rates = [line["rate"] for line in lines if line["kind"] == "progress"]
    assert [rate > 0 for rate in rates] == [False, True, True] * 2


def test_a_resumed_run_tells_the_whole_story_once(tmp_path: Path) -> None:
    """Two runs are interrupted, the third ends: each step once, with the time it was taken at."""
    path = tmp_path / "pretrain.jsonl"

    def session(first: int, last: int, *, kept: int | None) -> Recorder:
        recorder = Recorder(path, stage="pretrain", quiet=True, machine_readable=True)
        if kept is not None:
            recorder.resume(kept)
        for step in range(first, last + 1):
            recorder.metrics({"loss": 1.0 / step}, step=step)
            time.sleep(0.002)
        return recorder

    session(1, 12, kept=None).close()
    times = {line["step"]: line["t"] for line in read(path) if line["kind"] == "metrics"}
    Recorder(path, stage="pretrain", quiet=True).close()  # killed before it could go on
    with path.open("a") as handle:
        handle.write('{"t": 1.0, "kind": "metr')
    session(11, 24, kept=10).close()
    third = session(21, 30, kept=20)
    third.summary({"steps": 30})
    before = third.seconds_before()
    third.close()
    metrics = [line for line in read(path) if line["kind"] == "metrics"]
    assert [line["step"] for line in metrics] == list(range(1, 31))
    assert all(line["t"] == times[line["step"]] for line in metrics[:10])
    (resumed,) = [line["values"] for line in read(path) if line["kind"] == "resumed"]
    assert resumed["sessions_before"] == 2
    assert 0.04 < before == resumed["seconds_before"]
    assert read(path)[0]["kind"] == "start"
    # What has ended is not resumed.
    session(1, 2, kept=30).close()
    assert [line["step"] for line in read(path) if line["kind"] == "metrics"] == [1, 2]


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
