"""Read CheXpert-v1.0 or CheXpert-v1.0-small (Irvin et al., AAAI 2019).

    <folder>/train.csv  <folder>/valid.csv  <folder>/train/patient00001/study1/view1_frontal.jpg
    <folder>/test_labels.csv  <folder>/test/...     as released with CheXlocalize (668 images)
    <folder>/val_labels.csv   <folder>/val/...      CheXlocalize's name for valid.csv

At full size the publisher's archives unpack to four folders: "CheXpert-v1.0 batch 1 (validate &
csv)" has the csv files and valid/patient64541/..., "batch 2 (train 1)" to "batch 4 (train 3)" have
patient00001/... without a train/ above. Set the path to the folder that holds all four.

An image is found by split, patient, study and file name, wherever it lies and whatever it has been
converted to: CheXlocalize's val_labels.csv says valid/ of images that lie in val/.

By default train.csv gives train and validate (carved by patient), valid.csv is the test: its
labels come from three radiologists, the others from a labeler. Judged on the official test set,
valid.csv is what choices are made on, and all of train.csv trains.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from lapvqa.datasets.image_paths import image_files
from lapvqa.datasets.labelled import ProbeDataset, Rows, carve_validation, refuse_duplicates
from lapvqa.datasets.splits import key
from lapvqa.datasets.tables import choice, find, read_rows
from lapvqa.errors import SourceError

NAME = "CheXpert"
LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five competition tasks in their usual order."""

Uncertain = Literal["zeros", "ones", "ignore", "mixed"]
_ONES_IF_MIXED = ("Atelectasis", "Edema")
"""A usual mix: these as ones, the other three as zeros."""

TestSet = Literal["valid", "test"]
TRAIN_FILE = "train.csv"
VALID_FILES = ("valid.csv", "val_labels.csv", "val.csv")
TEST_FILES = ("test_labels.csv", "test.csv")

