"""Reports that arrive: the one that counts here is the one that ingest takes."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
from intake_parts import Desk, fhir, film, look, open_desk, oru
from jobs import make_job

from lapvqa import inventory
from lapvqa.ingest import ingest
from lapvqa.machine import load_machine
from lapvqa.params import load_params

NUMBER = 24


def test_the_report_that_counts_is_the_one_that_ingest_takes(tmp_path) -> None:
    """Any order of messages, resources, undated rows and texts, preliminary and corrected."""
    draw = random.Random(7)
    folder = tmp_path / "drop"
    folder.mkdir()
    with open_desk(tmp_path, "watch-RIS") as desk:
        for number in range(NUMBER):
            image = film(
                number, study=f"1.2.{number}", accession=f"A{number}", PatientID=f"P{number}",
                ViewPosition="PA",
            )  # fmt: skip
            (folder / f"{number}.dcm").write_bytes(image)
        if draw.random() < 0.5:
            look(desk, folder)
        minutes = {number: draw.sample(range(10, 60), 4) for number in range(NUMBER)}
        for turn in range(4):
            rows = ["Accession Number,Report"]
            for number in range(NUMBER):
                _write_one(folder, draw, number, turn, minutes[number][turn], rows)
            (folder / "export.csv").write_text("\n".join(rows) + "\n")
            look(desk, folder)
        taken, counted = _ingested(desk)
        assert len(taken) == NUMBER
        assert taken == counted
        kinds = [event["event"] for event in desk.events]
        assert kinds.count("study") == kinds.count("report") == NUMBER
        assert kinds.count("amended") > NUMBER // 2
        look(desk, folder)
        assert len(desk.events) == len(kinds)


def _write_one(
    folder: Path, draw: random.Random, number: int, turn: int, minute: int, rows: list[str]
) -> None:
    """Write a report of one study, in one of the ways in which they come."""
    text = f"No effusion, turn {turn} of study {number}."
    form = draw.choice(["hl7", "fhir", "row", "text"])
    if form == "hl7":
        message = oru(
            text, accession=f"A{number}", time=f"2026112910{minute}", status=draw.choice("PFC")
        )
        (folder / f"{number}-{turn}.hl7").write_text(message)
    elif form == "fhir":
        status = draw.choice(["preliminary", "final", "amended"])
        resource = fhir(text, accession=f"A{number}", minute=minute, status=status)
        (folder / f"{number}-{turn}.json").write_text(resource)
    elif form == "row":
        rows.append(f'A{number},"{text}"')
    else:
        (folder / f"A{number}.txt").write_text(text)


def _ingested(desk: Desk) -> tuple[dict[str, str], dict[str, str]]:
    """Return by study the report that ingest takes, and the one that counts in the list."""
    project = desk.project
    params = load_params(project.params)
    job = make_job(project, load_machine(project))
    inventory.run(params.inventory, job)
    ingest.run(params.ingest, job)
    studies = pq.read_table(project.studies).to_pylist()
    keyring = desk.inbox.keyring
    taken = {one["study_key"]: keyring.digest("report", one["report_sha256"]) for one in studies}
    counted = {
        one["study_key"]: desk.filing.register.report_of([one["study_key"]]) for one in studies
    }
    return taken, {study: event["report"] for study, event in counted.items() if event}
