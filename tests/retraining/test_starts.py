"""The champion's weights: found by the ledger, kept under their digest, and an edge of lineage."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.commands.status import _show_champion
from lapvqa.errors import MissingArtifactError
from lapvqa.lineage import ledger, recording, walk
from lapvqa.lineage.ledger import MODEL
from lapvqa.lineage.recording import Commit
from lapvqa.lineage.runs import Run, code_listing
from lapvqa.project import Project
from lapvqa.report.freshness import CHAMPIONS, find_events
from lapvqa.retraining import starts

FOLDER = "models/captioning"
FILES = {name: f"{FOLDER}/{name}" for name in ("model_last.pt", "members.parquet")}


def cached(project: Project, content: bytes) -> str:
    """Put bytes into DVC's cache; return their md5."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = project.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


def train(project: Project, generation: int, *, by_gate: bool = True, **pretrain: Any) -> str:
    """Write the entries of a training and its export, and make it the champion."""
    code, commit = code_listing({}), Commit(None, None)
    (project.root / FOLDER).mkdir(parents=True, exist_ok=True)
    outs = {}
    for name, path in FILES.items():
        content = f"{name} of generation {generation}".encode()
        (project.root / path).write_bytes(content)
        outs[path] = cached(project, content)
    run = Run("pretrain", 1e9 + generation, 5.0, outs=outs, params={"pretrain": pretrain})
    trained = recording.write(project, run, code, commit, {})
    exported = f"{FOLDER}/encoder.safetensors"
    (project.root / exported).write_bytes(f"encoder {generation}".encode())
    facts = {exported: {"sha256": f"{generation:064x}"}}
    export = Run(
        "export", 1e9 + generation, 1.0, deps=outs, sources=dict.fromkeys(outs, trained),
        outs={exported: "e" * 32}, files=facts,
    )  # fmt: skip
    ledger.append(project, ledger.RUN, export.payload())
    told = {"name": "lapvqa-encoder", "version": str(generation), "aliases": ["champion"]}
    decided = {"decision": f"verdict {generation}"} if by_gate else {}
    ledger.append(project, MODEL, {**told, "sha256": f"{generation:064x}", **decided})
    return trained


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_champions_weights_are_found_in_the_cache_and_kept(project: Project) -> None:
    assert starts.fault(project, starts.champion(project)) == "the ledger knows no champion"
    train(project, 1)
    shutil.rmtree(project.root / FOLDER)  # as DVC does before the stage runs again
    start = starts.champion(project)
    assert start is not None
    assert starts.fault(project, start) == ""
    weights = b"model_last.pt of generation 1"
    assert starts.provide(project, start) == hashlib.sha256(weights).hexdigest() == start.sha256
    folder = project.start(start.sha256)
    assert (folder / "model_last.pt").read_bytes() == weights
    assert (folder / "members.parquet").read_bytes() == b"members.parquet of generation 1"
    (folder / "members.parquet").unlink()  # an erasure took it, here and in the cache
    shutil.rmtree(project.root / ".dvc")
    assert "members.parquet of the champion is neither here" in starts.fault(project, start)
    with pytest.raises(MissingArtifactError, match="members.parquet"):
        starts.provide(project, start)


def test_an_alias_without_a_gate_makes_no_champion(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    train(project, 1, by_gate=False)
    assert starts.champion(project) is None
    assert "earlier version set the alias" in starts.fault(project, None)
    _show_champion(project, Console())
    assert "an earlier version set the alias champion without a gate" in capsys.readouterr().out
    assert not [event for event in find_events(project) if event.lane == CHAMPIONS]
    train(project, 2)
    train(project, 3, by_gate=False)
    start = starts.champion(project)
    assert start is not None
    weights = b"model_last.pt of generation 2"
    assert start.sha256 == hashlib.sha256(weights).hexdigest()
    (crowned,) = [event for event in find_events(project) if event.lane == CHAMPIONS]
    assert (crowned.outcome, crowned.why) == ("version 2", "the first")


def test_other_bytes_are_no_start(project: Project) -> None:
    train(project, 1)
    start = starts.champion(project)
    assert start is not None
    folder = project.start(start.sha256)
    folder.mkdir(parents=True)
    (folder / "model_last.pt").write_bytes(b"other")
    with pytest.raises(MissingArtifactError, match="sha256"):
        starts.provide(project, start)
    assert not folder.exists()
    starts.provide(project, start)
    starts.forget_others(project, start.sha256)
    assert folder.exists()
    starts.forget_others(project, None)
    assert not folder.exists()


def test_a_generation_stands_on_the_one_before(project: Project) -> None:
    first = train(project, 1)
    start = starts.champion(project)
    assert start is not None
    second = train(project, 2, continue_from=start.sha256)
    told = walk.trace(project, second)
    assert {first, second} <= {key.run for key in told.nodes}
    newest = starts.champion(project)
    assert newest is not None
    assert newest.sha256 != start.sha256