_VIEW = "Frontal/Lateral"
_VIEWS = ("Frontal", "Lateral")
_VALUES = {"": 0, "1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1}
_PARTS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
_BATCH_1 = re.compile(r"batch 1\b")
_PLACES = ("", "CheXpert", "chexlocalize/CheXpert")
"""Where the csv files lie, beside batch 1: CheXlocalize unpacks to chexlocalize/CheXpert."""

_Place = tuple[str, str]
"""Split (empty if no folder says it) and patient/study/file without suffix."""


def read_chexpert(
    folder: Path,
    files: Iterable[str],
    *,
    uncertain: Uncertain,
    views: Sequence[str] = ("Frontal",),
    test: TestSet = "valid",
) -> ProbeDataset:
    """Read the csv files of ``folder``; ``files`` are the paths below it.

    ``uncertain``: what -1 becomes in training: 0, 1, not known, or (mixed) 1 for Atelectasis and
    Edema and 0 for the rest; in validation and test by people it is not known. Blank (no mention)
    is 0. ``test``: the official validation set or the official test set. Raises SourceError,
    SplitLeakError.
    """
    batches = sorted(path.name for path in folder.glob("*/") if _BATCH_1.search(path.name))
    places = (*_PLACES, *batches)
    found = _find_images(files)
    left_out: Counter[str] = Counter()

    def rows(names: Sequence[str], policy: Uncertain) -> Rows:
        return _read(find(folder, names, below=places), found, views, policy, left_out)

    training = rows([TRAIN_FILE], uncertain)
    _refuse_one_batch(folder, training, found)
    valid = rows(VALID_FILES, "ignore")
    if test == "valid":
        train, validate = carve_validation(training)
        return ProbeDataset(NAME, LABELS, train, validate, valid, left_out)
    return ProbeDataset(NAME, LABELS, training, valid, rows(TEST_FILES, "ignore"), left_out)


def _find_images(files: Iterable[str]) -> dict[_Place, str]:
    """Return where each image lies; the published JPEG goes before what it was converted to."""
    found: dict[_Place, str] = {}
    for path in image_files(files, published=".jpg"):
        at = _patient_at(path)
        if at is not None:
            part = _PARTS.get(path.parts[at - 1], "") if at else ""
            found.setdefault((part, _name(path, at)), str(path))
    return found


def _patient_at(path: PurePosixPath) -> int | None:
    return next((i for i, part in enumerate(path.parts[:-1]) if part.startswith("patient")), None)


def _name(path: PurePosixPath, at: int) -> str:
    return "/".join(path.with_suffix("").parts[at:])


def _refuse_one_batch(folder: Path, training: Rows, found: Mapping[_Place, str]) -> None:
    if _BATCH_1.search(folder.name) and not set(training.images) & set(found.values()):
        raise SourceError(
            f"{NAME}: expected the training images beside {TRAIN_FILE}, found none: this is the "
            "folder of one batch",
            hint="set the dataset's path to the folder above, which holds all four batches",
        )


def _read(
    path: Path,
    found: Mapping[_Place, str],
    views: Sequence[str],
    uncertain: Uncertain,
    left_out: Counter[str],
) -> Rows:
    images, listed, patients, places, targets = [], [], [], [], []
    for line, row in read_rows(path, ("Path", *LABELS), optional=(_VIEW,)):
        place = f"{path.name}, line {line}"
        image = _locate(row["Path"], place)
        view = _view(row.get(_VIEW), str(image), place)
        if view not in views:
            left_out[f"{view.lower()} view in {path.name}"] += 1
            continue
        part, name = _PARTS[image.parts[0]], _name(image, 1)
        images.append(found.get((part, name)) or found.get(("", name)) or str(image))
        listed.append(str(image))
        patients.append(key(NAME, image.parts[1]))
        places.append(place)
        targets.append([_target(row[label], label, place, uncertain) for label in LABELS])
    refuse_duplicates(path.name, listed)
    return Rows(
        images=tuple(images),
        samples=tuple(key(NAME, image) for image in listed),
        patients=tuple(patients),
        places=tuple(places),
        targets=np.array(targets, dtype=np.int8).reshape(-1, len(LABELS)),
    )


def _view(text: str | None, image: str, place: str) -> str:
    """Return the view; the labels of the official test have no such column, the names tell it."""
    if text is None:
        name = image.rsplit("/", 1)[-1]
        text = next((view for view in _VIEWS if view.lower() in name), "")
        if not text:
            raise SourceError(
                f"{place}: expected frontal or lateral in the file name of column Path, because "
                f"there is no column {_VIEW}; found neither",
                hint="use the csv file as published",
            )
    return choice(text, {view: view for view in _VIEWS}, _VIEW, place)


def _locate(path: str, place: str) -> PurePosixPath:
    """Return the path from train/ or valid/ on; the patient is its second part.

    The csv's paths begin with the name of the dataset's folder, whatever yours is called.
    """
    listed = PurePosixPath(path)
    at = _patient_at(listed)
    if not at or listed.parts[at - 1] not in _PARTS or ".." in listed.parts:
        raise SourceError(
            f"{place}: column Path is not of the form CheXpert-v1.0/train/patientN/studyN/file",
            hint="use the csv file as published; do not edit its paths",
        )
    return PurePosixPath(*listed.parts[at - 1 :])


def _target(text: str, label: str, place: str, uncertain: Uncertain) -> int:
    """Map blank, 1.0, 0.0, -1.0 to a target."""
    if text not in _VALUES:
        raise SourceError(
            f"{place}: column {label} is {text!r}, expected 1.0, 0.0, -1.0 or blank",
            hint="use the csv file as published",
        )
    value = _VALUES[text]
    return uncertain_target(label, uncertain) if value == -1 else value


def uncertain_target(label: str, uncertain: Uncertain) -> int:
    """Return what -1 becomes for ``label``: 0, 1, or -1 for not known."""
    if uncertain == "mixed":
        return int(label in _ONES_IF_MIXED)
    return {"zeros": 0, "ones": 1, "ignore": -1}[uncertain]
