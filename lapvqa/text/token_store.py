"""Finished token shards, kept outside DVC's outputs: ten more reports cost ten reports' work.

DVC deletes a stage's outputs before it runs, so shards live in .lapvqa/work/tokens/<digest>/ and
are linked into data/tokens/. A shard never changes; it belongs to a chunk, the at most
tokens.shard_reports studies that it was made from:

    tokens-<hex>.parquet   rows of the chunk's studies that have a text, by study key
    chunk-<hex>.parquet    a row per study of the chunk, and the shard's name; written last

<hex> is the beginning of the sha256 of the file's bytes, so damage shows. A chunk is reused as
long as all its studies are there with unchanged rows; else it is made again from the rows that
are still valid. Studies that are in no chunk form new ones. So the order in which reports arrive
decides which rows share a file, and nothing else.

The digest covers what every row depends on: the stage's code, its libraries, the parameters. A
row's table of words is written beside it (``rules``): an edit of de.yaml makes German rows again.
Its language is looked for again only if some table, or tokens.language, has changed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pyarrow as pa

from lapvqa import code, schemas, storage
from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.params import TokensParams
from lapvqa.recorder import Recorder
from lapvqa.text.languages import Languages

CHUNK = pa.schema(
    [
        pa.field("study_key", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("rules", pa.string(), nullable=False),
        pa.field("num_characters", pa.int32(), nullable=False),
        pa.field("num_tokens", pa.int32(), nullable=False),
        pa.field("report_sha256", pa.string()),
    ]
)
"""A study of a chunk: ``digest`` of its row (``row_digests``), ``rules`` of its language
(``Languages.rules``), ``num_tokens`` of its target text before any cut."""

Known = tuple[str, str]
"""What a finished row is valid for: its digest and its rules."""

_ROW = ("study_key", "patient_key", "split", "report_sha256", "report")
_LIBRARIES = ("pyarrow", "tiktoken")
_SHARD, _DETECTED = b"shard", b"detected"
_KEPT_STORES = 2


@dataclass(frozen=True)
class Chunk:
    """Studies that were finished together; ``shard`` is None if none of them has a text.

    ``detected``: what their languages were detected with (``Languages.digest``).
    """

    path: Path
    shard: Path | None
    studies: pa.Table
    detected: str


@dataclass(frozen=True)
class ChunkPlan:
    """The studies of one chunk, by row of the sorted studies table; ``fresh`` are to be tokenised.

    ``known`` is a chunk that holds the others' rows; if it is ``complete``, nothing is to be done.
    """

    rows: Sequence[int]
    fresh: Sequence[int]
    known: Chunk | None = None
    complete: bool = False


class TokenStore:
    """Chunks under one digest."""

    def __init__(self, folder: Path, *, detected: str) -> None:
        self.folder, self._detected = folder, detected
        folder.mkdir(parents=True, exist_ok=True)
        for partial in [*folder.glob(".*.tmp"), folder / "new.parquet"]:
            partial.unlink(missing_ok=True)  # of a run that was killed; the stage holds a lock

    def load(self, recorder: Recorder) -> list[Chunk]:
        """Return the intact chunks; a damaged one is reported, deleted, and so made again."""
        chunks = []
        for path in sorted(self.folder.glob("chunk-*.parquet")):
            try:
                chunks.append(self._read(path))
            except (SchemaError, MissingArtifactError) as error:
                recorder.say(f"dropped damaged finished work: {error.message}")
                path.unlink()
        return chunks

    def write(self, studies: pa.Table, tokens: pa.Table) -> Chunk:
        """Add a chunk, completely or not at all."""
        shard = self._write("tokens", tokens, schemas.TOKENS) if tokens.num_rows else None
        facts = {_SHARD: shard.name.encode() if shard else b"", _DETECTED: self._detected.encode()}
        path = self._write("chunk", studies.replace_schema_metadata(facts), CHUNK)
        return Chunk(path, shard, studies, self._detected)

    def languages(self, chunks: Iterable[Chunk]) -> dict[str, str | None]:
        """Return the languages that still hold, by the digest of the row."""
        return {
            digest: language
            for chunk in chunks
            if chunk.detected == self._detected
            for digest, language in zip(
                *(chunk.studies[name].to_pylist() for name in ("digest", "language")), strict=True
            )
        }

    def prune(self, live: Sequence[Chunk]) -> None:
        """Delete all files but those of the chunks ``live``."""
        kept = {path for chunk in live for path in (chunk.path, chunk.shard)}
        for path in self.folder.glob("*.parquet"):
            if path not in kept:
                path.unlink()

    def _write(self, kind: str, table: pa.Table, schema: pa.Schema) -> Path:
        unnamed = self.folder / "new.parquet"
        storage.write_table(unnamed, table, schema)
        path = self.folder / f"{kind}-{storage.sha256_file(unnamed)[:16]}.parquet"
        unnamed.replace(path)
        return path

    def _read(self, path: Path) -> Chunk:
        _check(path)
        studies = storage.read_table(path, CHUNK, made_by="tokens")
        facts = studies.schema.metadata or {}
        name, detected = (facts.get(key, b"").decode() for key in (_SHARD, _DETECTED))
        shard = path.with_name(name) if name else None
        if shard is not None:
            _check(storage.require(shard, made_by="tokens"))
        return Chunk(path, shard, studies.replace_schema_metadata(None), detected)


def _check(path: Path) -> None:
    sha256 = storage.sha256_file(path)[:16]
    if sha256 != path.stem.rpartition("-")[2]:
        raise SchemaError(
            f"{path.name}: expected bytes whose sha256 begins as its name says, found {sha256}..."
        )


def open_store(work_dir: Path, params: TokensParams, languages: Languages) -> TokenStore:
    """Open the store of this code and these parameters; delete all but the latest two."""
    described = {
        "params": params.model_dump(mode="json", exclude={"language"}),
        "code": code.digest("lapvqa.text.tokens"),
        "libraries": [metadata.version(name) for name in _LIBRARIES],
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    store = TokenStore(work_dir / digest, detected=f"{params.language} {languages.digest}")
    store.folder.touch()
    stores = [path for path in work_dir.iterdir() if path.is_dir()]
    stores.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for old in stores[_KEPT_STORES:]:
        shutil.rmtree(old)
    return store


def row_digests(studies: pa.Table) -> list[str]:
    """Return a digest per study of everything that its token row depends on."""
    rows = zip(*(studies[name].to_pylist() for name in _ROW), strict=True)
    return [hashlib.blake2b(repr(row).encode(), digest_size=16).hexdigest() for row in rows]


def plan_chunks(
    keys: Sequence[str], known_as: Sequence[Known], chunks: Sequence[Chunk], *, shard_reports: int
) -> list[ChunkPlan]:
    """Decide which chunks stand, which are made again of what is left of them, and which are new.

    ``keys`` and ``known_as`` are those of all studies, by key.
    """
    row_of = {key: row for row, key in enumerate(keys)}
    plans: list[ChunkPlan] = []
    taken: set[int] = set()
    broken: list[tuple[Chunk, dict[str, Known]]] = []
    for chunk in chunks:
        known = _known(chunk)
        rows = [row_of[key] for key in known if key in row_of]
        whole = len(rows) == len(known) and all(known[keys[row]] == known_as[row] for row in rows)
        # A run that was killed may have left a chunk beside the one that replaces it.
        if whole and taken.isdisjoint(rows):
            plans.append(ChunkPlan(rows, [], chunk, complete=True))
            taken.update(rows)
        else:
            broken.append((chunk, known))
    for chunk, known in broken:
        left = sorted(row_of[key] for key in known if key in row_of and row_of[key] not in taken)
        fresh = [row for row in left if known[keys[row]] != known_as[row]]
        if left:
            plans.append(ChunkPlan(left, fresh, chunk))
            taken.update(left)
    new = [row for row in range(len(keys)) if row not in taken]
    for start in range(0, len(new), shard_reports):
        rows = new[start : start + shard_reports]
        plans.append(ChunkPlan(rows, rows))
    return plans


def _known(chunk: Chunk) -> dict[str, Known]:
    columns = (chunk.studies[name].to_pylist() for name in ("study_key", "digest", "rules"))
    return {key: (digest, rules) for key, digest, rules in zip(*columns, strict=True)}


def link_shards(chunks: Iterable[Chunk], folder: Path) -> None:
    """Make ``folder`` hold the chunks' shards and nothing else.

    A link costs neither space nor time, and is safe because a shard is never written again.
    """
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for chunk in chunks:
        if chunk.shard is None:
            continue
        path = folder / chunk.shard.name
        try:
            path.hardlink_to(chunk.shard)
        except OSError:  # another file system, or one without links
            with storage.atomic_path(path) as temporary:
                shutil.copyfile(chunk.shard, temporary)
