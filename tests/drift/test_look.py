"""Looks at a small demo archive whose studies arrived by the order that each test needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from demo_project import ingested
from jobs import make_job
from watched_computing import nothing_outside

from flows.commands import drift as command
from lapvqa import storage
from lapvqa.drift import look, reference
from lapvqa.drift.arrivals import Arrival
from lapvqa.drift.look import Report
from lapvqa.drift.reference import Reference
from lapvqa.drift.window import choose
from lapvqa.errors import ConfigError, SchemaError
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.images.shards import ShardStore
from lapvqa.lineage import ledger, story
from lapvqa.networks.weights import serialise
from lapvqa.params import DriftParams, ModelParams, RetrainingParams
from lapvqa.pretrain.model import initial_model
from lapvqa.project import Project
from lapvqa.retraining import rounds, wanted
from lapvqa.retraining.decision import Answer, decide
from lapvqa.retraining.situation import Situation
from lapvqa.retraining.wanted import Round
from lapvqa.schemas import IMAGES, LABELS, MEMBERS, MEMBERS_FILE, STUDIES

DAY = 86400.0
FROZEN = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
NOW = FROZEN + 60 * DAY
SIZES = ModelParams(
    image_size=32, patch_size=8, width=32, depth=1, heads=2, pooled_grid=2, decoder_width=32,
    decoder_depth=1, decoder_heads=2,
)  # fmt: skip
PARAMS = DriftParams(min_patients=5, window_days=90, seasons=False)


class Cells(ImageEncoder):
    """Brightness of sixteen cells: what a change of grey values moves most."""

    width, about = 16, "brightness"

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.patches(pixels)

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        cells = torch.nn.functional.adaptive_avg_pool2d(pixels.float()[:, None], 4)
        return cells.flatten(2) * self.weight


@dataclass
class Archive:
    """The demo archive with looks at it."""

    project: Project

    def look(self, now: float = NOW, **how: object) -> Report:
        with nothing_outside():
            return look.look(PARAMS, make_job(self.project), Cells(), now=now, **how)  # type: ignore[arg-type]

    def give_encoder(self) -> None:
        """Let the project have a model of its own, one that never learnt."""
        encoder = initial_model(SIZES, seed=5).vision_encoder
        folder = self.project.model_dir("captioning")
        storage.write_bytes(folder / "encoder_final.pt", serialise(encoder.state_dict()))
        storage.write_json(folder / "card.json", {"model": SIZES.model_dump(), "init_seed": 0})

    def studies(self) -> dict[str, str]:
        """Study key -> patient key."""
        rows = storage.read_table(self.project.studies, STUDIES, made_by="ingest").to_pylist()
        return {row["study_key"]: row["patient_key"] for row in rows}

    def arrive(self, score: Mapping[str, float], late_from: str = "PACS") -> None:
        """Let the half of the patients with the highest scores come after freezing."""
        order = sorted(score, key=lambda patient: score[patient])
        late = set(order[len(order) // 2 :])
        lines = []
        for study, patient in self.studies().items():
            at = datetime.fromtimestamp(FROZEN + (DAY if patient in late else -DAY), UTC)
            source = late_from if patient in late else "PACS"
            event = {"at": at.isoformat(), "event": "study", "source": source, "study": study}
            lines.append(event)
        self.project.arrivals.parent.mkdir(parents=True, exist_ok=True)
        self.project.arrivals.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def of_patients(self, value: Callable[[str], float]) -> dict[str, float]:
        """Return patient -> mean of a value of its studies."""
        found: dict[str, list[float]] = {}
        for study, patient in self.studies().items():
            found.setdefault(patient, []).append(value(study))
        return {patient: float(np.mean(values)) for patient, values in found.items()}

    def brightness(self) -> dict[str, float]:
        images = storage.read_table(self.project.images, IMAGES, made_by="ingest")
        shards = ShardStore(self.project.images_dir)
        pixels = shards.read(images["shard"].to_pylist(), images["row"].to_pylist())
        of = dict(zip(images["study_key"].to_pylist(), pixels.mean(axis=(1, 2)), strict=True))
        return self.of_patients(lambda study: of.get(study, 0.0))

    def edema(self) -> dict[str, float]:
        rows = storage.read_table(self.project.labels, LABELS, made_by="ingest").to_pylist()
        sick = {row["study_key"] for row in rows if row["No Finding"] != 1}
        return self.of_patients(lambda study: float(study in sick))


@pytest.fixture
def archive(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(ingested(tmp_path_factory, tmp_path / "project"))


def drawn(archive: Archive, seed: int = 0) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    return {patient: rng.random() for patient in sorted(set(archive.studies().values()))}


def test_the_first_look_freezes_and_the_next_compares(archive: Archive) -> None:
    archive.arrive(drawn(archive))
    first = archive.look(now=FROZEN)
    assert not first.compared
    assert not first.alarm
    assert "nothing to compare yet" in story.tell(archive.project)[0].sentence
    assert first.level == 0
    second = archive.look()
    names = {one.name for one in second.compared} | set(second.left_out)
    assert {"tags", "texts", "findings", "rejects"} <= names
    assert any(name.startswith("features") for name in names)
    assert second.level == pytest.approx(0.05)
    assert not second.alarm
    assert second.kind == "none"
    assert not archive.project.wanted.exists()
    assert all(0 < one.p <= 1 for one in second.compared)
    kept = json.loads(archive.project.drift_report.read_bytes())
    told = ledger.entries(archive.project)[-1]
    assert told.kind == ledger.DRIFT
    assert told.payload == kept == json.loads(json.dumps(second.to_json()))
    assert ledger.verify(archive.project) == []
    assert "no drift" in story.tell(archive.project)[0].sentence
    assert not any(patient in json.dumps(kept) for patient in archive.studies().values())


def test_another_exposure_is_an_acquisition_shift(archive: Archive) -> None:
    archive.arrive(archive.brightness())
    archive.look(now=FROZEN)
    found = archive.look()
    assert found.alarm
    assert found.kind in ("acquisition", "mixed")
    moved = [one for one in found.compared if one.kind == "features" and one.alarm]
    assert moved
    assert all(one.p_given_findings is not None for one in moved)
    assert max(one.told_apart or 0 for one in moved) > 0.65
    (cause,) = wanted.load(archive.project).causes
    assert (cause.cause, cause.facts) == ("drift", {"kind": found.kind})
    rule = RetrainingParams(quiet_minutes=0)
    decided = decide(Situation(causes=(cause,)), rule, datetime.now(UTC))
    assert decided.answer is Answer.EVALUATE, "a look asks for no training"


def test_other_patients_are_a_prevalence_shift(archive: Archive) -> None:
    archive.arrive(archive.edema())
    archive.look(now=FROZEN)
    found = archive.look()
    assert found.alarm
    assert found.kind == "prevalence"
    (findings,) = [one for one in found.compared if one.kind == "findings"]
    assert findings.alarm
    assert any("No Finding" in change for change in findings.changes)


def test_what_looks_spend_is_bounded_by_the_time_between_them(archive: Archive) -> None:
    archive.arrive(archive.brightness())
    archive.look(now=FROZEN)
    archive.look()
    again = archive.look(now=NOW + 60)
    assert again.level == 0
    assert not again.alarm
    assert any("too soon" in remark for remark in again.remarks)
    assert archive.look(now=NOW + 7 * DAY).level == pytest.approx(0.5 * 7 / 365.25, rel=1e-3)


def test_films_that_the_encoder_was_trained_on_are_left_out(archive: Archive) -> None:
    archive.arrive(drawn(archive))
    archive.look(now=FROZEN)
    folder = archive.project.model_dir("captioning")
    rows = [
        {"study_key": study, "patient_key": patient, "role": "train", "times": 3, "times_best": 3,
         "first_step": 1}
        for study, patient in archive.studies().items()
    ]  # fmt: skip
    storage.write_table(folder / MEMBERS_FILE, pa.Table.from_pylist(rows, MEMBERS), MEMBERS)
    found = archive.look(model=folder)
    assert not any(one.kind == "features" for one in found.compared)
    assert any(one.kind == "greys" for one in found.compared)
    assert any(one.kind == "findings" for one in found.compared)


def test_an_erasure_shrinks_the_reference_and_any_other_change_is_refused(
    archive: Archive,
) -> None:
    archive.arrive(drawn(archive))
    archive.look(now=FROZEN)
    path = archive.project.drift_reference
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[1:]))  # what an erasure does to a file of lines
    assert any("an erasure took 1 studies" in remark for remark in archive.look().remarks)
    path.write_bytes(b"".join([*whole[1:], b'{"study": "another"}\n']))
    with pytest.raises(SchemaError, match="as they were frozen"):
        archive.look()
    look.freeze(make_job(archive.project), now=NOW)
    assert reference.read(archive.project) is not None
    shutil.rmtree(path.parent)
    with pytest.raises(SchemaError, match="freeze"):
        archive.look()


def test_a_study_without_an_arrival_came_when_it_was_first_noticed(archive: Archive) -> None:
    first = archive.look(now=FROZEN)
    known = reference.read(archive.project)
    assert known is not None
    assert known.studies == set(archive.studies())
    assert first.window["studies"] == 0
    lines = archive.project.noticed_studies.read_text().splitlines()
    assert {json.loads(line)["at"] for line in lines} == {FROZEN}


def test_an_alarm_of_the_command_is_a_cause_that_the_next_decision_hears(archive: Archive) -> None:
    archive.give_encoder()
    params = archive.project.params
    params.write_text(params.read_text().replace("min_patients: 20", "min_patients: 5"))
    archive.arrive(archive.brightness())
    archive.look(now=FROZEN)
    command.execute(archive.project, since="2026-01-01", freeze=False, as_json=True)
    (cause,) = wanted.load(archive.project).causes
    assert cause.cause == wanted.DRIFT
    assert cause.facts["kind"] in ("acquisition", "mixed")


class Worker:
    """Looks as the pipeline does, at data that is up to date; judges that nothing has fallen."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def look_for_drift(self) -> None:
        command.look_of_a_round(self.project, lambda: None)

    def judge_champion(self) -> tuple[str, None]:
        return "0.80 as before", None

    def count_new(self) -> int:
        raise AssertionError("drift asks for an evaluation, for nothing else")

    def train(self, at_work: Round) -> dict[str, object]:
        raise AssertionError(f"drift asks for no training: {at_work}")

    gate = count_new


