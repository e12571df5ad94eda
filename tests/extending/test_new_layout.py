"""A new archive layout is one class and its name: the worked example of docs/extending.md, run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
from made_dicom import dicom_bytes, small_image, write_project
from worked_example import assert_shown, copy_package, insert, replace, run

from lapvqa.ingest.archives.protocol import KnownStudies
from lapvqa.ingest.archives.recognise import open_archive

MODULE = Path(__file__).parent / "monthly.py"
IMPORT = "from lapvqa.ingest.archives.monthly import MonthlyArchive\n"
NAMED = (
    "NAMED: tuple[_Named, ...] = (MimicArchive, MimicJpgArchive, OpenIArchive, MonthlyArchive)\n"
)
WORDS = '    "an archive by months (YEAR/MONTH/ACCESSION/*.dcm, reports/ACCESSION.txt), "\n'
LISTED = "    monthly.py        studies in folders of months, reports by accession number\n"


def write_archive(folder: Path) -> Path:
    """Two studies of two images and one of one; besides, a stray image and a stray report."""
    places = ["2021/03/A100"] * 2 + ["2021/03/A101"] * 2 + ["2022/11/A102", "covers"]
    for number, place in enumerate(places):
        study = sorted(set(places)).index(place)
        data = dicom_bytes(
            small_image(number), bits=8, PatientID=f"patient {study % 2}",
            StudyInstanceUID=f"1.2.{study}", SOPInstanceUID=f"1.2.3.{number}",
        )  # fmt: skip
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / f"{number}.dcm").write_bytes(data)
    (folder / "reports").mkdir()
    for name in ("A100", "A101", "A102", "A999"):
        (folder / "reports" / f"{name}.txt").write_text(f" FINDINGS: Report {name}.\n")
    return folder


def test_an_archive_of_the_new_layout_is_ingested(tmp_path: Path, repository: Path) -> None:
    root = tmp_path / "project"
    copy_package(repository, root)
    archives = root / "lapvqa/ingest/archives"
    shutil.copy(MODULE, archives)
    recognise = archives / "recognise.py"
    insert(recognise, IMPORT, before="from lapvqa.ingest.archives.openi import")
    insert(recognise, WORDS, before='    "and any tree with')
    replace(recognise, NAMED, start="NAMED: ")
    insert(archives / "__init__.py", LISTED, before="    tree.py ")
    budget = {"overall": 0.9, "per_folder": 1.0, "folder_min_files": 20}
    source = write_archive(tmp_path / "archive")
    project = write_project(root, source, workers=1, reject_budget=budget)
    for stage in ("inventory", "ingest"):
        said = run(root, "lapvqa.stage", stage)

    assert "monthly" in said
    inventory = pq.read_schema(project.inventory("source")).metadata
    assert b"monthly" in inventory.values()
    rejects = pq.read_table(project.rejects).to_pylist()
    assert {row["file"]: row["reason"] for row in rejects} == {
        "covers/5.dcm": "outside_layout",
        "reports/A999.txt": "report_without_study",
    }
    images, studies = pq.read_table(project.images), pq.read_table(project.studies)
    assert (len(images), len(studies)) == (5, 3), "6 files in = 5 images + 1 reject"
    assert sorted(row["report"] for row in studies.to_pylist()) == [
        f" FINDINGS: Report {name}.\n" for name in ("A100", "A101", "A102")
    ]
    assert len(set(studies["patient_key"].to_pylist())) == 2


def test_without_the_layout_it_is_a_tree_whose_reports_nobody_can_match(tmp_path: Path) -> None:
    source = write_archive(tmp_path / "archive")
    paths = sorted(str(path.relative_to(source)) for path in source.rglob("*.*"))
    archive = open_archive(source, paths)
    studies: dict[str, list[str]] = {}
    for path in archive.images:
        studies.setdefault(str(Path(path).parent), []).append(path)
    assert archive.name == "tree"
    assert archive.match_reports(KnownStudies(studies)).reports == {}


def test_the_document_shows_these_very_lines(repository: Path) -> None:
    assert_shown(repository, files=[MODULE], lines=[IMPORT, NAMED, WORDS, LISTED])
