"""What one file came to: a row of the work store, and its pixels if it was taken.

Identifiers are hashed before they get here. The rows live in .lapvqa/work only; the stage's
outputs are made of them by ``tables``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

RESULTS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("exception", pa.string()),
        pa.field("file_sha256", pa.string()),
        pa.field("pixels_sha256", pa.string()),
        pa.field("image_key", pa.string()),
        pa.field("instance_key", pa.string()),
        pa.field("study_key", pa.string()),
        pa.field("patient_key", pa.string()),
        pa.field("split_point", pa.float64()),
        pa.field("study_date", pa.string()),
        pa.field("study_time", pa.string()),
        pa.field("view", pa.string()),
        pa.field("body_part", pa.string()),
        pa.field("burned_in", pa.string()),
        pa.field("identity_removed", pa.string()),
        pa.field("photometric", pa.string()),
        pa.field("bits_stored", pa.int16()),
        pa.field("transfer_syntax", pa.string()),
        pa.field("voi", pa.string()),
        pa.field("native_rows", pa.int32()),
        pa.field("native_cols", pa.int32()),
        pa.field("scale", pa.float64()),
        pa.field("offset_x", pa.float64()),
        pa.field("offset_y", pa.float64()),
        pa.field("shard", pa.string()),
        pa.field("row", pa.int32()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileResult:
    """Columns of ``RESULTS``; ``reason`` is None if the file was taken."""

    path: str
    size: int
    mtime_ns: int
    reason: str | None = None
    detail: str | None = None
    exception: str | None = None
    file_sha256: str | None = None
    pixels_sha256: str | None = None
    image_key: str | None = None
    instance_key: str | None = None
    """Keyed hash of the SOP Instance UID, whatever the image is called by."""
    study_key: str | None = None
    patient_key: str | None = None
    split_point: float | None = None
    """The patient's place in [0, 1), see ``splits``."""
    study_date: str | None = None
    study_time: str | None = None
    view: str | None = None
    body_part: str | None = None
    """Body Part Examined (0018,0015): chest | other, empty if not stated."""
    burned_in: str | None = None
    """Burned In Annotation (0028,0301): yes | no, empty if not stated."""
    identity_removed: str | None = None
    """Patient Identity Removed (0012,0062): yes | no, empty if not stated."""
    photometric: str | None = None
    bits_stored: int | None = None
    transfer_syntax: str | None = None
    voi: str | None = None
    native_rows: int | None = None
    native_cols: int | None = None
    scale: float | None = None
    offset_x: float | None = None
    offset_y: float | None = None
    shard: str | None = None
    """File of the store that holds the stored image; None if rejected, or not stored yet."""
    row: int | None = None
    """Its row there."""
    pixels: NDArray[np.uint8] | None = None
    """Stored image [384, 384], until it lies in a shard."""
    held_in: str = ""
    """File of the store that holds this row."""
