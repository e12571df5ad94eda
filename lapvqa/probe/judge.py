"""Judge encoders by linear probes: features of every image, one recipe, predictions, protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa.datasets import image_folder
from lapvqa.datasets.image_folder import ImageFolder
from lapvqa.datasets.labelled import ProbeDataset, Rows
from lapvqa.datasets.pictures import read_or_none
from lapvqa.evaluation import features
from lapvqa.evaluation.evaluate import Evaluation
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.job import Counts, Job
from lapvqa.metrics.classification import UNKNOWN
from lapvqa.probe import head_file
from lapvqa.probe.linear import Probe, fit_and_predict
from lapvqa.probe.scoring import IMPLEMENTATION
from lapvqa.probe.task import ProbeTask
from lapvqa.schemas import PROBE_PREDICTIONS

UNDEFINED = "no label has both positives and negatives among the training images"


class ProbeParams(Protocol):
    """The parameter that the sections of both probes have."""

    @property
    def c_grid(self) -> list[float]:
        """The inverse regularisations to choose from."""


@dataclass(frozen=True)
class ProbeFeatures:
    """``readable`` [n]: false where a file is missing or broken; ``systems``: [readable, D].

    ``digests``: sha256 of the stored pixels, of those that are readable.
    """

    readable: NDArray[np.bool_]
    digests: list[str]
    systems: dict[str, NDArray[np.float32]]


def judge(run: Evaluation[ProbeParams]) -> Counts:
    """Judge a set of encoders; raises SourceError, SplitLeakError."""
    task = cast("ProbeTask", run.task)
    source = run.open_input()
    if source is None:
        return run.without_input()
    listed = task.read(source, run.params)
    listed.check(source.present(listed.images))
    encoders = run.encoders.load()
    extracted = extract(encoders, source, listed.images, job=run.job)
    readable = listed.keep(extracted.readable)
    copied = image_folder.copies_of_tested(extracted.digests, readable.tested.tolist())
    dataset = readable.without_copies(copied)
    systems = {name: values[~copied] for name, values in extracted.systems.items()}
    extra = run.empty_extra()
    predictions, protocol = predict(
        dataset, systems, c_grid=run.params.c_grid, workers=run.job.machine.workers, extra=extra
    )
    if not predictions.num_rows:
        return run.not_computed(UNDEFINED)
    return run.publish(
        predictions,
        {
            **protocol,
            **task.protocol(run.params),
            **describe_unreadable(listed, readable),
            **{f"left_out_{reason}": count for reason, count in dataset.left_out.items()},
            **features.describe(encoders),
        },
    )


def extract(
    encoders: Mapping[str, ImageEncoder], source: ImageFolder, paths: Sequence[str], *, job: Job
) -> ProbeFeatures:
    """Return the mean over the tokens of each encoder for each image of ``paths``."""
    decoded = image_folder.decode(source, paths, read_or_none, job=job)
    means = features.means(encoders, decoded.digests, decoded.pixels, job=job)
    return ProbeFeatures(decoded.readable, decoded.digests, means)


def predict(
    dataset: ProbeDataset,
    features: Mapping[str, NDArray[np.float32]],
    *,
    c_grid: Sequence[float],
    workers: int = 1,
    extra: Path | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """Fit one probe per system; return its PROBE_PREDICTIONS on the test and the protocol.

    ``features``: system -> [n, D], aligned with ``dataset.images``. A label that the training
    images cannot define has no rows. The first system's head is written to ``extra``.
    """
    tables: list[pa.Table] = []
    protocol = _describe(dataset)
    ends = np.cumsum([len(dataset.train), len(dataset.validate)])
    for system, values in features.items():
        train, validate, test = np.split(values.astype(np.float64), ends)
        probe = fit_and_predict(
            (train, dataset.train.targets),
            (validate, dataset.validate.targets),
            test,
            c_grid=c_grid,
            workers=workers,
        )
        if extra is not None and not tables:
            head_file.save(probe.head, dataset.labels, extra / head_file.FILE)
        tables.append(_rows(dataset.labels, dataset.test, system, probe))
        protocol[f"c_{system}"] = probe.c
        protocol[f"validation_mean_auc_{system}"] = (
            "undefined"
            if probe.validation_mean_auc is None
            else round(probe.validation_mean_auc, 6)
        )
        protocol[f"not_converged_{system}"] = probe.not_converged
    return pa.concat_tables(tables), protocol


def describe_unreadable(listed: ProbeDataset, readable: ProbeDataset) -> dict[str, int]:
    """Return how many listed images are missing or broken, in all and in the test."""
    return {
        "unreadable_images": len(listed.images) - len(readable.images),
        "unreadable_images_test": len(listed.test) - len(readable.test),
    }


def _rows(labels: Sequence[str], test: Rows, system: str, probe: Probe) -> pa.Table:
    defined = np.flatnonzero(np.isfinite(probe.scores).all(axis=0)).tolist()
    targets = test.targets[:, defined].T.ravel()
    columns = {
        "sample": list(test.samples) * len(defined),
        "patient": list(test.patients) * len(defined),
        "system": [system] * (len(test) * len(defined)),
        "label": [labels[label] for label in defined for _ in range(len(test))],
        "target": pa.array(targets, pa.int8(), mask=targets == UNKNOWN),
        "score": probe.scores[:, defined].T.ravel(),
    }
    return pa.table(columns, schema=PROBE_PREDICTIONS)


def _describe(dataset: ProbeDataset) -> dict[str, Any]:
    sizes = {}
    for split, rows in dataset.splits.items():
        sizes[f"images_{split}"] = len(rows)
        sizes[f"patients_{split}"] = len(set(rows.patients))
    return {
        "dataset": dataset.name,
        "labels": ", ".join(dataset.labels),
        "features": "mean of the frozen encoder's pooled tokens, standardised on train",
        "classifier": "L2 logistic regression per label; one C by mean validation AUROC; "
        "refitted on train and validate",
        "level": "image",
        "implementation": IMPLEMENTATION,
        **sizes,
    }
