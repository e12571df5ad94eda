"""Run the stage tokens and read what it wrote."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq
from jobs import make_job

from lapvqa import schemas, storage
from lapvqa.machine import Machine
from lapvqa.params import TokensParams
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.text.tokens import run


def run_tokens(project: Project, **values: Any) -> dict[str, Any]:
    recorder = Recorder(project.record("tokens"), stage="tokens")
    try:
        return run(TokensParams(**values), make_job(project, Machine(workers=1), recorder))
    finally:
        recorder.close()


def token_rows(project: Project) -> list[dict[str, Any]]:
    """Rows of all shards, by study key."""
    table = storage.read_table(project.tokens_dir, schemas.TOKENS, made_by="tokens")
    return table.sort_by("study_key").to_pylist()


def shard_keys(project: Project) -> list[list[str]]:
    """The study keys of each shard."""
    paths = sorted(project.tokens_dir.iterdir())
    return [pq.read_table(path)["study_key"].to_pylist() for path in paths]
