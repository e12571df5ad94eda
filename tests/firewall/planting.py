"""Leaks planted into the demo project: films, studies and patients that training must lose."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from jobs import make_job

from lapvqa import schemas, storage
from lapvqa.firewall import firewall
from lapvqa.images.shards import ShardStore, add_shard
from lapvqa.machine import Machine
from lapvqa.params import FirewallParams, load_params
from lapvqa.project import Project

MACHINE = Machine(workers=1, device="cpu")


@dataclass
class Archive:
    """The tables of a project, to be changed and written back."""

    project: Project
    images: list[dict[str, Any]] = field(init=False)
    studies: list[dict[str, Any]] = field(init=False)
    tokens: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        for name, schema in (("images", schemas.IMAGES), ("studies", schemas.STUDIES)):
            table = storage.read_table(getattr(self.project, name), schema, made_by="x")
            setattr(self, name, table.to_pylist())
        tokens = storage.read_table(self.project.tokens_dir, schemas.TOKENS, made_by="x")
        self.tokens = tokens.to_pylist()

    def of_split(self, split: str) -> list[dict[str, Any]]:
        """Return the frontal images of a split that have a report."""
        told = {row["study_key"] for row in self.tokens}
        return [
            row for row in self.images
            if row["split"] == split and row["view"] in schemas.FRONTAL_VIEWS
            and row["study_key"] in told
        ]  # fmt: skip

    def pixels(self, image: dict[str, Any]) -> np.ndarray:
        store = ShardStore(self.project.images_dir)
        return store.read([image["shard"]], [image["row"]])[0]

    def add(
        self,
        key: str,
        pixels: np.ndarray,
        *,
        split: str = "train",
        patient: str | None = None,
        report: str | None = None,
        decoded: str | None = None,
        has_tokens: bool = True,
    ) -> str:
        """Add a study of one image, ``key``; the patient is new unless it is named."""
        patient = patient or f"patient of {key}"
        like = next(row for row in self.tokens if row["split"] == "train")
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        shard = add_shard(self.project.images_dir, [key], pixels[None])
        common = {"study_key": f"study of {key}", "patient_key": patient, "split": split}
        image = {
            **self.images[0], **common, "image_key": key, "view": "PA", "shard": shard, "row": 0,
            "file_sha256": f"file of {key}", "pixels_sha256": digest,
            "decoded_sha256": decoded or f"decoded pixels of {key}",
        }  # fmt: skip
        study = {**self.studies[0], **common, "report": report, "num_images": 1}
        self.images.append(image)
        self.studies.append(study)
        if has_tokens:
            self.tokens.append({**like, **common})
        return key

    def move(self, patient: str, split: str) -> None:
        """Put a patient into another split of the archive."""
        for row in (*self.images, *self.studies, *self.tokens):
            if row["patient_key"] == patient:
                row["split"] = split

    def write(self) -> None:
        for path in self.project.tokens_dir.iterdir():
            path.unlink()
        for path, rows, schema in (
            (self.project.images, self.images, schemas.IMAGES),
            (self.project.studies, self.studies, schemas.STUDIES),
            (self.project.tokens_dir / "tokens-x.parquet", self.tokens, schemas.TOKENS),
        ):
            storage.write_table(path, pa.Table.from_pylist(rows, schema), schema)


@dataclass(frozen=True)
class Outcome:
    """What the stage wrote."""

    counts: dict[str, Any]
    excluded: dict[str, dict[str, Any]]
    account: dict[str, Any]
    project: Project

    def tested(self, data_set: str) -> dict[str, dict[str, Any]]:
        path = self.project.tested(data_set)
        rows = storage.read_table(path, schemas.TESTED, made_by="firewall").to_pylist()
        return {row["name"]: row for row in rows}

    def reasons(self, *keys: str) -> list[tuple[str, str]]:
        """Return reason and data set of images; KeyError for one that stays in training."""
        rows = [self.excluded[key] for key in keys]
        return [(row["reason"], row["data_set"]) for row in rows]


def raise_firewall(project: Project, **values: Any) -> Outcome:
    """Run the stage with ``values`` for its section of params.yaml."""
    params = load_params(project.params)
    own = FirewallParams(**{**params.firewall.model_dump(), **values})
    counts = firewall.run((own, params.evaluate), make_job(project, MACHINE))
    rows = storage.read_table(project.excluded, schemas.EXCLUDED, made_by="firewall").to_pylist()
    account = storage.read_json(project.firewall_account, made_by="firewall")
    return Outcome(counts, {row["image_key"]: row for row in rows}, account, project)
