from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from jobs import make_job
from ruamel.yaml import YAML

from lapvqa import inventory, storage
from lapvqa.errors import SourceError
from lapvqa.identity import DEMO_KEY, key_id
from lapvqa.ingest.archives.names import place
from lapvqa.machine import ReportSources, load_machine
from lapvqa.params import load_params, read_yaml
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.schemas import INVENTORY
from lapvqa.uptodate import input_folders

REPOSITORY = Path(__file__).parents[2]
DICOM = bytes(128) + b"DICM"
MIMIC = "files/p10/p10000032/s50414267/02aa804e-bde0afdd.dcm"


def write(folder: Path, *paths: str, content: bytes = b"x") -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def write_project(root: Path, **folders: str) -> Project:
    values = read_yaml(REPOSITORY / "params.yaml")
    values["inventory"].update(folders)
    root.mkdir(parents=True, exist_ok=True)
    with (root / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(values, handle)
    return Project(root)


def run(project: Project) -> dict[str, int | float | str]:
    recorder = Recorder(project.record("inventory"), stage="inventory")
    params = load_params(project.params).inventory
    try:
        return inventory.run(params, make_job(project, load_machine(project), recorder))
    finally:
        recorder.close()


def test_scan_lists_every_visible_file_sorted(tmp_path: Path) -> None:
    write(tmp_path, "b/x.dcm", "b.txt", "a/deep/er/y", "a.csv", ".hidden", "a/.git/config")
    write(tmp_path, "sized", content=b"12345")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    os.utime(tmp_path / "sized", ns=(1, 1_234_567_890_123_456_789))
    found = inventory.scan(tmp_path)
    assert [path for path, _, _ in found] == ["a.csv", "a/deep/er/y", "b.txt", "b/x.dcm", "sized"]
    assert found[-1] == ("sized", 5, 1_234_567_890_123_456_789)


def test_scan_follows_links_once_and_lists_broken_ones(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    write(tmp_path, "elsewhere/one.dcm", "elsewhere/two.dcm")
    write(archive, "s/real.dcm")
    (archive / "linked").symlink_to(tmp_path / "elsewhere")
    (archive / "linked/loop").symlink_to(archive)
    (archive / "again").symlink_to(archive / "linked")
    (archive / "file.dcm").symlink_to(tmp_path / "elsewhere/one.dcm")
    (archive / "broken.dcm").symlink_to(tmp_path / "nowhere")
    found = {path: size for path, size, _ in inventory.scan(archive)}
    assert len(found) == 5
    assert found["broken.dcm"] == 0
    assert found["file.dcm"] == 1
    assert {path.rsplit("/", 1)[-1] for path in found} == {
        "one.dcm", "two.dcm", "real.dcm", "file.dcm", "broken.dcm",
    }  # fmt: skip


def test_a_name_that_is_not_utf8_is_listed_escaped(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.dcm")).write_bytes(b"x")
    assert [path for path, _, _ in inventory.scan(tmp_path)] == ["caf\\xe9.dcm"]


def test_everything_is_listed_of_the_source(tmp_path: Path) -> None:
    write(tmp_path, "a.dcm", ".hidden", "a/.git/config", "a/.x", "lost+found/y", "b/lost+found")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a/loop").symlink_to("loop")
    (tmp_path / "a/far").symlink_to("loop/beyond")
    found = {path: facts for path, *facts in inventory.list_folder("source", {"source": tmp_path})}
    size_and_time = found.pop("a.dcm"), found.pop("b/lost+found")
    assert all(size == 1 and time > 1 for size, time in size_and_time)
    assert found == {
        ".hidden": [0, 0], "a/.git/": [0, 0], "a/.x": [0, 0], "lost+found/": [0, 0],
        "pipe": [0, -1], "a/loop": [0, 0], "a/far": [0, 0],
    }  # fmt: skip
    others = [
        path
        for path, _, _ in inventory.list_folder("nih14", {"source": tmp_path, "nih14": tmp_path})
    ]
    assert others == ["a.dcm", "a/far", "a/loop", "b/lost+found"]


def test_odd_names_are_listed_twice_alike(tmp_path: Path) -> None:
    for name in (
        b"caf\xe9",
        b"caf\\xe9",
        b"new\nline",
        b"tab\t",
        b"\xff\xfe.dcm",
        b" ",
        b"~",
        b"\\",
    ):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
        (tmp_path / os.fsdecode(b"d" + name)).mkdir()
        (tmp_path / os.fsdecode(b"d" + name) / os.fsdecode(name)).write_bytes(b"x")
    first = inventory.list_folder("source", {"source": tmp_path})
    assert len({path for path, _, _ in first}) == len(first) == 16
    assert inventory.list_folder("source", {"source": tmp_path}) == first
    assert all(place(tmp_path, path).read_bytes() == b"x" for path, _, _ in first)
    made = write_project(tmp_path / "project", source=str(tmp_path / "archive"))
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / os.fsdecode(b"\xe9.dcm")).write_bytes(b"x")
    run(made)
    where = input_folders.places(made)
    assert input_folders.change(made, "source", places=where, known=None) == ""
    (tmp_path / "archive" / ".new").write_bytes(b"")
    assert input_folders.change(made, "source", places=where, known=None) == "1 file new"


def test_files_that_come_and_go_meanwhile_end_no_listing(tmp_path: Path) -> None:
    write(tmp_path, "stays/a.dcm")
    ending = time.monotonic() + 1.5

    def churn() -> None:
        number = 0
        while time.monotonic() < ending:
            folder = tmp_path / f"{number % 7}"
            write(folder, *map(str, range(20)))
            (folder / "link").symlink_to("0")
            shutil.rmtree(folder)
            number += 1

    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(churn)
        while not done.done():
            listed = {path for path, _, _ in inventory.list_folder("source", {"source": tmp_path})}
            assert "stays/a.dcm" in listed
        done.result()


@pytest.mark.parametrize("count", [1, 2])
def test_an_unreadable_folder_is_named_by_its_place_alone(tmp_path: Path, count: int) -> None:
    write(tmp_path, "a/1/x", "b/Doe^Jane/x", "b/Miller/deep/x", "b/Zed/x", "z.dcm")
    for folder in ("b/Miller/deep", "b/Zed")[:count]:
        (tmp_path / folder).chmod(0)
    code = """
import os, sys
from pathlib import Path
from lapvqa.errors import SourceError
from lapvqa.inventory import scan
if os.getuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)  # nobody: root may read everything
try:
    scan(Path("."))
except SourceError as error:
    sys.stdout.write(f"{error.message}|{error.hint}")
"""
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    what = "a folder" if count == 1 else "2 folders"
    place = "folder 2 of 2, then 2 of 3, then 1 of 1 (in order of name)"
    assert f"{what} of the archive cannot be read (Permission denied): {place}" in done.stdout
    assert "find -L" in done.stdout
    assert not any(name in done.stdout for name in ("Doe", "Miller", "Zed", "deep"))
    for folder in ("b/Miller/deep", "b/Zed"):
        (tmp_path / folder).chmod(0o755)


def test_packed_reports_next_to_the_source_are_listed_with_it(tmp_path: Path) -> None:
    write(tmp_path, "files/a.dcm", "files/~b.dcm", *inventory.BESIDE, "other.zip")
    folders = {"source": tmp_path / "files", "nih14": tmp_path / "files"}
    source = [path for path, _, _ in inventory.list_folder("source", folders)]
    assert source == ["../NLMCXR_reports.tgz", "../mimic-cxr-reports.zip", "a.dcm", "~b.dcm"]
    others = [path for path, _, _ in inventory.list_folder("nih14", folders)]
    assert others == ["a.dcm", "~b.dcm"]
    assert inventory.list_folder("nih14", {**folders, "nih14": tmp_path / "absent"}) == []


def test_the_demos_sets_go_with_the_demos_archive_only(tmp_path: Path) -> None:
    write(tmp_path, "demo/mimic-cxr/DEMO.json", "demo/vindr/a.png", "own/a.dcm", "vindr/a.png")
    demo, own = tmp_path / "demo/mimic-cxr", tmp_path / "own"
    for source, sets, listed in (
        (demo, "demo/vindr", ["a.png"]),
        (own, "demo/vindr", []),
        (own, "vindr", ["a.png"]),
        (demo, "vindr", ["a.png"]),
    ):
        entries = inventory.list_folder("vindr", {"source": source, "vindr": tmp_path / sets})
        assert [path for path, _, _ in entries] == listed


def test_scan_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'pyarrow', 'pandas', 'pydicom', 'cv2', 'pydantic', 'torch', 'prefect'}"
    code = (
        "import sys; from pathlib import Path; from lapvqa.inventory import list_folder; "
        f"list_folder('source', {{'source': Path('.')}}); sys.exit(len({heavy} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_folders_are_listed_with_layout_and_key(tmp_path: Path) -> None:
    write(tmp_path / "archive", MIMIC, "DEMO.json")
    write(tmp_path / "chexpert", "train.csv", "train/patient1/study1/view1.jpg")
    made = write_project(tmp_path, source="archive", chexpert="chexpert", nih14="absent")
    absent = dict.fromkeys(inventory.NAMES, 0)
    assert run(made) == {
        **absent, "source": 2, "chexpert": 2, "read": "source archive, chexpert chexpert",
    }  # fmt: skip
    tables = {
        name: storage.read_table(made.inventory(name), INVENTORY, made_by="inventory")
        for name in inventory.NAMES
    }
    assert tables["source"]["path"].to_pylist() == ["DEMO.json", MIMIC]
    assert tables["source"].schema.metadata == {
        b"layout": b"mimic-cxr",
        b"deid_key": key_id(DEMO_KEY).encode(),
        b"reports": ReportSources().digest().encode(),
        b"folder": b"archive",
        b"synthetic": b"yes",
    }
    assert tables["chexpert"].schema.metadata == {b"folder": b"chexpert"}
    assert len(tables["nih14"]) == 0
    assert str(tmp_path) not in str(tables["source"].schema.metadata)


def test_an_archive_elsewhere_is_called_by_its_own_name(tmp_path: Path) -> None:
    write(tmp_path / "Doe^Jane" / "films", "a.dcm")
    (tmp_path / "project").mkdir()
    made = write_project(tmp_path / "project", source=str(tmp_path / "Doe^Jane" / "films"))
    assert run(made)["read"] == "source films"
    table = storage.read_table(made.inventory("source"), INVENTORY, made_by="inventory")
    assert table.schema.metadata[b"folder"] == b"films"
    assert b"synthetic" not in table.schema.metadata
    assert "Doe" not in str(table.schema.metadata)


def test_same_files_same_bytes_and_a_new_key_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "archive", "a.dcm")
    made = write_project(tmp_path, source="archive")
    run(made)
    before = storage.sha256_file(made.inventory("source"))
    run(made)
    assert storage.sha256_file(made.inventory("source")) == before
    (made.state / "deid.key").unlink()
    run(made)
    assert storage.sha256_file(made.inventory("source")) != before


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (None, "found nothing"),
        ((), "among 0 files"),
        (("notes.txt", "a.jpg", "LICENSE"), "among 3 files"),
    ],
)
def test_a_missing_or_empty_source_gets_a_clear_answer(
    tmp_path: Path, files: tuple[str, ...] | None, expected: str
) -> None:
    if files is not None:
        (tmp_path / "archive").mkdir()
        write(tmp_path / "archive", *files)
    with pytest.raises(SourceError, match=expected) as caught:
        run(write_project(tmp_path, source="archive"))
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_an_image_without_suffix_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "archive", "IM0001", content=DICOM)
    assert run(write_project(tmp_path, source="archive"))["source"] == 1


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    write(tmp_path, "a.dcm", "b/b.dcm")
    code = """
import resource, sys
from pathlib import Path
from lapvqa.errors import SourceError
from lapvqa.inventory import scan
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # even root cannot open a folder now
try:
    scan(Path(sys.argv[1]))
except SourceError as error:
    sys.stdout.write(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "cannot be read (Too many open files)" in done.stdout
    with pytest.raises(SourceError, match="No such file"):
        inventory.scan(tmp_path / "absent")


def test_absent_evaluation_sets_are_one_line(tmp_path: Path) -> None:
    write(tmp_path / "archive", "IM1", content=DICOM)
    write(tmp_path / "vindr", "a.dcm")
    project = write_project(tmp_path, source="archive", vindr="vindr")
    run(project)
    lines = project.record("inventory").read_text().splitlines()
    texts = [entry["text"] for entry in map(json.loads, lines) if entry["kind"] == "say"]
    assert [text for text in texts if "not here" in text] == [
        "evaluation sets not here, listed as empty: chexpert, nih14, ext_vqa, diff_vqa, ms_cxr, "
        "labels"
    ]
    assert {"source: 1 file", "vindr: 1 file"} <= set(texts)
