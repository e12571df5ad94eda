"""Sex and age band of each study: from the headers, or from MIMIC-IV's table; nothing finer."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import run_until_pretraining
from made_dicom import dicom_bytes, small_image, write_project

from lapvqa import storage
from lapvqa.dicom.person import band, band_of_text, clean_sex
from lapvqa.identity import Keyring
from lapvqa.lineage import contents
from lapvqa.machine import load_machine
from lapvqa.project import Project
from lapvqa.schemas import DEMOGRAPHICS

BANDS = {*(f"{tens}0-{tens}9" for tens in range(1, 9)), "0-9", "90+"}
KEY = "0123456789abcdef" * 2

# patient -> its films: study, sex, age
HEADERS = {
    "10000001": [(1, "F", "045Y"), (2, "F", "051Y")],
    "10000002": [(3, "M", "089Y"), (4, "F", "090Y")],  # not the same person, or a mistake
    "10000003": [(5, "", ""), (6, "", "000Y")],
    "10000004": [(7, "O", "006M")],
    "10000005": [(8, "", "")],
    "10000006": [(9, "", "")],
}
TABLE = """subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod
10000003,M,88,2150,2014 - 2016,
10000005,F,91,2150,2014 - 2016,
10000006,F,91,2160,2014 - 2016,
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("045Y", "40-49"), ("9Y", "0-9"), ("089Y", "80-89"), ("090Y", "90+"), ("120y", "90+"),
        ("006M", "0-9"), ("130M", "10-19"), ("003W", "0-9"), ("002D", "0-9"), ("000D", "0-9"),
        ("000Y", ""), ("", ""), ("45", ""), ("-5Y", ""), ("999Y", ""), ("٤٥Y", "40-49"),
    ],
)  # fmt: skip
def test_ages_of_headers_become_bands(text: str, expected: str) -> None:
    assert band_of_text(text) == expected


@given(st.text(max_size=8) | st.from_regex(r"\d{1,4}[DWMYx]", fullmatch=True))
def test_nothing_but_a_band_or_a_term_comes_out(text: str) -> None:
    assert band_of_text(text) in BANDS | {""}
    assert clean_sex(text) in {"M", "F", "O", ""}


@given(st.integers(0, 130), st.integers(0, 130))
def test_who_is_older_is_in_no_younger_band(one: int, other: int) -> None:
    order = sorted(BANDS, key=lambda name: int(name.rstrip("+").partition("-")[0]))
    assert (one <= other) <= (order.index(band(one)) <= order.index(band(other)))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("people")
    archive = root / "archive"
    for patient, films in HEADERS.items():
        for number, sex, age in films:
            place = archive / f"files/p10/p{patient}/s{50000000 + number}"
            place.mkdir(parents=True)
            data = dicom_bytes(
                small_image(number), bits=8, SOPInstanceUID=f"1.2.3.{number}",
                StudyInstanceUID=f"1.2.{number}", PatientID=patient, StudyDate="21520301",
                PatientSex=sex, PatientAge=age, PatientBirthDate="20990713",
            )  # fmt: skip
            (place / f"{number:08x}-aaaaaaaa.dcm").write_bytes(data)
            place.with_suffix(".txt").write_text(f"FINAL REPORT\n FINDINGS: Number {number}.\n")
    (archive / "patients.csv").write_text(TABLE)
    project = write_project(root / "project", archive)
    project.state.mkdir(parents=True)
    (project.state / "deid.key").write_text(KEY)
    run_until_pretraining(project, load_machine(project))
    return project


def test_each_study_has_what_is_known_of_its_patient(project: Project) -> None:
    keys = Keyring(KEY.encode())
    rows = storage.read_table(project.demographics, DEMOGRAPHICS, made_by="ingest").to_pylist()
    found = {row["study_key"]: (row["sex"], row["age_band"]) for row in rows}
    expected = {
        1: ("F", "40-49"), 2: ("F", "50-59"), 3: (None, "80-89"), 4: (None, "90+"),
        5: ("M", "90+"), 6: ("M", "90+"), 7: ("O", "0-9"), 8: ("F", "90+"), 9: ("F", None),
    }  # fmt: skip
    assert found == {keys.study(f"{50000000 + n}"): one for n, one in expected.items()}


def test_no_table_or_finished_work_has_an_age_or_a_birth_date(project: Project) -> None:
    ages = {b"045Y", b"051Y", b"089Y", b"006M", b"20990713", b"45Y"}
    for path in project.root.rglob("*.parquet"):
        if "inventory" in path.parts:
            continue
        columns = pq.ParquetFile(path).read().to_pydict()
        text = repr(columns).encode()
        assert not [age for age in ages if age in text], path.name


def test_the_ledger_keeps_what_a_card_tells_of_it(project: Project) -> None:
    counts = contents.facts(project.demographics)["counts"]
    assert sum(sum(own.values()) for own in counts["sex"].values()) == 9
    assert sum(counts["sex"]["unknown"].values()) == 2
    assert sum(counts["age_band"]["90+"].values()) == 4
