"""MIMIC-CXR and MIMIC-CXR-JPG as people hold them: parts, zips, tables with their traps."""

from __future__ import annotations

import gc
import gzip
import io
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layouts import CHEXPERT, IMAGE, LATERAL, METADATA, REPORT, SPLIT, listed, matched, write

from lapvqa.errors import DicomError, SourceError
from lapvqa.identity import Ids
from lapvqa.ingest.archives.protocol import MAX_REPORT_BYTES, Archive
from lapvqa.ingest.archives.recognise import open_archive, recognise

JPG = IMAGE.replace(".dcm", ".jpg")
ZIP = "mimic-cxr-reports.zip"
NESTING = "physionet.org/files/mimic-cxr/2.0.0/"


def zipped(members: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def studies_of(archive: Archive) -> dict[str, list[str]]:
    """Study key to images, as ingest would ask."""
    studies: dict[str, list[str]] = {}
    for path in archive.images:
        ids = archive.ids(path)
        if ids is not None and ids.study is not None:
            studies.setdefault(ids.study, []).append(path)
    return studies


def texts(archive: Archive) -> dict[str, str]:
    matches = matched(archive, studies_of(archive))
    return {study: archive.read_report(path).text for study, path in matches.items()}


def test_reports_are_read_inside_the_zip(tmp_path: Path) -> None:
    members = {REPORT: "FINAL REPORT", "files/p10/p10000032/s59999999.txt": "", "README": "no"}
    files: dict[str, str | bytes] = {NESTING + IMAGE: b"", NESTING + ZIP: zipped(members)}
    archive = open_archive(tmp_path, write(tmp_path, files))
    member = NESTING + ZIP + "/" + REPORT
    assert archive.reports == [member, member.replace("s50414267", "s59999999")]
    assert matched(archive, {"key": [NESTING + IMAGE]}) == {"key": member}
    report = archive.read_report(member)
    assert report.text == "FINAL REPORT"
    assert report.encoding == "utf-8"
    size, crc = archive.report_stamp(member)
    assert size == len("FINAL REPORT")
    (tmp_path / NESTING / ZIP).write_bytes(zipped({REPORT: "FINAL REPORD"}))
    again = open_archive(tmp_path, sorted(files))
    assert again.report_stamp(member) != (size, crc)
    assert again.read_report(member).sha256 != report.sha256


def test_the_zip_may_lie_next_to_the_source(tmp_path: Path) -> None:
    source = tmp_path / "2.0.0" / "files"
    write(tmp_path / "2.0.0", {IMAGE: b"", ZIP: zipped({REPORT: "beside"})})
    path = IMAGE.removeprefix("files/")
    archive = open_archive(source, [f"../{ZIP}", path])
    assert texts(archive) == {"50414267": "beside"}
    write(source, {"tables/" + ZIP: zipped({REPORT: "inside"})})
    archive = open_archive(source, [f"../{ZIP}", path, "tables/" + ZIP])
    assert texts(archive) == {"50414267": "inside"}


def test_a_loose_report_counts_before_the_zip(tmp_path: Path) -> None:
    other = "files/p10/p10000032/s50000001.txt"
    image = other.replace(".txt", "/a.dcm")
    packed = zipped({"mimic-cxr-reports/" + REPORT: "packed", other: "packed too"})
    files = {IMAGE: b"", image: b"", REPORT: "corrected", ZIP: packed}
    archive = open_archive(tmp_path, write(tmp_path, files))
    assert texts(archive) == {"50414267": "corrected", "50000001": "packed too"}
    assert archive.reports == [REPORT, f"{ZIP}/{other}"], "the packed twin is no second report"


def test_a_damaged_member_costs_its_report_and_a_damaged_zip_is_named(tmp_path: Path) -> None:
    other = REPORT.replace("s50414267", "s50414268")
    data = bytearray(zipped({REPORT: "A" * 99, other: "whole"}, zipfile.ZIP_STORED))
    data[data.index(b"A" * 99) + 50] ^= 1
    files = {IMAGE: b"", ZIP: bytes(data)}
    archive = open_archive(tmp_path, write(tmp_path, files))
    with pytest.raises(DicomError) as caught:
        archive.read_report(f"{ZIP}/{REPORT}")
    assert (caught.value.reason, caught.value.exception) == ("bad_report", "BadZipFile")
    assert archive.read_report(f"{ZIP}/{other}").text == "whole"
    for broken in (bytes(data[:-30]), b"", b"<html>"):
        with pytest.raises(SourceError, match=ZIP):
            open_archive(tmp_path, write(tmp_path, {IMAGE: b"", ZIP: broken}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xd0\xcf\x11\xe0\0\0", "report_format"),
        (b"%PDF-1.7 and so on", "report_format"),
        (b"\0\1\2\3", "bad_report"),
        (b"x" * (MAX_REPORT_BYTES + 1), "bad_report"),
        (b"\x81\xff", "report_encoding"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_what_is_no_text_is_no_report(
    tmp_path: Path, content: bytes, reason: str, packed: bool
) -> None:
    files = {IMAGE: b"", **({ZIP: zipped({REPORT: content})} if packed else {REPORT: content})}
    archive = open_archive(tmp_path, write(tmp_path, files))
    with pytest.raises(DicomError) as caught:
        archive.read_report(archive.reports[0])
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        ("Größe".encode(), "Größe", "utf-8"),
        (b"\xef\xbb\xbfA", "A", "utf-8"),
        ("Größe".encode("cp1252"), "Größe", "cp1252"),
        ("Größe".encode("utf-16"), "Größe", "utf-16-le"),
    ],
)
def test_encodings_of_reports(tmp_path: Path, data: bytes, text: str, encoding: str) -> None:
    archive = open_archive(tmp_path, write(tmp_path, {IMAGE: b"", REPORT: data}))
    report = archive.read_report(REPORT)
    assert (report.text, report.encoding) == (text, encoding)


def test_an_unreadable_report_says_so(tmp_path: Path) -> None:
    archive = open_archive(tmp_path, write(tmp_path, {IMAGE: b"", REPORT: "x"}))
    (tmp_path / REPORT).unlink()
    with pytest.raises(DicomError) as caught:
        archive.read_report(REPORT)
    assert caught.value.reason == "unreadable"
    with pytest.raises(OSError, match="No such file"):
        archive.report_stamp(REPORT)


numbers = st.integers(0, 999)


@settings(max_examples=25)
@given(
    studies=st.dictionaries(numbers, st.tuples(numbers, st.booleans()), min_size=1, max_size=8),
    nesting=st.sampled_from(["", NESTING]),
)
def test_loose_or_zipped_the_studies_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, studies: dict[int, tuple[int, bool]], nesting: str
) -> None:
    images, reports = {}, {}
    for study, (patient, has_report) in studies.items():
        folder = f"files/p10/p10000{patient:03}/s50000{study:03}"
        images[f"{nesting}{folder}/a-{study}.dcm"] = b""
        if has_report:
            reports[folder + ".txt"] = f"FINAL REPORT {study}"
    loose, packed = tmp_path_factory.mktemp("loose"), tmp_path_factory.mktemp("packed")
    loose_paths = write(loose, {**images, **{nesting + path: reports[path] for path in reports}})
    packed_paths = write(packed, {**images, nesting + ZIP: zipped(reports)})
    one, other = open_archive(loose, loose_paths), open_archive(packed, packed_paths)
    assert texts(one) == texts(other)
    assert len(texts(one)) == len(reports)
    assert studies_of(one) == studies_of(other)
    digests = [{a.read_report(path).sha256 for path in a.reports} for a in (one, other)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".JPG"])
