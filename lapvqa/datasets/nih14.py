"""Read NIH ChestX-ray14 (Wang et al., CVPR 2017; labels as of 2020).

    <folder>/Data_Entry_2017_v2020.csv  train_val_list.txt  test_list.txt
    <folder>/images/*.png  or  <folder>/images_001/images/*.png ... images_012/
    or anywhere below it, converted or not

The official lists are disjoint by patient; validate is carved from train_val by patient. Age, sex,
view and boxes, which the dataset also brings, are not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from lapvqa.datasets.image_paths import image_files
from lapvqa.datasets.labelled import ProbeDataset, Rows, carve_validation, refuse_duplicates
from lapvqa.datasets.splits import key
from lapvqa.datasets.tables import find, nearest, read_lines, read_rows
from lapvqa.errors import SourceError

NAME = "NIH ChestX-ray14"
LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""The fourteen findings in the published order."""

NO_FINDING = "No Finding"
ENTRY_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
"""The revised file and the first one (a trailing comma in each line, ages up to 414)."""

TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
_IMAGE, _FINDINGS, _PATIENT = "Image Index", "Finding Labels", "Patient ID"


def read_nih14(folder: Path, files: Iterable[str]) -> ProbeDataset:
    """Read the csv and the two lists of ``folder``; ``files`` are the paths below it.

    A finding that is not named is 0. Images in neither list are not used. Raises SourceError,
    SplitLeakError.
    """
    entries = _read(find(folder, ENTRY_FILES), files)
    listed = {name: read_lines(folder / name) for name in (TRAIN_LIST, TEST_LIST)}
    for name, lines in listed.items():
        refuse_duplicates(name, lines)
    train, validate = carve_validation(_pick(entries, listed[TRAIN_LIST], TRAIN_LIST))
    test = _pick(entries, listed[TEST_LIST], TEST_LIST)
    unlisted = len(set(entries.samples).difference(*listed.values()))
    left_out = {"image in neither list": unlisted}
    return ProbeDataset(NAME, LABELS, train, validate, test, left_out)


def _read(path: Path, files: Iterable[str]) -> Rows:
    """Read all entries; of images that lie there twice the first path counts, PNG before copies."""
    path_of: dict[str, str] = {}
    for image in image_files(files, published=".png"):
        path_of.setdefault(image.stem, str(image))
    names, patients, places, targets = [], [], [], []
    # Two header names contain a comma, so the header has more fields than it means to; the
    # columns read here stand before those.
    for line, row in read_rows(path, (_IMAGE, _FINDINGS, _PATIENT)):
        place = f"{path.name}, line {line}"
        names.append(row[_IMAGE])
        patients.append(key(NAME, row[_PATIENT]))
        places.append(place)
        targets.append(_targets(row[_FINDINGS], place))
    refuse_duplicates(path.name, names)
    return Rows(
        images=tuple(path_of.get(PurePosixPath(name).stem, name) for name in names),
        samples=tuple(names),
        patients=tuple(patients),
        places=tuple(places),
        targets=np.array(targets, dtype=np.int8).reshape(-1, len(LABELS)),
    )


def _targets(text: str, place: str) -> list[int]:
    findings = set(text.split("|"))  # exact names: "Mass" must not match within another
    unknown = sorted(findings - {*LABELS, NO_FINDING})
    if unknown:
        raise SourceError(
            f"{place}: column {_FINDINGS} names {unknown[0]!r}, expected findings of "
            f"ChestX-ray14 separated by |; {nearest(unknown[0], (*LABELS, NO_FINDING))}",
            hint="use the csv file as published",
        )
    if NO_FINDING in findings and len(findings) > 1:
        raise SourceError(
            f"{place}: column {_FINDINGS} names No Finding beside a finding",
            hint="use the csv file as published",
        )
    return [int(label in findings) for label in LABELS]


def _pick(entries: Rows, names: list[str], file: str) -> Rows:
    """Return the entries that a list names, in the csv's order, with keys instead of names."""
    wanted = set(names)
    missing = wanted.difference(entries.samples)
    if missing:
        first = next(line for line, name in enumerate(names, start=1) if name in missing)
        raise SourceError(
            f"{file}: {len(missing)} images are not in the Data_Entry csv; the first is entry "
            f"{first}",
            hint="take list and csv from the same release of the dataset",
        )
    rows = entries.select(np.array([name in wanted for name in entries.samples], dtype=bool))
    return Rows(
        images=rows.images,
        samples=tuple(key(NAME, name) for name in rows.samples),
        patients=rows.patients,
        places=rows.places,
        targets=rows.targets,
    )
