"""The MS-CXR 1.1.0 copy: phrases of reports with their boxes, as csv and as COCO json.

Drawn from the MIMIC copy's validation and test patients, so that an encoder pretrained on the demo
has learnt from none of them; the test phrases are the test patients', by whom no encoder is chosen
either. A phrase with several boxes has several rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from lapvqa.synth import mimic_copy
from lapvqa.synth.findings import CHEXPERT_OF, DEVICE, NODULE
from lapvqa.synth.shots import TakenImage, write, write_csv

FOLDER = "ms-cxr"

_NAME = "MS_CXR_Local_Alignment_v1.1.0"
_CATEGORIES = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Lung Opacity", "Pleural Effusion",
    "Pneumonia", "Pneumothorax",
)  # fmt: skip
_SPLITS = {
    "validate": ("val", "train", "train"),
    "test": ("test", "train", "train", "test", "train"),
}
"""By the patient's MIMIC split, in turn."""


@dataclass(frozen=True)
class BoxRow:
    """One box of one phrase; x, y, w, h are native pixels, top-left corner and size."""

    dicom_id: str
    category_name: str
    label_text: str
    path: str
    x: int
    y: int
    w: int
    h: int
    image_width: int
    image_height: int
    split: str


def _rows(studies: list[mimic_copy.MimicStudy], drawn: Mapping[str, TakenImage]) -> list[BoxRow]:
    rows: list[BoxRow] = []
    split_of: dict[int, str] = {}
    for split, names in _SPLITS.items():
        subjects = sorted({study.subject for study in studies if study.split == split})
        split_of |= dict(zip(subjects, cycle(names), strict=False))
    for study in studies:
        if study.subject not in split_of or not study.reported:
            continue
        image = study.images[0]
        size = drawn[f"{mimic_copy.FOLDER}/{image.path}"]
        for finding, phrase, boxes in zip(
            study.findings, study.report.phrases, size.boxes, strict=True
        ):
            if finding.kind in (DEVICE, NODULE):
                continue
            for x0, y0, x1, y1 in boxes:
                rows.append(
                    BoxRow(
                        dicom_id=image.dicom_id,
                        category_name=CHEXPERT_OF[finding.kind],
                        label_text=phrase,
                        path=image.path.replace(".dcm", ".jpg"),
                        x=round(x0),
                        y=round(y0),
                        w=round(x1) - round(x0),
                        h=round(y1) - round(y0),
                        image_width=size.cols,
                        image_height=size.rows,
                        split=split_of[study.subject],
                    )
                )
    return rows


def write_tables(
    root: Path, studies: list[mimic_copy.MimicStudy], drawn: Mapping[str, TakenImage]
) -> None:
    """Write the csv and the json."""
    rows = _rows(studies, drawn)
    fields = tuple(BoxRow.__dataclass_fields__)
    table = [[getattr(row, field) for field in fields] for row in rows]
    write_csv(root / FOLDER / f"{_NAME}.csv", fields, table)
    text = json.dumps(_coco(rows), indent=1)
    write(root / FOLDER / f"{_NAME}.json", f"{text}\n".encode())


def _coco(rows: list[BoxRow]) -> dict[str, object]:
    """Return images, annotations and categories as COCO has them (numbered from 1)."""
    by_image = {row.dicom_id: row for row in rows}
    numbers = {dicom_id: number for number, dicom_id in enumerate(by_image, start=1)}
    return {
        "info": {"description": "MS-CXR layout, synthetic demo", "version": "1.1.0"},
        "categories": [
            {"id": number, "name": name, "supercategory": "disease"}
            for number, name in enumerate(_CATEGORIES, start=1)
        ],
        "images": [
            {
                "id": numbers[row.dicom_id],
                "file_name": f"{row.dicom_id}.jpg",
                "path": row.path,
                "width": row.image_width,
                "height": row.image_height,
                "num_annotations": sum(other.dicom_id == row.dicom_id for other in rows),
                "split": row.split,
            }
            for row in by_image.values()
        ],
        "annotations": [
            {
                "id": number,
                "image_id": numbers[row.dicom_id],
                "category_id": _CATEGORIES.index(row.category_name) + 1,
                "bbox": [row.x, row.y, row.w, row.h],
                "label_text": row.label_text,
                "height": row.image_height,
                "width": row.image_width,
            }
            for number, row in enumerate(rows, start=1)
        ],
    }
