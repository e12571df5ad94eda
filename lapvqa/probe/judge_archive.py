"""Judge encoders by linear probes on the archive's own films and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lapvqa import storage
from lapvqa.datasets.labelled import ProbeDataset, Rows
from lapvqa.datasets.splits import SPLITS, TRAIN, lowest
from lapvqa.evaluation import features
from lapvqa.evaluation.evaluate import Evaluation
from lapvqa.evaluation.visual_tokens import shard_images
from lapvqa.images.report_pairs import read_excluded
from lapvqa.job import Counts
from lapvqa.params import ProbeArchiveParams
from lapvqa.probe.film_labels import find_labels
from lapvqa.probe.judge import UNDEFINED, predict
from lapvqa.probe.own_labels import FilmLabels
from lapvqa.project import Project
from lapvqa.schemas import FRONTAL_VIEWS, IMAGES


def judge(run: Evaluation[ProbeArchiveParams]) -> Counts:
    """Judge a set of encoders; raises SourceError of a table of labels that cannot be read."""
    params, project = run.params, run.job.project
    films = _frontal_films(project)
    labels = find_labels(films, run.job, uncertain=params.uncertain)
    if labels is None:
        return run.not_computed(
            "no labels of this archive's films: put a CSV file into the folder labels/ "
            "(docs/evaluate.md), or have English reports, of which the labeler makes some"
        )
    dataset = _dataset(films, labels, most_images=params.most_images)
    if isinstance(dataset, str):
        return run.not_computed(f"{dataset} ({labels.source})")
    row_of = {film["image_key"]: film for film in films}
    rows = [row_of[key] for key in dataset.images]
    places = [(row["pixels_sha256"], row["shard"], row["row"]) for row in rows]
    images = shard_images(places, project)
    encoders = run.encoders.load()
    means = features.means(encoders, images.digests, images.read, job=run.job)
    predictions, protocol = predict(
        dataset, means, c_grid=params.c_grid, workers=run.job.machine.workers,
        extra=run.empty_extra(),
    )  # fmt: skip
    if not predictions.num_rows:
        return run.not_computed(f"{UNDEFINED} ({labels.source})")
    protocol |= {
        "views": "frontal",
        "label_source": labels.source,
        "uncertain": params.uncertain,
        "most_images": params.most_images,
        **labels.facts,
        **features.describe(encoders),
    }
    return run.publish(predictions, protocol)


def _frontal_films(project: Project) -> list[dict[str, Any]]:
    """Return the rows of images.parquet that may be used; training loses what a test set has."""
    excluded = read_excluded(project)
    table = storage.read_table(project.images, IMAGES, made_by="ingest").sort_by("image_key")
    return [
        row
        for row in table.to_pylist()
        if row["view"] in FRONTAL_VIEWS and row["image_key"] not in excluded
    ]


def _dataset(
    films: Sequence[dict[str, Any]], labels: FilmLabels, *, most_images: int
) -> ProbeDataset | str:
    """Return the labelled films in the archive's splits, or why there is no such set."""
    places = [place for place, film in enumerate(films) if film["image_key"] in labels.rows]
    labelled = {
        split: [films[place] for place in places if films[place]["split"] == split]
        for split in SPLITS
    }
    empty = [split for split, rows in labelled.items() if not rows]
    if empty:
        return f"no labelled frontal film among the patients of {' and '.join(empty)}"
    training = labelled[TRAIN]
    if len(training) > most_images:
        share = most_images / len(training)
        chosen = lowest((film["patient_key"] for film in training), share, "probe_archive")
        labelled[TRAIN] = [film for film in training if film["patient_key"] in chosen]
    train, validate, test = (_rows(labelled[split], labels) for split in SPLITS)
    return ProbeDataset("this archive", labels.names, train, validate, test)


def _rows(films: Sequence[dict[str, Any]], labels: FilmLabels) -> Rows:
    keys = tuple(film["image_key"] for film in films)
    return Rows(
        images=keys,
        samples=keys,
        patients=tuple(film["patient_key"] for film in films),
        places=keys,
        targets=np.array([labels.rows[key] for key in keys], np.int8),
    )
