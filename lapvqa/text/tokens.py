"""The stage tokens: the target text of every study as GPT-2 ids, or the reason why it has none."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lapvqa import schemas, storage
from lapvqa.errors import SourceError
from lapvqa.job import Counts, Job
from lapvqa.params import TokensParams
from lapvqa.recorder import Recorder, counted
from lapvqa.text import report_languages
from lapvqa.text.bpe import Encoded, encode
from lapvqa.text.languages import AUTO, UNKNOWN, Languages, load_languages
from lapvqa.text.laterality import names_side
from lapvqa.text.sections import Section, TargetText, Verdict, target_text
from lapvqa.text.token_store import (
    CHUNK,
    Chunk,
    ChunkPlan,
    link_shards,
    open_store,
    plan_chunks,
    row_digests,
)

# Reports per step of progress; bounds the memory of the encoder, and large enough to cost nothing.
_BATCH = 4096

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


def run(params: TokensParams, job: Job) -> Counts:
    """Write data/tokens/tokens-<hex>.parquet and what was rejected, from studies.parquet.

    Also data/report_languages.parquet. Rows are sorted by study key within a file; ``token_store``
    decides which file has which study. Raises ConfigError for a malformed table of words or a
    language without one, SourceError if no study of the train split has tokens.
    """
    languages = load_languages(job.project.root)
    studies = storage.read_table(job.project.studies, schemas.STUDIES, made_by="ingest")
    studies = studies.sort_by("study_key").combine_chunks()
    store = open_store(job.project.work_dir("tokens"), params, languages)
    keys, digests = studies["study_key"].to_pylist(), row_digests(studies)
    known = store.load(job.recorder)
    read_by = find_languages(
        studies, digests, store.languages(known), languages, chosen=params.language
    )
    known_as = [
        (digest, languages.rules(code)) for digest, code in zip(digests, read_by, strict=True)
    ]
    studies = studies.append_column("language", pa.array(read_by, pa.string()))
    plans = plan_chunks(keys, known_as, known, shard_reports=params.shard_reports)
    new = sum(len(plan.fresh) for plan in plans)
    job.recorder.say(f"{counted(len(keys) - new, 'report')} known, {new} new")

    tokeniser = Tokeniser(params, languages, job.recorder, total=new)
    started = time.perf_counter()
    chunks = []
    for plan in plans:
        if plan.known is not None and plan.complete:
            chunks.append(plan.known)
            continue
        finished, rows = tokeniser.tokenise(studies, digests, plan.fresh)
        chunks.append(store.write(*_with_known(finished, rows, plan, keys)))
    seconds = time.perf_counter() - started

    rejects = _reject_table(chunks)
    storage.write_table(job.project.token_rejects, rejects, schemas.REJECTS)
    lengths = report_languages.table((one.studies for one in chunks), params.max_length)
    storage.write_table(job.project.report_languages, lengths, schemas.REPORT_LANGUAGES)
    _require_training_text(chunks, studies, params)
    link_shards(chunks, job.project.tokens_dir)
    store.prune(chunks)
    counts = _account(studies.num_rows, chunks, rejects, job, params)
    counts |= _account_languages(lengths, job)
    rate = round(tokeniser.num_tokens / max(seconds, 1e-9))
    return {**counts, "known": len(keys) - new, "new": new, "tokens_per_s": rate}


def find_languages(
    studies: pa.Table,
    digests: Sequence[str],
    known: dict[str, str | None],
    languages: Languages,
    *,
    chosen: str = AUTO,
) -> list[str | None]:
    """Return the language of each report: the one that was chosen, or is known, or is detected.

    A code of params/reports or "unknown"; None for a study without a report.
    """
    if chosen != AUTO:
        languages.find(chosen)
    found: list[str | None] = []
    for digest, report in zip(digests, studies["report"].to_pylist(), strict=True):
        if report is None:
            found.append(None)
        elif chosen != AUTO:
            found.append(chosen)
        elif digest in known:
            found.append(known[digest])
        else:
            language = languages.detect(report)
            found.append(language.code if language else UNKNOWN)
    return found


class Tokeniser:
    """Sections, ids and sides of reports; shows progress over all of them."""

    def __init__(
        self, params: TokensParams, languages: Languages, recorder: Recorder, *, total: int
    ) -> None:
        self._params, self._languages, self._recorder = params, languages, recorder
        self._total, self._done = total, 0
        self.num_tokens = 0
        """Ids made so far, before any cut."""

    def tokenise(
        self, studies: pa.Table, digests: Sequence[str], rows: Sequence[int]
    ) -> tuple[pa.Table, pa.Table]:
        """Return a row per study (``CHUNK``) and a row per study with a text (``TOKENS``)."""
        parts = []
        for start in range(0, len(rows), _BATCH):
            own = rows[start : start + _BATCH]
            parts.append(self._batch(studies.take(own), [digests[row] for row in own]))
            self._done += len(own)
            self._recorder.progress(self._done, self._total, unit="reports")
        empty = (CHUNK.empty_table(), schemas.TOKENS.empty_table())
        finished, tokens = zip(*parts or [empty], strict=True)
        return pa.concat_tables(finished), pa.concat_tables(tokens)

    def _batch(self, studies: pa.Table, digests: list[str]) -> tuple[pa.Table, pa.Table]:
        read_by = [self._languages.by_code.get(code) for code in studies["language"].to_pylist()]
        targets = [
            target_text(report, self._params.sections, language)
            for report, language in zip(studies["report"].to_pylist(), read_by, strict=True)
        ]
        with_text = [row for row, target in enumerate(targets) if target.verdict.has_text]
        kept = [targets[row] for row in with_text]
        encoded = encode([target.text for target in kept], max_length=self._params.max_length)
        num_tokens = np.zeros(len(targets), np.int32)
        num_tokens[with_text] = encoded.num_tokens
        self.num_tokens += int(num_tokens.sum())
        finished = {
            "study_key": studies["study_key"],
            "digest": digests,
            "verdict": [str(target.verdict) for target in targets],
            "language": studies["language"],
            "rules": list(map(self._languages.rules, studies["language"].to_pylist())),
            "num_characters": [len(target.text) for target in targets],
            "num_tokens": num_tokens,
            "report_sha256": studies["report_sha256"],
        }
        sided = [names_side(targets[row].text, read_by[row]) for row in with_text]
        tokens = _token_table(studies.take(pa.array(with_text, pa.int64())), kept, encoded, sided)
        return pa.table(finished, schema=CHUNK), tokens


def _token_table(
    studies: pa.Table, targets: Sequence[TargetText], encoded: Encoded, sided: Sequence[bool]
) -> pa.Table:
    ids = pa.ListArray.from_arrays(encoded.ends.astype(np.int32), encoded.ids)
    columns = {
        **{name: studies[name] for name in ("study_key", "patient_key", "split", "report_sha256")},
        "verdict": [str(target.verdict) for target in targets],
        "sided": sided,
        "token_ids": ids,
        "truncated": encoded.cut,
        "spans": [[_span(section) for section in target.spans] for target in targets],
    }
    return pa.table(columns, schema=schemas.TOKENS)


def _span(section: Section) -> dict[str, int | str]:
    return {"name": section.name, "start": section.start, "end": section.end}


def _with_known(
    finished: pa.Table, tokens: pa.Table, plan: ChunkPlan, keys: Sequence[str]
) -> tuple[pa.Table, pa.Table]:
    """Add the planned rows that the old chunk holds; both tables sorted by study key."""
    if plan.known is None:
        return finished, tokens
    fresh = set(plan.fresh)
    kept = pa.array([keys[row] for row in plan.rows if row not in fresh], pa.string())

    def merged(old: pa.Table, new: pa.Table) -> pa.Table:
        still = old.filter(pc.is_in(old["study_key"], value_set=kept))
        return pa.concat_tables([still.cast(new.schema), new]).sort_by("study_key")

    finished = merged(plan.known.studies, finished)
    if plan.known.shard is not None:
        old = storage.read_table(plan.known.shard, schemas.TOKENS, made_by="tokens")
        tokens = merged(old, tokens)
    return finished, tokens


def _reject_table(chunks: Sequence[Chunk]) -> pa.Table:
    """Return data/token_rejects.parquet's rows, sorted by study key."""
    columns = ("study_key", "verdict", "report_sha256")
    rows = []
    for key, name, sha256 in chain.from_iterable(
        zip(*(chunk.studies[column].to_pylist() for column in columns), strict=True)
        for chunk in chunks
    ):
        verdict = Verdict(name)
        if not verdict.has_text:
            detail, remedy = _EXPLANATIONS[verdict]
            rows.append(
                {
                    "kind": "study",
                    "file": key,
                    "stage": "tokens",
                    "reason": name,
                    "detail": detail,
                    "exception": None,
                    "remedy": remedy,
                    "sha256": sha256,
                }
            )
    rows.sort(key=lambda row: row["file"])
    return pa.Table.from_pylist(rows, schema=schemas.REJECTS)


