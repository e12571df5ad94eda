"""Films of training that a held-out set has too, though digests differ: near ones, found once.

Descriptors are kept by the digest of the stored pixels and compared pairs by both digests, in
.lapvqa/work/firewall, so a run pays for images that are new. What belongs to no image of today is
dropped at the end. A killed run continues: each step's work is kept as it comes.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lapvqa import code, storage
from lapvqa.datasets.image_folder import Pixels
from lapvqa.firewall import matching
from lapvqa.firewall.descriptors import BYTES, Bits, describe
from lapvqa.firewall.held_out import Archive, HeldOut
from lapvqa.firewall.leaks import Leak, Reason, Training
from lapvqa.job import Job

CHUNK = 512
"""Films described, or asked about, between two files of kept work."""

REASONS: dict[str, Reason] = {
    "same film": "film",
    "edited copy or same patient": "edited copy",
}

_PAIRS = pa.schema(
    [
        pa.field("query", pa.string(), nullable=False),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("verdict", pa.string()),
    ]
)

Verdict = tuple[float | None, str | None]
"""Score and verdict of a pair; both None: two films."""


@dataclass(frozen=True)
class _Films:
    """Films by digest, each once: where it is used, and how to read positions of ``digests``."""

    digests: list[str]
    uses: list[list[tuple[int, int]]]
    read: Callable[[Sequence[int]], Pixels]


def near_films(
    training: Training, sets: Sequence[HeldOut], archive: Archive, job: Job
) -> list[list[Leak]]:
    """Return for each held-out set its leaks by films of other patients that are near."""
    folder = _open_work(job)
    ours, theirs = _of_training(training, archive), _of_sets(sets)
    descriptors = _Descriptors(folder)
    references = descriptors.of(ours.digests, ours.read, job, "training")
    queries = descriptors.of(theirs.digests, theirs.read, job, "held out")
    descriptors.keep({*ours.digests, *theirs.digests})
    concerned = _Concerned(training, sets, ours, theirs)
    pairs = _Pairs(folder)
    for start in range(0, len(queries), CHUNK):
        pairs.compare(queries, references, (ours, theirs), concerned, start)
        job.recorder.progress(
            min(start + CHUNK, len(queries)), len(queries), unit="films", note="compared"
        )
    pairs.keep({*ours.digests}, {*theirs.digests})
    return _leaks(pairs, sets, ours, theirs, concerned)


def _open_work(job: Job) -> Path:
    """Return the folder for this code and these libraries; drop those of others."""
    facts = f"{code.digest(matching.__name__)} {np.__version__} {cv2.__version__}"
    work = job.project.work_dir("firewall")
    folder = work / f"films-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    for other in set(work.glob("films-*")) - {folder}:
        shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _of_training(training: Training, archive: Archive) -> _Films:
    uses = _uses(enumerate(training.table["pixels_sha256"].to_pylist()), 0)
    rows = [int(training.places[one[0][1]]) for one in uses.values()]
    return _Films(
        list(uses), list(uses.values()), lambda at: archive.read([rows[place] for place in at])
    )


def _of_sets(sets: Sequence[HeldOut]) -> _Films:
    uses: dict[str, list[tuple[int, int]]] = {}
    for number, held in enumerate(sets):
        for digest, places in _uses(enumerate(held.digests), number).items():
            uses.setdefault(digest, []).extend(places)
    first = [one[0] for one in uses.values()]

    def read(at: Sequence[int]) -> Pixels:
        return np.concatenate([sets[first[one][0]].read([first[one][1]]) for one in at])

    return _Films(list(uses), list(uses.values()), read)


def _uses(digests: Iterator[tuple[int, str]], number: int) -> dict[str, list[tuple[int, int]]]:
    uses: dict[str, list[tuple[int, int]]] = {}
    for place, digest in digests:
        uses.setdefault(digest, []).append((number, place))
    return uses


class _Concerned:
    """Which images of both sides a pair of films is about: of two patients, and to be apart."""

    def __init__(
        self, training: Training, sets: Sequence[HeldOut], ours: _Films, theirs: _Films
    ) -> None:
        self._splits = training.table["split"].to_pylist()
        self._patients = training.table["patient_key"].to_pylist()
        self._sets, self._ours, self._theirs = sets, ours, theirs

    def images(self, query: int, reference: int) -> Iterator[tuple[int, int, int]]:
        """Yield (row of training, number of the set, place in it)."""
        if self._theirs.digests[query] == self._ours.digests[reference]:
            return  # equal pixels need no second look
        for number, place in self._theirs.uses[query]:
            held = self._sets[number]
            for _, row in self._ours.uses[reference]:
                if (
                    self._splits[row] in held.held_from
                    and self._patients[row] != held.patients[place]
                ):
                    yield row, number, place


class _Descriptors:
    """Descriptors by the digest of the stored pixels: kept.npz, and parts since."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._of: dict[str, Bits] = {}
        for path in sorted(folder.glob("descriptors-*.npz")):
            with np.load(path) as kept:
                self._of |= zip(kept["digests"].tolist(), kept["bits"], strict=True)

    def of(
        self,
        digests: Sequence[str],
        read: Callable[[Sequence[int]], Pixels],
        job: Job,
        note: str,
    ) -> Bits:
        """Return the bits [n, BYTES] of films; describe those that are new."""
        new = [place for place, digest in enumerate(digests) if digest not in self._of]
        with ThreadPoolExecutor(job.machine.workers) as pool:
            for start in range(0, len(new), CHUNK):
                chunk = new[start : start + CHUNK]
                bits = list(pool.map(describe, read(chunk)))
                self._add([digests[place] for place in chunk], bits)
                job.recorder.progress(start + len(chunk), len(new), unit="films", note=note)
        if not digests:
            return np.zeros((0, BYTES), np.uint8)
        return np.stack([self._of[digest] for digest in digests])

    def keep(self, digests: set[str]) -> None:
        """Put all into one file, without the films that are no longer here."""
        self._of = {digest: bits for digest, bits in sorted(self._of.items()) if digest in digests}
        written = self._write(list(self._of), list(self._of.values()))
        for path in set(self._folder.glob("descriptors-*.npz")) - {written}:
            path.unlink()

    def _add(self, digests: list[str], bits: list[Bits]) -> None:
        self._of |= zip(digests, bits, strict=True)
        self._write(digests, bits)

    def _write(self, digests: list[str], bits: list[Bits]) -> Path:
        name = hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]
        path = self._folder / f"descriptors-{name}.npz"
        if not path.exists():
            stacked = np.array(bits, np.uint8).reshape(len(bits), BYTES)
            with storage.atomic_path(path) as temporary, temporary.open("wb") as handle:
                np.savez(handle, digests=np.array(digests, "U64"), bits=stacked)
        return path