def test_what_has_arrived_asks_for_a_look_and_its_alarm_for_an_evaluation(
    archive: Archive,
) -> None:
    archive.give_encoder()
    params, project = archive.project.params, archive.project
    text = params.read_text().replace("min_patients: 20", "min_patients: 5")
    text = text.replace("window_days: 30", "window_days: 36500")
    text = text.replace("quiet_minutes: 30", "quiet_minutes: 0")
    params.write_text(text.replace("look_studies: 200", "look_studies: 10"))
    archive.arrive(archive.brightness())
    archive.look(now=FROZEN)
    work = Worker(project)

    def turn() -> list[str]:
        before = len(ledger.entries(project))
        rounds.take_turn(project, work, lambda: datetime.now(UTC), lambda _: None)  # type: ignore[arg-type]
        told = [entry.payload or {} for entry in ledger.entries(project)[before:]]
        return [str(one.get("answer") or one.get("outcome") or one["what"]) for one in told]

    assert turn() == ["look for drift", "look", "evaluate", "no", "declined"]
    assert turn() == ["nothing"], "those studies have been looked at"
    storage.write_json(project.drift_reference, [])  # a look that fails is none of the training's
    archive.arrive(archive.edema())
    now = datetime.now(UTC).isoformat().encode()
    late = project.arrivals.read_bytes().replace(b"2026-01-02T00:00:00+00:00", now)
    storage.write_bytes(project.arrivals, late)
    assert turn() == ["look for drift", "no look", "nothing"]