def _require_training_text(
    chunks: Sequence[Chunk], studies: pa.Table, params: TokensParams
) -> None:
    tokenised = 0
    for chunk in chunks:
        if chunk.shard is not None:
            splits = storage.read_columns(chunk.shard, ["split"])["split"].to_pylist()
            if "train" in splits:
                return
            tokenised += len(splits)
    training = studies["split"].to_pylist().count("train")
    raise SourceError(
        f"expected reports with text in the train split, found none: {training} studies in train, "
        f"{tokenised} tokenised in all splits (tokens.sections = {params.sections})",
        hint="captioning needs reports: put one .txt beside each study and run again; "
        "data/token_rejects.parquet gives the reason for every study",
    )


def _account(
    num_studies: int, chunks: Sequence[Chunk], rejects: pa.Table, job: Job, params: TokensParams
) -> Counts:
    """Check what went in against what the written files hold; say it, and return the counts."""
    footers = [pq.read_metadata(path) for path in job.project.tokens_dir.glob("*.parquet")]
    tokenised = sum(footer.num_rows for footer in footers)
    by_reason = dict(sorted(Counter(rejects["reason"].to_pylist()).items()))
    if num_studies != tokenised + sum(by_reason.values()):
        raise AssertionError(
            f"studies: {num_studies} in, {tokenised} tokenised, {by_reason} rejected"
        )
    lengths = np.concatenate([chunk.studies["num_tokens"].to_numpy() for chunk in chunks])
    cut = np.maximum(lengths - (params.max_length - 2), 0)
    kept = sum(map(_num_ids, footers)) - 2 * tokenised
    if lengths.sum() != kept + cut.sum():
        raise AssertionError(f"tokens: {lengths.sum()} in, {kept} kept, {cut.sum()} cut")
    reasons = ", ".join(f"{number} {reason}" for reason, number in by_reason.items())
    job.recorder.say(
        f"studies: {num_studies} in = {tokenised} tokenised + {rejects.num_rows} rejected "
        f"({reasons or 'none'})"
    )
    job.recorder.say(
        f"tokens: {lengths.sum()} in = {kept} kept + {cut.sum()} cut by tokens.max_length, "
        f"in {np.count_nonzero(cut)} texts"
    )
    return {
        "studies": num_studies,
        "tokenised": tokenised,
        "rejected": rejects.num_rows,
        **{f"rejected_{reason}": number for reason, number in by_reason.items()},
        "truncated": int(np.count_nonzero(cut)),
        "tokens": kept,
        "tokens_cut": int(cut.sum()),
    }


def _account_languages(lengths: pa.Table, job: Job) -> Counts:
    """Say which languages the reports have and whether many are cut; return the counts."""
    numbers = report_languages.count(lengths)
    said = ", ".join(f"{number} {code}" for code, number in numbers.items())
    job.recorder.say(f"languages: {said or 'none'}")
    job.recorder.facts({"languages": said})
    if numbers.get(UNKNOWN):
        job.recorder.say(
            f"{counted(numbers[UNKNOWN], 'report')} in no language of params/reports: cut by "
            "English headers or taken whole, and never mirrored; add a table (docs/ingest.md, "
            "Languages)"
        )
    hint = report_languages.length_hint(lengths)
    if hint:
        job.recorder.say(hint)
    return {f"language_{code}": number for code, number in numbers.items()}


def _num_ids(footer: pq.FileMetaData) -> int:
    """Return the number of ids in a shard, as its Parquet footer counts them; no list is empty."""
    groups = (footer.row_group(number) for number in range(footer.num_row_groups))
    columns = (group.column(place) for group in groups for place in range(group.num_columns))
    return sum(
        column.num_values for column in columns if column.path_in_schema.startswith("token_ids.")
    )
