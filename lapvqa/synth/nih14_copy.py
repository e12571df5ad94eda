"""The NIH ChestX-ray14 copy: PNG files, Data_Entry_2017_v2020.csv, the two lists, the boxes.

Unlike the original's 1024 x 1024 the images are 512 x 512 to keep the demo small, and the boxes are
in those pixels. Findings that the demo does not draw (hernia, fibrosis...) are never positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lapvqa.synth.anatomy import Anatomy, sample_anatomy
from lapvqa.synth.findings import CONSOLIDATION, EDEMA, NIH_OF
from lapvqa.synth.patient_history import Findings, sample_history, stream
from lapvqa.synth.radiograph import Exposure
from lapvqa.synth.shots import PngForm, Shot, TakenImage, write, write_csv

FOLDER = "nih-cxr14"

_DATASET = 3
_SIZE = 512
_RGBA = 0.03
_BOXED = 0.5
"""Share of the test images that come with boxes."""
_HEADER = (
    "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender",
    "View Position", "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]",
)  # fmt: skip
_BOX_HEADER = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")
"""Nine names over six fields, as in the original."""


@dataclass(frozen=True)
class NihFile:
    """One PNG of one follow-up."""

    name: str
    folder: str
    part: str
    """train_val or test."""
    patient: int
    order: int
    view: str
    anatomy: Anatomy
    findings: Findings
    labels: tuple[str, ...]
    rgba: bool
    boxed: bool
    key: tuple[int, ...]

    @property
    def path(self) -> str:
        """Path relative to the demo's root."""
        return f"{FOLDER}/{self.folder}/images/{self.name}"


def plan(seed: int, *, train_val: int, test: int) -> list[NihFile]:
    """Return exactly the given numbers of images; patients are on one of the lists only."""
    images: list[NihFile] = []
    patient = 0
    for part, goal in (("train_val", train_val), ("test", train_val + test)):
        while len(images) < goal:
            patient += 1
            images += _patient(seed, patient, part)[: goal - len(images)]
    return images


def _patient(seed: int, patient: int, part: str) -> list[NihFile]:
    rng = stream(seed, _DATASET, patient)
    anatomy = sample_anatomy(rng)
    folder = f"images_{1 + int(rng.integers(12)):03d}"
    images = []
    for order, findings in enumerate(sample_history(rng, int(rng.integers(1, 4)))):
        images.append(
            NihFile(
                name=f"{patient:08d}_{order:03d}.png",
                folder=folder,
                part=part,
                patient=patient,
                order=order,
                view="PA" if rng.random() < 0.6 else "AP",
                anatomy=anatomy,
                findings=findings,
                labels=_labels(rng, findings),
                rgba=bool(rng.random() < _RGBA),
                boxed=bool(part == "test" and rng.random() < _BOXED),
                key=(seed, _DATASET, patient, order, 10),
            )
        )
    return images


def _labels(rng: np.random.Generator, findings: Findings) -> tuple[str, ...]:
    """Return NIH's labels; some readers' consolidation is another's infiltration."""
    names = {NIH_OF[finding.kind] for finding in findings if finding.kind in NIH_OF}
    if any(f.kind in (CONSOLIDATION, EDEMA) for f in findings) and rng.random() < 0.3:
        names.add("Infiltration")
    return tuple(sorted(names))


def shots(images: list[NihFile]) -> list[Shot]:
    """Return the images to take."""
    return [
        Shot(
            image.path,
            Exposure(image.anatomy, image.findings, image.view, _SIZE, 1.0, image.key),
            PngForm(rgba=image.rgba),
        )
        for image in images
    ]


def write_tables(root: Path, images: list[NihFile], drawn: dict[str, TakenImage]) -> None:
    """Write the label table, the two lists and the boxes."""
    folder = root / FOLDER
    rows = [
        (
            image.name, "|".join(image.labels) or "No Finding", image.order, image.patient,
            image.anatomy.age, "F" if image.anatomy.female else "M", image.view,
            2048, 2048, 0.171, 0.171,
        )
        for image in images
    ]  # fmt: skip
    write_csv(folder / "Data_Entry_2017_v2020.csv", _HEADER, rows)
    for part in ("train_val", "test"):
        names = "".join(f"{image.name}\n" for image in images if image.part == part)
        write(folder / f"{part}_list.txt", names.encode())
    write_csv(folder / "BBox_List_2017.csv", _BOX_HEADER, _box_rows(images, drawn))


def _box_rows(images: list[NihFile], drawn: dict[str, TakenImage]) -> list[tuple[object, ...]]:
    """Return image, label, x, y, w, h: top-left corner and size in the image's own pixels."""
    rows: list[tuple[object, ...]] = []
    for image in images:
        if not image.boxed:
            continue
        for finding, boxes in zip(image.findings, drawn[image.path].boxes, strict=True):
            if finding.kind not in NIH_OF or finding.kind == EDEMA:
                continue
            label = NIH_OF[finding.kind]
            if finding.kind == CONSOLIDATION:
                # The box list has no Consolidation, and says Infiltrate for Infiltration.
                if "Infiltration" not in image.labels:
                    continue
                label = "Infiltrate"
            rows += [(image.name, label, x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]
    return rows
