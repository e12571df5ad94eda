from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lapvqa.errors import SourceError, SplitLeakError
from lapvqa.identity import Ids, Keyring
from lapvqa.ingest.archives.protocol import IDS, LISTED, NO_LABELS, Archive, KnownStudies
from lapvqa.ingest.archives.recognise import open_archive, recognise
from lapvqa.schemas import CHEXPERT_LABELS

IMAGE = "files/p10/p10000032/s50414267/02aa804e-bde0afdd.dcm"
LATERAL = "files/p10/p10000032/s50414267/174413ec-4ec4c1f7.dcm"
REPORT = "files/p10/p10000032/s50414267.txt"
PREAMBLE = bytes(128) + b"DICM"


def write(folder: Path, files: Mapping[str, str | bytes]) -> list[str]:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        (folder / path).write_bytes(gzip.compress(data) if path.endswith(".gz") else data)
    return sorted(files)


def matched(archive: Archive, images: Mapping[str, Sequence[str]], **known: Any) -> dict[str, str]:
    """The report that each study gets, if all can be read."""
    matches = archive.match_reports(KnownStudies(images, **known))
    return {study: min(found).path for study, found in matches.reports.items()}


def listed(archive: Archive, *paths: str) -> list[dict[str, str | None]]:
    """What the tables say of images."""
    ids = [archive.ids(path) or Ids() for path in paths]
    table = archive.listed(pa.table(list(zip(*ids, strict=True)), schema=IDS))
    assert table.schema == LISTED
    rows: list[dict[str, str | None]] = table.to_pylist()
    return rows


METADATA = (
    "dicom_id,subject_id,study_id,ViewPosition,Rows,Columns,StudyDate,StudyTime\n"
    "02aa804e-bde0afdd,10000032,50414267,PA,3056,2544,21800506,80556.875\n"
    "174413ec-4ec4c1f7,10000032,50414267,,3056,2544,21800506,213014.531\n"
)
SPLIT = "dicom_id,study_id,subject_id,split\n02aa804e-bde0afdd,50414267,10000032,validate\n"
CHEXPERT = (
    "subject_id,study_id," + ",".join(CHEXPERT_LABELS) + "\n"
    "10000032,50414267,,1.0,,-1.0,,,,,0.0,,,,,\n"
)


