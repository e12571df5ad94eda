"""The ledger keeps every whole line, whatever happens to the last one."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from lapvqa.lineage import ledger
from lapvqa.project import Project


def entry(stage: str = "tokens", **changes: object) -> ledger.LedgerEntry:
    values = {
        "stage": stage,
        "started": 1.0,
        "seconds": 2.0,
        "deps": {"data/studies.parquet": "a" * 32},
        "outs": {"data/tokens": "b" * 32 + ".dir"},
        "params": {"tokens": {"max_length": 64}},
        "git_commit": None,
        "git_dirty": None,
        "prefect_flow_run": "flow-1",
        "prefect_task_run": "task-1",
        "mlflow_run": "run-1",
    }
    return values | changes  # type: ignore[return-value]


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert ledger.entries(project) == []
    ledger.append(project, entry("ingest"))
    ledger.append(project, entry("tokens"))
    assert [found["stage"] for found in ledger.entries(project)] == ["ingest", "tokens"]
    assert ledger.entries(project)[1] == entry("tokens")


@pytest.mark.parametrize("torn", [b'{"stage": "pretr', b'{"stage": "pretrain"}\n', b"\xff\xfe\n"])
def test_a_torn_line_costs_itself_only(tmp_path: Path, torn: bytes) -> None:
    project = Project(tmp_path)
    ledger.append(project, entry("ingest"))
    with project.ledger.open("ab") as handle:
        handle.write(torn)
    assert [found["stage"] for found in ledger.entries(project)] == ["ingest"]
    ledger.append(project, entry("tokens"))
    assert [found["stage"] for found in ledger.entries(project)] == ["ingest", "tokens"]
    assert ledger.damaged_lines(project) == 1


def test_an_incomplete_entry_is_refused(tmp_path: Path) -> None:
    lacking = dict(entry())
    del lacking["outs"]
    with pytest.raises(ValueError, match="outs"):
        ledger.append(Project(tmp_path), lacking)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="patient"):
        ledger.append(Project(tmp_path), entry(patient="x"))


def _append_many(root: Path, name: str) -> None:
    for _ in range(50):
        ledger.append(Project(root), entry(name, params={"filler": "x" * 5000}))


def test_writers_at_once_do_not_mix_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(tmp_path, n)) for n in ("a", "b", "c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = Project(tmp_path).ledger.read_text().splitlines()
    assert len(lines) == 150
    assert sorted(json.loads(line)["stage"] for line in lines) == sorted("abc" * 50)
