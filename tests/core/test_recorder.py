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
