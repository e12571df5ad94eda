"""Shards of stored images: Arrow IPC files, uncompressed, so that a row is read by one copy.

A shard's name is the digest of its content, ``images-<16 hex digits>.arrow``: it can be verified
from the file alone (``verify_shards``), and the same images make the same file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa import storage
from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.schemas import STORED_SIZE

IMAGE_BYTES = STORED_SIZE * STORED_SIZE
SHARD = pa.schema(
    [
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("pixels", pa.binary(IMAGE_BYTES), nullable=False),
    ]
)
_REMAKE = "delete data/images and run `lapvqa run --stage ingest`"


def shard_name(keys: Sequence[str], digests: Sequence[str]) -> str:
    """Return the name of the shard that holds these images; ``digests``: sha256 of each's bytes."""
    lines = "".join(f"{key} {digest}\n" for key, digest in zip(keys, digests, strict=True))
    return f"images-{hashlib.sha256(lines.encode()).hexdigest()[:16]}.arrow"


def write_shard(path: Path, keys: Sequence[str], pixels: NDArray[np.uint8]) -> None:
    """Write ``pixels`` [N, 384, 384] under ``keys`` as one record batch, atomically."""
    if pixels.shape != (len(keys), STORED_SIZE, STORED_SIZE) or pixels.dtype != np.uint8:
        raise ValueError(f"{len(keys)} keys, but pixels {pixels.dtype} {pixels.shape}")
    buffer = pa.py_buffer(np.ascontiguousarray(pixels))
    images = pa.FixedSizeBinaryArray.from_buffers(pa.binary(IMAGE_BYTES), len(keys), [None, buffer])
    batch = pa.record_batch([pa.array(keys, pa.string()), images], schema=SHARD)
    with (
        storage.atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, SHARD) as writer,
    ):
        writer.write_batch(batch)


def add_shard(folder: Path, keys: Sequence[str], pixels: NDArray[np.uint8]) -> str:
    """Write a shard under the name that its content gives it; return the name."""
    name = shard_name(keys, [hashlib.sha256(image.data).hexdigest() for image in pixels])
    write_shard(folder / name, keys, pixels)
    return name


class ShardStore:
    """Random access to the images of a folder of shards; each shard stays mapped once opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, NDArray[np.uint8]] = {}

    def __reduce__(self) -> tuple[type[ShardStore], tuple[Path]]:
        return ShardStore, (self.folder,)  # a worker process maps the files itself

    def read(self, shards: Sequence[str], rows: Sequence[int]) -> NDArray[np.uint8]:
        """Return copies of the images named by file and row: uint8 [N, 384, 384].

        Raises MissingArtifactError or SchemaError that names a missing or damaged shard.
        """
        images = np.empty((len(rows), STORED_SIZE, STORED_SIZE), dtype=np.uint8)
        self.read_into(images, shards, rows)
        return images

    def read_into(self, out: NDArray[np.uint8], shards: Sequence[str], rows: Sequence[int]) -> None:
        """Copy the images named by file and row into ``out``, uint8 [N, 384, 384].

        File by file in the order of rows, which is the order they lie in on disk. Raises as
        ``read``.
        """
        places = sorted(zip(shards, rows, range(len(out)), strict=True))
        for shard, of_shard in groupby(places, key=itemgetter(0)):
            stored = self._images(shard)
            for _, row, index in of_shard:
                if not 0 <= row < len(stored):
                    raise SchemaError(
                        f"expected row {row} in {shard}, found {len(stored)} rows", hint=_REMAKE
                    )
                out[index] = stored[row]

    def _images(self, shard: str) -> NDArray[np.uint8]:
        if shard not in self._open:
            self._open[shard] = map_shard(self.folder / shard)
        return self._open[shard]


def verify_shards(folder: Path, names: Iterable[str]) -> int:
    """Check that the shards' content has the digest in their names; return the number of images.

    Raises MissingArtifactError or SchemaError that names the first missing or damaged shard.
    About 0.1 ms an image and core.
    """
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        return sum(pool.map(lambda name: _verify(folder / name), sorted(set(names))))


def _verify(path: Path) -> int:
    keys, images = _read_shard(path)
    name = shard_name(
        keys.to_pylist(), [hashlib.sha256(image.data).hexdigest() for image in images]
    )
    if name != path.name:
        raise SchemaError(
            f"{path.name} is damaged: its images have the checksum of {name}",
            hint=f"delete every copy (`find data .lapvqa/work -name {path.name} -delete`), then "
            "`lapvqa run`: the files it was made of are read again",
        )
    return len(images)


def map_shard(path: Path) -> NDArray[np.uint8]:
    """Map one shard and return its images, uint8 [N, 384, 384], read-only."""
    return _read_shard(path)[1]


def _read_shard(path: Path) -> tuple[pa.Array, NDArray[np.uint8]]:
    if not path.exists():
        raise MissingArtifactError(f"expected the shard {path.name}, found nothing", hint=_REMAKE)
    try:
        # Closing the file gives back its descriptor; the mapping lives as long as the array.
        with pa.memory_map(str(path)) as source:
            file = pa.ipc.open_file(source)
            batches, schema = file.num_record_batches, file.schema
            batch = file.get_batch(0) if batches == 1 else None
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaError(
            f"expected an Arrow file at {path.name}, found a damaged one", hint=_REMAKE
        ) from error
    if not schema.equals(SHARD):
        raise SchemaError(
            f"{path.name}: columns {schema.names}, expected {SHARD.names}", hint=_REMAKE
        )
    if batch is None:
        raise SchemaError(f"{path.name}: {batches} batches, expected 1", hint=_REMAKE)
    flat = np.frombuffer(batch["pixels"].buffers()[1], np.uint8, len(batch) * IMAGE_BYTES)
    return batch["image_key"], flat.reshape(-1, STORED_SIZE, STORED_SIZE)
