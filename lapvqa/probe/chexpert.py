"""Read CheXpert-v1.0 or CheXpert-v1.0-small (Irvin et al., AAAI 2019).

    <folder>/train.csv  <folder>/valid.csv  <folder>/train/patient00001/study1/view1_frontal.jpg

The official train.csv gives train and validate (carved by patient), valid.csv is the test: its
labels come from three radiologists, the others from a labeler.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from lapvqa.errors import SourceError
from lapvqa.probe.dataset import ProbeDataset, Rows, carve_validation, key, refuse_duplicates
from lapvqa.probe.tables import read_rows

NAME = "CheXpert"
LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five competition tasks in their usual order."""

Uncertain = Literal["zeros", "ones", "ignore"]
UNCERTAIN_TARGET: dict[Uncertain, int] = {"zeros": 0, "ones": 1, "ignore": -1}
_VIEWS = ("Frontal", "Lateral")


def read_chexpert(
    folder: Path, *, uncertain: Uncertain, views: Sequence[str] = ("Frontal",)
) -> ProbeDataset:
    """Read both csv files of ``folder``.

    ``uncertain``: what -1 becomes in training (0, 1 or not known); in the test it is not known.
    Blank (no mention) is 0. Raises SourceError, SplitLeakError.
    """
    train, validate = carve_validation(_read(folder / "train.csv", views, uncertain))
    test = _read(folder / "valid.csv", views, "ignore")
    return ProbeDataset(NAME, LABELS, train=train, validate=validate, test=test)


def _read(path: Path, views: Sequence[str], uncertain: Uncertain) -> Rows:
    images, patients, places, targets = [], [], [], []
    for line, row in read_rows(path, ("Path", "Frontal/Lateral", *LABELS)):
        place = f"{path.name}, line {line}"
        if _view(row["Frontal/Lateral"], place) not in views:
            continue
        image, patient = _locate(row["Path"], place)
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


def _view(text: str, place: str) -> str:
    if text not in _VIEWS:
        raise SourceError(
            f"{place}: column Frontal/Lateral is {text!r}, expected Frontal or Lateral",
            hint="use the csv file as published",
        )
    return text


def _locate(path: str, place: str) -> tuple[str, str]:
    """Return (path below the folder, patient); the csv's path begins with the folder's name."""
    parts = PurePosixPath(path).parts[1:]
    patient = next((part for part in parts if part.startswith("patient")), None)
    if patient is None or ".." in parts:
        raise SourceError(
            f"{place}: column Path is not of the form CheXpert-v1.0/train/patientN/studyN/file",
            hint="use the csv file as published; do not edit its paths",
        )
    return "/".join(parts), patient


def _target(text: str, label: str, place: str, uncertain: Uncertain) -> int:
    """Map blank, 1.0, 0.0, -1.0 to a target."""
    if not text:
        return 0
    value = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1}.get(text)
    if value is None:
        raise SourceError(
            f"{place}: column {label} is {text!r}, expected 1.0, 0.0, -1.0 or blank",
            hint="use the csv file as published",
        )
    return UNCERTAIN_TARGET[uncertain] if value == -1 else value
