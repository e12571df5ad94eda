"""Run the stage tokens and read what it wrote."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

from lapvqa import schemas, storage
from lapvqa.config import Machine
from lapvqa.layout import Layout
from lapvqa.params import TokensParams
from lapvqa.recorder import Recorder
from lapvqa.text.tokens import run


def run_tokens(layout: Layout, **values: Any) -> dict[str, Any]:
    recorder = Recorder(layout.record("tokens"), stage="tokens")
    try:
        return run(TokensParams(**values), layout, Machine(workers=1), recorder)
    finally:
        recorder.close()


def token_rows(layout: Layout) -> list[dict[str, Any]]:
    """Rows of all shards, by study key."""
    table = storage.read_table(layout.tokens_dir, schemas.TOKENS, made_by="tokens")
    return table.sort_by("study_key").to_pylist()


def shard_keys(layout: Layout) -> list[list[str]]:
    """The study keys of each shard."""
    paths = sorted(layout.tokens_dir.iterdir())
    return [pq.read_table(path)["study_key"].to_pylist() for path in paths]
