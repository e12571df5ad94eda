"""A project folder with a handful of images and reports, and a model small enough for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lapvqa import storage
from lapvqa.images.shards import add_shard
from lapvqa.params import ModelParams, PretrainParams
from lapvqa.project import Project
from lapvqa.schemas import EXCLUDED, IMAGES, TOKENS

END = 50256
SIZES = ModelParams(
    image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2,
    decoder_width=32, decoder_depth=1, decoder_heads=2,
    text_width=32, text_depth=1, text_heads=2, embed_dim=16,
)  # fmt: skip


@pytest.fixture
def sizes() -> ModelParams:
    return SIZES


@pytest.fixture
def params() -> PretrainParams:
    return PretrainParams(
        model=SIZES, epochs=3, batch_size=4, lr=3e-3, warmup_steps=2, weight_decay=0.05,
        checkpoint_every_steps=2,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with 20 train, 6 validate and 4 test studies of one image each."""
    return write_project(tmp_path)


def write_project(root: Path, *, sided: bool = False) -> Project:
    """Write data/ for studies whose report says where the bright square of the image is."""
    project = Project(root)
    splits = ["train"] * 20 + ["validate"] * 6 + ["test"] * 4
    generator = np.random.default_rng(7)
    corners = generator.integers(0, 4, len(splits)).tolist()
    pixels = generator.integers(0, 60, (len(splits), 384, 384), dtype=np.uint8)
    for image, corner in zip(pixels, corners, strict=True):
        top, left = 192 * (corner // 2), 192 * (corner % 2)
        image[top : top + 192, left : left + 192] += 150
    keys = [f"image{index:02d}" for index in range(len(splits))]
    shard = add_shard(project.images_dir, keys, pixels)
    images = [
        image_row(f"study{i:02d}", keys[i], split, row=i, shard=shard)
        for i, split in enumerate(splits)
    ]
    reports = [
        # "square in corner c", of a length that depends on the corner
        token_row(f"study{i:02d}", split, [100, 7, 300 + c, *range(40, 40 + c)], sided=sided)
        for i, (split, c) in enumerate(zip(splits, corners, strict=True))
    ]
    write_tables(project, images, reports)
    return project


def image_row(
    study_key: str,
    image_key: str,
    split: str,
    *,
    row: int = 0,
    view: str = "PA",
    shard: str = "images-0000000000000000.arrow",
) -> dict[str, object]:
    return {
        "image_key": image_key, "study_key": study_key, "patient_key": f"p-{study_key}",
        "split": split, "view": view, "shard": shard, "row": row,
        "native_rows": 384, "native_cols": 384, "scale": 1.0, "offset_x": 0.0, "offset_y": 0.0,
        "photometric": "MONOCHROME2", "bits_stored": 8, "transfer_syntax": "1.2.840.10008.1.2",
        "voi": "window", "file_sha256": image_key, "pixels_sha256": f"pixels of {image_key}",
        "decoded_sha256": f"decoded pixels of {image_key}",
    }  # fmt: skip


def token_row(
    study_key: str, split: str, token_ids: list[int], *, sided: bool = False
) -> dict[str, object]:
    return {
        "study_key": study_key, "patient_key": f"p-{study_key}", "split": split,
        "report_sha256": f"sha256 of {study_key}", "verdict": "findings", "sided": sided,
        "token_ids": [END, *token_ids, END], "truncated": False, "spans": [],
    }  # fmt: skip


def write_tables(
    project: Project, images: list[dict[str, object]], reports: list[dict[str, object]]
) -> None:
    storage.write_table(project.images, pa.Table.from_pylist(images, IMAGES), IMAGES)
    storage.write_table(project.excluded, EXCLUDED.empty_table(), EXCLUDED)
    path = project.tokens_dir / "tokens-00000.parquet"
    storage.write_table(path, pa.Table.from_pylist(reports, TOKENS), TOKENS)
