"""Films of the archive that are most alike, by the cosine of their features.

Features are kept where the evaluations keep theirs, so a second start computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapvqa import storage
from lapvqa.evaluation.features import open_store
from lapvqa.evaluation.visual_tokens import shard_images
from lapvqa.inference.encoder import Encoder, Features
from lapvqa.job import Job
from lapvqa.retrieval.linear_map import unit
from lapvqa.schemas import IMAGES

MOST = 20_000
"""Films that are compared at most; of more, the first by key, and keys are hashes."""


@dataclass(frozen=True)
class Similar:
    """A film of the archive by its key; ``cosine``: 1 is the same direction."""

    image_key: str
    study_key: str
    view: str
    cosine: float
    shard: str
    row: int


class Index:
    """The archive's films, with features [n, D] of length 1."""

    def __init__(self, rows: list[dict[str, Any]], features: NDArray[np.float32]) -> None:
        self._rows, self._features = rows, unit(features)

    def __len__(self) -> int:
        return len(self._rows)

    def nearest(self, feature: Features, count: int) -> list[Similar]:
        """Return the ``count`` films most like a feature [D], the most alike first."""
        cosines = self._features @ unit(feature[None].astype(np.float32))[0]
        order = np.argsort(-cosines, kind="stable")[:count]
        names = ("image_key", "study_key", "view", "shard", "row")
        return [
            Similar(cosine=float(cosines[i]), **{n: self._rows[i][n] for n in names}) for i in order
        ]


def build(encoder: Encoder, job: Job) -> Index:
    """Return the index of the stored images, computing the features that are not kept yet."""
    table = storage.read_table(job.project.images, IMAGES, made_by="ingest")
    rows = table.sort_by("image_key").slice(0, MOST).to_pylist()
    if not rows:
        return Index([], np.zeros((0, encoder.width), np.float32))
    places = [(row["pixels_sha256"], row["shard"], row["row"]) for row in rows]
    images = shard_images(places, job.project)
    store = open_store(encoder.model, "mean", job=job)
    store.fill(
        images.digests, images.read,
        progress=lambda done, total: job.recorder.progress(done, total, unit="films"),
    )  # fmt: skip
    return Index(rows, store.take(images.digests).astype(np.float32))
