"""Open-i's collection: reports in XML, loose or in their tgz; studies named by files."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from test_layouts import write
from test_layouts_mimic import studies_of, texts

from lapvqa.errors import DicomError, SourceError
from lapvqa.identity import Ids
from lapvqa.ingest.archives.openi import read_openi
from lapvqa.ingest.archives.recognise import open_archive, recognise
from lapvqa.text.sections import Wanted, target_text

TGZ = "NLMCXR_reports.tgz"
SECTIONS = {
    "COMPARISON": "None.",
    "INDICATION": "Positive TB test",
    "FINDINGS": "The heart is XXXX.\n  Lungs: clear &amp; dry.",
    "IMPRESSION": "Normal chest x-XXXX.",
}
TEXT = (
    "\n COMPARISON: None.\n INDICATION: Positive TB test"
    "\n FINDINGS: The heart is XXXX. Lungs: clear & dry.\n IMPRESSION: Normal chest x-XXXX."
)


def report(number: int, sections: Mapping[str, str] = SECTIONS) -> str:
    lines = "".join(
        f'<AbstractText Label="{name}">{text}</AbstractText>\n' for name, text in sections.items()
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR{number}"/>'
        f"<MedlineCitation><Abstract>{lines}</Abstract><LastName>Kohli</LastName>"
        f'</MedlineCitation><parentImage id="CXR{number}_1_IM-0001-3001"/></eCitation>'
    )


def packed(members: Mapping[str, str | bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


REPORTS = {f"ecgen-radiology/{number}.xml": report(number) for number in (1, 10, 3955)}
PNGS = ("CXR1_1_IM-0001-3001.png", "CXR1_1_IM-0001-4001.png", "CXR10_IM-0002-1001.png")


@pytest.mark.parametrize("place", [TGZ, f"../{TGZ}", "NLMCXR_reports.tar", "loose"])
def test_pictures_with_reports_from_the_tgz_or_loose(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "openi"
    files: dict[str, str | bytes] = {f"NLMCXR_png/{name}": b"" for name in PNGS}
    if place == "loose":
        files |= REPORTS
    else:
        data = packed(REPORTS)
        files[place] = gzip.decompress(data) if place.endswith("tar") else data
    paths = write(folder, files)
    archive = open_archive(folder, paths)
    assert archive.name == recognise(folder, paths) == "openi"
    assert archive.ids("NLMCXR_png/" + PNGS[0]) == Ids("CXR1_IM-0001-3001", "CXR1", "CXR1")
    assert {study: len(images) for study, images in studies_of(archive).items()} == {
        "CXR1": 2, "CXR10": 1,
    }  # fmt: skip
    assert len(archive.reports) == 3
    assert texts(archive) == {"CXR1": TEXT, "CXR10": TEXT}
    size, mark = archive.report_stamp(archive.reports[0])
    assert size == len(REPORTS["ecgen-radiology/1.xml"])
    assert mark
    assert (len(archive.labels()), archive.has_split, archive.missing) == (0, False, {})


def test_dicom_and_png_name_the_same_image() -> None:
    from lapvqa.ingest.archives.openi import OpenIArchive

    archive = OpenIArchive(Path(), [], [])
    same = [
        "NLMCXR_png/CXR1_1_IM-0001-3001.png", "NLMCXR_dcm/1/1_IM-0001-3001.dcm",
        "images/images_normalized/1_IM-0001-3001.dcm.png", "CXR1_IM-0001-3001.jpg",
    ]  # fmt: skip
    assert {archive.ids(path) for path in same} == {Ids("CXR1_IM-0001-3001", "CXR1", "CXR1")}
    long = archive.ids("CXR1000_IM-0003-1001-0002.png")
    assert long == Ids("CXR1000_IM-0003-1001-0002", "CXR1000", "CXR1000")
    for path in ("IM-0001-3001.dcm", "CXR12_1_IM-0001-3001.png", "x1_IM-1.png", "CXR1_1.png"):
        assert archive.ids(path) is None


def test_the_dicom_tree_is_known_by_its_names(tmp_path: Path) -> None:
    files = {"NLMCXR_dcm/1/1_IM-0001-3001.dcm": b"", "NLMCXR_dcm/2/2_IM-0652-1001.dcm": b""}
    archive = open_archive(tmp_path, write(tmp_path, {**files, TGZ: packed(REPORTS)}))
    assert archive.name == "openi"
    assert texts(archive) == {"CXR1": TEXT}


def test_packed_images_are_to_be_unpacked(tmp_path: Path) -> None:
    files = {"NLMCXR_png.tgz": b"", TGZ: packed(REPORTS)}
    with pytest.raises(SourceError, match="2 .tgz") as caught:
        recognise(tmp_path, write(tmp_path, files))
    assert caught.value.hint.startswith("unpack the images (.tgz)")


def test_a_damaged_tgz_is_named(tmp_path: Path) -> None:
    whole = packed(REPORTS)
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # the checksum at the end of a gzip
    for damaged in (whole[:-9], whole[: len(whole) // 2], bytes(flipped), b"", b"<html>"):
        paths = write(tmp_path, {PNGS[0]: b"", TGZ: damaged})
        with pytest.raises(SourceError, match=TGZ):
            open_archive(tmp_path, paths)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
OTHER_FILE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "data",
    [
        report(1)[:-20].encode(),
        report(2).encode(),
        report(1, {}).encode(),
        report(1).replace("<eC", BOMB + "<eC").replace("None.", "&b;").encode(),
        report(1).replace("<eC", OTHER_FILE + "<eC").replace("None.", "&a;").encode(),
        report(1).replace("utf-8", "utf-16").replace("<eC", BOMB + "<eC").encode("utf-16"),
        report(1).replace("None.", "&undeclared;").encode(),
        b"\xff\xfe\0",
        b"",
    ],
)
def test_what_is_not_this_report_whole_and_plain_is_turned_away(data: bytes) -> None:
    with pytest.raises(DicomError) as caught:
        read_openi(data, "CXR1")
    assert caught.value.reason == "bad_report"
    assert "root" not in str(caught.value)


def test_empty_sections_stay_empty_and_no_text_becomes_a_header() -> None:
    text = read_openi(
        report(7, {**SECTIONS, "FINDINGS": "", "IMPRESSION": "Clear.\n FINDINGS: none"}).encode(),
        "CXR7",
    ).text
    assert target_text(text, "findings").text == ""
    assert target_text(text, "impression").text == "Clear. FINDINGS: none"


@pytest.mark.corpus
def test_all_reports_of_the_collection_are_read(tmp_path: Path, corpus: Path) -> None:
    (tmp_path / TGZ).symlink_to(corpus / "openi" / TGZ)
    paths = write(tmp_path, {f"CXR{number}_IM-0001-1001.png": b"" for number in range(1, 4000)})
    archive = open_archive(tmp_path, [*paths, TGZ])
    found = texts(archive)
    assert len(found) == len(archive.reports) == 3955
    assert not any("\n" in line for text in found.values() for line in text.split("\n ")[1:])
    # The counts of empty sections that the collection is known for.
    empty: dict[Wanted, int] = {"findings": 530, "impression": 34, "both": 28}
    for wanted, number in empty.items():
        assert sum(not target_text(text, wanted).text for text in found.values()) == number
    targets = [target_text(text, "both").text for text in found.values()]
    assert sum("XXXX" in text for text in targets) == 1855, "what was removed stays marked"
