"""Nothing of an erased patient is left in any store, whatever packs it, however often it is cut."""

from __future__ import annotations

import gzip
import html
import io
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from canaries import contents
from rich.console import Console
from small_project import GONE, KEY, SENTENCE, copy_of, place

from flows.commands.erase import _show
from lapvqa import storage
from lapvqa.erasure import impact, journal, receipt
from lapvqa.erasure.databases import overwrite
from lapvqa.erasure.erase import STEPS, archive_files, erase, look, open_journal
from lapvqa.erasure.impact import trainings_since
from lapvqa.errors import BusyError, ConfigError, LapvqaError
from lapvqa.identity import Keyring, key_id
from lapvqa.images.shards import ShardStore, write_shard
from lapvqa.inference.table import COLUMNS
from lapvqa.lineage import index, ledger, merkle, recording, signing
from lapvqa.lineage.row_numbers import PATIENT, STUDY, RowNumbers
from lapvqa.lineage.runs import Run
from lapvqa.project import Project
from lapvqa.report.examples import ArchivePictures
from lapvqa.schemas import IMAGES, MEMBERS, MEMBERS_FILE, STUDIES

PATIENT_KEY = Keyring(KEY.encode()).patient(GONE)


@dataclass
class Canaries:
    """What names the patient, and must be found nowhere."""

    words: list[bytes]
    line: bytes
    """Pixels."""


def canaries(project: Project) -> Canaries:
    images = storage.read_table(project.images, IMAGES, made_by="ingest").to_pylist()
    own = [row for row in images if row["patient_key"] == PATIENT_KEY]
    assert len(own) == 2
    names = ("study_key", "image_key", "file_sha256", "pixels_sha256")
    words = {PATIENT_KEY, GONE, SENTENCE, json.dumps(SENTENCE)[1:-1], html.escape(SENTENCE)}
    words |= {row[name] for row in own for name in names}
    pictures = ArchivePictures(pa.Table.from_pylist(images, IMAGES), project)
    words |= {one.data for one in pictures.of_images(row["image_key"] for row in own).values()}
    pixels = ShardStore(project.images_dir).read([own[0]["shard"]], [own[0]["row"]])
    return Canaries([word.encode() for word in words], pixels[0, 100].tobytes())


def holding(root: Path, hidden: Canaries) -> set[str]:
    """Files that hold a canary, by another search than ours."""
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file()
        for content in unpacked(path)
        if any(word in content for word in (*hidden.words, hidden.line))
    }


