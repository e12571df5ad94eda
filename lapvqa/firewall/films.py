"""Films of training that a held-out set has too, though digests differ: near ones, found once.

Descriptors of training, and which film was compared with which, are kept in .lapvqa/work/firewall:
a run compares new films with all others, and no two a second time. A film is known by the digest
of its stored pixels, with the patients and splits that it stands for. What belongs to no image of
today is dropped at the end; a killed run continues.

``matching.find`` leaves a query's search after many candidates that are nothing. A search among
few new references leaves later than one among all, so what comes day by day can be found where the
same at once would not be; never the other way round.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from lapvqa import code, storage
from lapvqa.datasets.image_folder import Pixels
from lapvqa.firewall import matching
from lapvqa.firewall.descriptors import BYTES, Bits, describe
from lapvqa.firewall.held_out import Archive, HeldOut
from lapvqa.firewall.leaks import Leak, Reason, Training
from lapvqa.job import Job
from lapvqa.project import Project

CHUNK = 512
"""Films described, or asked about, between two files of kept work."""

REASONS: dict[str, Reason] = {
    "same film": "film",
    "edited copy or same patient": "edited copy",
}

_SEEN = pa.schema(
    [
        pa.field("side", pa.string(), nullable=False),
        pa.field("film", pa.string(), nullable=False),
        pa.field("generation", pa.int64(), nullable=False),
    ]
)
_MATCHES = pa.schema(
    [
        pa.field("query", pa.string(), nullable=False),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class _Film:
    """One film: its digest, the images that have it, and how it is known from run to run.

    ``uses``: (number of the set, place in it); of training (0, row).
    """

    digest: str
    uses: tuple[tuple[int, int], ...]
    key: str


def near_films(
    training: Training, sets: Sequence[HeldOut], archive: Archive, job: Job
) -> list[list[Leak]]:
    """Return for each held-out set its leaks by films of other patients that are near."""
    folder = _open_work(job.project)
    search = _Search(training, sets, archive)
    bits = _describe(folder, search, job)
    kept = _Kept(folder, search)
    for start in range(0, len(search.queries), CHUNK):
        queries = search.queries[start : start + CHUNK]
        kept.compare(queries, bits, search, job.machine.workers)
        done = start + len(queries)
        job.recorder.progress(done, len(search.queries), unit="films", note="compared")
    kept.finish()
    return search.leaks(kept.matches)


def described(project: Project) -> dict[str, Bits]:
    """Return the descriptors that runs have kept, by the digest of a film's stored pixels."""
    known: dict[str, Bits] = {}
    for path in sorted(_work(project).glob("bits-*.npz")):
        with np.load(path) as part:
            known |= zip(part["digests"].tolist(), part["bits"], strict=True)
    return known


def _work(project: Project) -> Path:
    """Return the folder of kept work for this code and these libraries."""
    facts = f"{code.digest(matching.__name__)} {np.__version__} {cv2.__version__}"
    name = f"films-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    return project.work_dir("firewall") / name


def _open_work(project: Project) -> Path:
    """Return the folder of kept work, made where it is not there; drop those of others."""
    folder = _work(project)
    for other in set(folder.parent.glob("films-*")) - {folder}:
        shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


class _Search:
    """Both sides as films: references of training, queries of the held-out sets."""

    def __init__(self, training: Training, sets: Sequence[HeldOut], archive: Archive) -> None:
        self._sets, self._archive, self._places = sets, archive, training.places
        self._splits = training.table["split"].to_pylist()
        self._patients = training.table["patient_key"].to_pylist()
        uses: dict[str, list[tuple[int, int]]] = {}
        for row, digest in enumerate(training.table["pixels_sha256"].to_pylist()):
            uses.setdefault(digest, []).append((0, row))
        facts = list(zip(self._splits, self._patients, strict=True))
        self.references = [
            _film(digest, of, [facts[row] for _, row in of]) for digest, of in sorted(uses.items())
        ]
        uses = {}
        for number, held in enumerate(sets):
            for place, digest in enumerate(held.digests):
                uses.setdefault(digest, []).append((number, place))
        self.queries = [
            _film(
                digest, of, [(sets[one].held_from, sets[one].patients[place]) for one, place in of]
            )
            for digest, of in sorted(uses.items())
        ]

    def read_references(self, films: Sequence[_Film]) -> Pixels:
        """Return the stored pixels of films of training."""
        return self._archive.read([int(self._places[film.uses[0][1]]) for film in films])

    def read_query(self, film: _Film) -> Pixels:
        """Return the stored pixels [384, 384] of a held-out film."""
        number, place = film.uses[0]
        pixels: Pixels = self._sets[number].read([place])[0]
        return pixels

    def images(self, query: _Film, reference: _Film) -> Iterator[tuple[int, int, int]]:
        """Yield whom the pair is about (row of training, number of the set, place in it).

        Of two patients, and to be kept apart. Equal pixels need no second look.
        """
        if query.digest == reference.digest:
            return
        for number, place in query.uses:
            held = self._sets[number]
            for _, row in reference.uses:
                if (
                    self._splits[row] in held.held_from
                    and self._patients[row] != held.patients[place]
                ):
                    yield row, number, place

    def leaks(self, matches: Mapping[tuple[str, str], tuple[float, str]]) -> list[list[Leak]]:
        """Return the leaks of each set that matches of films mean."""
        queries = {film.key: film for film in self.queries}
        references = {film.key: film for film in self.references}
        leaks: list[list[Leak]] = [[] for _ in self._sets]
        for (query, reference), (score, verdict) in sorted(matches.items()):
            for row, number, place in self.images(queries[query], references[reference]):
                leaks[number].append(Leak(row, place, REASONS[verdict], score))
        return leaks


