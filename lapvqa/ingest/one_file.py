"""Turn one file into one result: read, hash, render, and keep hashed identifiers only.

The bytes are read once into memory. Mapping the file would save that copy (0.5 ms for the 15.5 MB
of a radiograph), but a file that is cut meanwhile would kill the process, and one that changes
meanwhile would give pixels that do not belong to its sha256.

Results are rows of the store in .lapvqa/work only; ``study_tables`` makes the outputs of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa.dicom.header import Header
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError
from lapvqa.identity import Ids, Keyring
from lapvqa.ingest import tombstones
from lapvqa.ingest.archives.members import read_bytes
from lapvqa.ingest.tombstones import Tombstones
from lapvqa.params import LimitParams

if TYPE_CHECKING:
    from lapvqa.dicom.render import DicomImage

RESULTS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("layout_digest", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("exception", pa.string()),
        pa.field("file_sha256", pa.string()),
        pa.field("pixels_sha256", pa.string()),
        pa.field("decoded_sha256", pa.string()),
        pa.field("image_key", pa.string()),
        pa.field("instance_key", pa.string()),
        pa.field("study_key", pa.string()),
        pa.field("patient_key", pa.string()),
        pa.field("accession_key", pa.string()),
        pa.field("split_point", pa.float64()),
        pa.field("study_date", pa.string()),
        pa.field("study_time", pa.string()),
        pa.field("companion", pa.string()),
        pa.field("modality", pa.string()),
        pa.field("for_processing", pa.bool_()),
        pa.field("post_processed", pa.bool_()),
        pa.field("view", pa.string()),
        pa.field("view_source", pa.string()),
        pa.field("body_part", pa.string()),
        pa.field("burned_in", pa.string()),
        pa.field("identity_removed", pa.string()),
        pa.field("sex", pa.string()),
        pa.field("age_band", pa.string()),
        pa.field("photometric", pa.string()),
        pa.field("bits_stored", pa.int16()),
        pa.field("transfer_syntax", pa.string()),
        pa.field("voi", pa.string()),
        pa.field("note", pa.string()),
        pa.field("native_rows", pa.int32()),
        pa.field("native_cols", pa.int32()),
        pa.field("scale", pa.float64()),
        pa.field("offset_x", pa.float64()),
        pa.field("offset_y", pa.float64()),
        pa.field("shard", pa.string()),
        pa.field("row", pa.int32()),
    ]
)

STORED = RESULTS.append(pa.field("held_in", pa.string(), nullable=False))
"""Results, and the file of the store that holds each."""

MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class Task:
    """One file to read, as the inventory lists it and the archive's layout describes it."""

    path: str
    size: int
    mtime_ns: int
    """Of a member of a zip, its CRC-32."""
    ids: Ids
    is_picture: bool
    """PNG or JPEG, not DICOM."""

    def layout_digest(self, keyring: Keyring) -> str:
        """Return a keyed digest of what the archive's layout says about the file.

        A stored result counts only while it is the same, so the code of a layout does not decide
        which store is used.
        """
        return keyring.digest(self.ids.image, self.ids.study, self.ids.patient, self.is_picture)


@dataclass(frozen=True)
class Context:
    """Settings that each worker process is sent once."""

    folder: Path
    keyring: Keyring
    split_seed: int
    limits: LimitParams = LimitParams()
    tombstones: Tombstones | None = None
    """Who was erased: nothing but path and stamp of their files leaves a worker."""


Batch = Sequence[Task]


