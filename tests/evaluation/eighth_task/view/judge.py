"""Judge encoders by views: the stored images' own, and those of the nearest training images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa import storage
from lapvqa.evaluation import features
from lapvqa.evaluation.evaluate import Evaluation
from lapvqa.evaluation.visual_tokens import shard_images
from lapvqa.job import Counts
from lapvqa.params import ViewParams
from lapvqa.schemas import ANSWER_PREDICTIONS, IMAGES


def judge(run: Evaluation[ViewParams]) -> Counts:
    """Judge a set of encoders; raises MissingArtifactError."""
    project = run.job.project
    table = storage.read_table(project.images, IMAGES, made_by="ingest").sort_by("image_key")
    rows = [row for row in table.to_pylist() if row["view"]]
    split = np.array([row["split"] for row in rows])
    if not {"train", "test"} <= set(split.tolist()):
        return run.not_computed("no stored training and test images whose view is known")
    places = [(row["pixels_sha256"], row["shard"], row["row"]) for row in rows]
    images = shard_images(places, project)
    views = np.array([row["view"] for row in rows])
    run.empty_extra()
    encoders = run.encoders.load()
    predictions = []
    for system, encoder in encoders.items():
        store = features.open_store(encoder, "mean", job=run.job)
        store.fill(images.digests, images.read)
        values = store.take(images.digests)
        answers = nearest_views(
            values[split == "train"],
            views[split == "train"],
            values[split == "test"],
            count=run.params.neighbours,
        )
        test = [row for row in rows if row["split"] == "test"]
        predictions += [_row(system, *pair) for pair in zip(test, answers, strict=True)]
    protocol = {"neighbours": run.params.neighbours, **features.describe(encoders)}
    return run.publish(pa.Table.from_pylist(predictions, schema=ANSWER_PREDICTIONS), protocol)


def nearest_views(
    known: NDArray[np.float32], views: NDArray[np.str_], asked: NDArray[np.float32], *, count: int
) -> list[str]:
    """Return the commonest of the ``count`` nearest views, of equals the nearest one's."""
    answers = []
    for value in asked:
        order = np.argsort(np.square(known - value).sum(axis=1), kind="stable")
        answers.append(Counter(views[order[:count]].tolist()).most_common(1)[0][0])
    return answers


def _row(system: str, image: dict[str, str], answer: str) -> dict[str, str | None]:
    return {
        "sample": image["image_key"],
        "patient": image["patient_key"],
        "system": system,
        "image": image["image_key"],
        "type": "view",
        "question": "which view is it?",
        "reference": image["view"],
        "hypothesis": answer,
    }
