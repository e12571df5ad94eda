"""What kind of file it is: by its name where that is known, by its content where not."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pydicom
import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_dicom import dataset_of, dicom_bytes, small_image
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lapvqa.ingest.archives.found import Seen, find_files
from lapvqa.ingest.archives.kinds import DICOM, HEAD_BYTES, UNKNOWN, ZIP, by_content, by_name
from lapvqa.ingest.archives.members import read_head

WHOLE = dicom_bytes(small_image(1), bits=8)


def bare(*, implicit: bool, **attributes: Any) -> bytes:
    """A data set without preamble and file meta, as old archives write them."""
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset = dataset_of(small_image(1), bits=8, syntax=syntax, **attributes)
    del dataset.file_meta
    stream = io.BytesIO()
    dcmwrite(stream, dataset, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.dcm", "dicom"), ("A.DCM", "dicom"), ("IM3.DCM;1", "dicom"), ("x.dcm.gz", "dicom"),
        ("x.IMA", "dicom"), ("a/DICOM/IM0001", ""), ("im4.dc3", ""), ("x.acr", ""),
        ("scan.img", ""), ("1.2.3.4.CR", ""), ("im.dcm~", ""), ("1.2.840.113619.2", ""),
        ("0f9d3c2e-8a5b-4c11-9d0e-aa5b1c2d3e4f", ""), ("x.gz", ""), ("DICOMDIR", ""),
        ("a.zip", "zip"), ("README", "text"), ("Readme.txt", "text"), ("LIST.CSV;1", "table"),
        ("t.csv.gz", "table"), ("AUTORUN.INF", "viewer"), ("viewer/x.jar", "viewer"),
        ("a.tar.gz", "packed"), ("a.tgz", "packed"), ("i.html", "web page"), ("r.pdf", "document"),
        ("x.png", "picture"), (".DS_Store", "hidden"), ("a/.IM1.dcm.Xy3", "hidden"),
        ("z.zip/__MACOSX/._IM1", "hidden"), (".git/", "hidden folder"), ("../a.tgz", "packed"),
    ],
)  # fmt: skip
def test_names_that_say_what_they_are(name: str, kind: str) -> None:
    assert by_name(name, 10, 10) == kind


def test_what_the_listing_itself_decides() -> None:
    assert by_name("IM1", 0, 10) == "empty"
    assert by_name("IM1", 0, 0) == "", "it could not be asked: reading says why"
    assert by_name("IM1.dcm", 0, 10) == "dicom", "a reject, as it was"
    assert by_name("IM1.dcm", 0, -1) == "pipe or device"


@pytest.mark.parametrize(
    "data",
    [
        WHOLE,
        WHOLE[132:],
        bare(implicit=True),
        bare(implicit=False),
        bare(implicit=True, SpecificCharacterSet="ISO_IR 100"),
        gzip.compress(WHOLE),
        gzip.compress(bare(implicit=True)),
        bytes(range(128)) + b"DICM" + bare(implicit=True),
    ],
    ids=["whole", "no preamble", "implicit", "explicit", "charset", "gz", "bare gz", "no meta"],
)
def test_dicom_is_known_by_its_content(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    assert by_content(read_head(tmp_path / "file", HEAD_BYTES)) == DICOM


def test_every_file_of_pydicom_is_known_without_its_name() -> None:
    folder = Path(pydicom.data.__file__).parent / "test_files"
    files = [file for file in folder.rglob("*.dcm") if file.is_file()]
    assert len(files) > 70
    unknown = {file.name for file in files if by_content(file.read_bytes()[:1024]) != DICOM}
    # One has no preamble and is big endian, one begins with a byte that belongs to nothing.
    assert unknown == {"ExplVR_BigEndNoMeta.dcm", "no_meta.dcm"}
    assert by_content(read_head(folder / "zipMR.gz", HEAD_BYTES)) == DICOM


@given(st.text(max_size=2000))
def test_no_text_is_taken_for_dicom(text: str) -> None:
    for encoding in ("utf-8", "utf-16", "utf-16-le"):
        assert by_content(text.encode(encoding)[:HEAD_BYTES]) == UNKNOWN or "DICM" in text


@given(st.binary(max_size=400))
def test_few_bytes_are_dicom_and_none_is_a_fault(data: bytes) -> None:
    if by_content(data) == DICOM and data[128:132] != b"DICM":
        assert data[:2] in (b"\2\0", b"\x08\0")
    for start in (b"\x08\0", b"\2\0", b"\x1f\x8b", b"PK\3\4", b"\x08\0\5\0UN\0\0"):
        by_content(start + data)


@given(st.integers(0, 0xFFFFFFFF), st.binary(min_size=20, max_size=60))
def test_a_group_alone_makes_no_data_set(length: int, rest: bytes) -> None:
    head = struct.pack("<HHI", 8, 5, length) + rest
    if by_content(head) == DICOM:
        assert length <= len(rest)


def test_other_binaries_are_none(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x", "y")
    assert by_content(stream.getvalue()) == ZIP
    for data in (b"", b"MZ\x90", b"\x7fELF", b"%PDF-1.4", gzip.compress(b"text"), b"\x1f\x8b\x08"):
        assert by_content(data) == UNKNOWN


def test_files_of_known_kinds_are_never_opened(tmp_path: Path) -> None:
    names = ["a.dcm", "b.txt", "c.exe", "d.pdf", "e.html", "f.jar", "g.inf", "h.png", ".i"]
    found = find_files(tmp_path, [(name, 5, 5) for name in names])  # none of them is there
    assert (list(found.dicom), list(found.pictures)) == (["a.dcm"], ["h.png"])
    assert found.others["b.txt"] == "text"


def test_what_was_seen_is_not_opened_again_until_it_changes(tmp_path: Path) -> None:
    (tmp_path / "IM1").write_bytes(WHOLE)
    (tmp_path / "notes").write_bytes(b"text")
    entries = [("IM1", 10, 10), ("gone", 3, 3), ("notes", 4, 4)]
    seen = Seen()
    first = find_files(tmp_path, entries, seen)
    assert list(first.dicom) == ["IM1", "gone"], "reading it will say why"
    assert seen.used == {entries[0]: DICOM, entries[2]: UNKNOWN}
    for name in ("IM1", "notes"):
        (tmp_path / name).unlink()
    again = find_files(tmp_path, entries, Seen(seen.used))
    assert (again.dicom, again.others) == (first.dicom, first.others)
    changed = find_files(tmp_path, [("notes", 4, 5)], Seen(seen.used))
    assert list(changed.dicom) == ["notes"]