@dataclass(frozen=True, kw_only=True, slots=True)
class FileResult:
    """Columns of ``RESULTS``; ``reason`` is None if the file was taken."""

    path: str
    size: int
    mtime_ns: int
    layout_digest: str
    """``Task.layout_digest`` at the time of reading."""
    reason: str | None = None
    detail: str | None = None
    exception: str | None = None
    file_sha256: str | None = None
    pixels_sha256: str | None = None
    decoded_sha256: str | None = None
    """Of the decoded values, before any grey transformation: ``lapvqa.dicom.pixels.digest``."""
    image_key: str | None = None
    instance_key: str | None = None
    """Keyed hash of the SOP Instance UID, whatever the image is called by."""
    study_key: str | None = None
    patient_key: str | None = None
    accession_key: str | None = None
    """Keyed hash of the Accession Number (0008,0050), by which a report may be named."""
    split_point: float | None = None
    """The patient's place in [0, 1): ``split_point``."""
    study_date: str | None = None
    study_time: str | None = None
    companion: str | None = None
    """Kind of an object that is no image: ``lapvqa.dicom.objects.Companion``; None for an image."""
    modality: str | None = None
    """Kind of a DICOM image: ``lapvqa.dicom.objects.Modality``; None for a picture."""
    for_processing: bool | None = None
    post_processed: bool | None = None
    view: str | None = None
    view_source: str | None = None
    """By which rule the view is known: ``lapvqa.dicom.views``; None if it is not."""
    body_part: str | None = None
    """chest | other, empty if the header does not say: ``lapvqa.dicom.body_part``."""
    burned_in: str | None = None
    """Burned In Annotation (0028,0301): yes | no, empty if not stated."""
    identity_removed: str | None = None
    """Patient Identity Removed (0012,0062): yes | no, empty if not stated."""
    sex: str | None = None
    """M | F | O, empty if not stated."""
    age_band: str | None = None
    """Ten years, empty if no age is stated: ``lapvqa.dicom.person``."""
    photometric: str | None = None
    bits_stored: int | None = None
    transfer_syntax: str | None = None
    voi: str | None = None
    note: str | None = None
    """What reading it passed over or guessed."""
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


def as_table(results: Sequence[FileResult]) -> pa.Table:
    """Return results as rows of ``STORED``; pixels stay behind."""
    columns = ([getattr(result, name) for result in results] for name in STORED.names)
    return pa.table(list(map(pa.array, columns, STORED.types)), schema=STORED)


def as_results(table: pa.Table) -> list[FileResult]:
    """Return the rows of a table that has the columns of ``STORED``, without their pixels."""
    columns = [table[name].to_pylist() for name in STORED.names]
    return [
        FileResult(**dict(zip(STORED.names, values, strict=True)))
        for values in zip(*columns, strict=True)
    ]


def process_file(task: Task, context: Context) -> FileResult:
    """Read, hash and render one file; a reject is a result like any other."""
    result = _process(task, context)
    if context.tombstones is not None and context.tombstones.hides(result):
        return buried(result, context.tombstones)
    return result


def buried(result: FileResult, erased: Tombstones) -> FileResult:
    """Return what is kept of a file of somebody erased: that it lies there, and why it stays out.

    Placeholders of its keys stay, so that its report is not taken for another study's.
    """
    return FileResult(
        path=result.path, size=result.size, mtime_ns=result.mtime_ns,
        layout_digest=result.layout_digest, reason=Reason.ERASED.value, detail=tombstones.DETAIL,
        study_key=erased.placeholder("study", result.study_key),
        patient_key=erased.placeholder("patient", result.patient_key), split_point=0.0,
    )  # fmt: skip


