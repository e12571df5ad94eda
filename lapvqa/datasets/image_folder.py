"""A dataset's folder of image files: listed by the inventory, decoded once.

Files are decoded into chunks under .lapvqa/work: ``<name>.npy`` has the stored pixels, to be mapped
into memory, ``<name>.npz`` what is known of them. A chunk's name holds the code and the libraries
that made it and every file's size and time: what changed is decoded again, a killed run continues
at the first missing chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import PIL
import pydicom
from numpy.typing import NDArray

from lapvqa import code, storage
from lapvqa.datasets.pictures import StoredPixels
from lapvqa.images import geometry
from lapvqa.images.geometry import Fit
from lapvqa.job import Job
from lapvqa.machine import Machine
from lapvqa.schemas import INVENTORY, STORED_SIZE

CHUNK = 512
"""Images per cached file: 75 MB of pixels."""

Pixels = NDArray[np.uint8]
Read = Callable[[Path], StoredPixels | None]


@dataclass(frozen=True)
class ImageFolder:
    """A dataset's folder and its inventory: path -> "size mtime"."""

    name: str
    folder: Path
    files: Mapping[str, str]

    def present(self, paths: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of ``paths`` the inventory lists."""
        return np.array([path in self.files for path in paths], dtype=bool)


@dataclass(frozen=True)
class Decoded:
    """The images of n paths, of which m could be read.

    ``readable`` bool [n]; of the m readable ones, in order: ``digests``, sha256 of the stored
    pixels, ``decoded``, of the decoded ones, and ``fits``, how the original lies in them.
    """

    readable: NDArray[np.bool_]
    digests: list[str]
    decoded: list[str]
    fits: list[Fit]
    chunks: list[Path]

    def pixels(self, indices: Sequence[int]) -> Pixels:
        """Return stored pixels uint8 [k, 384, 384] of readable images, numbered 0..m-1."""
        starts = np.cumsum([0, *(int(part.sum()) for part in self._parts())])
        pixels = np.empty((len(indices), STORED_SIZE, STORED_SIZE), dtype=np.uint8)
        wanted = np.asarray(indices)
        for number, chunk in enumerate(self.chunks):
            inside = (wanted >= starts[number]) & (wanted < starts[number + 1])
            if inside.any():
                stored = np.load(chunk, mmap_mode="r")
                pixels[inside] = stored[wanted[inside] - starts[number]]
        return pixels

    def _parts(self) -> list[NDArray[np.bool_]]:
        return [
            self.readable[start : start + CHUNK] for start in range(0, len(self.readable), CHUNK)
        ]


def open_folder(name: str, job: Job) -> ImageFolder | None:
    """Return the input folder ``name``, one of inventory.NAMES; None if it is absent or empty."""
    folder = job.folders[name]
    table = storage.read_table(job.project.inventory(name), INVENTORY, made_by="inventory")
    if not folder.is_dir() or not table.num_rows:
        return None
    sizes, times = table["size"].to_pylist(), table["mtime_ns"].to_pylist()
    stamps = (f"{size} {time}" for size, time in zip(sizes, times, strict=True))
    return ImageFolder(name, folder, dict(zip(table["path"].to_pylist(), stamps, strict=True)))


def decode(source: ImageFolder, paths: Sequence[str], read: Read, *, job: Job) -> Decoded:
    """Decode files with ``read`` (None: not readable), or find them decoded."""
    work = job.project.work_dir("features") / "pixels" / source.name
    readable, digests, decoded, fits, chunks = [], [], [], [], []
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start : start + CHUNK]
        cached = work / f"{_chunk_key(source, chunk, read)}.npz"
        if not cached.exists():
            _write(cached, source, chunk, read, job.machine)
        with np.load(cached) as stored:
            readable.append(stored["readable"])
            digests += stored["digests"].tolist()
            decoded += stored["decoded"].tolist()
            fits += [Fit(int(row[0]), int(row[1]), *row[2:].tolist()) for row in stored["fits"]]
        chunks.append(cached.with_suffix(".npy"))
    _remove_others(work, {*chunks, *(chunk.with_suffix(".npz") for chunk in chunks)})
    all_readable = np.concatenate(readable) if readable else np.zeros(0, dtype=bool)
    return Decoded(all_readable, digests, decoded, fits, chunks)


def digest(pixels: Pixels) -> str:
    """Return the sha256 of one image's stored pixels, as images.parquet has it."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def copies_of_tested(digests: Sequence[str], tested: Sequence[bool]) -> NDArray[np.bool_]:
    """Return [n]: which images have the pixels of a ``tested`` one and are none themselves.

    A film that stands under two patients, or twice in a release: no head may learn from it.
    """
    known = {one for one, is_tested in zip(digests, tested, strict=True) if is_tested}
    pairs = zip(digests, tested, strict=True)
    return np.array([one in known and not is_tested for one, is_tested in pairs], dtype=bool)


def _write(
    cached: Path, source: ImageFolder, chunk: Sequence[str], read: Read, machine: Machine
) -> None:
    with ThreadPoolExecutor(machine.workers) as pool:  # the decoders work without the GIL
        images = list(pool.map(lambda path: read(source.folder / path), chunk))
    good = [image for image in images if image is not None]
    empty = np.zeros((0, STORED_SIZE, STORED_SIZE), dtype=np.uint8)
    fits = [
        (fit.native_rows, fit.native_cols, fit.scale, fit.offset_x, fit.offset_y)
        for fit in (image.fit for image in good)
    ]
    pixels = cached.with_suffix(".npy")
    with storage.atomic_path(pixels) as temporary, temporary.open("wb") as handle:
        np.save(handle, np.stack([image.pixels for image in good]) if good else empty)
    with storage.atomic_path(cached) as temporary, temporary.open("wb") as handle:
        np.savez(  # last: it says that the chunk is there
            handle,
            readable=np.array([image is not None for image in images], dtype=bool),
            digests=np.array([digest(image.pixels) for image in good], dtype="U64"),
            decoded=np.array([image.decoded_sha256 for image in good], dtype="U64"),
            fits=np.array(fits, dtype=np.float64).reshape(-1, 5),
        )


def _chunk_key(source: ImageFolder, chunk: Sequence[str], read: Read) -> str:
    libraries = f"{PIL.__version__} {cv2.__version__} {pydicom.__version__}"
    lines = [code.digest(read.__module__, geometry.__name__), libraries, str(source.folder)]
    lines += [f"{path} {source.files.get(path, 'missing')}" for path in chunk]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _remove_others(folder: Path, used: set[Path]) -> None:
    """Drop pixel chunks of files that have changed since: they are large and never met again."""
    for path in set(folder.glob("*.np[yz]")) - used:
        path.unlink(missing_ok=True)
