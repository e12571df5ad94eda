"""The CheXpert-v1.0-small copy: JPEG files of about 390 x 320, train.csv, valid.csv.

As in the original, Path begins with the root folder's own name, the training labels are 1, 0, -1
or blank, and the validation labels, given by people, only 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lapvqa.synth.anatomy import Anatomy, sample_anatomy
from lapvqa.synth.findings import (
    ATELECTASIS,
    CARDIOMEGALY,
    CHEXPERT_ORDER,
    CONSOLIDATION,
    EDEMA,
    EFFUSION,
    PNEUMOTHORAX,
    chexpert_labels,
)
from lapvqa.synth.patient_history import Findings, sample_history, stream
from lapvqa.synth.radiograph import Exposure
from lapvqa.synth.shots import JpegForm, Shot, pick, write_csv

FOLDER = "CheXpert-v1.0-small"

_DATASET = 2
_FIRST_VALID = 64_541
_LATERAL = 0.06
_SIZE = 390
_OPAQUE = (ATELECTASIS, CONSOLIDATION, EDEMA)


@dataclass(frozen=True)
class ChexpertFile:
    """One JPEG; ``path`` begins with the dataset's folder."""

    path: str
    part: str
    """train or valid."""
    view: str
    anatomy: Anatomy
    findings: Findings
    negated: tuple[str, ...]
    aspect: float
    key: tuple[int, ...]


def plan(seed: int, *, train: int, valid: int) -> list[ChexpertFile]:
    """Return about ``train`` training images and exactly ``valid`` validation images."""
    images: list[ChexpertFile] = []
    patient = 0
    while len(images) < train:
        patient += 1
        images += _patient(seed, patient, "train", train - len(images))
    for number in range(valid):
        images += _patient(seed, _FIRST_VALID + number, "valid", 1)
    return images


def _patient(seed: int, patient: int, part: str, most: int) -> list[ChexpertFile]:
    """Return one patient's images, ``most`` at most."""
    rng = stream(seed, _DATASET, patient)
    anatomy = sample_anatomy(rng)
    count = 1 if part == "valid" else int(rng.integers(1, 4))
    images: list[ChexpertFile] = []
    for order, findings in enumerate(sample_history(rng, count), start=1):
        lateral = part == "train" and rng.random() < _LATERAL
        frontal = "PA" if rng.random() < 0.4 else "AP"
        negated = _ruled_out(rng, findings)
        for place, view in enumerate([frontal, "LATERAL"][: 1 + lateral], start=1):
            name = f"view{place}_{'lateral' if view == 'LATERAL' else 'frontal'}.jpg"
            path = f"{FOLDER}/{part}/patient{patient:05d}/study{order}/{name}"
            aspect = pick(rng, (0.82, 0.9, 1.0, 1.0, 1.1, 1.22))
            key = (seed, _DATASET, patient, order, 10 + place)
            images.append(ChexpertFile(path, part, view, anatomy, findings, negated, aspect, key))
    return images[:most]


def _ruled_out(rng: np.random.Generator, findings: Findings) -> tuple[str, ...]:
    present = {finding.kind for finding in findings}
    kinds = (PNEUMOTHORAX, EFFUSION, CONSOLIDATION, EDEMA, CARDIOMEGALY)
    return tuple(kind for kind in kinds if kind not in present and rng.random() < 0.4)


def shots(images: list[ChexpertFile]) -> list[Shot]:
    """Return the images to take."""
    return [
        Shot(
            image.path,
            Exposure(image.anatomy, image.findings, image.view, _SIZE, image.aspect, image.key),
            JpegForm(),
        )
        for image in images
    ]


def _labels(image: ChexpertFile) -> list[float | None]:
    """Return the 14 labels in CheXpert's own order."""
    values = chexpert_labels(image.findings, image.negated)
    if any(finding.kind in _OPAQUE for finding in image.findings):
        values["Lung Opacity"] = 1.0
    if image.part == "valid":
        # People looked at the image: no blanks, and what the image shows is not uncertain.
        values = {name: 1.0 if value in (1.0, -1.0) else 0.0 for name, value in values.items()}
    return [values[name] for name in CHEXPERT_ORDER]


def write_tables(root: Path, images: list[ChexpertFile]) -> None:
    """Write train.csv and valid.csv."""
    header = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_ORDER)
    for part in ("train", "valid"):
        rows = [
            (
                image.path,
                "Female" if image.anatomy.female else "Male",
                image.anatomy.age,
                "Lateral" if image.view == "LATERAL" else "Frontal",
                None if image.view == "LATERAL" else image.view,
                *_labels(image),
            )
            for image in images
            if image.part == part
        ]
        write_csv(root / FOLDER / f"{part}.csv", header, rows)
