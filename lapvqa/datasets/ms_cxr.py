"""Read MS-CXR 0.1 and 1.1 (Boecking et al., ECCV 2022): phrases of reports with their boxes.

    MS_CXR_Local_Alignment_v1.0.0.{csv,json}   release 0.1: no split
    MS_CXR_Local_Alignment_v1.1.0.{csv,json}   release 1.1: column split (train, val, test)

A phrase with several boxes has several rows: they are one sample here. Boxes are x, y, width,
height in pixels of the original MIMIC-CXR image, which the project has stored. The tables name no
patient; the path does (files/p10/pSUBJECT/sSTUDY/DICOM.jpg), and must agree with the archive.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lapvqa.datasets import tables
from lapvqa.datasets.boxes import Boxes, same_shape, to_stored_square
from lapvqa.datasets.splits import (
    LeakPolicy,
    Leaks,
    check_leaks,
    count_reasons,
    key,
    lowest,
)
from lapvqa.datasets.stored import StoredImage, StoredImages
from lapvqa.datasets.tables import Account
from lapvqa.errors import SourceError
from lapvqa.metrics.boxes.overlap import areas, as_boxes

NAME = "MS-CXR"
CATEGORIES = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Lung Opacity",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
)
RELEASES = ("MS_CXR_Local_Alignment_v1.1.0", "MS_CXR_Local_Alignment_v1.0.0")
"""File names of the releases 1.1 and 0.1, the newer first."""

VALIDATE_SHARE, TEST_SHARE = 0.1, 0.2
"""Of the patients, where the release brings no split."""

_NUMBERS = ("x", "y", "w", "h", "image_width", "image_height")
_COLUMNS = ("dicom_id", "category_name", "label_text", "path", *_NUMBERS)
_SPLITS = {"train": "train", "val": "validate", "test": "test"}
_PATH = re.compile(r"(?:^|/)p(\d{8})/s(\d{8})/([^/]+)\.(?:jpg|jpeg|dcm|png)$")


@dataclass(frozen=True)
class Phrase:
    """One phrase about one image; ``sample``, ``patient_key`` and ``image_key`` are keys.

    ``boxes`` float64 [n, 4], n >= 1: xyxy in pixels of the original; ``stored_boxes`` the same in
    stored pixels. ``pretrain_split``: the archive's split of the patient.
    """

    sample: str
    patient_key: str
    image_key: str
    split: str
    pretrain_split: str
    category: str
    text: str
    boxes: Boxes
    stored_boxes: Boxes


@dataclass(frozen=True)
class MsCxrDataset:
    """The phrases, ordered by sample, and what became of every row.

    ``patients_to_exclude``: patients in the archive's training split. Pretraining has seen them;
    pretrain without them to judge phrases of theirs.
    """

    phrases: tuple[Phrase, ...]
    rows: Account
    phrase_account: Account
    leaks: Leaks
    patients_to_exclude: frozenset[str]
    facts: Mapping[str, int]
    protocol: Mapping[str, str]

    def of_split(self, split: str) -> tuple[Phrase, ...]:
        """Return the phrases of train, validate or test."""
        return tuple(phrase for phrase in self.phrases if phrase.split == split)

    def describe(self) -> dict[str, str | int]:
        """Return how the dataset was made and every count, for an evaluation's protocol."""
        return {
            "dataset": NAME,
            **self.protocol,
            **self.rows.describe(),
            **self.phrase_account.describe(),
            **self.leaks.describe(),
            **self.facts,
        }


@dataclass(frozen=True)
class _Row:
    """One box as the files give it; ``split`` empty where the release has none."""

    place: str
    dicom_id: str
    category: str
    text: str
    path: str
    box: tuple[float, float, float, float]
    size: tuple[int, int]
    split: str


