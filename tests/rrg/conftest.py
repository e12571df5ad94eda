"""A small project whose images show what their reports say, taken through the real stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from jobs import make_job
from ruamel.yaml import YAML
from watched_computing import nothing_outside

from lapvqa import schemas, storage
from lapvqa.evaluation.evaluate import evaluate, pipeline_encoders
from lapvqa.export import export
from lapvqa.images.shards import add_shard
from lapvqa.machine import Machine
from lapvqa.params import (
    BootstrapParams,
    EvaluateParams,
    ExportParams,
    ModelParams,
    PretrainParams,
    ProbeChexpertParams,
    ProbeNih14Params,
    RecipeParams,
    RrgParams,
    TextHeadParams,
    TokensParams,
    read_yaml,
)
from lapvqa.pretrain import train
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.rrg.task import TASK
from lapvqa.text import tokens

MACHINE = Machine(workers=1, device="cpu")

# Which corner of the image is bright -> what the report says, and the archive's label for it.
SAYS = (
    ("No acute process.", "No Finding"),
    ("There is a left pleural effusion.", "Pleural Effusion"),
    ("Right pneumothorax.", "Pneumothorax"),
    ("Moderate cardiomegaly.", "Cardiomegaly"),
)
CORNERS = [*([0] * 16), *([1] * 12), *([2] * 12), *([3] * 12), *([0, 1, 2, 3] * 6)]
SPLITS = ["train"] * 52 + ["validate"] * 8 + ["test"] * 16
MODEL = ModelParams(
    image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2,
    decoder_width=32, decoder_depth=1, decoder_heads=2,
    text_width=32, text_depth=1, text_heads=2, embed_dim=16,
)  # fmt: skip
HEAD = TextHeadParams(d_model=32, num_layers=1, nhead=2)
RECIPE = RecipeParams(epochs=2, batch_size=8, lr=1e-3)
PRETRAIN = PretrainParams(model=MODEL, epochs=25, batch_size=8, lr=4e-3, warmup_steps=5)


@pytest.fixture
def evaluate_params() -> Callable[..., EvaluateParams]:
    """Make the parameters of evaluate, with values for rrg."""

    def make(**values: Any) -> EvaluateParams:
        return EvaluateParams(
            common=BootstrapParams(bootstrap_draws=100),
            probe_chexpert=ProbeChexpertParams(c_grid=[1.0]),
            probe_nih14=ProbeNih14Params(c_grid=[1.0]),
            rrg=RrgParams(**{"max_new_tokens": 16, "head": HEAD, "recipe": RECIPE, **values}),
        )

    return make


@dataclass(frozen=True)
class RrgProject:
    """A project folder with a trained model, and its stage evaluate@rrg."""

    project: Project

    def evaluate(self, params: EvaluateParams) -> dict[str, Any]:
        """Run evaluate@rrg; return metrics.json."""
        with nothing_outside():
            self.run(
                lambda params, job: evaluate(TASK, pipeline_encoders(job), params, job), params
            )
        folder = self.project.result_dir("rrg")
        return storage.read_json(folder / "metrics.json", made_by="evaluate@rrg")

    def predictions(self) -> list[dict[str, Any]]:
        path = self.project.result_dir("rrg") / "predictions.parquet"
        return storage.read_table(path, schemas.RRG_PREDICTIONS, made_by="x").to_pylist()

    def run(self, stage: Any, params: Any) -> None:
        recorder = Recorder(self.project.record("stage"), stage="stage")
        try:
            stage(params, make_job(self.project, MACHINE, recorder))
        finally:
            recorder.close()

    def write_labels(self, rows: list[dict[str, Any]]) -> None:
        table = pa.Table.from_pylist(rows, schema=schemas.LABELS)
        storage.write_table(self.project.labels, table, schemas.LABELS)


def label_rows() -> list[dict[str, Any]]:
    """One row per study of the test split: its label is 1, edema is uncertain, the rest blank."""
    return [
        {
            "study_key": f"study{index:02d}",
            **dict.fromkeys(schemas.CHEXPERT_LABELS),
            "Edema": -1,
            SAYS[corner][1]: 1,
        }
        for index, corner in enumerate(CORNERS)
        if SPLITS[index] == "test"
    ]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The folder of a project after ingest's tables, tokens, pretrain and export."""
    project = RrgProject(Project(tmp_path_factory.mktemp("rrg")))
    _write_images(project.project)
    _write_studies(project.project)
    project.write_labels(label_rows())
    whole = read_yaml(repository / "params.yaml")
    whole["pretrain"] = PRETRAIN.model_dump(mode="json")
    with project.project.params.open("w") as handle:
        YAML().dump(whole, handle)
    project.run(tokens.run, TokensParams(max_length=24))
    project.run(train.run, PRETRAIN)
    project.run(export.run, ExportParams())
    return project.project.root