def unpacked(path: Path) -> Iterator[bytes]:
    yield from contents(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            yield from (packed.read(name) for name in packed.namelist())
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            yield from ("\n".join(map(str, arrays[name].ravel())).encode() for name in arrays)


def plant(project: Project) -> Canaries:
    """Put the patient into every kind of store that a project has."""
    hidden = canaries(project)
    images = storage.read_table(project.images, IMAGES, made_by="ingest").to_pylist()
    row = next(row for row in images if row["patient_key"] == PATIENT_KEY)
    pixels = ShardStore(project.images_dir).read([row["shard"]], [row["row"]])
    state, root = project.state, project.root
    predictions = pa.table({"sample": [row["study_key"], "another"],
                            "patient": [PATIENT_KEY, "f" * 16]})  # fmt: skip
    for where in ("results/rrg", "results/retrieval", "evaluations/other/rrg", "imports/0a/files"):
        (root / where).mkdir(parents=True)
        pq.write_table(predictions, root / where / "predictions.parquet")
    (root / "results/vqa").mkdir(parents=True)  # not computed
    pq.write_table(predictions.slice(0, 0), root / "results/vqa/predictions.parquet")
    storage.write_bytes(project.report_page, b"<p>a page with a picture and no key</p>")
    _plant_pictures(project, row)
    line = json.dumps({"report": f"{SENTENCE}."}) + '\n{"report": "of somebody else"}\n'
    for where in ("work/pretrain/0a/samples.jsonl", "logs/tokens.log", "records/rrg.jsonl",
                  "spool/1/rrg/lines.jsonl"):  # fmt: skip
        storage.write_bytes(state / where, line.encode())
    for where in ("arrivals.jsonl", "whois.jsonl", "work/drift/reference.jsonl"):
        storage.write_bytes(state / where, f'{{"study": "{row["study_key"]}"}}\n'.encode())
    embedded = {"path": "a film", "sha256": row["file_sha256"], "feature": [0.5, 0.25]}
    storage.write_table(root / "exports/embedded.parquet",
                        pa.Table.from_pylist([embedded], COLUMNS), COLUMNS)  # fmt: skip
    chunk = state / "work/features/features/a/b/mean/chunk"
    storage.write_bytes(chunk.with_name("of a killed run.npy"), b"features")
    storage.write_bytes(chunk.with_name(".chunk.npy.1.tmp"), b"features")
    storage.write_json(chunk.with_suffix(".json"), {"digests": [row["pixels_sha256"]]})
    np.save(chunk.with_suffix(".npy"), np.zeros((1, 4), np.float32))
    np.savez_compressed(chunk.with_name("listed.npz"), digests=np.array([row["pixels_sha256"]]))
    storage.write_bytes(state / "mlartifacts/1/artifacts/note.txt.gz", gzip.compress(line.encode()))
    storage.write_bytes(state / "prefect/storage/result", row["image_key"].encode())
    with zipfile.ZipFile(root / "exports/bundle.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("studies.json", line * 50)
    write_shard(root / "exports/images-0.arrow", ["another-name"], pixels)
    _plant_in_database(state / "mlflow.db", row["study_key"], wal=False)
    _plant_in_database(state / "prefect/prefect.db", json.dumps(SENTENCE), wal=True)
    RowNumbers(project, PATIENT).number([PATIENT_KEY, "f" * 16])
    RowNumbers(project, STUDY).number([row["study_key"]])
    ledger.append(project, ledger.LOOK, {"note": f"asked for {row['image_key']}"})
    with index.opened(project):
        pass
    return hidden


def _plant_pictures(project: Project, row: dict[str, Any]) -> None:
    """Put a film of the patient where pictures of the page are copied to; and an old one's."""
    images = storage.read_table(project.images, IMAGES, made_by="ingest")
    picture = ArchivePictures(images, project).of_studies([row["study_key"]])[row["study_key"]]
    assert picture is not None
    shown = f'<svg><image href="{picture.address}"/></svg>'
    state = project.state
    for where in ("mlartifacts/1/artifacts/pictures/vqa.svg", "spool/1/report/pictures/vqa.svg"):
        storage.write_bytes(state / where, shown.encode())
    storage.write_bytes(project.root / "exports/page.html", html.escape(SENTENCE).encode())
    old = re.sub(";film=[^;]*", "", shown)
    storage.write_bytes(state / "mlartifacts/2/artifacts/pictures/rrg.svg", old.encode())
    storage.write_bytes(state / "mlartifacts/2/artifacts/pictures/ad.svg", b'<svg film="other"/>')


def _plant_in_database(path: Path, word: str, *, wal: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}")
        database.execute("PRAGMA secure_delete = OFF")
        database.execute("CREATE TABLE logs (id INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO logs (text) VALUES (?)",
                             [(f"{word} {n}" + "x" * 3000,) for n in range(20)])  # fmt: skip
        database.execute("INSERT INTO logs (text) VALUES ('something else')")
        database.commit()
        database.execute("DELETE FROM logs WHERE id <= 10")  # stays in free pages
        database.commit()


LISTED = {"data/inventory/source.parquet", "data/rejects.parquet", "data/companions.parquet"}
"""What names the archive's files, as long as they are there; finished work of ingest does too."""


def test_no_store_holds_anything_afterwards(apart: Project) -> None:
    hidden, there = plant(apart), place(apart)
    assert len(holding(apart.root, hidden)) > 25
    opened = open_journal(there, GONE, "R1")
    before = look(there, opened)
    found = {f["item"] for one in before["searched"] for f in one["findings"]}
    unnamed = {".lapvqa/mlartifacts/2/artifacts/pictures/rrg.svg"}  # of an older version's page
    seen = found | unnamed | {f"{item}-wal" for item in found}
    assert holding(apart.root, hidden) <= seen, "the look sees all"

    is_tested = before["split"] == "test"
    named = archive_files(there, opened)
    assert {path.suffix for path in map(Path, named)} == {".dcm", ".txt"}
    told = {one["task"]: one["head_may_have_learnt"] for one in before["metrics"]}
    assert told == {"rrg": not is_tested, "retrieval": not is_tested}
    learnt = impact.affected_metrics(apart, "another", "train")
    assert [one["task"] for one in learnt] == ["retrieval", "rrg"], "vqa was not computed"

    first = erase(there, opened, lambda _: None)
    assert first["state"].startswith("open"), "the archive still has the files, and lists them"
    assert archive_files(there, opened) == named, "the look names what the erasure does"
    assert left_of(apart, hidden) == LISTED
    assert not any(path.is_file() for path in apart.work_dir("features").rglob("*"))
    shutil.rmtree(apart.root.parent / f"archive/files/p10/p{GONE}")
    last = erase(there, open_journal(there, GONE, "R1"), lambda _: None)
    assert last["state"] == "complete"
    assert holding(apart.root, hidden) == set()
    assert not list(apart.open_erasures.iterdir())
    assert ledger.verify(apart) == []
    assert RowNumbers(apart, PATIENT).find("f" * 16) == 1, "the numbers of others stay"
    for name in ("logs/tokens.log", "spool/1/rrg/lines.jsonl", "work/pretrain/0a/samples.jsonl"):
        assert "of somebody else" in (apart.state / name).read_text()
    with closing(sqlite3.connect(apart.mlflow_db)) as database:
        texts = [text for (text,) in database.execute("SELECT text FROM logs")]
    assert len(texts) == 11
    assert texts[-1] == "something else"
    _found_again(apart)


def test_a_look_names_the_archives_files_though_finished_work_is_gone(project: Project) -> None:
    there = place(project)
    before = archive_files(there, open_journal(there, GONE, "R1"))
    assert len(before) == 4
    shutil.rmtree(project.work_dir("ingest"))
    assert archive_files(there, open_journal(there, GONE, "R1")) == before


def _found_again(project: Project) -> None:
    """A copy that turns up after a complete erasure goes too, and both receipts are kept."""
    path = project.receipts / f"{mark_of(project)}.json"
    before = path.read_bytes()
    storage.write_bytes(project.root / "exports/found.txt", f"an old list: {PATIENT_KEY}".encode())
    again = place(project, request="R2")
    told = erase(again, open_journal(again, GONE, "R2"), lambda _: None)
    assert (told["state"], told["number"], told["request"]) == ("complete", 2, "R2")
    assert path.read_bytes() == before
    second = receipt.paths(project, told)[0]
    assert second.name == f"{path.stem}-2.json"
    for one in (path, second):
        receipt.check(one, signing.checking_key(project))
    assert open_journal(again, GONE, "R3").number == 3


def mark_of(project: Project) -> str:
    """The name of the patient's erasure."""
    return open_journal(place(project), GONE, "").name


def left_of(project: Project, hidden: Canaries) -> set[str]:
    """What holds a canary, but the open erasure itself and the finished work of ingest."""
    apart = (".lapvqa/work/ingest/", ".lapvqa/erasures/")
    return {name for name in holding(project.root, hidden) if not name.startswith(apart)}


def test_killed_at_any_step_it_ends_the_same(project: Project) -> None:
    hidden = plant(project)
    moments = random.Random(0)
    waits = "it waits until the archive's owner has deleted the files"
    for step in ("renew", "remove", "check"):
        assert step in STEPS
        _kill_in(project, step, 0 if step == "renew" else moments.uniform(0, 0.4))
        # A quick machine may have done all of it when the later kills come.
        is_cut_off = "it was cut off before" in standing(project)
        assert is_cut_off or (step != "renew" and standing(project) == waits)
    there = place(project)
    told = erase(there, open_journal(there, GONE, "R1"), lambda _: None)
    assert told["scope"]["rows"] == {"images": 2, "studies": 2, "tokens": 2}
    assert sum(one["held_traces"] for one in told["stores"]) > 25, "what the first look found"
    assert left_of(project, hidden) == LISTED
    assert ledger.verify(project) == []
    assert standing(project) == waits


def standing(project: Project) -> str:
    """What `lapvqa status` says of the open erasure."""
    (path,) = project.open_erasures.glob("*.json")
    opened = journal.load(project, path.stem)
    assert opened is not None
    return journal.stands_at(opened.facts, STEPS)


def _kill_in(project: Project, step: str, seconds: float) -> None:
    """Start an erasure in another process, and kill it soon after it has begun a step."""
    code = (
        "import sys; from pathlib import Path; from small_project import GONE, place\n"
        "from lapvqa.erasure.erase import erase, open_journal\n"
        "from lapvqa.project import Project\n"
        "there = place(Project(Path(sys.argv[1])))\n"
        "erase(there, open_journal(there, GONE, 'R1'), lambda text: print(text, flush=True))\n"
    )
    tests = Path(__file__).parents[1]
    folders = [tests / "erasure", tests / "dicom", tests, tests.parent]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(project.root)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(step):
            time.sleep(seconds)
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def erased(read: Path, tmp_path_factory: pytest.TempPathFactory) -> Erased:
    """A project of which one patient was erased, asked for by the hashed key."""
    project = copy_of(read, tmp_path_factory.mktemp("erased"))
    before = storage.read_table(project.studies, STUDIES, made_by="ingest").to_pylist()
    hidden, there = canaries(project), place(project, request="R7")
    told = erase(there, open_journal(there, PATIENT_KEY, "R7"), lambda _: None)
    return Erased(project, hidden, told, before)


@dataclass
class Erased:
    project: Project
    hidden: Canaries
    receipt: dict[str, Any]
    studies: list[dict[str, Any]]


def test_the_receipt_names_nobody_and_its_checks_can_fail(erased: Erased) -> None:
    paths = receipt.paths(erased.project, erased.receipt)
    for path in paths:
        assert not any(word in path.read_bytes() for word in erased.hidden.words)
    key = signing.public_key(erased.project)
    again = receipt.check(paths[0], key)
    assert again["request"] == "R7"
    assert again["over_deletion"]["images"]["rows_of_patient"] == 2
    assert 0 < again["over_deletion"]["images"]["rows_rewritten"] <= 6
    again["training_set"]["root"] = "0" * 64
    with pytest.raises(LapvqaError, match="fails"):
        receipt.require_proof(again)
    content = paths[0].read_bytes()
    paths[0].write_bytes(content.replace(b"R7", b"R8"))
    with pytest.raises(signing.SignatureError, match="signed"):
        receipt.check(paths[0], key)
    paths[0].write_bytes(content)
    with pytest.raises(ConfigError, match="receipt"):
        receipt.read(erased.project.tombstones)
    page = paths[1].read_text()
    for heading in ("Scope", "Stores searched", "Absence, and the limits of its proof"):
        assert heading in page


def test_others_are_left_as_they_are(erased: Erased) -> None:
    after = storage.read_table(erased.project.studies, STUDIES, made_by="ingest").to_pylist()
    assert after == [row for row in erased.studies if row["patient_key"] != PATIENT_KEY]


def test_nobody_of_that_name_is_said_without_the_name(project: Project) -> None:
    with pytest.raises(ConfigError) as raised:
        open_journal(place(project), "19999999", "R1")
    assert "19999999" not in str(raised.value)


def test_a_database_that_is_in_use_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    _plant_in_database(path, SENTENCE, wal=False)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO logs (text) VALUES ('x')")
        with pytest.raises(BusyError, match=r"mlflow\.db"):
            overwrite(path, [SENTENCE], wait_s=0.2)
        other.rollback()
    overwrite(path, [SENTENCE])
    assert SENTENCE.encode() not in path.read_bytes()


def test_a_journal_is_private(project: Project) -> None:
    there = place(project)
    opened = open_journal(there, GONE, "R1")
    opened.keep(project)
    path = journal.place(project, opened.name)
    assert path.stat().st_mode & 0o777 == 0o600
    assert journal.load(project, opened.name) == opened


@pytest.mark.parametrize("keep_ids", [False, True])
def test_a_look_says_how_else_the_patient_is_called(project: Project, keep_ids: bool) -> None:
    there = place(project)
    opened = open_journal(there, GONE, "R1")
    console = Console(record=True, file=io.StringIO(), width=200)
    _show(look(there, opened), opened, keep_ids, console)
    text = console.export_text()
    assert f"patient {opened.name}: " in text
    assert (PATIENT_KEY in text) is not keep_ids


def test_a_training_that_follows_records_by_its_root_that_the_patient_is_not_in_it(
    erased: Erased,
) -> None:
    project = erased.project
    others = sorted({row["patient_key"] for row in erased.studies} - {PATIENT_KEY})
    assert trained_by(erased, others) == [False]
    assert trained_by(erased, [*others, PATIENT_KEY]) == [False, True]
    RowNumbers(project, PATIENT).erase(others[0])
    assert trained_by(erased, others[1:]) == [None, None, False]
    run = next(told for told in recording.told(project) if told.stage == "pretrain")
    recorded = run.files[f"models/captioning/{MEMBERS_FILE}"]["members"]
    tree = merkle.leaves(merkle.member_digest(KEY.encode(), one) for one in others)
    assert recorded == {
        "patients": len(others), "root": merkle.root(tree), "key": key_id(KEY.encode())
    }  # fmt: skip


def trained_by(erased: Erased, patients: list[str]) -> list[bool | None]:
    """Record a training by these patients; return what is known of all since the receipt."""
    project = erased.project
    rows = [
        {"study_key": f"study of {one}", "patient_key": one, "role": "train", "times": 2,
         "times_best": 1, "first_step": 1}
        for one in patients
    ]  # fmt: skip
    path = project.model_dir("captioning") / MEMBERS_FILE
    storage.write_table(path, pa.Table.from_pylist(rows, MEMBERS), MEMBERS)
    out = f"{{path: models/captioning/{MEMBERS_FILE}, md5: {len(patients):032x}}}"
    project.dvc_lock.write_text(
        f"schema: '2.0'\nstages:\n  pretrain:\n    cmd: x\n    outs:\n    - {out}\n"
    )
    recording.record(project, Run("pretrain", time.time(), 2.0), recording.Commit(None, None))
    since = trainings_since(project, erased.receipt)
    return [one["has_the_patient"] for one in since]
