"""How it stayed fresh: the page that is drawn from the ledger, also before anything happened."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from keyboard import keyboard, needs_chromium

from lapvqa.lineage import ledger
from lapvqa.lineage.ledger import DECISION, DRIFT, MODEL, Draft
from lapvqa.lineage.runs import Run
from lapvqa.project import Project
from lapvqa.report import freshness

DAY = 86400.0
START = datetime(2026, 1, 5, tzinfo=UTC).timestamp()


def write_history(project: Project) -> None:
    """Write half a year: arrivals, looks, decisions, a training, two gates, two champions."""
    project.state.mkdir(parents=True, exist_ok=True)
    lines = [
        {"at": datetime.fromtimestamp(START + day * DAY, UTC).isoformat(), "event": "study",
         "source": "WARD", "study": f"{day:016x}", "files": 2, "bytes": 9}
        for day in range(0, 180, 2)
    ]  # fmt: skip
    project.arrivals.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
    moved = {"name": "features PA", "alarm": True}
    told: list[tuple[float, str, dict]] = [
        (0, MODEL, {"name": "lapvqa-encoder", "version": "1", "aliases": ["champion"],
                    "decision": "d1"}),
        (2, DRIFT, {"what": "look", "alarm": False, "kind": "none", "window": {"studies": 0},
                    "compared": [], "level": 0.0}),
        (30, DRIFT, {"what": "look", "alarm": False, "kind": "none", "window": {"studies": 40},
                     "level": 0.04,
                     "compared": [{"name": "tags", "alarm": False}]}),
        (60, DRIFT, {"what": "look", "alarm": True, "kind": "acquisition", "level": 0.04,
                     "window": {"studies": 44}, "compared": [moved]}),
        (61, DECISION, {"about": "retraining", "answer": "evaluate", "why": "drift: look first",
                        "decision": "evaluate: drift: look first"}),
        (70, DECISION, {"about": "retraining", "answer": "train", "why": "<b>500 studies</b>",
                        "decision": "train: 500 studies"}),
        (71, ledger.RUN, Run("pretrain", START + 71 * DAY, 60.0).payload()),
        (71, MODEL, {"name": "lapvqa-encoder", "version": "2", "aliases": ["candidate"]}),
        (72, DECISION, {"what": "gate", "verdict": "inconclusive", "reasons": ["too few"]}),
        (150, DECISION, {"what": "gate", "verdict": "promote", "reasons": ["auc: better"]}),
        (150, MODEL, {"name": "lapvqa-encoder", "version": "2", "aliases": ["champion"],
                      "decision": "d2"}),
        (151, MODEL, {"name": "lapvqa-encoder", "version": "2", "aliases": ["champion"],
                      "decision": "d2"}),
    ]  # fmt: skip
    drafts = [Draft(kind, said, START + day * DAY) for day, kind, said in told]
    ledger.extend(project, lambda _: drafts)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_every_line_tells_its_events_in_order(project: Project) -> None:
    write_history(project)
    events = freshness.find_events(project)
    of = {lane: [e.outcome for e in events if e.lane == lane] for lane in freshness.LANES}
    assert of[freshness.LOOKS] == ["described", "no drift", "drift: acquisition"]
    assert of[freshness.DECISIONS] == ["evaluate", "train"]
    assert of[freshness.TRAININGS] == ["finished"]
    assert of[freshness.GATES] == ["inconclusive", "promote"]
    assert of[freshness.CHAMPIONS] == ["version 1", "version 2"]  # named again is no event
    assert sum(event.studies for event in events) == 90
    assert [event.time for event in events] == sorted(event.time for event in events)


def test_the_page_is_self_contained_escaped_and_always_the_same(project: Project) -> None:
    write_history(project)
    page = freshness.render(freshness.find_events(project))
    assert page == freshness.render(freshness.find_events(project))
    assert "&lt;b&gt;500 studies" in page
    assert "<b>500" not in page
    assert "The champion is version 2, since 2026-06-04." in page
    assert f"{2:016x}" not in page
    assert "http" not in page


def test_a_young_history_is_drawn_by_minutes_and_says_the_time(project: Project) -> None:
    line = {"at": "2026-01-01T10:01:00+00:00", "event": "study", "study": "s1"}
    project.arrivals.parent.mkdir(parents=True, exist_ok=True)
    project.arrivals.write_text(json.dumps(line) + "\n")
    start = datetime(2026, 1, 1, 10, tzinfo=UTC).timestamp()
    told = [
        (0, {"what": "seal", "decision": "seal a share"}),
        (1200, {"what": "rollback", "decision": "roll back to version 1"}),
    ]
    ledger.extend(project, lambda _: [Draft(DECISION, said, start + at) for at, said in told])
    page = freshness.render(freshness.find_events(project))
    (width,) = re.findall(r'<rect x="[\d.]+%" y="[\d.]+" width="([\d.]+)%"', page)
    assert float(width) < 5
    assert "<span>2026-01-01 10:00</span><span>2026-01-01 10:20</span>" in page
    assert "2 decisions: 1 seal, 1 rollback." in page


def test_without_a_list_of_arrivals_each_ingest_tells_how_it_grew(project: Project) -> None:
    for day, studies in ((1, 50), (2, 50), (3, 62)):
        run = Run("ingest", START + day * DAY, 5.0, counts={"studies": studies})
        ledger.append(project, ledger.RUN, run.payload())
    events = freshness.find_events(project)
    assert [event.studies for event in events] == [50, 12]
    page = freshness.render(events)
    assert "nothing was decided about them yet" in page
    assert "there is no champion" in page


def test_what_an_erasure_took_is_passed_over(project: Project) -> None:
    write_history(project)
    gone = [entry.id for entry in ledger.entries(project) if entry.kind == DECISION]
    ledger.erase_payloads(project, gone, {"request": "r1"})
    assert not [e for e in freshness.find_events(project) if e.lane == freshness.GATES]


@needs_chromium
def test_the_page_fits_a_phone_and_asks_nobody(project: Project, tmp_path: Path) -> None:
    with keyboard(tmp_path / "browser") as opened:
        for filled in (False, True):
            if filled:
                write_history(project)
            freshness.write_page(project)
            for width in (380, 1280):
                opened.call(
                    "Emulation.setDeviceMetricsOverride", width=width, height=900,
                    deviceScaleFactor=1, mobile=False,
                )  # fmt: skip
                opened.open(project.freshness_page)
                assert opened.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
                shown = opened.evaluate("document.body.innerText")
                assert ("Nothing has happened yet" in shown) != filled
        assert all(one.startswith(("file:", "data:")) for one in opened.requests)
