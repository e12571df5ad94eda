"""The ledger keeps every whole entry, names every change, and can forget what an entry says."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lapvqa.errors import SchemaError
from lapvqa.lineage import first_ledger, index, ledger, recording
from lapvqa.lineage.ledger import DECISION, FIRST, LOOK
from lapvqa.lineage.row_numbers import PATIENT, RowNumbers, packed, unpacked
from lapvqa.project import Project


def filled(root: Path, count: int = 4) -> Project:
    project = Project(root)
    project.state.mkdir(parents=True)  # else the index lives in memory alone
    for number in range(count):
        ledger.append(project, DECISION, {"what": f"decision {number}"})
    return project


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert ledger.entries(project) == []
    assert ledger.head(project) == FIRST
    first = ledger.append(project, DECISION, {"what": "ö"})
    second = ledger.append(project, LOOK, {"what": "b"})
    found = ledger.entries(project)
    assert [(entry.id, entry.kind, entry.payload) for entry in found] == [
        (first, DECISION, {"what": "ö"}),
        (second, LOOK, {"what": "b"}),
    ]
    assert ledger.head(project) == second
    assert ledger.verify(project) == []


@pytest.mark.parametrize("torn", [b'{"id": "0123", "kin', b"\xff\xfe", b"{}"])
@pytest.mark.parametrize("file", ["chain.jsonl", "payloads.jsonl"])
def test_a_torn_line_costs_itself_only(tmp_path: Path, file: str, torn: bytes) -> None:
    project = filled(tmp_path, 2)
    with (tmp_path / "ledger" / file).open("ab") as handle:
        handle.write(torn)
    assert len(ledger.entries(project)) == 2
    ledger.append(project, DECISION, {"what": "after"})
    assert [e.payload for e in ledger.entries(project)][-1] == {"what": "after"}
    assert ledger.verify(project) == []


@pytest.mark.parametrize("times", [1, 2])
def test_a_writer_that_ends_between_payload_and_link_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    project = filled(tmp_path, 2)

    def fail(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:9])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_write_all", fail)
        for _ in range(times):
            with pytest.raises(OSError, match="full"):
                ledger.append(project, DECISION, {"what": "lost"})
    assert ledger.verify(project) == []
    ledger.append(project, DECISION, {"what": "after"})
    told = [(entry.payload or {})["what"] for entry in ledger.entries(project)]
    assert told == ["decision 0", "decision 1", "after"]
    assert b"lost" not in project.ledger_payloads.read_bytes()
    assert ledger.verify(project) == []


@pytest.mark.parametrize("file", ["chain.jsonl", "payloads.jsonl"])
def test_any_flipped_bit_is_named(tmp_path: Path, file: str) -> None:
    project = filled(tmp_path, 2)
    path = tmp_path / "ledger" / file
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        assert ledger.verify(project), (place, whole[place], content[place])


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_an_entry_taken_out_or_moved_is_named(tmp_path: Path, gone: int) -> None:
    project = filled(tmp_path)
    lines = project.ledger.read_bytes().splitlines(keepends=True)
    project.ledger.write_bytes(b"".join(lines[:gone] + lines[gone + 1 :]))
    assert "taken out" in ledger.verify(project)[0]
    lines[gone], lines[gone + 1] = lines[gone + 1], lines[gone]
    project.ledger.write_bytes(b"".join(lines))
    assert ledger.verify(project)


def test_an_erased_payload_leaves_a_chain_that_verifies(tmp_path: Path) -> None:
    project = filled(tmp_path)
    erased = ledger.entries(project)[1].id
    ledger.erase_payloads(project, {erased}, {"why": "asked for"})
    assert [entry.payload is None for entry in ledger.entries(project)] == [
        False, True, False, False, False,
    ]  # fmt: skip
    assert b"decision 1" not in project.ledger_payloads.read_bytes()
    assert ledger.verify(project) == []
    ledger.append(project, DECISION, {"what": "after"})
    assert ledger.verify(project) == []


def test_a_payload_that_no_erasure_names_is_missed(tmp_path: Path) -> None:
    project = filled(tmp_path)
    lines = project.ledger_payloads.read_bytes().splitlines(keepends=True)
    project.ledger_payloads.write_bytes(b"".join(lines[:1] + lines[2:]))
    assert ledger.verify(project) == [
        "ledger/chain.jsonl line 2: what it says is missing, and no erasure names it"
    ]


def test_an_erased_payload_leaves_the_index_too(tmp_path: Path) -> None:
    project = filled(tmp_path)
    with index.opened(project) as database:
        assert database.execute("SELECT count(payload) FROM entries").fetchone()[0] == 4
    ledger.erase_payloads(project, {ledger.entries(project)[1].id}, {"why": "asked for"})
    with index.opened(project) as database:
        assert database.execute("SELECT count(payload) FROM entries").fetchone()[0] == 3 + 1
    assert b"decision 1" not in project.lineage_index.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "garbage", "other"])
def test_a_damaged_or_foreign_index_is_made_again(tmp_path: Path, damage: str) -> None:
    project = filled(tmp_path / "one")
    with index.opened(project):
        pass
    if damage == "cut":
        content = project.lineage_index.read_bytes()
        project.lineage_index.write_bytes(content[: len(content) // 2])
    elif damage == "garbage":
        project.lineage_index.write_bytes(b"no database" * 1000)
    else:
        other = filled(tmp_path / "two")
        with index.opened(other):
            pass
        project.lineage_index.write_bytes(other.lineage_index.read_bytes())
    with index.opened(project) as database:
        ids = [id for (id,) in database.execute("SELECT id FROM entries ORDER BY number")]
    assert ids == [entry.id for entry in ledger.entries(project)]


def _append_many(root: Path, name: str) -> None:
    for _ in range(20):
        ledger.append(Project(root), DECISION, {"name": name, "filler": "x" * 5000})


def test_writers_at_once_do_not_mix_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(tmp_path, n)) for n in ("a", "b", "c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    project = Project(tmp_path)
    names = [entry.payload["name"] for entry in ledger.entries(project) if entry.payload]
    assert sorted(names) == sorted("abc" * 20)
    assert ledger.verify(project) == []


@given(st.lists(st.lists(st.text("abcdef0123456789", min_size=16, max_size=16), max_size=20)))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_row_numbers_are_stable(tmp_path: Path, batches: list[list[str]]) -> None:
    project = Project(tmp_path)
    for path in project.row_numbers.glob("*"):
        path.unlink()
    numbers = RowNumbers(project, PATIENT)
    first: dict[str, int] = {}
    for batch in batches:
        rows = numbers.number(batch)
        assert unpacked(packed(rows)) == rows
        assert {numbers.keys()[row] for row in rows} == set(batch)
        for key in batch:
            row = numbers.find(key)
            assert row is not None
            assert first.setdefault(key, row) == row


def test_an_erased_key_leaves_the_numbers_of_the_others(tmp_path: Path) -> None:
    numbers = RowNumbers(Project(tmp_path), PATIENT)
    keys = [f"{number:016x}" for number in range(5)]
    numbers.number(keys)
    assert numbers.erase(keys[2]) == 2
    assert numbers.erase(keys[2]) is None
    assert numbers.keys() == [*keys[:2], "-" * 16, *keys[3:]]
    assert list(numbers.number([*keys[3:], "f" * 16])) == [3, 4, 5]


OLD = {
    "stage": "ingest", "started": 1.0, "seconds": 2.0,
    "deps": {"data/inventory/source.parquet": "a", "lapvqa/dicom": "b.dir"},
    "outs": {"data/images": "c.dir", "data/studies.parquet": "d"}, "params": {"ingest": {"x": 1}},
    "git_commit": "e" * 40, "git_dirty": True,
    "prefect_flow_run": "flow", "prefect_task_run": "task", "mlflow_run": "run",
}  # fmt: skip
TOKENS = OLD | {
    "stage": "tokens", "started": 9.0, "deps": {"data/studies.parquet": "d", "lapvqa/text": "g"},
    "outs": {"data/tokens": "h.dir"},
}  # fmt: skip


def test_the_first_versions_ledger_is_taken_over_once(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.first_ledger.parent.mkdir()
    lines = [json.dumps(OLD), json.dumps(TOKENS), '{"stage": "torn']
    project.first_ledger.write_text("\n".join(lines))
    assert first_ledger.take_over(project) == 2
    assert first_ledger.take_over(project) == 0
    ingest, tokens = recording.told(project)
    assert (ingest.stage, ingest.started, ingest.commit, ingest.dirty) == (
        "ingest", 1.0, "e" * 40, True,
    )  # fmt: skip
    assert tokens.deps == {"data/studies.parquet": "d"}  # code stands in its own entry
    by_id = {entry.id: entry for entry in ledger.entries(project)}
    source = by_id[tokens.sources["data/studies.parquet"]].payload
    assert source is not None
    assert source["stage"] == "ingest"
    assert project.first_ledger.with_name("ledger-0.1.jsonl").exists()
    assert ledger.verify(project) == []


def test_a_cut_chain_is_named_and_nothing_is_told_from_it(tmp_path: Path) -> None:
    project = filled(tmp_path)
    lines = project.ledger.read_bytes().splitlines(keepends=True)
    project.ledger.write_bytes(b"".join(lines[:2]))
    assert ledger.verify(project) == [
        "ledger/chain.jsonl: its end is cut off, 2 entries are missing"
    ]
    with pytest.raises(SchemaError, match="cut off"):
        ledger.require_whole(project)
    project.ledger.write_bytes(b"".join(lines[:3]))  # as a writer leaves it that was killed
    assert ledger.verify(project) == []
