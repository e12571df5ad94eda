"""Two years of a hospital in simulated time: what retraining does of itself, and how late.

``python benchmarks/bench_retraining.py [HISTORIES]``. Real are the record of what is wanted, the
arrivals, the schedule, the ledger, the lease, the rule and the decision; simulated are the clock,
the senders, the training and its errors.

About 20 studies a day, an eighth of the events repeated, two backlogs of 400; ten shifts, five of
which cost .06 of the metric (AUC scale) and five nothing; a look for drift each week that sees a
shift with .6 and cries without one in 5 % of its looks; two erasures; ten days of downtime; a
freeze over the turn of the year; the clock asks each quarter.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from lapvqa import storage
from lapvqa.lineage import ledger
from lapvqa.lineage.ledger import RUN, Draft
from lapvqa.lineage.runs import Run
from lapvqa.project import Project
from lapvqa.retraining import clock, performance, rounds, wanted
from lapvqa.retraining.performance import Comparison, Measured
from lapvqa.retraining.wanted import Round

START, DAYS = datetime(2027, 1, 4, tzinfo=UTC), 730
ZONE, QUARTERLY = "Europe/Berlin", "0 2 1 1,4,7,10 *"
FREEZE = ("2027-12-18", "2028-01-06")
DOWN = (datetime(2027, 9, 25, tzinfo=UTC), datetime(2027, 10, 5, tzinfo=UTC))
RULE = {
    "start": "scratch", "new_studies": 2500, "new_gigabytes": 0, "each_arrival": False,
    "least_new": 200, "fallen": 0.02, "quiet_minutes": 60, "patience_hours": 48, "rest_hours": 72,
    "freeze": [{"from": FREEZE[0], "until": FREEZE[1]}], "gpu_hours": 40,
}  # fmt: skip
HOURS, LOSS, SHARP = 9.0, 0.06, 0.35
SEES, CRIES = 0.6, 0.05
RESULT = Path(__file__).parent / "results" / "retraining.json"


@dataclass
class Shift:
    """Something changes; ``harms``: the champion is worse from then on, until it is retrained."""

    at: datetime
    harms: bool
    known: bool = False
    """Answered: retrained, or judged to be harmless."""


@dataclass
class Hospital:
    """The world around a project; the steps of a round are its own (``rounds.Work``)."""

    project: Project
    rng: np.random.Generator
    now: datetime = START
    shifts: list[Shift] = field(default_factory=list)
    trained: list[dict[str, Any]] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    erased: list[float] = field(default_factory=list)
    unseen: int = 0
    asked: datetime | None = None
    """When an erasure that no training has answered was asked for."""
    looks: int = 0
    evaluations: int = 0

    def count_new(self) -> int:
        """Half an hour of ingest."""
        self.looks += 1
        self.now += timedelta(minutes=30)
        return self.unseen

    def judge_champion(self) -> tuple[str, dict[str, Any] | None]:
        """Two hours; the new patients are those of the last ninety days."""
        self.evaluations += 1
        self.now += timedelta(hours=2)
        patients = 400
        harmed = any(shift.harms and not shift.known for shift in self.active())
        error = SHARP / np.sqrt(patients)
        value = 0.8 - LOSS * harmed + self.rng.normal(0, error)
        found = Comparison(
            Measured(0.8, SHARP / np.sqrt(2000), 2000),
            Measured(value, error, patients),
            RULE["fallen"],
        )
        if found.has_fallen:
            return found.words(), found.facts()
        for shift in self.active():
            shift.known = not shift.harms or shift.known
        return found.words(), None

    def train(self, at_work: Round) -> dict[str, Any]:
        """Nine hours on a GPU; the ledger tells of them."""
        began = self.now
        self.now += timedelta(hours=HOURS)
        run = Run("pretrain", began.timestamp(), HOURS * 3600)
        draft = Draft(RUN, run.payload(), self.now.timestamp())
        ledger.extend(self.project, lambda _: [draft])
        harmful = [shift for shift in self.active() if shift.harms and not shift.known]
        causes = {one.cause for one in at_work.causes}
        self.trained.append(
            {
                "began": began, "causes": sorted(causes), "way": at_work.way, "new": self.unseen,
                "false": not harmful and causes <= {wanted.PERFORMANCE, wanted.DRIFT},
            }
        )  # fmt: skip
        for shift in self.active():
            if shift.harms and not shift.known:
                self.delays.append((began - shift.at).total_seconds() / 86400)
            shift.known = True
        if self.asked is not None:
            self.erased.append((began - self.asked).total_seconds() / 86400)
            self.asked = None
        self.unseen = 0
        return {}

    def gate(self) -> dict[str, Any]:
        """Somebody else's."""
        return {"outcome": "promote"}

    def active(self) -> list[Shift]:
        """Return the shifts that have come."""
        return [shift for shift in self.shifts if shift.at <= self.now]


