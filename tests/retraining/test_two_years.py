"""Two years of a hospital in simulated time (benchmarks/bench_retraining.py)."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lapvqa.lineage import ledger
from lapvqa.retraining import minutes

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import bench_retraining as world


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, parameters: dict[str, Any]) -> world.Hospital:
    """Two years, looked at once a day."""
    root = tmp_path_factory.mktemp("hospital")
    return world.live(root, 3, params=parameters, step_h=24)


def test_what_is_asked_for_is_done_and_little_else(lived: world.Hospital) -> None:
    years = world.DAYS / 365
    assert sum(row["false"] for row in lived.trained) <= years
    assert len(lived.erased) == 2
    assert max(lived.erased) < 8 + 3  # hours to rest, and at worst the days of a freeze or downtime
    assert len(lived.delays) >= 4  # of five; one that the next training answers unseen is no delay
    assert max(lived.delays) < 120  # the clock asks each quarter, if drift does not
    causes = {cause for row in lived.trained for cause in row["causes"]}
    assert {"clock", "erasure", "performance"} <= causes


def test_the_rule_holds_throughout(lived: world.Hospital) -> None:
    began = [row["began"] for row in lived.trained]
    first, last = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in world.FREEZE)
    assert not [at for at in began if first <= at < last]
    assert not [at for at in began if world.DOWN[0] <= at < world.DOWN[1]]
    for month in {(at.year, at.month) for at in began}:
        of_month = [at for at in began if (at.year, at.month) == month]
        assert len(of_month) * world.HOURS <= world.RULE["gpu_hours"]
    for row in lived.trained:
        assert row["new"] >= 200 or {"erasure"} & set(row["causes"])
    gaps = [b - a for a, b in zip(began, began[1:], strict=False)]
    by_clock = ["clock" in row["causes"] for row in lived.trained[1:]]
    assert all(gap >= timedelta(hours=72) for gap, at in zip(gaps, by_clock, strict=True) if not at)


def test_one_catch_up_follows_ten_days_of_downtime(lived: world.Hospital) -> None:
    after = [
        row for row in lived.trained
        if world.DOWN[1] <= row["began"] < world.DOWN[1] + timedelta(days=14)
        and "clock" in row["causes"]
    ]  # fmt: skip
    assert len(after) == 1


def test_every_training_and_every_no_stands_in_the_ledger(lived: world.Hospital) -> None:
    told = minutes.rounds(lived.project)
    assert [one["outcome"] for one in told].count("trained") == len(lived.trained)
    assert [one["outcome"] for one in told].count("declined") > 0
    assert {one["outcome"] for one in told} == {"trained", "declined"}
    entries = ledger.entries(lived.project)
    said = [one.payload for one in entries if one.kind == ledger.DECISION and one.payload]
    answers = [one for one in said if one["about"] == minutes.RETRAINING]
    assert {one["answer"] for one in answers} >= {"look", "evaluate", "train", "no"}
    assert all(one["inputs"] and one["rule"] for one in answers)
    assert ledger.verify(lived.project) == []