class _Pairs:
    """Verdicts by the digests of two films, those that are no match included."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "pairs.parquet"
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        if self._path.exists():
            kept = pq.ParquetFile(self._path).read()
            columns = [kept[name].to_pylist() for name in _PAIRS.names]
            for query, reference, score, verdict in zip(*columns, strict=True):
                self.verdicts[query, reference] = score, verdict

    def compare(
        self, queries: Bits, references: Bits, films: tuple[_Films, _Films],
        concerned: _Concerned, start: int,
    ) -> None:  # fmt: skip
        """Compare a chunk of queries with all references, but for pairs that are known."""
        ours, theirs = films
        asked: dict[tuple[str, str], Verdict] = {}

        def wanted(place: int, reference: int) -> bool:
            query = start + place
            pair = theirs.digests[query], ours.digests[reference]
            if pair in self.verdicts or not any(concerned.images(query, reference)):
                return False
            asked[pair] = None, None
            return True

        found = matching.find(
            queries[start : start + CHUNK],
            references,
            lambda place: theirs.read([start + place])[0],
            lambda place: ours.read([place])[0],
            wanted=wanted,
        )
        for match in found:
            pair = theirs.digests[start + match.query], ours.digests[match.reference]
            asked[pair] = match.score, match.verdict
        self.verdicts |= asked
        if asked:
            self._write()

    def keep(self, ours: set[str], theirs: set[str]) -> None:
        """Drop the pairs of films that are no longer here."""
        self.verdicts = {
            (query, reference): verdict
            for (query, reference), verdict in self.verdicts.items()
            if query in theirs and reference in ours
        }
        self._write()

    def _write(self) -> None:
        rows = [(*pair, *verdict) for pair, verdict in sorted(self.verdicts.items())]
        columns = list(zip(*rows, strict=True)) or [[]] * len(_PAIRS)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, _PAIRS.types, strict=True)]
        storage.write_table(self._path, pa.table(arrays, schema=_PAIRS), _PAIRS)


def _leaks(
    pairs: _Pairs, sets: Sequence[HeldOut], ours: _Films, theirs: _Films, concerned: _Concerned
) -> list[list[Leak]]:
    place_of = {digest: place for place, digest in enumerate(theirs.digests)}
    reference_of = {digest: place for place, digest in enumerate(ours.digests)}
    leaks: list[list[Leak]] = [[] for _ in sets]
    for (query, reference), (score, verdict) in sorted(pairs.verdicts.items()):
        if verdict is None:
            continue
        images = concerned.images(place_of[query], reference_of[reference])
        for row, number, place in images:
            leaks[number].append(Leak(row, place, REASONS[verdict], score))
    return leaks