def read_ms_cxr(
    folder: Path,
    stored: StoredImages,
    *,
    split: Literal["released", "patient", "archive"] = "released",
    shared_patients: LeakPolicy = "raise",
    pretrained_patients: LeakPolicy = "report",
) -> MsCxrDataset:
    """Read the newest release in ``folder``, its csv or else its json.

    ``split``: the release's own (release 0.1 has none: then by patient), by the hash of the
    patient, or the archive's. ``shared_patients``, ``pretrained_patients``: see ``splits``.
    Raises SourceError, SplitLeakError.
    """
    path = _find(folder)
    rows = list(_read_json(path) if ".json" in path.suffixes else _read_csv(path))
    released = all(row.split for row in rows)
    source = "patient" if split == "released" and not released else split
    left_out: Counter[str] = Counter()
    groups = _group(rows, stored, left_out)
    kept = sum(len(group) for group, _ in groups)
    account = Account("box_rows", len(rows), kept, dict(left_out))
    account.require_some(
        path.name,
        hint="ingest the MIMIC-CXR images that MS-CXR refers to, in MIMIC-CXR's own layout",
    )
    phrases = [_phrase(group, image, stored) for group, image in groups]
    phrases = _split(phrases, source)
    reasons, leaks = check_leaks(
        NAME,
        [phrase.patient_key for phrase in phrases],
        [phrase.split for phrase in phrases],
        stored.pretrained,
        between=shared_patients,
        seen=pretrained_patients,
    )
    staying = [phrase for phrase, why in zip(phrases, reasons, strict=True) if why is None]
    seen = frozenset(p.patient_key for p in phrases if p.pretrain_split == "train")
    return MsCxrDataset(
        phrases=tuple(sorted(staying, key=lambda phrase: phrase.sample)),
        rows=account,
        phrase_account=Account("phrases", len(phrases), len(staying), count_reasons(reasons)),
        leaks=leaks,
        patients_to_exclude=seen,
        facts={
            "phrases_with_several_boxes": sum(len(phrase.boxes) > 1 for phrase in staying),
            "patients_to_exclude_from_pretraining": len(seen),
            "phrases_on_resized_copies": sum(_resized(group[0], image) for group, image in groups),
        },
        protocol={
            "file": path.name,
            "split": source,
            "several_boxes": "one sample per image, category and phrase, with all its boxes",
        },
    )


def _find(folder: Path) -> Path:
    names = [f"{release}{suffix}" for release in RELEASES for suffix in (".csv", ".json")]
    return tables.find(folder, names)


def _read_csv(path: Path) -> Iterator[_Row]:
    for line, row in tables.read_rows(path, _COLUMNS, optional=("split",)):
        place = f"{path.name}, line {line}"
        x, y, w, h, width, height = (tables.number(row[name], name, place) for name in _NUMBERS)
        yield _row(
            place, row["dicom_id"], row["category_name"], row["label_text"], row["path"],
            (x, y, w, h), (int(height), int(width)), row.get("split"),
        )  # fmt: skip


