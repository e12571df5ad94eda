"""The probe's recipe: features of each system in, predictions and protocol out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa.datasets.labelled import ProbeDataset, Rows
from lapvqa.metrics.classification import UNKNOWN
from lapvqa.probe.linear import Probe, fit_and_predict
from lapvqa.probe.scoring import IMPLEMENTATION
from lapvqa.schemas import PROBE_PREDICTIONS

UNDEFINED = "no label has both positives and negatives among the training images"


def predict(
    dataset: ProbeDataset,
    features: Mapping[str, NDArray[np.float32]],
    *,
    c_grid: Sequence[float],
    workers: int = 1,
) -> tuple[pa.Table, dict[str, Any]]:
    """Fit one probe per system; return its PROBE_PREDICTIONS on the test and the protocol.

    ``features``: system -> [n, D], aligned with ``dataset.images``. A label that the training
    images cannot define has no rows.
    """
    tables, protocol = [], _describe(dataset)
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