def test_the_command_prints_the_report_for_people_and_for_machines(
    archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.give_encoder()
    archive.arrive(drawn(archive))
    archive.look(now=FROZEN)
    assert command.execute(archive.project, since="2026-01-01", freeze=False, as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads(archive.project.drift_report.read_bytes())
    assert said["window"]["studies"] > 0
    assert "How it stayed fresh" in archive.project.freshness_page.read_text()
    assert command.execute(archive.project, since=None, freeze=True, as_json=False) == 0
    assert (
        "reference frozen now: 48 studies, in the place of any before;" in capsys.readouterr().out
    )
    command.execute(archive.project, since=None, freeze=False, as_json=False)
    out = capsys.readouterr().out
    assert "not compared: findings: too few patients: 0 new" in out
    assert "`lapvqa drift --freeze` makes a new one" in out
    with pytest.raises(ConfigError, match="--since"):
        command.execute(archive.project, since="soon", freeze=False, as_json=False)


def test_films_of_a_source_that_is_new_meet_the_reference_of_all_sources(archive: Archive) -> None:
    archive.arrive(archive.brightness(), late_from="NEW WARD")
    archive.look(now=FROZEN)
    found = archive.look()
    names = {one.name for one in found.compared}
    assert "greys PA from sources that are new" in names | set(found.left_out)
    moved = {one.name: one.alarm for one in found.compared if one.kind == "greys"}
    assert any(moved.values())
    assert not any("from NEW WARD" in name for name in names)


# The window, by hand


def table(rows: list[tuple[str, str, str | None]]) -> pa.Table:
    full = [
        {"study_key": s, "patient_key": p, "split": "train", "study_order": 0, "num_images": 1,
         "identity_flags": [], "study_date": day}
        for s, p, day in rows
    ]  # fmt: skip
    return pa.Table.from_pylist(full, STUDIES)


def frozen(*studies: str) -> Reference:
    return Reference(frozenset(studies), 100 * DAY, "digest", 0)


def test_nobody_stands_on_both_sides() -> None:
    rows = [("a", "p1", None), ("b", "p2", None), ("c", "p1", None)]
    arrived = {"a": Arrival(DAY), "b": Arrival(DAY), "c": Arrival(101 * DAY)}
    found = choose(
        table(rows), arrived, frozen("a", "b"), start=100 * DAY, end=102 * DAY,
        min_patients=1, seasons=True, dates_are_true=False,
    )  # fmt: skip
    assert found.is_new == {"b": False, "c": True}
    assert found.returning == 1


def test_a_date_within_the_reference_divides_it() -> None:
    rows = [("a", "p1", None), ("b", "p2", None)]
    arrived = {"a": Arrival(DAY), "b": Arrival(50 * DAY)}
    found = choose(
        table(rows), arrived, frozen("a", "b"), start=40 * DAY, end=102 * DAY, divide=True,
        min_patients=1, seasons=False, dates_are_true=False,
    )  # fmt: skip
    assert found.is_new == {"a": False, "b": True}


def test_a_study_that_was_ingested_after_the_freezing_is_new_though_it_arrived_before() -> None:
    rows = [("a", "p1", None), ("late", "p2", None)]
    arrived = {"a": Arrival(DAY), "late": Arrival(99 * DAY)}
    found = choose(
        table(rows), arrived, frozen("a"), start=80 * DAY, end=110 * DAY,
        min_patients=1, seasons=False, dates_are_true=False,
    )  # fmt: skip
    assert found.is_new == {"a": False, "late": True}


def test_winter_meets_winter_where_there_is_a_year() -> None:
    months = [f"2025{month:02}15" for month in range(1, 13)]
    rows = [(f"s{n}", f"p{n}", day) for n, day in enumerate(months)]
    rows += [("new", "q", "20260110")]
    arrived = {key: Arrival(DAY) for key, _, _ in rows} | {"new": Arrival(101 * DAY)}
    known = frozen(*(key for key, _, _ in rows if key != "new"))

    def months_of(true_dates: bool, least: int = 1) -> tuple[tuple[int, ...], set[str]]:
        found = choose(
            table(rows), arrived, known, start=100 * DAY, end=102 * DAY,
            min_patients=least, seasons=True, dates_are_true=true_dates,
        )  # fmt: skip
        return found.months, {key for key, is_new in found.is_new.items() if not is_new}

    everything = {key for key, _, _ in rows if key != "new"}
    assert months_of(False) == ((), everything)  # shifted or dropped dates tell no season
    assert months_of(True, least=2) == ((), everything)
    rows.append(("old", "p99", "20241220"))
    arrived["old"], known = Arrival(DAY), frozen(*everything, "old")
    assert months_of(True) == ((1,), {"s0"})
