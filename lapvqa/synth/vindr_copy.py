"""The VinDr-CXR copy (PhysioNet 1.0.0): .dicom files, three readers per training image.

Readers draw around the truth with a wobble, sometimes one misses it; the test set has one
consensus. As in the original: image_labels_test.csv says "Other disease", the training table
"Other diseases"; no view, no patient in the headers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless

from lapvqa.synth.anatomy import Anatomy, sample_anatomy
from lapvqa.synth.encode import Encoding, uid_of
from lapvqa.synth.findings import DEVICE, VINDR_OF
from lapvqa.synth.layers import Box
from lapvqa.synth.patient_history import Findings, sample_findings, stream
from lapvqa.synth.radiograph import Exposure
from lapvqa.synth.shots import DicomForm, Shot, TakenImage, pick, write_csv

FOLDER = "vindr-cxr"

_DATASET = 4
_READERS = 17
_SIZE = 512
"""Pixels of the longer side; the originals have 2,000 to 3,000."""
_MISSED = 0.08
_LOCAL = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
)  # fmt: skip
_GLOBAL = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis")
_TRAIN_LABELS = (*_LOCAL, *_GLOBAL, "Other diseases", "No finding")
_TEST_LABELS = (*_LOCAL, *_GLOBAL, "Other disease", "No finding")

Marked = list[tuple[str, Box]]


@dataclass(frozen=True)
class VindrFile:
    """One .dicom file."""

    image_id: str
    part: str
    """train or test."""
    anatomy: Anatomy
    findings: Findings
    readers: tuple[str, ...]
    encoding: Encoding
    aspect: float
    key: tuple[int, ...]

    @property
    def path(self) -> str:
        """Path relative to the demo's root."""
        return f"{FOLDER}/{self.part}/{self.image_id}.dicom"


def plan(seed: int, *, train: int, test: int) -> list[VindrFile]:
    """Return the images, every one of another patient."""
    images = []
    for number in range(train + test):
        key = (seed, _DATASET, number)
        rng = stream(*key)
        readers = rng.choice(_READERS, 3, replace=False) + 1
        syntax = JPEG2000Lossless if rng.random() < 0.35 else ImplicitVRLittleEndian
        encoding = Encoding(
            syntax=str(syntax),
            bits=int(pick(rng, (12, 12, 12, 14, 16))),
            inverted=bool(rng.random() < 0.18),
            voi="window" if rng.random() < 0.95 else "none",
            rescale=(1.0, 0.0) if rng.random() < 0.7 else None,
        )
        images.append(
            VindrFile(
                image_id=hashlib.md5(f"vindr/{key}".encode(), usedforsecurity=False).hexdigest(),
                part="train" if number < train else "test",
                anatomy=sample_anatomy(rng),
                findings=sample_findings(rng),
                readers=tuple(f"R{reader}" for reader in readers),
                encoding=encoding,
                aspect=pick(rng, (0.82, 0.9, 1.0)),
                key=key,
            )
        )
    return images


def shots(images: list[VindrFile]) -> list[Shot]:
    """Return the images to take."""
    return [
        Shot(
            image.path,
            Exposure(image.anatomy, image.findings, "PA", _SIZE, image.aspect, (*image.key, 10)),
            DicomForm(
                (("SOPInstanceUID", uid_of("vindr", image.image_id)), ("Modality", "DX")),
                image.encoding,
            ),
        )
        for image in images
    ]


def write_tables(root: Path, images: list[VindrFile], drawn: Mapping[str, TakenImage]) -> None:
    """Write the four annotation tables."""
    folder = root / FOLDER / "annotations"
    boxes = ("class_name", "x_min", "y_min", "x_max", "y_max")
    train_boxes: list[Sequence[object]] = []
    train_labels: list[Sequence[object]] = []
    test_boxes: list[Sequence[object]] = []
    test_labels: list[Sequence[object]] = []
    for image in images:
        truth = _truth(image, drawn[image.path])
        if image.part == "test":
            test_boxes += [(image.image_id, *row) for row in _rows(truth)]
            test_labels.append((image.image_id, *_flags(truth, _TEST_LABELS)))
            continue
        for reader, marked in _read(image, truth, drawn[image.path]):
            train_boxes += [(image.image_id, reader, *row) for row in _rows(marked)]
            train_labels.append((image.image_id, reader, *_flags(marked, _TRAIN_LABELS)))
    write_csv(folder / "annotations_train.csv", ("image_id", "rad_id", *boxes), train_boxes)
    write_csv(folder / "annotations_test.csv", ("image_id", *boxes), test_boxes)
    write_csv(
        folder / "image_labels_train.csv", ("image_id", "rad_id", *_TRAIN_LABELS), train_labels
    )
    write_csv(folder / "image_labels_test.csv", ("image_id", *_TEST_LABELS), test_labels)


def _truth(image: VindrFile, drawn: TakenImage) -> Marked:
    return [
        (VINDR_OF[finding.kind], box)
        for finding, boxes in zip(image.findings, drawn.boxes, strict=True)
        if finding.kind != DEVICE
        for box in boxes
    ]


def _read(image: VindrFile, truth: Marked, drawn: TakenImage) -> list[tuple[str, Marked]]:
    """Return what each reader marks; somebody marks something on every abnormal image."""
    rng = stream(*image.key, 20)
    readings = []
    for reader in image.readers:
        seen = [mark for mark in truth if rng.random() >= _MISSED] or truth[:1]
        readings.append((reader, [(name, _wobble(rng, box, drawn)) for name, box in seen]))
    return readings


def _wobble(rng: np.random.Generator, box: Box, drawn: TakenImage) -> Box:
    x0, y0, x1, y1 = box
    dx, dy = rng.normal(0, 0.05 * (x1 - x0), 2), rng.normal(0, 0.05 * (y1 - y0), 2)
    left, right = np.clip([x0 + dx[0], x1 + dx[1]], 0, drawn.cols)
    top, bottom = np.clip([y0 + dy[0], y1 + dy[1]], 0, drawn.rows)
    return float(left), float(top), float(right), float(bottom)


def _rows(marked: Marked) -> list[Sequence[object]]:
    if not marked:
        return [("No finding", None, None, None, None)]
    return [(name, *(f"{edge:.3f}" for edge in box)) for name, box in marked]


def _flags(marked: Marked, labels: Sequence[str]) -> list[int]:
    named = {name for name, _ in marked} or {"No finding"}
    return [int(label in named) for label in labels]
