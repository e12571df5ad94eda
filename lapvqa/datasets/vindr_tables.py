"""The annotation tables of VinDr-CXR: PhysioNet's or Kaggle's form, and what each row says.

PhysioNet's training table has a reader in each row (rad_id), its test table has none. Kaggle's
train.csv adds class_id, and its boxes are PhysioNet's cut to whole pixels. Names are compared
without case: the releases write "Lung Opacity" and "Lung cavity", "Other disease" and "diseases".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lapvqa.datasets import tables
from lapvqa.errors import SourceError

CLASSES = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)
"""The 14 findings with boxes in the order of Kaggle's class_id; 14 is "No finding"."""

OTHER_LOCAL = (
    "Clavicle fracture",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Rib fracture",
)
"""Local findings of PhysioNet's release that Kaggle's classes lack."""

NO_FINDING = "No finding"
GLOBAL = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other disease", "Other diseases")
"""Impressions of the whole image: they have no box."""

Form = Literal["physionet", "kaggle"]
PHYSIONET: Final = "physionet"
KAGGLE: Final = "kaggle"
Others = Literal["fold", "ignore"]

_PLACES = ("annotations", "")
_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_ONE_PIXEL = (0.0, 0.0, 1.0, 1.0)
"""Kaggle's way to give "No finding" a box."""

_NAMES = {name.casefold(): name for name in (*CLASSES, *OTHER_LOCAL, *GLOBAL, NO_FINDING)}

Mark = tuple[int, str, tuple[float, ...]]
"""Class, reader (empty for a consensus), box."""


@dataclass(frozen=True)
class Marks:
    """One table: boxes by image, where each image stands first, who read it; rows left out."""

    boxes: Mapping[str, list[Mark]]
    places: dict[str, str]
    readers: Mapping[str, set[str]]
    read: int
    left_out: Mapping[str, int]

    def of(self, image_id: str) -> list[Mark]:
        """Return an image's boxes; none if nobody drew one."""
        return self.boxes.get(image_id, [])


def recognise(folder: Path) -> Form:
    """Return the form of ``folder`` by its files and columns; raises SourceError."""
    if tables.find_optional(folder, ["annotations_train.csv"], below=_PLACES):
        return PHYSIONET
    kaggle = tables.find_optional(folder, ["train.csv"])
    if kaggle is None:
        # Says what was looked for, and where it lies deeper.
        tables.find(folder, ["annotations_train.csv", "train.csv"], below=_PLACES)
    elif "class_id" not in tables.read_header(kaggle):
        raise SourceError(
            "train.csv: expected the column 'class_id' of Kaggle's VinBigData train.csv, found "
            + ", ".join(map(repr, tables.read_header(kaggle))),
            hint="use Kaggle's train.csv, or PhysioNet's annotations/annotations_train.csv",
        )
    return KAGGLE


def read_marks(
    folder: Path, form: Form, part: Literal["train", "test"], *, others: Others
) -> Marks:
    """Read one annotation table; raises SourceError for an unknown class or a bad number."""
    name = "train.csv" if form == KAGGLE else f"annotations_{part}.csv"
    path = tables.find(folder, [name], below=_PLACES)
    columns = ["image_id", "class_name", *_CORNERS]
    columns += ["rad_id"] if part == "train" else []
    columns += ["class_id"] if form == KAGGLE else []
    boxes: dict[str, list[Mark]] = {}
    places: dict[str, str] = {}
    readers: dict[str, set[str]] = {}
    left_out: Counter[str] = Counter()
    read = 0
    for line, row in tables.read_rows(path, columns):
        read += 1
        place = f"{path.name}, line {line}"
        places.setdefault(row["image_id"], place)
        reader = row.get("rad_id", "")
        readers.setdefault(row["image_id"], set()).add(reader)
        mark = _read_row(row, place, others)
        if isinstance(mark, str):
            left_out[mark] += 1
        else:
            number, box = mark
            boxes.setdefault(row["image_id"], []).append((number, reader, box))
    return Marks(boxes, places, readers, read, left_out)


def read_image_ids(folder: Path, form: Form, part: Literal["train", "test"]) -> dict[str, str]:
    """Return image id -> place of PhysioNet's image_labels table, where it is there.

    It lists images that have no row among the annotations.
    """
    if form == KAGGLE:
        return {}
    path = tables.find_optional(folder, [f"image_labels_{part}.csv"], below=_PLACES)
    if path is None:
        return {}
    places: dict[str, str] = {}
    for line, row in tables.read_rows(path, ("image_id",)):
        places.setdefault(row["image_id"], f"{path.name}, line {line}")
    return places


def _read_row(
    row: Mapping[str, str], place: str, others: Others
) -> tuple[int, tuple[float, ...]] | str:
    """Return (class, box), or why the row gives none."""
    name = tables.choice(row["class_name"].casefold(), _NAMES, "class_name", place)
    if "class_id" in row:
        _check_class_id(row["class_id"], name, place)
    corners = [row[corner] for corner in _CORNERS]
    if not any(corners):
        if name == NO_FINDING:
            return "No finding, no box"
        return "global finding, no box" if name in GLOBAL else "local finding without a box"
    box = tuple(tables.number(row[corner], corner, place) for corner in _CORNERS)
    if name == NO_FINDING:
        if box != _ONE_PIXEL:
            raise SourceError(
                f"{place}: class_name is No finding, expected no box in x_min to y_max, found one",
                hint="use the file as published",
            )
        return "No finding, no box"
    if name in GLOBAL:
        return "global finding with a box"
    if box[2] <= box[0] or box[3] <= box[1]:
        return "box without area"
    if name in OTHER_LOCAL:
        if others == "ignore":
            return "local finding outside the 14 classes"
        name = "Other lesion"
    return CLASSES.index(name), box


def _check_class_id(text: str, name: str, place: str) -> None:
    expected = (*CLASSES, NO_FINDING).index(name) if name in (*CLASSES, NO_FINDING) else None
    if tables.whole(text, "class_id", place) != expected:
        raise SourceError(
            f"{place}: column class_id is {text!r}, expected "
            + (f"{expected} for {name}" if expected is not None else f"no class {name}"),
            hint="use Kaggle's train.csv as published",
        )