def test_mimic_jpg_with_tables_and_reports_of_mimic(tmp_path: Path, suffix: str) -> None:
    image, lateral = (path.replace(".dcm", suffix) for path in (IMAGE, LATERAL))
    files = {
        image: b"", lateral: b"", "figure.png": b"", ZIP: zipped({REPORT: "text"}),
        "mimic-cxr-2.0.0-metadata.csv.gz": METADATA,
        "mimic-cxr-2.0.0-split.csv.gz": SPLIT,
        "mimic-cxr-2.0.0-chexpert.csv.gz": CHEXPERT,
        "mimic-cxr-2.1.0-test-set-labeled.csv": "study_id\n50414267\n",
    }  # fmt: skip
    paths = write(tmp_path, files)
    archive = open_archive(tmp_path, paths)
    assert archive.name == recognise(tmp_path, paths) == "mimic-cxr-jpg"
    assert archive.images == sorted([image, lateral, "figure.png"])
    assert archive.ids(image) == Ids("02aa804e-bde0afdd", "50414267", "10000032")
    assert archive.ids("figure.png") is None
    (row,) = listed(archive, image)
    assert (row["split"], row["view"]) == ("validate", "PA")
    assert texts(archive) == {"50414267": "text"}
    (labels,) = archive.labels().to_pylist()
    assert labels["study"] == "50414267"
    assert labels["Cardiomegaly"] == 1, "CheXpert's labels, not the radiologist's"
    assert "mimic-cxr-reports.zip" in archive.looked_for


def test_dicom_and_pictures_in_one_folder(tmp_path: Path) -> None:
    paths = write(tmp_path, {IMAGE: b"", JPG: b""})
    assert open_archive(tmp_path, paths).images == [IMAGE], "as DICOM, if both are there"
    paths = write(tmp_path, {JPG: b"", LATERAL.replace(".dcm", ".jpg"): b"", "stray.dcm": b""})
    archive = open_archive(tmp_path, paths)
    assert archive.name == "mimic-cxr-jpg"
    assert "stray.dcm" in archive.images
    assert archive.ids("stray.dcm") is None, "one file of another kind does not turn the archive"


