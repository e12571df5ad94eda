"""Read CheXpert-v1.0 or CheXpert-v1.0-small (Irvin et al., AAAI 2019).

    <folder>/train.csv  <folder>/valid.csv  <folder>/train/patient00001/study1/view1_frontal.jpg
    <folder>/test_labels.csv  <folder>/test/...     as released with CheXlocalize (668 images)
    <folder>/val_labels.csv   <folder>/val/...      CheXlocalize's name for valid.csv

By default train.csv gives train and validate (carved by patient), valid.csv is the test: its
labels come from three radiologists, the others from a labeler. Judged on the official test set,
valid.csv is what choices are made on, and all of train.csv trains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

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
_PARTS = ("train", "valid", "val", "test")


def read_chexpert(
    folder: Path,
    *,
    uncertain: Uncertain,
    views: Sequence[str] = ("Frontal",),
    test: TestSet = "valid",
) -> ProbeDataset:
    """Read the csv files of ``folder``.

    ``uncertain``: what -1 becomes in training: 0, 1, not known, or (mixed) 1 for Atelectasis and
    Edema and 0 for the rest; in validation and test by people it is not known. Blank (no mention)
    is 0. ``test``: the official validation set or the official test set. Raises SourceError,
    SplitLeakError.
    """
    left_out: Counter[str] = Counter()
    training = _read(find(folder, [TRAIN_FILE]), views, uncertain, left_out)
    valid = _read(find(folder, VALID_FILES), views, "ignore", left_out)
    if test == "valid":
        train, validate = carve_validation(training)
        return ProbeDataset(NAME, LABELS, train, validate, valid, left_out)
    official = _read(find(folder, TEST_FILES), views, "ignore", left_out)
    return ProbeDataset(NAME, LABELS, training, valid, official, left_out)


def _read(path: Path, views: Sequence[str], uncertain: Uncertain, left_out: Counter[str]) -> Rows:
    images, patients, places, targets = [], [], [], []
    for line, row in read_rows(path, ("Path", *LABELS), optional=(_VIEW,)):
        place = f"{path.name}, line {line}"
        image, patient = _locate(row["Path"], place)
        view = _view(row.get(_VIEW), image, place)
        if view not in views:
            left_out[f"{view.lower()} view in {path.name}"] += 1
            continue
        images.append(image)
        patients.append(key(NAME, patient))
        places.append(place)
        targets.append([_target(row[label], label, place, uncertain) for label in LABELS])
    refuse_duplicates(path.name, images)
    return Rows(
        images=tuple(images),
        samples=tuple(key(NAME, image) for image in images),
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


def _locate(path: str, place: str) -> tuple[str, str]:
    """Return (path below the folder, patient); what stands before train/ or valid/ is dropped.

    The csv's paths begin with the name of the dataset's folder, whatever yours is called.
    """
    parts = PurePosixPath(path).parts
    at = next((i for i, part in enumerate(parts) if part.startswith("patient")), 0)
    if at == 0 or parts[at - 1] not in _PARTS or ".." in parts:
        raise SourceError(
            f"{place}: column Path is not of the form CheXpert-v1.0/train/patientN/studyN/file",
            hint="use the csv file as published; do not edit its paths",
        )
    return "/".join(parts[at - 1 :]), parts[at]


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
