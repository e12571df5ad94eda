"""Linear probe on CheXpert-5: frontal images, official validation set as the test."""

from __future__ import annotations

from functools import partial

import pyarrow as pa

from lapvqa.config import Machine
from lapvqa.evaluation import contract, features
from lapvqa.layout import Layout
from lapvqa.params import EvaluateParams
from lapvqa.probe import chexpert, recipe, scoring
from lapvqa.recorder import Recorder
from lapvqa.schemas import PROBE_PREDICTIONS


def _curves(predictions: pa.Table) -> contract.Table:
    rows = scoring.mean_curves(predictions, labels=chexpert.LABELS)
    return contract.Table(columns=scoring.CURVE_COLUMNS, rows=rows)


EVALUATION = contract.Evaluation(
    task="probe_chexpert",
    schema=PROBE_PREDICTIONS,
    primary="mean_auc",
    measure=partial(scoring.measure, labels=chexpert.LABELS),
    curves=_curves,
    curve_columns=scoring.CURVE_COLUMNS,
)

ABSENT = (
    "no CheXpert images here: set inventory.chexpert in params.yaml, or paths.chexpert in "
    "local.yaml, to the folder that holds train.csv and valid.csv"
)


def run(
    params: EvaluateParams, layout: Layout, machine: Machine, recorder: Recorder
) -> contract.Counts:
    """Write results/probe_chexpert: predictions, then metrics and curves; raises SourceError."""
    source = features.open_folder("chexpert", layout, machine)
    if source is None:
        return contract.not_computed(EVALUATION, ABSENT, layout=layout, common=params.common)
    listed = chexpert.read_chexpert(source.folder, uncertain=params.probe_chexpert.uncertain)
    listed.check(source.present(listed.images))
    found = features.extract(
        features.load_systems(contract.encoder_folder(layout)),
        source,
        listed.images,
        layout=layout,
        machine=machine,
        recorder=recorder,
    )
    dataset = listed.keep(found.readable)
    predictions, protocol = recipe.predict(
        dataset, found.systems, c_grid=params.probe_chexpert.c_grid, workers=machine.workers
    )
    if not predictions.num_rows:
        return contract.not_computed(
            EVALUATION, recipe.UNDEFINED, layout=layout, common=params.common
        )
    described = {
        **protocol,
        "views": "frontal",
        "uncertain": params.probe_chexpert.uncertain,
        "blank": "0",
        **recipe.describe_unreadable(listed, dataset),
        **{f"encoder_sha256_{name}": digest for name, digest in found.encoders.items()},
    }
    return contract.publish(
        EVALUATION, predictions, protocol=described, layout=layout, common=params.common
    )
