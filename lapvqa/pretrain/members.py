"""Whom a training has sampled, how often, and in which role: members.parquet beside the model.

Lineage answers from it which models saw a patient; erasing a patient starts there.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa import storage
from lapvqa.images.report_pairs import Pair
from lapvqa.pretrain.loader import Corpus, Plan
from lapvqa.project import Project
from lapvqa.schemas import IMAGES, MEMBERS


def table(project: Project, corpus: Corpus, plan: Plan, *, best: int, last: int) -> pa.Table:
    """Return one row per study: how often its pairs were sampled until two steps.

    ``best`` and ``last`` are numbers of steps taken. Pairs of the validation split are sampled by
    no step: they chose the best one.
    """
    columns = {
        "times": sampled(plan, last),
        "times_best": sampled(plan, best),
        "first_step": first_steps(plan, last),
    }
    train = _by_study(corpus.train, "train", columns)
    validate = _by_study(corpus.validate, "validate", {})
    images = storage.read_table(project.images, IMAGES, made_by="ingest")
    patients = images.select(["study_key", "patient_key"]).group_by("study_key").aggregate(
        [("patient_key", "min")]
    )  # fmt: skip
    joined = pa.concat_tables([train, validate]).join(patients, "study_key")
    named = joined.rename_columns({"patient_key_min": "patient_key"})
    return named.select(MEMBERS.names).sort_by([("role", "ascending"), ("study_key", "ascending")])


def sampled(plan: Plan, steps: int) -> NDArray[np.int64]:
    """Return how often each pair of a plan is sampled by its first ``steps`` steps, [pairs]."""
    counts = np.zeros(plan.num_pairs, dtype=np.int64)
    per_epoch = plan.steps_per_epoch
    for epoch in range(-(-steps // per_epoch)):
        taken = min(per_epoch, steps - epoch * per_epoch) * plan.batch_size
        order = plan.order(epoch)
        rounds, rest = divmod(taken, plan.shown)
        counts[order] += rounds
        counts[order[:rest]] += 1
    return counts


def first_steps(plan: Plan, steps: int) -> NDArray[np.int64]:
    """Return the step, from 1, that sampled each pair first, [pairs]; 0 if it is none of them."""
    first = np.zeros(plan.num_pairs, dtype=np.int64)
    within = 1 + np.arange(plan.shown) // plan.batch_size
    for epoch in range(-(-steps // plan.steps_per_epoch)):
        order, step = plan.order(epoch), epoch * plan.steps_per_epoch + within
        unseen = (first[order] == 0) & (step <= steps)
        first[order[unseen]] = step[unseen]
        if first.all():
            break
    return first


def _by_study(pairs: list[Pair], role: str, columns: dict[str, NDArray[np.int64]]) -> pa.Table:
    """Return a row per study: times summed over its images, the earliest first step."""
    zeros = np.zeros(len(pairs), dtype=np.int64)
    values = {name: columns.get(name, zeros) for name in ("times", "times_best", "first_step")}
    rows = pa.table({"study_key": pa.array([p.study_key for p in pairs], pa.string()), **values})
    totals = rows.group_by("study_key").aggregate(
        [("times", "sum"), ("times_best", "sum"), ("first_step", "min")]
    )
    named = totals.rename_columns(
        {"times_sum": "times", "times_best_sum": "times_best", "first_step_min": "first_step"}
    )
    role_column = pa.array([role] * named.num_rows, pa.string())
    return named.append_column("role", role_column)
