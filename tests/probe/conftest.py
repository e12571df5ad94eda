"""Tiny folders in the published layouts, with the published files' traps."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

CHEXPERT_COLUMNS = [
    "Path",
    "Sex",
    "Age",
    "Frontal/Lateral",
    "AP/PA",
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
]

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


@pytest.fixture
def chexpert_row() -> Callable[..., dict[str, str]]:
    def make(path: str, view: str = "Frontal", **labels: str) -> dict[str, str]:
        row = dict.fromkeys(CHEXPERT_COLUMNS, "")
        row |= {"Path": path, "Sex": "Female", "Age": "61", "Frontal/Lateral": view, "AP/PA": "AP"}
        return row | {name.replace("_", " "): value for name, value in labels.items()}

    return make


@pytest.fixture
def write_chexpert(tmp_path: Path) -> Callable[..., Path]:
    """Write train.csv and valid.csv; the csv says another root folder than the one on disk."""

    def write(train: list[dict], valid: list[dict], columns: list[str] = CHEXPERT_COLUMNS) -> Path:
        folder = tmp_path / "my copy of chexpert"
        folder.mkdir(exist_ok=True)
        for name, rows in (("train.csv", train), ("valid.csv", valid)):
            with (folder / name).open("w", newline="") as handle:
                writer = csv.DictWriter(handle, columns, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
        return folder

    return write


@pytest.fixture
def write_nih(tmp_path: Path) -> Callable[..., Path]:
    """Write the csv (name -> findings) and both lists; patient = first part of the name."""

    def write(entries: dict[str, str], train: list[str], test: list[str], **options: str) -> Path:
        folder = tmp_path / "nih"
        folder.mkdir(exist_ok=True)
        end = options.get("end", "")
        lines = [options.get("header", NIH_HEADER) + end]
        lines += [
            f"{name},{findings},0,{int(name.split('_')[0])},58,M,PA,2682,2749,0.143,0.143{end}"
            for name, findings in entries.items()
        ]
        file = options.get("file", "Data_Entry_2017_v2020.csv")
        (folder / file).write_text("\n".join(lines) + "\n")
        (folder / "train_val_list.txt").write_text("\n".join(train) + "\n")
        (folder / "test_list.txt").write_text("\n".join(test))
        return folder

    return write
