"""The languages of an archive's reports: how many, how long in tokens, how much is cut."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lapvqa.schemas import REPORT_LANGUAGES

_MANY_REPORTS, _MANY_TOKENS = 0.10, 0.05
"""Shares that are cut above which ``length_hint`` speaks."""

_FEW_REPORTS = 0.01


@dataclass(frozen=True)
class LanguageRow:
    """What the reports of a language became; ``tokens`` are those before any cut."""

    language: str
    reports: int
    characters: int
    tokens: int
    reports_cut: int
    tokens_cut: int

    @property
    def tokens_per_character(self) -> float | None:
        """How dearly the vocabulary spells the language; None without any text."""
        return self.tokens / self.characters if self.characters else None


def table(studies: Iterable[pa.Table], max_length: int) -> pa.Table:
    """Return REPORT_LANGUAGES of finished studies (``token_store.CHUNK``), sorted by study key."""
    rows = pa.concat_tables(studies)
    rows = rows.filter(rows["language"].is_valid()).sort_by("study_key")
    kept = np.minimum(rows["num_tokens"].to_numpy(), max_length - 2).astype(np.int32)
    columns = {name: rows[name] for name in REPORT_LANGUAGES.names if name != "num_kept"}
    return pa.table({**columns, "num_kept": kept}, schema=REPORT_LANGUAGES)


def count(rows: pa.Table) -> dict[str, int]:
    """Return the number of reports by language, the most frequent first."""
    counts = Counter(rows["language"].to_pylist())
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def by_language(rows: pa.Table) -> list[LanguageRow]:
    """Add up REPORT_LANGUAGES by language, the most frequent first."""
    codes = np.array(rows["language"].to_pylist(), dtype=object)
    characters, tokens, kept = _numbers(rows)
    return [
        LanguageRow(
            code,
            number,
            int(characters[codes == code].sum()),
            int(tokens[codes == code].sum()),
            int((tokens > kept)[codes == code].sum()),
            int((tokens - kept)[codes == code].sum()),
        )
        for code, number in count(rows).items()
    ]


def length_hint(rows: pa.Table) -> str | None:
    """Return what to set where tokens.max_length cuts many reports or tokens; None where not."""
    characters, tokens, kept = _numbers(rows)
    tokens, kept = tokens[characters > 0], kept[characters > 0]
    cut = tokens > kept
    if not cut.any():
        return None
    of_reports, of_tokens = cut.mean(), 1 - kept.sum() / tokens.sum()
    if of_reports <= _MANY_REPORTS and of_tokens <= _MANY_TOKENS:
        return None
    longest_kept = len(tokens) - math.floor(_FEW_REPORTS * len(tokens))
    enough = int(np.sort(tokens)[longest_kept - 1]) + 2
    return (
        f"tokens.max_length = {kept.max() + 2} cuts {of_reports:.0%} of the reports "
        f"({of_tokens:.0%} of their tokens); {enough} would cut at most 1 %"
    )


def _numbers(rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    characters, tokens, kept = (
        rows[name].to_numpy() for name in ("num_characters", "num_tokens", "num_kept")
    )
    return characters, tokens, kept
