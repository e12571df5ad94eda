"""Whether weights may be gone on from: all that they have seen must still be training data.

Weights keep what they have seen. A study that is a test study now, that the firewall takes out, or
that was erased or deleted, would come back through them unseen by every later check.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from lapvqa import storage
from lapvqa.project import Project
from lapvqa.schemas import EXCLUDED, FRONTAL_VIEWS, IMAGES, MEMBERS, TOKENS


def no_longer_training(project: Project, members: Path) -> str:
    """Return what of the members of a training is no training data now, in counts; "" if all is."""
    known = set(_column(storage.read_table(members, MEMBERS, made_by="pretrain"), "study_key"))
    gone = known - studies_with_pairs(project, "train", "validate")
    excluded = storage.read_table(project.excluded, EXCLUDED, made_by="firewall")
    cut = known & set(_column(excluded, "study_key"))
    if not gone | cut:
        return ""
    return (
        f"{len(gone | cut)} of the {len(known)} studies that these weights have seen are no "
        "training data now: erased, deleted, or part of a test set"
    )


def studies_with_pairs(project: Project, *splits: str) -> set[str]:
    """Return the studies of these splits that have a report and a frontal image to train on."""
    tokens = storage.read_table(project.tokens_dir, TOKENS, made_by="tokens")
    images = storage.read_table(project.images, IMAGES, made_by="ingest")
    excluded = storage.read_table(project.excluded, EXCLUDED, made_by="firewall")
    left_out = set(_column(excluded, "image_key"))
    names = ("image_key", "study_key", "split", "view")
    rows = zip(*(_column(images, name) for name in names), strict=True)
    frontal = {
        study
        for image, study, split, view in rows
        if split in splits and view in FRONTAL_VIEWS and image not in left_out
    }
    reports = zip(_column(tokens, "study_key"), _column(tokens, "split"), strict=True)
    return frontal & {study for study, split in reports if split in splits}


def _column(table: pa.Table, name: str) -> list[str]:
    values: list[str] = table[name].to_pylist()
    return values
