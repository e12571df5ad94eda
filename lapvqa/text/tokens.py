"""Stage tokens: the target text of every study as GPT-2 ids, or the reason why it has none."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import tiktoken

from lapvqa import schemas, storage
from lapvqa.config import Machine
from lapvqa.errors import SourceError
from lapvqa.layout import Layout
from lapvqa.params import TokensParams
from lapvqa.recorder import Recorder
from lapvqa.text.bpe import EOT, encoding
from lapvqa.text.laterality import names_side
from lapvqa.text.sections import Section, Verdict, target_text

# Reports per step of progress; small enough for a live display, large enough to cost nothing.
_BATCH = 2048

_EXPLANATIONS = {
    Verdict.NO_REPORT: (
        "expected a report, the archive has none for this study",
        "add the report file and run again; the study's images stay out of captioning",
    ),
    Verdict.EMPTY_REPORT: (
        "expected a report with words, found none in it",
        "check the report file; a blank one teaches nothing",
    ),
    Verdict.NO_SECTION: (
        "expected the section that tokens.sections asks for, the report has no such header",
        "set tokens.sections to both, which has substitutes, or accept the loss",
    ),
    Verdict.EMPTY_SECTION: (
        "expected words in the section that tokens.sections asks for, found none",
        "set tokens.sections to both, or accept the loss",
    ),
}


@dataclass
class _Tokenised:
    """Columns gathered while the studies pass by."""

    rows: list[int] = field(default_factory=list)
    ids: list[np.ndarray] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    sided: list[bool] = field(default_factory=list)
    spans: list[list[dict[str, int | str]]] = field(default_factory=list)
    rejects: list[tuple[int, Verdict]] = field(default_factory=list)


def run(
    params: TokensParams, layout: Layout, machine: Machine, recorder: Recorder
) -> dict[str, int | float | str]:
    """Write data/tokens/tokens-NNNNN.parquet and data/token_rejects.parquet from studies.parquet.

    Rows are sorted by study key. Raises SourceError if no study of the train split has tokens.
    """
    studies = storage.read_table(layout.studies, schemas.STUDIES, made_by="ingest")
    studies = studies.sort_by("study_key")
    started = time.perf_counter()
    done = _tokenise(studies, params, recorder)
    seconds = time.perf_counter() - started
    table, rejects = _token_table(studies, done), _reject_table(studies, done)
    counts = _counts(studies, table, done, seconds)
    recorder.say(_closing_line(counts, done))
    storage.write_table(layout.token_rejects, rejects, schemas.REJECTS)
    _require_training_text(table, studies, params)
    _write_shards(layout, table, params.shard_reports)
    return counts


def encode(text: str, bpe: tiktoken.Encoding, *, max_length: int) -> tuple[np.ndarray, bool]:
    """Encode ``text`` as uint16 ids between two 50256, at most ``max_length`` in all.

    Returns the ids and whether the text was cut; the closing 50256 is always there.
    """
    ids = bpe.encode_ordinary(text)
    kept = ids[: max_length - 2]
    return np.array([EOT, *kept, EOT], dtype=np.uint16), len(kept) < len(ids)


def _tokenise(studies: pa.Table, params: TokensParams, recorder: Recorder) -> _Tokenised:
    bpe, done = encoding(), _Tokenised()
    for row, report in enumerate(_reports(studies, recorder)):
        target = target_text(report, params.sections)
        if not target.verdict.has_text:
            done.rejects.append((row, target.verdict))
            continue
        ids, truncated = encode(target.text, bpe, max_length=params.max_length)
        done.rows.append(row)
        done.ids.append(ids)
        done.truncated.append(truncated)
        done.verdicts.append(target.verdict)
        done.sided.append(names_side(target.text))
        done.spans.append([_span(section) for section in target.spans])
    return done


def _reports(studies: pa.Table, recorder: Recorder) -> Iterator[str | None]:
    """Yield the reports in row order and show progress."""
    passed = 0
    for batch in studies.select(["report"]).to_batches(max_chunksize=_BATCH):
        yield from batch.column(0).to_pylist()
        passed += batch.num_rows
        recorder.progress(passed, studies.num_rows, unit="reports")


def _span(section: Section) -> dict[str, int | str]:
    return {"name": section.name, "start": section.start, "end": section.end}


def _token_table(studies: pa.Table, done: _Tokenised) -> pa.Table:
    taken = studies.select(["study_key", "patient_key", "split", "report_sha256"]).take(
        pa.array(done.rows, pa.int64())
    )
    lengths = np.array([len(ids) for ids in done.ids], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = np.concatenate([np.empty(0, dtype=np.uint16), *done.ids])
    columns = {
        "verdict": pa.array(done.verdicts, pa.string()),
        "sided": pa.array(done.sided, pa.bool_()),
        "token_ids": pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)),
        "truncated": pa.array(done.truncated, pa.bool_()),
        "spans": pa.array(done.spans, pa.list_(schemas.SPAN)),
    }
    for name, column in columns.items():
        taken = taken.append_column(name, column)
    return taken


def _reject_table(studies: pa.Table, done: _Tokenised) -> pa.Table:
    keys = studies.column("study_key").to_pylist()
    rows = [
        {
            "kind": "study",
            "file": keys[row],
            "stage": "tokens",
            "reason": str(verdict),
            "detail": _EXPLANATIONS[verdict][0],
            "exception": None,
            "remedy": _EXPLANATIONS[verdict][1],
            "sha256": None,
        }
        for row, verdict in done.rejects
    ]
    return pa.Table.from_pylist(rows, schema=schemas.REJECTS)


def _counts(
    studies: pa.Table, table: pa.Table, done: _Tokenised, seconds: float
) -> dict[str, int | float | str]:
    if table.num_rows + len(done.rejects) != studies.num_rows:
        raise AssertionError(
            f"{studies.num_rows} studies in, {table.num_rows} tokenised "
            f"and {len(done.rejects)} rejected out"
        )
    reasons = Counter(f"rejected_{verdict}" for _, verdict in done.rejects)
    tokens = sum(map(len, done.ids))
    return {
        "studies": studies.num_rows,
        "tokenised": table.num_rows,
        "rejected": len(done.rejects),
        **dict(sorted(reasons.items())),
        "truncated": sum(done.truncated),
        "tokens": tokens,
        "tokens_per_s": round(tokens / max(seconds, 1e-9)),
    }


def _closing_line(counts: dict[str, int | float | str], done: _Tokenised) -> str:
    by_reason = Counter(str(verdict) for _, verdict in done.rejects)
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(by_reason.items()))
    return (
        f"{counts['studies']} studies = {counts['tokenised']} tokenised + "
        f"{counts['rejected']} rejected ({reasons or 'none'}); {counts['tokens']} tokens, "
        f"{counts['truncated']} texts cut to tokens.max_length"
    )


def _require_training_text(table: pa.Table, studies: pa.Table, params: TokensParams) -> None:
    if "train" in table.column("split").to_pylist():
        return
    training = studies.column("split").to_pylist().count("train")
    raise SourceError(
        f"expected reports with text in the train split, found none: {training} studies in train, "
        f"{table.num_rows} tokenised in all splits (tokens.sections = {params.sections})",
        hint="captioning needs reports: put one .txt beside each study and run again; "
        "data/token_rejects.parquet gives the reason for every study",
    )


def _write_shards(layout: Layout, table: pa.Table, shard_reports: int) -> None:
    """Write the shards and remove those of an earlier, longer run."""
    starts = range(0, table.num_rows, shard_reports)
    paths = [layout.tokens_dir / f"tokens-{number:05d}.parquet" for number in range(len(starts))]
    for path, start in zip(paths, starts, strict=True):
        storage.write_table(path, table.slice(start, shard_reports), schemas.TOKENS)
    for stale in set(layout.tokens_dir.glob("tokens-*.parquet")) - set(paths):
        stale.unlink()