@pytest.fixture(params=["contrastive", "sigmoid"])
def pair_project(request: pytest.FixtureRequest, project: RrgProject) -> RrgProject:
    """The same project with a model of pairs, which has no decoder."""
    training = PRETRAIN.model_copy(update={"objective": request.param, "epochs": 1})
    whole = read_yaml(project.project.params)
    whole["pretrain"] = training.model_dump(mode="json")
    project.project.params.unlink()  # a link: the other projects read it too
    with project.project.params.open("w") as handle:
        YAML().dump(whole, handle)
    project.run(train.run, training)
    project.run(export.run, ExportParams())
    return project


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> RrgProject:
    """A copy to write in; large files are links."""
    for path in trained.rglob("*"):
        if path.is_file() and ".lapvqa" not in path.parts:
            copy = tmp_path / path.relative_to(trained)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.hardlink_to(path)  # every writer replaces the name, none writes through it
    return RrgProject(Project(tmp_path))


def _write_images(project: Project) -> None:
    generator = np.random.default_rng(7)
    pixels = generator.integers(0, 60, (len(CORNERS), 384, 384), dtype=np.uint8)
    for image, corner in zip(pixels, CORNERS, strict=True):
        top, left = 192 * (corner // 2), 192 * (corner % 2)
        image[top : top + 192, left : left + 192] += 150
    keys = [f"image{index:02d}" for index in range(len(CORNERS))]
    shard = add_shard(project.images_dir, keys, pixels)
    rows = [
        _image_row(f"study{index:02d}", keys[index], split, row=index, shard=shard)
        for index, split in enumerate(SPLITS)
    ]
    storage.write_table(project.images, pa.Table.from_pylist(rows, schemas.IMAGES), schemas.IMAGES)
    storage.write_table(project.excluded, schemas.EXCLUDED.empty_table(), schemas.EXCLUDED)


@pytest.fixture
def image_row() -> Callable[..., dict[str, Any]]:
    """Make a row of images.parquet."""
    return _image_row


def _image_row(
    study_key: str,
    image_key: str,
    split: str,
    *,
    row: int,
    view: str = "PA",
    shard: str = "images-0000000000000000.arrow",
) -> dict[str, Any]:
    return {
        "image_key": image_key, "study_key": study_key, "patient_key": f"p-{study_key}",
        "split": split, "view": view, "shard": shard, "row": row,
        "native_rows": 384, "native_cols": 384, "scale": 1.0, "offset_x": 0.0, "offset_y": 0.0,
        "photometric": "MONOCHROME2", "bits_stored": 8, "transfer_syntax": "1.2.840.10008.1.2",
        "voi": "window", "file_sha256": image_key, "pixels_sha256": f"pixels of {image_key}",
        "decoded_sha256": f"decoded pixels of {image_key}",
    }  # fmt: skip


def _write_studies(project: Project) -> None:
    rows = [
        {
            "study_key": f"study{index:02d}",
            "patient_key": f"p-study{index:02d}",
            "split": SPLITS[index],
            "study_order": 0,
            "days_since_first": None,
            "study_date": None,
            "num_images": 1,
            "report": f"FINAL REPORT\n FINDINGS: \n \n {SAYS[corner][0]}\n",
            "report_sha256": f"{index:064x}",
            "identity_flags": [],
        }
        for index, corner in enumerate(CORNERS)
    ]
    table = pa.Table.from_pylist(rows, schema=schemas.STUDIES)
    storage.write_table(project.studies, table, schemas.STUDIES)