def _process(task: Task, context: Context) -> FileResult:
    result = unread(task, context.keyring, context.split_seed)
    try:
        stamp = task.size, task.mtime_ns
        data = read_bytes(context.folder, task.path, MAX_FILE_BYTES, stamp=stamp)
        result = replace(result, file_sha256=hashlib.sha256(data).hexdigest())
        # Not at the top: the kernels take half a second to load, and the parent needs none.
        from lapvqa.dicom.header import CompanionError
        from lapvqa.dicom.parse import parse
        from lapvqa.dicom.render import render

        if task.is_picture:
            from lapvqa.dicom.picture import read_picture

            image = read_picture(data)
            result = _described(result, image.meta, task.ids, context)
            _require_ids(result)
        else:
            try:
                parsed = parse(data)
            except CompanionError as companion:
                result = _described(result, companion.header, task.ids, context)
                result = replace(result, companion=companion.message)
                raise
            result = _described(result, parsed.header, task.ids, context)
            result = replace(result, note=parsed.note or None)
            _require_ids(result)
            image = render(parsed)
    except DicomError as error:
        return rejected(result, Reason(error.reason), error.message, error.exception)
    except MemoryError:
        detail = f"expected to fit into {context.limits.memory_mb} MB"
        return rejected(result, Reason.OUT_OF_MEMORY, detail, "MemoryError")
    return _rendered(result, image)


def unread(task: Task, keyring: Keyring, split_seed: int) -> FileResult:
    """Return the result of a file of which only the path is known."""
    result = FileResult(
        path=task.path,
        size=task.size,
        mtime_ns=task.mtime_ns,
        layout_digest=task.layout_digest(keyring),
    )
    return _named(result, task.ids, keyring, split_seed)


def rejected(
    result: FileResult, reason: Reason, detail: str, exception: str | None = None
) -> FileResult:
    """Return ``result`` as a reject."""
    return replace(result, reason=reason.value, detail=detail, exception=exception)


def _described(result: FileResult, header: Header, ids: Ids, context: Context) -> FileResult:
    """Add the header's attributes; ids of the path go before those of the header."""
    ids = Ids(
        ids.image or header.instance_uid,
        ids.study or header.study_uid,
        ids.patient or header.patient_id,
    )
    return replace(
        _named(result, ids, context.keyring, context.split_seed),
        instance_key=context.keyring.image(header.instance_uid) if header.instance_uid else None,
        accession_key=context.keyring.accession(header.accession) if header.accession else None,
        study_date=header.study_date,
        study_time=header.study_time,
        modality=header.modality,
        for_processing=header.is_for_processing,
        post_processed=header.is_post_processed,
        view=header.view,
        view_source=header.view_source,
        body_part=header.body_part,
        burned_in=header.burned_in,
        identity_removed=header.identity_removed,
        sex=header.sex,
        age_band=header.age_band,
        photometric=header.photometric,
        bits_stored=header.bits_stored,
        transfer_syntax=header.transfer_syntax,
    )


def _rendered(result: FileResult, image: DicomImage) -> FileResult:
    return replace(
        result,
        voi=image.voi,
        native_rows=image.fit.native_rows,
        native_cols=image.fit.native_cols,
        scale=image.fit.scale,
        offset_x=image.fit.offset_x,
        offset_y=image.fit.offset_y,
        pixels_sha256=hashlib.sha256(image.pixels.data).hexdigest(),
        decoded_sha256=image.decoded_sha256,
        pixels=image.pixels,
    )


def _require_ids(result: FileResult) -> None:
    needed = {
        "SOPInstanceUID": result.image_key,
        "StudyInstanceUID": result.study_key,
        "PatientID": result.patient_key,
    }
    missing = [name for name, key in needed.items() if key is None]
    if missing:
        raise DicomError(Reason.MISSING_ID, f"expected {', '.join(missing)}, found nothing")


def _named(result: FileResult, ids: Ids, keyring: Keyring, split_seed: int) -> FileResult:
    return replace(
        result,
        image_key=keyring.image(ids.image) if ids.image else None,
        study_key=keyring.study(ids.study) if ids.study else None,
        patient_key=keyring.patient(ids.patient) if ids.patient else None,
        split_point=split_point(split_seed, ids.patient) if ids.patient else None,
    )


def split_point(seed: int, patient_id: str) -> float:
    """Return the patient's place in [0, 1): fixed by seed and id, whoever else is there."""
    digest = hashlib.sha256(f"{seed}:{patient_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
