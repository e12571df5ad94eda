"""A project folder with both datasets in their published layouts, and two small encoders."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from lapvqa import inventory, storage
from lapvqa.datasets import chexpert, nih14
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.images.transforms import to_input
from lapvqa.machine import Machine
from lapvqa.networks.weights import serialise
from lapvqa.params import BootstrapParams, EvaluateParams, ModelParams, load_params
from lapvqa.pretrain.model import initial_model
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.schemas import INVENTORY

SIZES = ModelParams(
    image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2,
    decoder_width=32, decoder_depth=1, decoder_heads=2,
)  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, repository: Path) -> Project:
    """A project without datasets; inventory.chexpert and .nih14 point below demo/."""
    shutil.copy(repository / "params.yaml", tmp_path)
    made = Project(tmp_path)
    folder = made.model_dir("captioning")
    encoder = initial_model(SIZES, seed=5).vision_encoder
    storage.write_bytes(folder / "encoder_final.pt", serialise(encoder.state_dict()))
    card = {"model": SIZES.model_dump(), "init_seed": 0}
    storage.write_json(folder / "card.json", card)
    for name in ("chexpert", "nih14"):
        take_inventory(made, name)
    return made


@pytest.fixture
def machine() -> Machine:
    return Machine(workers=1, device="cpu")


@pytest.fixture
def params(repository: Path) -> EvaluateParams:
    shipped = load_params(repository / "params.yaml").evaluate
    return shipped.model_copy(update={"common": BootstrapParams(bootstrap_draws=100)})


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(tmp_path / "record.jsonl", stage="evaluate")
    yield made
    made.close()


@pytest.fixture
def list_again(project: Project) -> Callable[[str], None]:
    """Take the inventory of a dataset anew, as the stage does before each run."""
    return lambda name: take_inventory(project, name)


def folder_of(project: Project, name: str) -> Path:
    return project.root / {"chexpert": "demo/CheXpert-v1.0-small", "nih14": "demo/nih-cxr14"}[name]


def take_inventory(project: Project, name: str) -> None:
    folder = folder_of(project, name)
    entries = inventory.scan(folder) if folder.is_dir() else []
    rows = [dict(zip(INVENTORY.names, entry, strict=True)) for entry in entries]
    table = pa.Table.from_pylist(rows, schema=INVENTORY)
    storage.write_table(project.inventory(name), table, INVENTORY)


def radiograph(generator: np.random.Generator, targets: np.ndarray) -> np.ndarray:
    """Noise of random brightness; label k, if present, lights cell k of a 4 x 4 grid."""
    pixels = generator.integers(20, 60, (64, 64)) + generator.integers(0, 20)
    for label in np.flatnonzero(targets == 1):
        row, column = 16 * (label // 4), 16 * (label % 4)
        pixels[row : row + 16, column : column + 16] += 150
    return pixels.astype(np.uint8)


@pytest.fixture
def chexpert_folder(project: Project) -> Path:
    """CheXpert with 40 training patients and 16 test patients, two studies each."""
    folder = folder_of(project, "chexpert")
    generator = np.random.default_rng(0)
    for split, csv_name, patients in (
        ("train", "train.csv", range(1, 41)),
        ("valid", "valid.csv", range(64541, 64557)),
    ):
        lines = ["Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(reversed(chexpert.LABELS))]
        for patient in patients:
            for study in (1, 2):
                targets = generator.integers(0, 2, 5)
                path = f"{split}/patient{patient:05d}/study{study}/view1_frontal.jpg"
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(radiograph(generator, targets)).save(folder / path, quality=95)
                values = ",".join(f"{value:.1f}" for value in reversed(targets))
                lines.append(f"CheXpert-v1.0-small/{path},Male,50,Frontal,PA,{values}")
        (folder / csv_name).write_text("\n".join(lines) + "\n")
    take_inventory(project, "chexpert")
    return folder


@pytest.fixture
def nih14_folder(project: Project) -> Path:
    """NIH CXR-14 with 40 + 14 patients; nobody has Hernia, some files are RGBA."""
    folder = folder_of(project, "nih14")
    generator = np.random.default_rng(1)
    lines = [
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    ]
    lists: dict[str, list[str]] = {"train_val_list.txt": [], "test_list.txt": []}
    for patient in range(1, 55):
        for follow in range(2):
            targets = generator.integers(0, 2, 14) * generator.integers(0, 2, 14)
            targets[-1] = 0
            name = f"{patient:08d}_{follow:03d}.png"
            path = folder / f"images_{1 + patient % 12:03d}" / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(radiograph(generator, targets))
            image.convert("RGBA" if patient % 10 == 0 else "L").save(path)
            found = [one for one, value in zip(nih14.LABELS, targets, strict=True) if value]
            findings = "|".join(found) or "No Finding"
            lines.append(f"{name},{findings},{follow},{patient},50,F,PA,2682,2749,0.143,0.143")
            lists["train_val_list.txt" if patient <= 40 else "test_list.txt"].append(name)
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")
    for file, names in lists.items():
        (folder / file).write_text("\n".join(names) + "\n")
    take_inventory(project, "nih14")
    return folder


class Seeing(ImageEncoder):
    """An encoder that knows: its tokens are the brightness of the cells where labels are drawn."""

    width = 16
    about = "brightness"
    first_row = 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.calls = 0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.patches(pixels)

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        images = to_input(pixels, 384)[:, :, self.first_row :]
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(2) * self.weight


class Blind(Seeing):
    """An encoder of the same shape that looks where CheXpert's five labels draw nothing."""

    first_row = 220


@pytest.fixture
def planted() -> dict[str, torch.nn.Module]:
    return {"trained": Seeing(), "untrained": Blind()}
