"""What becomes of one file: read, hash, render, and nothing but hashed identifiers left.

The bytes are read once into memory. A map of the file would save their copy (0.5 ms of the 15.5 MB
of a radiograph), but a file that is cut meanwhile would kill the process, and one that changes
meanwhile would give pixels that its sha256 does not stand for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lapvqa.dicom.header import Header
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError
from lapvqa.identity import Keyring
from lapvqa.ingest.archives.contract import Ids
from lapvqa.ingest.archives.files import PICTURE_SUFFIXES, suffix_of
from lapvqa.ingest.results import FileResult
from lapvqa.ingest.splits import split_point
from lapvqa.params import LimitParams

if TYPE_CHECKING:
    from lapvqa.dicom.render import DicomImage

MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class Task:
    """One file to read, as the inventory lists it."""

    path: str
    size: int
    mtime_ns: int
    ids: Ids


@dataclass(frozen=True)
class Context:
    """What every worker needs, sent once."""

    folder: Path
    keyring: Keyring
    split_seed: int
    limits: LimitParams = LimitParams()


Batch = Sequence[Task]


def process_file(task: Task, context: Context) -> FileResult:
    """Read, hash and render one file; a reject is a result like any other."""
    result = unread(task, context.keyring, context.split_seed)
    try:
        data = _read(context.folder / task.path, task)
        result = replace(result, file_sha256=hashlib.sha256(data).hexdigest())
        # Only here: the kernels take half a second to load, which the parent need not wait for.
        from lapvqa.dicom.parse import parse
        from lapvqa.dicom.render import render

        if suffix_of(task.path) in PICTURE_SUFFIXES:
            from lapvqa.dicom.picture import read_picture

            image = read_picture(data)
            result = _described(result, image.meta, task.ids, context)
            _require_ids(result)
        else:
            parsed = parse(data)
            result = _described(result, parsed.header, task.ids, context)
            _require_ids(result)
            image = render(parsed)
    except DicomError as error:
        return rejected(result, Reason(error.reason), error.message, error.exception)
    except MemoryError:
        detail = f"expected to fit into {context.limits.memory_mb} MB"
        return rejected(result, Reason.OUT_OF_MEMORY, detail, "MemoryError")
    return _shown(result, image)


def unread(task: Task, keyring: Keyring, split_seed: int) -> FileResult:
    """Return what is known of a file by its path alone."""
    result = FileResult(path=task.path, size=task.size, mtime_ns=task.mtime_ns)
    return _named(result, task.ids, keyring, split_seed)


def rejected(
    result: FileResult, reason: Reason, detail: str, exception: str | None = None
) -> FileResult:
    """Return ``result`` turned away."""
    return replace(result, reason=reason.value, detail=detail, exception=exception)


def _read(path: Path, task: Task) -> bytes:
    if task.size > MAX_FILE_BYTES:
        raise DicomError(Reason.TOO_LARGE, f"{task.size} bytes, at most {MAX_FILE_BYTES} are read")
    try:
        with path.open("rb", buffering=0) as handle:
            data = handle.read(task.size + 1)
            while len(data) < task.size and (more := handle.read(task.size + 1 - len(data))):
                data += more
            status = os.fstat(handle.fileno())
    except OSError as error:
        raise DicomError(Reason.UNREADABLE, f"expected a readable file: {error.strerror}") from None
    if (len(data), status.st_mtime_ns) != (task.size, task.mtime_ns):
        raise DicomError(Reason.CHANGED, "the file is no longer as it was listed")
    return data


def _described(result: FileResult, header: Header, ids: Ids, context: Context) -> FileResult:
    """Add what the header says; ids of the path go before those of the header."""
    ids = Ids(
        ids.image or header.instance_uid,
        ids.study or header.study_uid,
        ids.patient or header.patient_id,
    )
    return replace(
        _named(result, ids, context.keyring, context.split_seed),
        instance_key=context.keyring.image(header.instance_uid) if header.instance_uid else None,
        study_date=header.study_date,
        study_time=header.study_time,
        view=header.view,
        body_part=header.body_part,
        burned_in=header.burned_in,
        identity_removed=header.identity_removed,
        photometric=header.photometric,
        bits_stored=header.bits_stored,
        transfer_syntax=header.transfer_syntax,
    )


def _shown(result: FileResult, image: DicomImage) -> FileResult:
    return replace(
        result,
        voi=image.voi,
        native_rows=image.fit.native_rows,
        native_cols=image.fit.native_cols,
        scale=image.fit.scale,
        offset_x=image.fit.offset_x,
        offset_y=image.fit.offset_y,
        pixels_sha256=hashlib.sha256(image.pixels.data).hexdigest(),
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
