"""Linear probe on NIH ChestX-ray14: fourteen findings, official test list."""

from __future__ import annotations

from functools import partial

import pyarrow as pa

from lapvqa.config import Machine
from lapvqa.evaluation import contract, features
from lapvqa.layout import Layout
from lapvqa.params import EvaluateParams
from lapvqa.probe import nih14, recipe, scoring
from lapvqa.recorder import Recorder
from lapvqa.schemas import PROBE_PREDICTIONS


def _curves(predictions: pa.Table) -> contract.Table:
    rows = scoring.mean_curves(predictions, labels=nih14.LABELS)
    return contract.Table(columns=scoring.CURVE_COLUMNS, rows=rows)


EVALUATION = contract.Evaluation(
    task="probe_nih14",
    schema=PROBE_PREDICTIONS,
    primary="mean_auc",
    measure=partial(scoring.measure, labels=nih14.LABELS),
    curves=_curves,
    curve_columns=scoring.CURVE_COLUMNS,
)

ABSENT = (
    "no NIH ChestX-ray14 images here: set inventory.nih14 in params.yaml, or paths.nih14 in "
    "local.yaml, to the folder that holds Data_Entry_2017_v2020.csv"
)


def run(
    params: EvaluateParams, layout: Layout, machine: Machine, recorder: Recorder
) -> contract.Counts:
    """Write results/probe_nih14: predictions, then metrics and curves; raises SourceError."""
    source = features.open_folder("nih14", layout, machine)
    if source is None:
        return contract.not_computed(EVALUATION, ABSENT, layout=layout, common=params.common)
    listed = nih14.read_nih14(source.folder, source.files)
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
        dataset, found.systems, c_grid=params.probe_nih14.c_grid, workers=machine.workers
    )
    if not predictions.num_rows:
        return contract.not_computed(
            EVALUATION, recipe.UNDEFINED, layout=layout, common=params.common
        )
    described = {
        **protocol,
        "views": "PA and AP",
        "finding_not_named": "0",
        **recipe.describe_unreadable(listed, dataset),
        **{f"encoder_sha256_{name}": digest for name, digest in found.encoders.items()},
    }
    return contract.publish(
        EVALUATION, predictions, protocol=described, layout=layout, common=params.common
    )
