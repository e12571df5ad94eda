"""Every file of an archive has one fate, whatever its name, and the account says which."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import socket
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_dicom import write_mimic, write_project
from test_ingest import image, reasons, run, said, table, write_tree

from lapvqa import inventory, storage
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import SourceError
from lapvqa.identity import Ids, Keyring
from lapvqa.ingest.account import account, companions_table
from lapvqa.ingest.archives.found import find_files
from lapvqa.ingest.archives.kinds import ZIP, by_name
from lapvqa.ingest.archives.recognise import open_archive
from lapvqa.ingest.columns import replaced
from lapvqa.ingest.ingest import require_images
from lapvqa.ingest.one_file import FileResult, Task, as_table, unread
from lapvqa.ingest.reports import HELD
from lapvqa.ingest.study_tables import Reports, find_studies, rejects_table, studies_table
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.schemas import COMPANIONS

BUDGET = {"overall": 0.9, "per_folder": 1.0}


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def judged(results: list[FileResult]) -> pa.Table:
    """Results as ``judge`` leaves them: each is of a patient in a split, no table says more."""
    none = pa.nulls(len(results), pa.string())
    columns = {"split": pa.repeat("train", len(results)), "listed_date": none, "listed_time": none}
    return replaced(as_table(results), columns)


def beside(project: Project) -> dict[str, str]:
    rows = storage.read_table(project.companions, COMPANIONS, made_by="ingest").to_pylist()
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    return {row["path"]: row["what"] for row in rows}


def files_in(folder: Path) -> Counter[str]:
    """What an independent walk finds: files, links that lead nowhere, members of whole zips.

    A zip that calls itself .dcm or .txt is no zip: it is read, and rejected, as what it says.
    """
    found: Counter[str] = Counter()
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            found["file"] += 1
            file = Path(place, name)
            says_zip = by_name(name, 1, 1) in ("", ZIP)
            if file.is_file() and says_zip and zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    found["member"] += sum(not info.is_dir() for info in archive.infolist())
    return found


def test_images_under_every_name_are_read(tmp_path: Path) -> None:
    names = [
        "IM3.DCM;1", "im4.dc3", "x.acr", "scan.img", "1.2.3.4.CR", "im.dcm~", "IM0001", "u.dcm.gz",
        "0f9d3c2e-8a5b-4c11-9d0e-aa5b1c2d3e4f", "1.2.840.113619.2.1", "noname.gz",
    ]  # fmt: skip
    files: dict[str, bytes | str] = {}
    for seed, name in enumerate(names):
        data = image(seed, study=f"1.2.{seed}")
        files[f"s{seed}/{name}"] = gzip.compress(data) if name.endswith(".gz") else data
    members = {f"DIR/IM{seed}": image(seed, study=f"1.2.{seed}") for seed in range(20, 24)}
    packed = {**members, "DIR/z.dcm.gz": gzip.compress(image(30, study="1.2.30"))}
    files["export.zip"] = zipped({**packed, "README.TXT": b"read me", "DIR/report.pdf": b"%PDF"})
    files["nameless"] = zipped({"IM": image(40, study="1.2.40")})
    bad = b"\xe9t\xe9.dcm"
    archive = write_tree(tmp_path / "archive", {**files, "s0.txt": "FINDINGS: Clear."})
    (archive / os.fsdecode(bad)).write_bytes(image(50, study="1.2.50"))
    project = write_project(tmp_path / "project", archive)
    counts = run(project)
    assert counts["images"] == len(names) + 4 + 1 + 1 + 1
    assert reasons(project) == {}
    assert beside(project) == {
        "export.zip": "zip", "nameless": "zip", "export.zip/README.TXT": "text",
        "export.zip/DIR/report.pdf": "document", "s0.txt": "report",
    }  # fmt: skip
    found = files_in(archive)
    assert counts["files"] == found.total() == len(files) + 2 + 8
    taken = {row["file_sha256"] for row in table(project.images)}
    assert len(taken) == counts["images"]
    first = image(7, study="1.2.7")
    assert storage.sha256_file(archive / "s7" / "u.dcm.gz") not in taken
    (tmp_path / "first.dcm").write_bytes(first)
    assert storage.sha256_file(tmp_path / "first.dcm") in taken, "of what is in the gzip"
    shutil.rmtree(project.root / "data")
    assert run(project)["images"] == counts["images"]
    assert f"{counts['images']} files known from before, 0 new" in said(project)


def test_everything_else_is_rejected_by_cause_or_counted_by_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = image(1)
    archive = write_tree(
        tmp_path / "archive",
        {
            "A/s1/one.dcm": whole,
            "A/s1.txt": "FINDINGS: Clear.",
            "broken.zip": b"PK\x03\x04 and no more",
            "good.zip": zipped({"inner.zip": zipped({"IM": whole}), "../out": b"x", "IM1": b"no"}),
            "cut.dcm.gz": gzip.compress(whole)[:-50],
            "viewer/run.exe": b"MZ",
            "viewer/AUTORUN.INF": b"[a]",
            "notes.doc": b"d",
            "zero": b"",
            "rubbish": b"\1\2\3",
            "x.png": b"\x89PNG",
            ".DS_Store": b"x",
            ".git/objects/ab": b"x",
            "images.tar": b"t",
        },
    )
    (archive / "loop").symlink_to("loop")
    (archive / "loop.dcm").symlink_to("loop.dcm")
    (archive / "gone").symlink_to("nowhere")
    (archive / "failing.dcm").symlink_to("/proc/self/mem")  # even root gets EIO
    os.mkfifo(archive / "pipe.dcm")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(archive)  # a socket's path may have 108 bytes
        listener.bind("sock")
    project = write_project(tmp_path / "project", archive, reject_budget=BUDGET)
    counts = run(project)
    found = reasons(project)
    failing = found.pop("failing.dcm")  # its time changes with every look
    assert failing in {"unreadable", "changed"}
    assert found == {
        "broken.zip": "bad_packing", "good.zip/inner.zip": "bad_packing",
        "good.zip/out/#1": "bad_packing", "cut.dcm.gz": "bad_packing", "loop": "unreadable",
        "loop.dcm": "unreadable", "gone": "unreadable",
    }  # fmt: skip
    assert beside(project) == {
        "A/s1.txt": "report", "good.zip": "zip", "good.zip/IM1": "unknown", "notes.doc": "document",
        "viewer/run.exe": "viewer", "viewer/AUTORUN.INF": "viewer", "zero": "empty",
        "rubbish": "unknown", "x.png": "picture", ".DS_Store": "hidden", ".git/": "hidden folder",
        "images.tar": "packed", "pipe.dcm": "pipe or device", "sock": "pipe or device",
    }  # fmt: skip
    line = next(line for line in said(project).splitlines() if line.startswith("files: "))
    assert line.startswith("files: 23 in = 1 taken + 8 rejected + 0 companions + 14 other files (")
    assert counts["files"] == 23 == files_in(archive).total()
    details = {row["file"]: row["detail"] for row in table(project.rejects)}
    assert "Too many levels of symbolic links" in details["loop"]
    assert "No such file" in details["gone"]
    for name in ("good", "AUTORUN", "loop", str(archive)):
        assert name not in said(project)


def test_a_zipped_folder_of_mimic_is_mimic(tmp_path: Path) -> None:
    loose = write_mimic(tmp_path / "loose", patients=2)
    plain = write_project(tmp_path / "plain", loose)
    expected = run(plain)
    packed = {path.relative_to(loose).as_posix(): path.read_bytes() for path in loose.rglob("*.*")}
    tables = {
        "mimic-cxr-2.0.0-split.csv.gz": gzip.compress(
            b"dicom_id,study_id,subject_id,split\n"
            + b"".join(
                f"{Path(name).stem},{name.split('/')[3][1:]},{name.split('/')[2][1:]},train\n".encode()
                for name in packed
                if name.endswith(".dcm")
            )
        )
    }
    archive = write_tree(tmp_path / "archive", {"mimic-cxr.zip": zipped({**packed, **tables})})
    project = write_project(tmp_path / "project", archive)
    project.state.mkdir(parents=True)
    shutil.copy(plain.state / "deid.key", project.state / "deid.key")
    counts = run(project)
    assert (counts["images"], counts["studies"], counts["reports"]) == (
        expected["images"], expected["studies"], expected["reports"],
    )  # fmt: skip
    assert "layout mimic-cxr," in said(project)
    assert {row["split"] for row in table(project.images)} == {"train"}
    same = ["image_key", "study_key", "patient_key", "pixels_sha256", "file_sha256"]
    assert [[row[name] for name in same] for row in table(project.images)] == [
        [row[name] for name in same] for row in table(plain.images)
    ]
    assert Counter(beside(project).values()) == {"zip": 1, "report": 4, "table": 1}


NAMES = st.sampled_from(
    [
        "IM1", "im.dcm", "im.dcm~", "x.acr", "IM3.DCM;1", "a.txt", "README", "b.csv", "v.exe",
        "z.zip", "Z", "g.dcm.gz", "p.png", "t.tgz", ".hidden", "caf\udce9", "caf\\xe9", "n\nl.dcm",
        "1.2.3",
        "x.xml", "s.json", "mimic-cxr-reports.zip", "IM2.dcm",
    ]
)  # fmt: skip
WHOLE = image(900, study="1.9.9", patient="P9")
CONTENT = st.sampled_from(
    [
        WHOLE, WHOLE[132:], WHOLE[:400], b"", b"text", b"\x1f\x8b", gzip.compress(WHOLE), b"PK\3\4",
        zipped({"IM": WHOLE, "d/a.txt": b"t", ".h": b"", "z.zip": b"", "b.csv": b""}),
        zipped({"../x": WHOLE, "/y": b"1", "u": b"2"}), zipped({}),
    ]
)  # fmt: skip
KINDS = st.sampled_from(["file", "file", "file", "loop", "broken", "pipe", "folder link"])
ARCHIVES = st.dictionaries(
    st.tuples(st.sampled_from(["", "d/", "d/e/", ".t/", "lost+found/"]), NAMES),
    st.tuples(KINDS, CONTENT),
    max_size=12,
)
SLOW = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make(folder: Path, content: dict[tuple[str, str], tuple[str, bytes]]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for (above, name), (kind, data) in content.items():
        (folder / above).mkdir(parents=True, exist_ok=True)
        path = folder / above / name
        if kind == "file":
            path.write_bytes(data)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            targets = {"loop": name, "broken": "nowhere", "folder link": str(folder)}
            path.symlink_to(targets[kind])
    return folder


@SLOW
@given(ARCHIVES)
def test_every_file_has_exactly_one_kind(
    tmp_path: Path, content: dict[tuple[str, str], tuple[str, bytes]]
) -> None:
    folder = make(tmp_path / "archive", content)
    listed = inventory.list_folder("source", {"source": folder})
    assert listed == inventory.list_folder("source", {"source": folder}), (
        "nothing changed meanwhile"
    )
    found = find_files(folder, listed)
    fates = [*found.dicom, *found.pictures, *found.faults, *found.others]
    assert sorted(fates) == sorted(found.facts)
    visible = [key for key in content if key[0] not in (".t/", "lost+found/")]
    folders = sum(any(key[0] == above for key in content) for above in (".t/", "lost+found/"))
    loops = sum(content[key][0] == "folder link" for key in visible if key[1][0] != ".")
    assert len(listed) == len(visible) + folders - loops
    assert all(path in found.facts for path, _, _ in listed)


@settings(SLOW, max_examples=6)
@given(ARCHIVES)
def test_the_sum_of_the_account_is_what_lies_there(
    tmp_path: Path, content: dict[tuple[str, str], tuple[str, bytes]]
) -> None:
    content = {key: value for key, value in content.items() if value[0] != "folder link"}
    base = {
        ("s1/", "1.dcm"): ("file", image(1)),
        ("", "s1.txt"): ("file", b"FINDINGS: Clear."),
    }
    content = {k: v for k, v in content.items() if k[1] != "mimic-cxr-reports.zip"}
    folder = make(tmp_path / "archive", {**content, **base})
    shutil.rmtree(tmp_path / "project", ignore_errors=True)
    project = write_project(
        tmp_path / "project", folder, reject_budget={"overall": 1.0, "per_folder": 1.0}
    )
    counts = run(project)
    hidden = sum(any(key[0] == above for key in content) for above in (".t/", "lost+found/"))
    shutil.rmtree(folder / ".t", ignore_errors=True)
    shutil.rmtree(folder / "lost+found", ignore_errors=True)
    assert counts["files"] == files_in(folder).total() + hidden
    named = [row["file"] for row in table(project.rejects) if row["kind"] == "file"]
    assert len(beside(project)) + len(named) + int(str(counts["images"])) == counts["files"]
    assert not set(named) & set(beside(project))


def test_companions_are_no_rejects_and_stand_in_the_account(tmp_path: Path) -> None:
    archive_folder = write_tree(
        tmp_path / "a", {"IM1": image(1), "SR1": image(2), "DICOMDIR": image(3), "r.txt": "text"}
    )
    found = find_files(archive_folder, inventory.list_folder("source", {"source": archive_folder}))
    archive = open_archive(archive_folder, found)
    results = []
    for path, kind in (("DICOMDIR", "dicomdir"), ("IM1", None), ("SR1", "structured_report")):
        task = Task(path, *found.facts[path], Ids(path, "1", "P"), is_picture=False)
        reason = Reason.COMPANION if kind else None
        unread_file = unread(task, Keyring(b"k" * 16), 0)
        results.append(replace(unread_file, companion=kind, reason=reason))
    files = judged(results)
    texts = HELD.append(pa.field("study_key", pa.string())).empty_table()
    none = Reports(texts, [], {}, set())
    rows = companions_table(files, archive, found, none)
    assert rows.to_pylist() == [
        {"path": "DICOMDIR", "kind": "companion", "what": "dicomdir"},
        {"path": "SR1", "kind": "companion", "what": "structured report"},
        {"path": "r.txt", "kind": "other", "what": "text"},
    ]
    rejects = rejects_table(files, [])
    assert len(rejects) == 0
    recorder = Recorder(tmp_path / "record.jsonl", stage="ingest")
    studies = studies_table(find_studies(files), none, None)
    facts = {"studies": studies, "reports": none, "rejects": rejects, "beside": rows}
    alone = replace(found, listed=pa.concat_tables([found.listed, found.listed.slice(0, 1)]))
    with pytest.raises(AssertionError, match="files: 5 in"):  # a file without a fate is noticed
        account(files, alone, **facts, recorder=recorder)
    counts = account(files, found, **facts, recorder=recorder)
    recorder.close()
    assert (counts["files"], counts["companions"], counts["other_files"]) == (4, 2, 1)
    line = "1 taken + 0 rejected + 2 companions (dicomdir 1, structured report 1) + 1 other file"
    assert f"files: 4 in = {line} (text 1)" in (tmp_path / "record.jsonl").read_text()


@pytest.mark.parametrize(
    ("files", "found", "hint"),
    [
        ({"a.jpg": b"", "b.png": b""}, "2 files", "pictures name neither study nor patient"),
        ({}, "among 0 files", "the folder is empty"),
        ({"a.txt": b"t", "v/run.exe": b"MZ"}, "among 2 files", "any tree with DICOM files"),
        ({"a.zip": b"PK"}, "among 1 file ", "1 zips or members of them cannot be read"),
        ({"a.zip": zipped({"x.txt": b""})}, "among 2 files", "any tree with DICOM files"),
        ({"a.tar.gz": b""}, "1 .tar.gz", "of packed files only zip and gzip are read"),
    ],
)
def test_an_archive_without_images_says_what_was_found(
    tmp_path: Path, files: dict[str, bytes | str], found: str, hint: str
) -> None:
    (tmp_path / "archive").mkdir()
    archive = write_tree(tmp_path / "archive", files)
    with pytest.raises(SourceError, match="expected chest radiographs") as caught:
        run(write_project(tmp_path / "project", archive))
    assert found in caught.value.message
    assert hint in caught.value.hint


def test_an_archive_of_companions_alone_is_an_error_that_says_so(tmp_path: Path) -> None:
    task = Task("DICOMDIR", 1, 1, Ids(), is_picture=False)
    result = replace(unread(task, Keyring(b"k" * 16), 0), companion="dicomdir")
    result = replace(result, reason=Reason.COMPANION)
    with pytest.raises(SourceError, match=r"found 1 DICOM objects and no image .*dicomdir 1"):
        require_images(judged([result]), tmp_path)
    other = replace(result, reason=Reason.TRUNCATED)
    require_images(judged([result, other]), tmp_path)
