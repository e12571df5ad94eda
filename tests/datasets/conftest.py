"""The demo archive ingested, a few stored images, and tiny folders in the published layouts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from demo_project import ingested
from jobs import make_job
from stored_by_hand import stored_of

from lapvqa.datasets.stored import StoredImages, open_stored
from lapvqa.machine import Machine
from lapvqa.project import Project
from lapvqa.recorder import Recorder

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


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Stages inventory, ingest and tokens, done."""
    return ingested(tmp_path_factory, tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def demo(project: Project) -> Path:
    """The project's demo archive."""
    return project.root / "demo"


@pytest.fixture
def recorder(tmp_path: Path):
    made = Recorder(tmp_path / "record.jsonl", stage="evaluate", quiet=True)
    yield made
    made.close()


@pytest.fixture(scope="session")
def demo_stored(project: Project) -> StoredImages:
    recorder = Recorder(project.record("evaluate"), stage="evaluate", quiet=True)
    stored = open_stored(make_job(project, Machine(workers=1), recorder))
    recorder.close()
    return stored


@pytest.fixture
def stored() -> StoredImages:
    """Patients 1 (train), 2 (validate), 3 and 4 (test), two studies each, 2000 x 1000 pixels.

    Study 5000001n is patient n's first, 5000002n the second; the image of study s is ``dicom(s)``.
    """
    return stored_of({1: "train", 2: "validate", 3: "test", 4: "test"})


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """Write a csv file below the folder ``dataset``; return that folder."""

    def write(name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
        path = tmp_path / "dataset" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as handle:
            csv.writer(handle).writerows([header, *rows])
        return tmp_path / "dataset"

    return write


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