def live(root: Path, seed: int, *, params: dict[str, Any], step_h: int = 6) -> Hospital:
    """Live through two years in ``root``, looking every ``step_h`` hours."""
    rng = np.random.default_rng(seed)
    project = Project(root)
    with project.params.open("w") as file:
        YAML().dump({**params, "retraining": RULE}, file)
    project.state.mkdir(parents=True)
    clock.keep(project, clock.Schedule(QUARTERLY, ZONE, START.isoformat()))
    hospital = Hospital(project, rng)
    days = 20 + np.sort(rng.choice(DAYS // 10 - 4, 10, replace=False)) * 10
    harms = rng.permutation([True] * 5 + [False] * 5)
    hospital.shifts = [
        Shift(START + timedelta(days=int(day)), bool(harm))
        for day, harm in zip(days, harms, strict=True)
    ]
    erasures = [START + timedelta(days=int(day)) for day in rng.choice(DAYS - 30, 2, replace=False)]
    backlogs = set(rng.choice(DAYS, 2, replace=False).tolist())
    end, study, day = START + timedelta(days=DAYS), 0, -1
    with project.arrivals.open("a") as arrivals:
        while hospital.now < end:
            now = hospital.now
            today = (now - START).days
            while day < today:
                day += 1
                study = deliver(hospital, arrivals, study, day, backlog=day in backlogs)
                if day % 7 == 0:
                    look_for_drift(hospital)
            if erasures and now >= min(erasures):
                erasures.remove(min(erasures))
                wanted.want(project, wanted.ERASURE, now=now, request=f"request {len(erasures)}")
                hospital.asked = hospital.asked or now
            if not DOWN[0] <= now < DOWN[1]:
                _, decision = rounds.ask(project, now)
                if decision.acts:
                    rounds.take_turn(project, hospital, lambda: zoned(hospital), lambda _: None)
            hospital.now = max(hospital.now, now) + timedelta(hours=step_h)
    return hospital


def zoned(hospital: Hospital) -> datetime:
    """Return the simulated time where the hospital stands."""
    return hospital.now.astimezone(clock.zone_of(hospital.project))


def deliver(hospital: Hospital, arrivals: Any, study: int, day: int, *, backlog: bool) -> int:
    """Write a day's arrivals, some of them twice; return the number of the last study."""
    morning = START + timedelta(days=day, hours=7)
    workday = morning.weekday() < 5
    count = int(hospital.rng.poisson(26 if workday else 6)) + 400 * backlog
    times = np.sort(hospital.rng.uniform(0, 11 * 3600, count))
    for seconds in times:
        study += 1
        hospital.unseen += 1
        told = {
            "at": (morning + timedelta(seconds=float(seconds))).isoformat(), "event": "study",
            "source": "PACS", "study": f"{study:016x}", "files": 2, "bytes": 18_000_000,
        }  # fmt: skip
        for _ in range(1 + (hospital.rng.random() < 1 / 8)):
            arrivals.write(json.dumps(told) + "\n")
    arrivals.flush()
    return study


def look_for_drift(hospital: Hospital) -> None:
    """Cry, rightly or not, as a test of patients does."""
    open_shifts = [shift for shift in hospital.active() if not shift.known]
    if hospital.rng.random() < (SEES if open_shifts else CRIES):
        wanted.want(hospital.project, wanted.DRIFT, now=hospital.now, kind="acquisition")


def main(histories: int) -> None:
    """Live through histories, and print and keep what came of them."""
    whole = YAML(typ="safe").load(Path("params.yaml").read_text())
    params = {name: value for name, value in whole.items() if name != "retraining"}
    played = []
    for seed in range(histories):
        with tempfile.TemporaryDirectory() as folder:
            played.append(live(Path(folder), seed, params=params))
    years = DAYS / 365
    delays = np.concatenate([one.delays for one in played])
    erased = np.concatenate([one.erased for one in played])
    false = np.array([sum(row["false"] for row in one.trained) for one in played]) / years
    told = {
        "histories": histories,
        "trainings a year": float(np.mean([len(one.trained) for one in played]) / years),
        "false trainings a year, mean": float(false.mean()),
        "false trainings a year, worst history": float(false.max()),
        "evaluations a year": float(np.mean([one.evaluations for one in played]) / years),
        "looks at new data a year": float(np.mean([one.looks for one in played]) / years),
        "harmful shifts answered": int(len(delays)),
        "harmful shifts": 5 * histories,
        "days to a training, median": float(np.median(delays)),
        "days to a training, 90 %": float(np.quantile(delays, 0.9)),
        "days from erasure to a training, median": float(np.median(erased)),
        "days from erasure to a training, worst": float(erased.max()),
    }
    for name, value in told.items():
        print(f"{name:44} {value:10.2f}")
    storage.write_json(RESULT, {**told, "rule": RULE, "level": performance.LEVEL})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