def _film(digest: str, uses: Sequence[tuple[int, int]], facts: Sequence[object]) -> _Film:
    key = hashlib.sha256(f"{digest} {sorted(set(map(repr, facts)))}".encode()).hexdigest()[:32]
    return _Film(digest, tuple(uses), key)


def _describe(folder: Path, search: _Search, job: Job) -> Bits:
    """Return the bits [R, BYTES] of the references; describe those that are new."""
    known = described(job.project)
    new = [film for film in search.references if film.digest not in known]
    with ThreadPoolExecutor(job.machine.workers) as pool:
        for start in range(0, len(new), CHUNK):
            films = new[start : start + CHUNK]
            made = dict(
                zip(
                    [film.digest for film in films],
                    pool.map(describe, search.read_references(films)),
                    strict=True,
                )
            )
            known |= made
            _write_bits(folder, made)
            job.recorder.progress(start + len(films), len(new), unit="films", note="described")
    current = {film.digest: known[film.digest] for film in search.references}
    written = _write_bits(folder, current)
    for path in set(folder.glob("bits-*.npz")) - {written}:
        path.unlink()
    return np.array(list(current.values()), np.uint8).reshape(-1, BYTES)


def _write_bits(folder: Path, bits: Mapping[str, Bits]) -> Path:
    name = hashlib.sha256("\n".join(bits).encode()).hexdigest()[:16]
    path = folder / f"bits-{name}.npz"
    if not path.exists():
        stacked = np.array(list(bits.values()), np.uint8).reshape(-1, BYTES)
        with storage.atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, digests=np.array(list(bits), "U64"), bits=stacked)
    return path


class _Kept:
    """Matches so far, and up to which generation of references a query has been compared.

    References that are new in a run are one generation.
    """

    def __init__(self, folder: Path, search: _Search) -> None:
        self._seen, self._found = folder / "seen.parquet", folder / "matches.parquet"
        known: dict[tuple[str, str], int] = {}
        self.matches: dict[tuple[str, str], tuple[float, str]] = {}
        if self._seen.exists() and self._found.exists():
            rows = storage.read_columns(self._seen).to_pylist()
            known = {(row["side"], row["film"]): row["generation"] for row in rows}
            for row in storage.read_columns(self._found).to_pylist():
                self.matches[row["query"], row["reference"]] = row["score"], row["verdict"]
        self._now = 1 + max(known.values(), default=0)
        ours = {film.key: known.get(("ours", film.key), self._now) for film in search.references}
        self._of_reference = ours
        self._of_query = {film.key: known.get(("theirs", film.key), 0) for film in search.queries}
        self.matches = {
            pair: found for pair, found in self.matches.items()
            if pair[0] in self._of_query and pair[1] in ours
        }  # fmt: skip

    def compare(self, queries: Sequence[_Film], bits: Bits, search: _Search, workers: int) -> None:
        """Compare queries with the references that are new to them, and keep what is found."""
        for generation in sorted({self._of_query[film.key] for film in queries}):
            asking = [film for film in queries if self._of_query[film.key] == generation]
            rows = [
                row for row, film in enumerate(search.references)
                if self._of_reference[film.key] > generation
            ]  # fmt: skip
            if rows:
                references = [search.references[row] for row in rows]
                self._search(asking, references, bits[rows], search, workers)
        if any(self._of_query[film.key] < self._now for film in queries):
            self._of_query |= {film.key: self._now for film in queries}
            self._write()

    def _search(
        self, queries: Sequence[_Film], references: Sequence[_Film], bits: Bits, search: _Search,
        workers: int,
    ) -> None:  # fmt: skip
        found = matching.find(
            len(queries),
            bits,
            lambda query: search.read_query(queries[query]),
            lambda reference: search.read_references([references[reference]])[0],
            wanted=lambda query, reference: any(
                search.images(queries[query], references[reference])
            ),
            workers=workers,
        )
        for match in found:
            pair = queries[match.query].key, references[match.reference].key
            self.matches[pair] = match.score, match.verdict

    def finish(self) -> None:
        """Keep what belongs to films of today only."""
        self._write()

    def _write(self) -> None:
        seen = [("ours", *one) for one in self._of_reference.items()]
        seen += [("theirs", *one) for one in self._of_query.items() if one[1]]
        found = [(*pair, *match) for pair, match in sorted(self.matches.items())]
        for path, rows, schema in (
            (self._found, found, _MATCHES), (self._seen, sorted(seen), _SEEN),
        ):  # fmt: skip
            columns = list(zip(*rows, strict=True)) or [()] * len(schema)
            arrays = [pa.array(one, kind) for one, kind in zip(columns, schema.types, strict=True)]
            storage.write_table(path, pa.table(arrays, schema=schema), schema)