def _read_json(path: Path) -> Iterator[_Row]:
    """Yield the annotations of the COCO form with their images and categories."""
    content = tables.read_json(path, dict)
    parts = {
        name: tables.member(content, name, list, path.name)
        for name in ("images", "annotations", "categories")
    }
    images = {
        tables.member(image, "id", int, f"{path.name}, images[{i}]"): (image, f"images[{i}]")
        for i, image in enumerate(parts["images"])
    }
    names = {
        tables.member(entry, "id", int, place): tables.member(entry, "name", str, place)
        for i, entry in enumerate(parts["categories"])
        for place in [f"{path.name}, categories[{i}]"]
    }
    for i, note in enumerate(parts["annotations"]):
        place = f"{path.name}, annotations[{i}]"
        image_id = tables.member(note, "image_id", int, place)
        category = tables.member(note, "category_id", int, place)
        if image_id not in images or category not in names:
            key_name = "category_id" if image_id in images else "image_id"
            raise SourceError(
                f"{place}: key {key_name} names an entry that the file does not have",
                hint="download the file again; it may be cut off",
            )
        image, where = images[image_id]
        where = f"{path.name}, {where}"
        box = tables.member(note, "bbox", list, place)
        if len(box) != 4 or not all(isinstance(number, int | float) for number in box):
            raise SourceError(
                f"{place}: key bbox is not a list of four numbers (x, y, width, height)",
                hint="use the file as published",
            )
        yield _row(
            place,
            Path(tables.member(image, "file_name", str, where)).stem,
            names[category],
            tables.member(note, "label_text", str, place),
            tables.member(image, "path", str, where),
            (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            (tables.member(image, "height", int, where), tables.member(image, "width", int, where)),
            image.get("split", note.get("split")),
        )


def _row(
    place: str, dicom_id: str, category: str, text: str, path: str,
    box: tuple[float, float, float, float], size: tuple[int, int], split: str | None,
) -> _Row:  # fmt: skip
    """Check words, phrase and size; the box is looked at later."""
    tables.choice(category, dict.fromkeys(CATEGORIES), "category_name", place)
    if min(size) < 1:
        raise SourceError(
            f"{place}: expected image_width and image_height above 0, found {size[1]} x {size[0]}",
            hint="use the file as published",
        )
    if not text.strip():
        raise SourceError(
            f"{place}: expected a phrase in label_text, found none",
            hint="use the file as published",
        )
    word = "" if split is None else tables.choice(split, _SPLITS, "split", place)
    return _Row(place, dicom_id, category, " ".join(text.split()), path, box, size, word)


def _group(
    rows: list[_Row], stored: StoredImages, left_out: Counter[str]
) -> list[tuple[list[_Row], StoredImage]]:
    """Return the usable rows of each phrase with the image, in order of first appearance."""
    groups: dict[tuple[str, str, str], tuple[list[_Row], StoredImage]] = {}
    for row in rows:
        image = stored.image(row.dicom_id)
        why = _fault(row, image, stored)
        if image is None or why is not None:
            left_out[why or "image is not stored"] += 1
            continue
        group, _ = groups.setdefault((row.dicom_id, row.category, row.text), ([], image))
        if any(other.box == row.box for other in group):
            left_out["box repeats another of its phrase"] += 1
        else:
            group.append(row)
    return list(groups.values())


def _fault(row: _Row, image: StoredImage | None, stored: StoredImages) -> str | None:
    """Return why a row cannot be used, or None."""
    match = _PATH.search(row.path)
    if match is None or match[3] != row.dicom_id:
        raise SourceError(
            f"{row.place}: expected column path of the form files/pNN/pSUBJECT/sSTUDY/DICOM.jpg "
            "with the row's own dicom_id, found another",
            hint="use the file as published; do not edit its paths",
        )
    if image is None:
        return "image is not stored"
    if stored.keyring.patient(match[1]) != image.patient_key:
        return "image belongs to another patient in the archive"
    if not same_shape(row.size, image.fit):
        return "stored image has another shape than image_width x image_height"
    # A box has area even after it is cut at the image's edges.
    inside = to_stored_square([_corners(row.box)], image.fit, size=row.size)
    return None if areas(inside)[0] > 0 else "box without area in the image"


def _corners(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x, y, w, h = box
    return x, y, x + w, y + h


def _phrase(group: list[_Row], image: StoredImage, stored: StoredImages) -> Phrase:
    boxes = as_boxes([_corners(row.box) for row in group])
    row = group[0]
    return Phrase(
        sample=key(NAME, f"{image.image_key}/{row.category}/{row.text}"),
        patient_key=image.patient_key,
        image_key=image.image_key,
        split=row.split,
        pretrain_split=stored.split_of[image.patient_key],
        category=row.category,
        text=row.text,
        boxes=boxes,
        stored_boxes=to_stored_square(boxes, image.fit, size=row.size),
    )


def _resized(row: _Row, image: StoredImage) -> bool:
    return row.size != (image.fit.native_rows, image.fit.native_cols)


def _split(phrases: list[Phrase], source: str) -> list[Phrase]:
    """Return the phrases with their splits; by patient, test and validate are drawn by hash."""
    if source == "released":
        return phrases
    if source == "archive":
        return [replace(phrase, split=phrase.pretrain_split) for phrase in phrases]
    patients = {phrase.patient_key for phrase in phrases}
    test = lowest(patients, TEST_SHARE, "MS-CXR test")
    validate = lowest(patients - test, VALIDATE_SHARE / (1 - TEST_SHARE), "MS-CXR validate")
    names = dict.fromkeys(patients, "train") | dict.fromkeys(validate, "validate")
    names |= dict.fromkeys(test, "test")
    return [replace(phrase, split=names[phrase.patient_key]) for phrase in phrases]
