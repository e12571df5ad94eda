"""Decide which files are taken and why the others are not, and the split of each patient.

Rules run in a fixed order over the files in order of path, so of two copies the first by path
is taken, whichever was read first. Each rule looks at all files at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lapvqa.dicom.header import COLOUR
from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.views import clean_view
from lapvqa.errors import SplitLeakError
from lapvqa.ingest.columns import (
    Column,
    Mask,
    first_of,
    is_one_of,
    is_set,
    is_valid,
    mapped,
    replaced,
    unordered,
    whole,
)
from lapvqa.params import IngestParams, SplitParams
from lapvqa.schemas import FRONTAL_VIEWS

Views = Literal["any", "frontal"]

# Values of (0012,0062) that each setting of ingest.deid.identity_removed accepts; "": absent.
_REMOVED: dict[str, set[str | None]] = {
    "accept": {"yes", "no", "", None},
    "unless_no": {"yes", "", None},
    "require": {"yes"},
}
_FOUND = {"none": "none: neither Modality nor SOP Class says that it is a radiograph"}


_Words: TypeAlias = tuple[Column, Callable[[str], str | None]]


class Verdicts:
    """Which files are taken, and why the others are not: the first reason given stays."""

    def __init__(self, number: int) -> None:
        self.taken: Mask = np.ones(number, bool)
        self._reasons = np.full(number, None, object)
        self._details = np.full(number, None, object)

    def reject(self, where: Mask, reason: Reason | Column, detail: str | Column | _Words) -> None:
        """Reject the files in ``where`` that are still taken.

        A detail of words is made of a column's values, of those files alone.
        """
        rows = np.flatnonzero(where & self.taken)
        if not len(rows):
            return
        for target, value in ((self._reasons, reason), (self._details, detail)):
            if isinstance(value, str):
                target[rows] = str(value)
                continue
            column, words = value if isinstance(value, tuple) else (value, None)
            own = whole(column).take(pa.array(rows))
            target[rows] = _objects(own if words is None else mapped(own, words))
        self.taken[rows] = False

    def onto(self, files: pa.Table) -> pa.Table:
        """Return the table with columns ``reason`` (null: taken) and ``detail``."""
        columns = {"reason": self._reasons, "detail": self._details}
        return replaced(files, {n: pa.array(c, pa.string()) for n, c in columns.items()})


def _objects(column: Column) -> NDArray[np.object_]:
    found: NDArray[np.object_] = whole(column).to_numpy(zero_copy_only=False)
    return found


def _is_true(column: Column) -> Mask:
    mask: Mask = whole(pc.fill_null(column, False)).to_numpy(zero_copy_only=False)
    return mask


def judge(files: pa.Table, params: IngestParams, *, has_split: bool) -> pa.Table:
    """Return the files as decided: ``reason`` (null: taken) and ``detail``, view and its source.

    Adds ``split``, that of the file's patient whether it is taken or not; empty if unknown.
    Raises SplitLeakError.
    """
    verdicts = Verdicts(len(files))
    view, view_source = _decide_views(files, params)
    listed = whole(files["listed_split"]).fill_null("")
    split = listed if has_split else splits_of(files["split_point"], params.split)
    files = replaced(files, {"view": view, "view_source": view_source, "split": split})
    read = files["reason"], pc.fill_null(files["detail"], "")
    verdicts.reject(is_valid(files["reason"]), *read)
    reject_unless_permitted(verdicts, files, params)
    if params.views == "frontal":
        reject_unless_frontal(verdicts, view)
    _reject_repeated(verdicts, files["file_sha256"], Reason.DUPLICATE_CONTENT)
    _reject_repeated(verdicts, files["image_key"], Reason.DUPLICATE_UID)
    _reject_repeated(verdicts, files["instance_key"], Reason.DUPLICATE_UID)
    _reject_repeated(verdicts, _films(files), Reason.DUPLICATE_FILM)
    _reject_second_patient(verdicts, files)
    detail = "expected its patient in the split table, found none"
    verdicts.reject(~is_set(split), Reason.NO_SPLIT, detail)
    _require_one_split_per_patient(files)
    return verdicts.onto(files)


def is_taken(files: pa.Table) -> Mask:
    """Return which of the judged files are taken."""
    return ~is_valid(files["reason"])


def in_splits_of_others(images: pa.Table) -> int:
    """Count the images with the same pixels as one of another split, so of another patient."""
    pixels, splits = unordered(images["pixels_sha256"]), unordered(images["split"])
    shared = pixels[splits != splits[first_of(pixels)]]
    return int(np.isin(pixels, shared).sum())


def reject_unless_frontal(verdicts: Verdicts, view: pa.Array, among: Mask | None = None) -> None:
    """Reject the files, or those ``among`` them, that are not known to be frontal."""
    asked = np.ones(len(view), bool) if among is None else among
    detail = "expected a frontal view, found none stated"
    verdicts.reject(asked & ~is_set(view), Reason.VIEW_UNKNOWN, detail)
    found = view, "expected a frontal view, found {}".format
    verdicts.reject(asked & ~is_one_of(view, FRONTAL_VIEWS), Reason.LATERAL_NOT_ASKED, found)


def reject_unless_permitted(verdicts: Verdicts, files: pa.Table, params: IngestParams) -> None:
    """Reject the files that the parameters exclude by what their headers state."""
    modality, wanted = files["modality"], ", ".join(params.modalities)
    verdicts.reject(
        is_valid(modality) & ~is_one_of(modality, params.modalities),
        Reason.NOT_A_RADIOGRAPH,
        (modality, lambda name: f"expected modality {wanted}, found {_FOUND.get(name, name)}"),
    )
    verdicts.reject(
        _is_true(files["for_processing"]),
        Reason.FOR_PROCESSING,
        "expected an image for presentation, found a raw one",
    )
    verdicts.reject(
        _is_true(files["post_processed"]),
        Reason.POST_PROCESSED,
        "expected an image as it was taken, found one that software made of another",
    )
    if params.colour == "reject":
        grey = files["photometric"], "expected grey, found {}".format
        verdicts.reject(is_one_of(files["photometric"], COLOUR), Reason.COLOUR, grey)
    if params.body_part == "chest":
        detail = "expected a chest, the header names another part"
        verdicts.reject(is_one_of(files["body_part"], ["other"]), Reason.NOT_A_CHEST, detail)
    if params.burned_in == "reject":
        detail = "the header says that text is burned into the image"
        verdicts.reject(is_one_of(files["burned_in"], ["yes"]), Reason.BURNED_IN, detail)
    removed = files["identity_removed"]
    stated = pc.if_else(pa.array(is_set(removed)), removed, "no word of it")
    verdicts.reject(
        ~is_one_of(removed, _REMOVED[params.deid.identity_removed]),
        Reason.IDENTITY_NOT_REMOVED,
        (stated, "expected Patient Identity Removed, found {}".format),
    )


def _decide_views(files: pa.Table, params: IngestParams) -> tuple[pa.Array, pa.Array]:
    """Return each file's view and the rule that told it: that of the table goes before the header.

    Views that the study's description gave to several images are forgotten: a study called CHEST PA
    may have a lateral image too, and its name tells the view of an only image. Then an unknown view
    is taken for frontal, if asked to.
    """
    listed = mapped(files["listed_view"], clean_view)
    by_table = pa.array(is_set(listed))
    view = pc.if_else(by_table, listed, whole(files["view"]).fill_null(""))
    source = pc.if_else(by_table, "table", whole(files["view_source"]))
    studies = unordered(files["study_key"]) + 1
    images = np.bincount(studies, weights=is_set(files["pixels_sha256"]))
    forgotten = pa.array(is_one_of(source, ["study"]) & (images[studies] > 1))
    view = pc.if_else(forgotten, "", view)
    source = pc.if_else(forgotten, pa.scalar(None, pa.string()), source)
    if params.unknown_view == "frontal":
        unknown = pa.array(~is_set(view))
        view, source = pc.if_else(unknown, "FRONTAL", view), pc.if_else(unknown, "assumed", source)
    return view, source


def raw_twins(files: pa.Table) -> frozenset[str]:
    """Return the paths of raw and post-processed images whose study has an image that is taken.

    Where a device sends both, that is every second file of an archive, and nothing is amiss.
    """
    complete = files["study_key"].filter(pa.array(is_taken(files)))
    twins = [Reason.FOR_PROCESSING, Reason.POST_PROCESSED]
    raw = files.filter(pa.array(is_one_of(files["reason"], twins)))
    is_twin = pc.is_in(raw["study_key"], value_set=whole(complete))
    return frozenset(raw["path"].filter(is_twin).to_pylist())


def _reject_repeated(verdicts: Verdicts, column: Column, reason: Reason) -> None:
    rows = np.flatnonzero(verdicts.taken & is_valid(column))
    again = np.zeros(len(column), bool)
    again[rows] = first_of(unordered(column)[rows]) != np.arange(len(rows))
    verdicts.reject(again, reason, "a file earlier in order of path has the same")


def _films(files: pa.Table) -> pa.Array:
    """Return what a film is known by: its patient and its decoded values; null if not decoded.

    Within one patient only: the same film under two patients is a question for a person, and for
    the firewall, since nobody knows whose it is.
    """
    return whole(pc.binary_join_element_wise(files["patient_key"], files["decoded_sha256"], " "))


def _reject_second_patient(verdicts: Verdicts, files: pa.Table) -> None:
    rows = np.flatnonzero(verdicts.taken)
    studies, patients = (unordered(files[name])[rows] for name in ("study_key", "patient_key"))
    another = np.zeros(len(files), bool)
    another[rows] = patients != patients[first_of(studies)]
    detail = "the study's first image names another patient"
    verdicts.reject(another, Reason.PATIENT_MISMATCH, detail)


def splits_of(points: Column, params: SplitParams) -> pa.Array:
    """Return the splits at ``points`` of [0, 1); a patient keeps it when patients are added."""
    point = whole(points).to_numpy(zero_copy_only=False)
    limits = (params.validate_share, params.validate_share + params.test)
    names = np.select([point < limits[0], point < limits[1]], ["validate", "test"], "train")
    return pc.if_else(pa.array(is_valid(points)), pa.array(names, pa.string()), "")


def _require_one_split_per_patient(files: pa.Table) -> None:
    known = files.select(["split", "patient_key"]).filter(pa.array(is_set(files["split"])))
    splits, patients = unordered(known["split"]), unordered(known["patient_key"])
    leaked = len(np.unique(patients[splits != splits[first_of(patients)]]))
    if leaked:
        raise SplitLeakError(
            f"{leaked} patients stand in more than one split",
            hint="correct the archive's split table: all images of a patient share one split",
        )
