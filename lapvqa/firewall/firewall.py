"""Stage ``firewall``: no patient, study or film of a test set is trained on.

Before anything is trained, the images that pretraining and heads would see are compared with those
of every evaluation whose data are here. By default training loses what both have; with
``on_leak: stamp`` it keeps them, and the evaluations say so (``lapvqa.evaluation.contamination``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa import storage
from lapvqa.firewall.account import Found, account, excluded_table, write_tested
from lapvqa.firewall.films import near_films
from lapvqa.firewall.held_out import (
    LEARNT_FROM,
    Archive,
    HeldOut,
    of_archive,
    of_folders,
    open_archive,
)
from lapvqa.firewall.leaks import Training, by_keys, of_patients
from lapvqa.firewall.reports import of_reports, read_reports
from lapvqa.job import Counts, Job
from lapvqa.params import EvaluateParams, FirewallParams
from lapvqa.schemas import EXCLUDED, FRONTAL_VIEWS, STUDIES


def run(params: tuple[FirewallParams, EvaluateParams], job: Job) -> Counts:
    """Write excluded.parquet, tested/ and account.json; return the counts.

    Raises what the readers of the evaluations' data raise, before hours of training.
    """
    own, evaluate = params
    archive = open_archive(job)
    training = read_training(archive)
    sets = list(of_archive(archive))
    not_checked: dict[str, str] = {}
    for name, held in of_folders(archive, evaluate, job):
        if isinstance(held, HeldOut):
            sets.append(held)
        else:
            not_checked[name] = held
    studies = storage.read_table(job.project.studies, STUDIES, made_by="ingest")
    reports = read_reports(studies)
    found = []
    for held, near in zip(sets, near_films(training, sets, archive, job), strict=True):
        leaks = [*by_keys(training, held), *near, *of_reports(reports, training, held, own)]
        leaks += of_patients(leaks, training, held)
        found.append(Found(held, leaks))
    left = own.on_leak == "stamp"
    shared = excluded_table(training, found)
    excluded = EXCLUDED.empty_table() if left else shared
    write_tested(found, job.project, left=left)
    storage.write_table(job.project.excluded, excluded, EXCLUDED)
    content = account(training, found, excluded, not_checked, on_leak=own.on_leak)
    storage.write_json(job.project.firewall_account, content)
    return _say(content, shared, job)


def read_training(archive: Archive) -> Training:
    """Return the frontal images of train and validate: pretraining or a head learns from them.

    With a report or without: a probe on the archive's own labels needs none.
    """
    images = archive.table
    is_taken = pc.and_(
        pc.is_in(images["split"], value_set=pa.array(LEARNT_FROM)),
        pc.is_in(images["view"], value_set=pa.array(FRONTAL_VIEWS)),
    )
    places = np.flatnonzero(is_taken.to_numpy(zero_copy_only=False))
    return Training(images.take(pa.array(places)), places.astype(np.int64))


def _say(content: dict[str, Any], shared: pa.Table, job: Job) -> Counts:
    before = sum(content["training_images"].values())
    lost = sum(content["excluded_images"].values())
    reasons = ", ".join(f"{name} {n}" for name, n in content["excluded_by_reason"].items())
    sets = ", ".join(sorted(set(shared["data_set"].to_pylist())))
    if lost:
        job.recorder.say(
            f"training loses {lost} of {before} images that a test set has too ({reasons}; "
            f"test images of: {sets})"
        )
    elif len(shared):
        job.recorder.say(
            f"{len(shared)} of {before} training images are in a test set too ({sets}) and stay "
            "(firewall.on_leak: stamp): the results of those sets will be marked contaminated"
        )
    if content["not_checked"]:
        sets = "; ".join(f"{name}: {why}" for name, why in content["not_checked"].items())
        job.recorder.say(f"not compared with {sets}")
    return {
        "training_images": before,
        "shared_images": len(shared),
        "excluded_images": lost,
        **{f"excluded_{name.replace(' ', '_')}": n
           for name, n in content["excluded_by_reason"].items()},
        "test_images": sum(one["test_images"] for one in content["data_sets"].values()),
    }  # fmt: skip
