"""How much of an archive's text reached the model, in a few rows for a person."""

from __future__ import annotations

from collections import Counter

import pyarrow.compute as pc

from lapvqa import schemas, storage
from lapvqa.project import Project
from lapvqa.text.report_languages import LanguageRow, by_language, length_hint
from lapvqa.text.sections import Verdict


def coverage(project: Project) -> list[tuple[str, int]]:
    """Return studies by verdict, then the texts that were cut and those that name a side.

    Every verdict has a row, in the order of ``Verdict``. Reads narrow columns only. Raises
    MissingArtifactError if the stage tokens has not run.
    """
    rejects = storage.require(project.token_rejects, made_by="tokens")
    storage.require(project.tokens_dir, made_by="tokens")
    verdicts = Counter(storage.read_columns(rejects, ["reason"])["reason"].to_pylist())
    cut = sided = 0
    for path in sorted(project.tokens_dir.glob("*.parquet")):
        shard = storage.read_columns(path, ["verdict", "truncated", "sided"])
        for entry in pc.value_counts(shard["verdict"]):
            verdicts[entry["values"].as_py()] += entry["counts"].as_py()
        cut += pc.sum(shard["truncated"]).as_py() or 0
        sided += pc.sum(shard["sided"]).as_py() or 0
    rows = [(_words(verdict), verdicts[verdict]) for verdict in Verdict]
    return [*rows, ("cut to tokens.max_length", cut), ("names a side", sided)]


def languages(project: Project) -> tuple[list[LanguageRow], str | None]:
    """Return what each language's reports became, and a hint if tokens.max_length cuts much.

    Raises MissingArtifactError if the stage tokens has not run.
    """
    path = project.report_languages
    rows = storage.read_table(path, schemas.REPORT_LANGUAGES, made_by="tokens")
    return by_language(rows), length_hint(rows)


def _words(verdict: Verdict) -> str:
    return verdict.replace("_", " ").replace("+", " and ")