@pytest.mark.parametrize("nesting", ["", "physionet.org/files/mimic-cxr/2.1.0/"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mimic_by_path_and_tables(tmp_path: Path, nesting: str, suffix: str) -> None:
    files = {
        IMAGE: b"", LATERAL: b"", REPORT: "FINAL REPORT", "LICENSE.txt": "no report",
        f"mimic-cxr-2.0.0-metadata.csv{suffix}": METADATA,
        f"mimic-cxr-2.0.0-split.csv{suffix}": SPLIT,
        f"mimic-cxr-2.0.0-chexpert.csv{suffix}": CHEXPERT,
    }  # fmt: skip
    paths = write(tmp_path, {nesting + path: content for path, content in files.items()})
    archive = open_archive(tmp_path, paths)
    assert archive.name == recognise(tmp_path, paths) == "mimic-cxr"
    image, lateral = nesting + IMAGE, nesting + LATERAL
    assert archive.images == [image, lateral]
    assert archive.ids(image) == Ids("02aa804e-bde0afdd", "50414267", "10000032")
    assert archive.ids("stray.dcm") is None
    # The lateral image is not in the split table, its patient is.
    assert listed(archive, image, lateral) == [
        {"view": "PA", "date": "21800506", "time": "080556.875", "split": "validate"},
        {"view": None, "date": "21800506", "time": "213014.531", "split": "validate"},
    ]
    assert archive.reports == [nesting + REPORT]
    assert matched(archive, {"key": [lateral]}) == {"key": nesting + REPORT}
    (labels,) = archive.labels().to_pylist()
    assert labels.pop("study") == "50414267"
    assert labels["Cardiomegaly"] == 1
    assert [*labels.values()].count(None) == 11
    assert labels["Edema"] == -1


def test_mimic_without_tables_has_no_split(tmp_path: Path) -> None:
    archive = open_archive(tmp_path, write(tmp_path, {IMAGE: b"", REPORT: "x"}))
    assert not archive.has_split
    assert listed(archive, IMAGE) == [dict.fromkeys(LISTED.names)]
    assert archive.labels() == NO_LABELS


def test_a_split_table_that_leaks_or_cannot_be_read(tmp_path: Path) -> None:
    leaking = SPLIT + "ffffffff-ffffffff,50414268,10000032,train\n"
    table = "mimic-cxr-2.0.0-split.csv"
    with pytest.raises(SplitLeakError, match="1 patients") as caught:
        open_archive(tmp_path, write(tmp_path, {IMAGE: b"", table: leaking}))
    assert "10000032" not in str(caught.value)
    for bad in ("dicom_id,split\na,train\n", SPLIT.replace("validate", "val"), "\0\1\2"):
        with pytest.raises(SourceError):
            open_archive(tmp_path, write(tmp_path, {IMAGE: b"", table: bad}))


def test_files_are_found_by_suffix_or_by_preamble(tmp_path: Path) -> None:
    paths = write(
        tmp_path,
        {
            "a.dcm": b"", "b.DCM": b"", "c.dicom": b"", "IM0001": PREAMBLE,
            "1.2.840.113": PREAMBLE, "LICENSE": b"text", "notes.1": b"text", "x.csv": PREAMBLE,
        },
    )  # fmt: skip
    archive = open_archive(tmp_path, paths)
    assert archive.name == "tree"
    assert archive.images == ["1.2.840.113", "IM0001", "a.dcm", "b.DCM", "c.dicom"]


def test_an_unknown_archive_says_what_was_looked_for(tmp_path: Path) -> None:
    paths = write(tmp_path, {"a.jpg": b"", "b.jpg": b"", "readme": b""})
    with pytest.raises(
        SourceError, match=r"3 files \(2 .jpg, 1 \(no suffix\); 3 at \*\)"
    ) as caught:
        recognise(tmp_path, paths)
    assert "MIMIC-CXR" in caught.value.hint
    with pytest.raises(SourceError):
        open_archive(tmp_path, [])


def test_the_error_for_an_unknown_archive_names_nobody(tmp_path: Path) -> None:
    files = {
        "Doe^John 19400101/s1.doe": b"", "Doe^John 19400101/1.2.840.113.4711": b"",
        "files/p10/p10000032/s50414267/a.tar.gz": b"", "images/MUELLER/b.7z": b"",
    }  # fmt: skip
    with pytest.raises(SourceError) as caught:
        recognise(tmp_path, write(tmp_path, files))
    found = str(caught.value).replace(str(tmp_path), "")
    assert "1 at files/pNN/pSUBJECT/sSTUDY/*" in found
    assert "1 at images/*/*" in found
    assert "unpack the images (.tar.gz, .7z)" in caught.value.hint
    for project in ("MIMIC-CXR ", "MIMIC-CXR-JPG", "Open-i", "any tree"):
        assert project in caught.value.hint
    for name in ("Doe", "doe", "1940", "MUELLER", "4711", "10000032", "50414267"):
        assert name not in found


def test_a_report_named_by_the_study_uid_is_found_anywhere(tmp_path: Path) -> None:
    ring = Keyring(b"0123456789abcdef")
    one, two = ring.study("1.2.3.4"), ring.study("1.2.3.5")
    studies = {one: ["mixed/a.dcm"], two: ["mixed/b.dcm"]}
    reports = ["elsewhere/1.2.3.4.txt", "elsewhere/1.2.3.9.txt", "mixed/a.txt", "mixed/b.txt"]
    images = ["mixed/a.dcm", "mixed/b.dcm"]
    archive = open_archive(tmp_path, sorted([*reports, *images]))
    named = matched(archive, studies, study_key=ring.study)
    assert named == {one: "elsewhere/1.2.3.4.txt", two: "mixed/b.txt"}
    assert matched(archive, studies) == {one: "mixed/a.txt", two: "mixed/b.txt"}


TREES: dict[str, tuple[Sequence[str], Mapping[str, Sequence[str]], Mapping[str, str]]] = {
    "beside the study's folder": (
        ["p/s1.txt", "p/s2.txt"],
        {"one": ["p/s1/a.dcm", "p/s1/b.dcm"], "two": ["p/s2/a.dcm"]},
        {"one": "p/s1.txt", "two": "p/s2.txt"},
    ),
    "named like the image": (
        ["flat/a.txt", "flat/c.txt"],
        {"one": ["flat/a.dcm", "flat/b.dcm"], "two": ["flat/c.dcm"], "three": ["flat/d.dcm"]},
        {"one": "flat/a.txt", "two": "flat/c.txt"},
    ),
    "the only text in the folder": (
        ["s1/report.txt", "s2/x.txt", "s2/y.txt"],
        {"one": ["s1/a.dcm"], "two": ["s2/a.dcm"]},
        {"one": "s1/report.txt"},
    ),
    "series below the study": (
        ["p/s1/report.txt", "p/s2.txt"],
        {"one": ["p/s1/x/a.dcm", "p/s1/y/b.dcm"], "two": ["p/s2/x/a.dcm"]},
        {"one": "p/s1/report.txt", "two": "p/s2.txt"},
    ),
    "a folder shared by two studies says nothing": (
        ["mixed.txt", "mixed/readme.txt"],
        {"one": ["mixed/a.dcm"], "two": ["mixed/b.dcm"]},
        {},
    ),
    "files in the root": (["a.txt", "notes.txt"], {"one": ["a.dcm"]}, {"one": "a.txt"}),
    "a report that two studies may claim is nobody's": (
        ["s/a.txt"],
        {"one": ["s/a.dcm"], "two": ["s/a.ima"]},
        {},
    ),
    "a readme in the folder of one study": (
        ["cd1/README.TXT", "cd2/report.txt", "cd2/LIESMICH.txt"],
        {"one": ["cd1/DICOM/a.dcm"], "two": ["cd2/DICOM/b.dcm"]},
        {"two": "cd2/report.txt"},
    ),
    "one text in a patient's folder with several studies": (
        ["p/report.txt"],
        {"one": ["p/a/1.dcm"], "two": ["p/b/2.dcm"]},
        {},
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_reports_of_a_tree(tmp_path: Path, name: str) -> None:
    reports, studies, expected = TREES[name]
    images = [path for paths in studies.values() for path in paths]
    archive = open_archive(tmp_path, sorted([*reports, *images]))
    assert matched(archive, studies) == expected
    assert archive.ids(images[0]) == Ids()
