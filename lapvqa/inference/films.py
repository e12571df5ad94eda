"""What a client has to stored pixels: paths of files and folders, bytes, arrays; or a reason.

Folders, packed files and files without suffix are looked through as ingest looks through an
archive; what in them is no DICOM file and no picture is left alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa.dicom.header import Header
from lapvqa.dicom.picture import read_film, read_greys
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError, SourceError
from lapvqa.ingest.archives.found import Files, find_files
from lapvqa.ingest.archives.members import read_at
from lapvqa.ingest.archives.names import place, shown
from lapvqa.ingest.one_file import MAX_FILE_BYTES
from lapvqa.ingest.verdicts import Verdicts, reject_unless_permitted
from lapvqa.inventory import scan
from lapvqa.params import IngestParams
from lapvqa.recorder import counted

Pixels = NDArray[np.uint8]
T = TypeVar("T")

Source: TypeAlias = str | Path | bytes | NDArray[np.uint8] | NDArray[np.uint16]
"""A file or folder, the bytes of a file, or grey values [rows, cols] with 0 black."""

CHEST_RADIOGRAPHS = IngestParams.model_validate({"split": {"validate": 0, "test": 0}})
"""Which headers are accepted where no project says otherwise."""

_STATED = ("modality", "photometric", "body_part", "burned_in", "identity_removed")
_MARKED = ("for_processing", "post_processed")


@dataclass(frozen=True)
class Film:
    """One film: ``pixels`` uint8 [384, 384] as ingest stores them, or why there are none.

    ``name``: its path, as far as it was given, as tables hold it (``archives.names``); of bytes
    and arrays their number, as "#0".
    ``sha256``: of the file's bytes, of an array those of its values; empty if it was not read.
    """

    name: str
    sha256: str = ""
    pixels: Pixels | None = None
    header: Header | None = None
    reason: Reason | None = None
    detail: str = ""

    def rejected(self, reason: Reason, detail: str) -> Film:
        """Return the same without pixels."""
        return replace(self, pixels=None, reason=reason, detail=detail)


def find(sources: Source | Iterable[Source]) -> list[tuple[str, Source]]:
    """Return name and source of each film, folders replaced by the films below them, in order.

    Raises SourceError for a folder without any; a path at which nothing is becomes a reject.
    """
    if isinstance(sources, str | Path | bytes) or _is_one_array(sources):
        sources = [sources]  # type: ignore[list-item]
    found: list[tuple[str, Source]] = []
    for number, source in enumerate(sources):
        if not isinstance(source, str | Path):
            found.append((f"#{number}", source))
        elif Path(source).is_dir():
            found += _below(Path(source))
        else:
            found.append((shown(str(source)), source))
    return found


def _is_one_array(sources: object) -> bool:
    return isinstance(sources, np.ndarray) and sources.ndim <= 2


def _below(folder: Path) -> list[tuple[str, Source]]:
    files = find_files(folder, scan(folder, everything=True, named=True))
    films = sorted([*files.dicom, *files.pictures])
    if not films:
        raise SourceError(
            f"expected DICOM files or pictures in {folder}, found none among "
            f"{counted(len(files.facts), 'file')}{_by_kind(files)}",
            hint="give a folder or file with radiographs; `lapvqa inspect` says what is there",
        )
    within = Path(shown(str(folder)))
    return [(str(within / path), place(folder, path)) for path in films]


def _by_kind(files: Files) -> str:
    kinds = Counter(files.others.values())
    return f" ({', '.join(f'{kind} {n}' for kind, n in kinds.most_common())})" if kinds else ""


@dataclass(frozen=True)
class Reader:
    """Reads what a client brings, ``batch`` films at a time, in ``workers`` threads.

    ``params``: which headers are accepted.
    """

    workers: int
    params: IngestParams = CHEST_RADIOGRAPHS
    batch: int = 32

    def batches(self, sources: Source | Iterable[Source]) -> Iterator[list[Film]]:
        """Yield the films in order, read and judged; the next ones are read meanwhile."""
        rest = iter(find(sources))
        pending: deque[list[Future[Film]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:  # the decoders work without the GIL
            while part := list(islice(rest, self.batch)):
                pending.append([pool.submit(read, *film) for film in part])
                if len(pending) > 1:
                    yield self._judged(pending.popleft())
            while pending:
                yield self._judged(pending.popleft())

    def each(
        self, sources: Source | Iterable[Source], compute: Callable[[Pixels], Sequence[T]]
    ) -> Iterator[tuple[Film, T | None]]:
        """Yield each film with what ``compute`` makes of its pixels; None if it was rejected.

        ``compute`` maps stored pixels uint8 [k, 384, 384], k >= 1, to k values.
        """
        for films in self.batches(sources):
            taken = [film.pixels for film in films if film.pixels is not None]
            values = iter(compute(np.stack(taken)) if taken else ())
            for film in films:
                yield film, None if film.pixels is None else next(values)

    def _judged(self, films: Iterable[Future[Film]]) -> list[Film]:
        return judged([film.result() for film in films], self.params)


def read(name: str, source: Source) -> Film:
    """Read one film, whatever it says of itself; ValueError for an array of another kind."""
    film = Film(name)
    try:
        if isinstance(source, np.ndarray):
            _require_greys(source, name)
            film = replace(film, sha256=hashlib.sha256(source.tobytes()).hexdigest())
            image = read_greys(source)
        else:
            data = source if isinstance(source, bytes) else read_at(Path(source), MAX_FILE_BYTES)
            film = replace(film, sha256=hashlib.sha256(data).hexdigest())
            image = read_film(data, name)
    except DicomError as error:
        return film.rejected(Reason(error.reason), error.message)
    except MemoryError:
        return film.rejected(Reason.OUT_OF_MEMORY, "expected to fit into memory")
    return replace(film, pixels=image.pixels, header=image.meta)


def _require_greys(values: NDArray[np.generic], name: str) -> None:
    if values.ndim == 2 and values.dtype in (np.uint8, np.uint16):
        return
    within = f" of {values.min():g} to {values.max():g}" if values.size else ""
    raise ValueError(
        f"expected grey values [rows, cols], uint8 or uint16 with 0 black, found {values.dtype} "
        f"{list(values.shape)}{within} ({name}); scale floats to whole levels first, such as "
        "(255 * values).round().astype(np.uint8)"
    )


def judged(films: Sequence[Film], params: IngestParams) -> list[Film]:
    """Reject films that are no chest radiographs by their headers, as ingest would.

    Its rules for what an archive may keep, about text burned in and about identities, do not hold
    here: nothing is kept.
    """
    deid = params.deid.model_copy(update={"identity_removed": "accept"})
    asked = params.model_copy(update={"burned_in": "accept", "deid": deid})
    headers = [film.header for film in films if film.header is not None]
    stated = {
        name: pa.array([getattr(header, name) for header in headers], pa.string())
        for name in _STATED
    }
    marked = {
        name: pa.array([getattr(header, f"is_{name}") for header in headers], pa.bool_())
        for name in _MARKED
    }
    verdicts = Verdicts(len(headers))
    table = pa.table({**stated, **marked})
    reject_unless_permitted(verdicts, table, asked)
    said = verdicts.onto(table).select(["reason", "detail"]).to_pylist()
    answers = iter(said)
    return [film if film.header is None else _decided(film, **next(answers)) for film in films]


def _decided(film: Film, reason: str | None, detail: str | None) -> Film:
    return film if reason is None else film.rejected(Reason(reason), detail or "")
