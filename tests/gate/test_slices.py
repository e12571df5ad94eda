"""Slices come from what the tables know, and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contest import GATE, Contest

from lapvqa.gate.slices import divide
from lapvqa.params import load_params
from lapvqa.project import Project


@pytest.fixture
def contest(tmp_path: Path, repository: Path) -> Contest:
    params = load_params(repository / "params.yaml").model_copy(update={"gate": GATE})
    made = Contest(Project(tmp_path), params)
    made.arrive(6)
    return made


@pytest.mark.parametrize("column", ["image", "sample"])
def test_view_sex_age_and_source_of_each_sample(contest: Contest, column: str) -> None:
    """Of a report the sample is its study; of a question the image is named."""
    project, keys = contest.project, contest.patients
    own = {"image": [f"i{key}" for key in keys], "sample": [f"s{key}" for key in keys]}
    rows = pa.table({"sample": own["sample"], "patient": keys, column: own[column]})
    kinds = ("view", "sex", "age", "source")
    assert divide(project, rows, kinds) == {
        "view": {"view AP": set(own["sample"][::2]), "view PA": set(own["sample"][1::2])},
        "sex": {}, "age": {}, "source": {},
    }  # fmt: skip

    known = [("F", "30-39"), ("M", "90+"), (None, "50-59"), ("F", None)]
    said = [
        {"study_key": f"s{key}", "sex": sex, "age_band": band}
        for key, (sex, band) in zip(keys, known, strict=False)
    ]
    pq.write_table(pa.Table.from_pylist(said), project.demographics)
    events = [
        {"at": f"2027-01-0{day}T08:00:00+00:00", "event": event, "study": f"s{keys[0]}",
         "source": source}
        for day, (event, source) in enumerate(
            [("study", "PACS1"), ("amended", "OTHER"), ("report", "RIS")], start=1
        )
    ]  # fmt: skip
    project.state.mkdir()
    lines = "".join(f"{json.dumps(event)}\n" for event in events)
    (project.state / "arrivals.jsonl").write_text(lines + '{"study": "s')
    found = divide(project, rows, kinds)
    one, two, three, four = own["sample"][:4]
    assert found["sex"] == {"sex F": {one, four}, "sex M": {two}}
    assert found["age"] == {
        "age below 40": {one}, "age 80 and above": {two}, "age 40 to 59": {three},
    }  # fmt: skip
    assert found["source"] == {"source PACS1": {one}}