def test_views_come_from_codes_where_the_position_is_empty(tmp_path: Path) -> None:
    table = (
        "ViewCodeSequence_CodeMeaning,StudyTime,dicom_id,ViewPosition,StudyDate\n"
        "postero-anterior,1.5,a,,21800506\nlateral,,b,LL,\nErect,235959.0,c,,\n"
    )
    name = "mimic-cxr-2.0.0-metadata.csv"
    paths = write(tmp_path, {IMAGE.replace("02aa804e-bde0afdd", one): b"" for one in "abc"})
    write(tmp_path, {name: table})
    archive = open_archive(tmp_path, [*paths, name])
    assert [path[-5] for path in archive.images] == [*"abc"]
    found = listed(archive, *archive.images)
    assert [row["view"] for row in found] == ["PA", "LL", None]
    assert [row["time"] for row in found] == ["000001.5", None, "235959.0"]
    assert [row["date"] for row in found] == ["21800506", None, None]


def test_of_several_rows_of_an_image_the_last_counts(tmp_path: Path) -> None:
    metadata = METADATA + "02aa804e-bde0afdd,10000099,50414299,LL,1,1,21800507,1\n"
    split = SPLIT + "02aa804e-bde0afdd,50414299,10000099,test\n"
    files = {IMAGE: b"", "mimic-cxr-2.0.0-metadata.csv": metadata}
    files["mimic-cxr-2.0.0-split.csv"] = split
    archive = open_archive(tmp_path, write(tmp_path, files))
    (row,) = listed(archive, IMAGE)
    assert row == {"view": "LL", "date": "21800507", "time": "000001", "split": "test"}


def test_negbio_stands_in_for_chexpert(tmp_path: Path) -> None:
    negbio = CHEXPERT.replace("-1.0", "0.0")
    files = {IMAGE: b"", "mimic-cxr-2.0.0-negbio.csv.gz": negbio}
    (labels,) = open_archive(tmp_path, write(tmp_path, files)).labels().to_pylist()
    assert labels["Edema"] == 0
    files["mimic-cxr-2.0.0-chexpert.csv"] = CHEXPERT
    (labels,) = open_archive(tmp_path, write(tmp_path, files)).labels().to_pylist()
    assert labels["Edema"] == -1


@pytest.mark.parametrize("name", ["metadata", "split"])
def test_a_cut_or_wrong_table_is_named(tmp_path: Path, name: str) -> None:
    table = f"mimic-cxr-2.0.0-{name}.csv.gz"
    whole = METADATA if name == "metadata" else SPLIT
    paths = write(tmp_path, {IMAGE: b"", table: whole})
    (tmp_path / table).write_bytes(gzip.compress(whole.encode() * 999)[:-12])
    with pytest.raises(SourceError, match=table):
        open_archive(tmp_path, paths)
    write(tmp_path, {table: whole.replace("dicom_id", "image")})
    with pytest.raises(SourceError, match=f"{table}.*no dicom_id"):
        open_archive(tmp_path, paths)


def test_what_the_lists_name_and_the_folder_lacks_is_counted(tmp_path: Path) -> None:
    records = "subject_id,study_id,dicom_id,path\n" + "".join(
        f"10000032,50414267,{name},files/p10/p10000032/s50414267/{name}.dcm\n"
        for name in ("02aa804e-bde0afdd", "absent")
    )
    studies = "subject_id,study_id,path\n10000032,50414267,x\n10000032,50414268,y\n1,2,z\n"
    files = {
        IMAGE: b"", REPORT: "x", "cxr-record-list.csv.gz": records, "cxr-study-list.csv": studies,
    }  # fmt: skip
    archive = open_archive(tmp_path, write(tmp_path, files))
    assert archive.missing == {"cxr-record-list.csv.gz": 1, "cxr-study-list.csv": 2}
    names = f"{JPG}\nfiles/p10/p10000032/s50414267/absent-1.jpg\nfiles/absent-2.jpg\n"
    files = {JPG: b"", "IMAGE_FILENAMES": names}
    jpg = tmp_path / "jpg"
    assert open_archive(jpg, write(jpg, files)).missing == {"IMAGE_FILENAMES": 2}


def test_opening_takes_time_in_proportion_to_the_files(tmp_path: Path) -> None:
    def seconds(studies: int) -> float:
        folder = tmp_path / str(studies)
        base = "files/p10/p{0}/s{1}"
        ids = [(10_000_000 + index // 4, 50_000_000 + index) for index in range(studies)]
        images = [f"{base.format(*one)}/{one[1]:08x}-{side}.dcm" for one in ids for side in "ab"]
        reports = {base.format(*one) + ".txt": "x" for one in ids}
        rows = "".join(f"{path[-14:-4]},{path[9:17]},train\n" for path in images)
        tables = {
            ZIP: zipped(reports),
            "mimic-cxr-2.0.0-split.csv.gz": "dicom_id,subject_id,split\n" + rows,
        }
        paths = sorted([*write(folder, tables), *images])
        gc.disable()  # what other tests left behind takes seconds to walk through
        try:
            started = time.process_time()
            archive = open_archive(folder, paths)
            took = time.process_time() - started
        finally:
            gc.enable()
        assert (len(archive.images), len(archive.reports)) == (2 * studies, studies)
        assert listed(archive, images[-1])[0]["split"] == "train"
        return took

    seconds(10)
    # All of MIMIC-CXR, 377,110 images, opens in 2.4 s, and in 4.1 s with the reports in their zip.
    assert seconds(8_000) < 0.3 + 8 * seconds(2_000)
