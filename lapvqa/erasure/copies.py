"""Edited copies of a patient's films under other ids: found by what they show.

Equal pixels are found by their digests (``traces``); a copy that was saved anew, toned or cropped
is found as the firewall finds it, among the frontal films of all other patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lapvqa.firewall import matching
from lapvqa.firewall.descriptors import BYTES, Bits, describe
from lapvqa.firewall.films import described
from lapvqa.firewall.trim import Film
from lapvqa.images.shards import map_shard
from lapvqa.ingest.columns import is_one_of
from lapvqa.project import Project
from lapvqa.schemas import FRONTAL_VIEWS

_COLUMNS = (
    "image_key", "study_key", "patient_key", "split", "view", "shard", "row", "pixels_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Copy:
    """An image of another patient that shows one of the patient's films."""

    image: str
    study: str
    patient: str
    split: str
    score: float
    """0.6 to 1: ``lapvqa.firewall.same_film``."""
    verdict: str


def find_copies(project: Project, images: pa.Table, patient: str) -> list[Copy]:
    """Return the images of others that show a film of the patient, once each, most alike first.

    ``images`` has the columns of images.parquet. What the firewall has described is not described
    again; of the rest each takes 5 ms.
    """
    there = [path.name for path in project.images_dir.glob("*.arrow")]
    shown = is_one_of(images["view"], FRONTAL_VIEWS) & is_one_of(images["shard"], there)
    films = images.select(_COLUMNS).filter(pa.array(shown))
    own = is_one_of(films["patient_key"], [patient])
    mine = films.filter(pa.array(own)).to_pylist()
    equal = is_one_of(films["pixels_sha256"], [row["pixels_sha256"] for row in mine])
    others = films.filter(pa.array(~own & ~equal)).to_pylist() if mine else []
    if not others:
        return []
    found = matching.find(
        len(mine),
        _described(project, others),
        lambda query: _film(project.images_dir, mine[query]),
        lambda reference: _film(project.images_dir, others[reference]),
    )
    best: dict[str, Copy] = {}
    for match in sorted(found, key=lambda match: (-match.score, match.reference)):
        row = others[match.reference]
        copy = Copy(
            row["image_key"], row["study_key"], row["patient_key"], row["split"],
            round(match.score, 3), match.verdict,
        )  # fmt: skip
        best.setdefault(copy.image, copy)
    return list(best.values())


def _described(project: Project, rows: Sequence[dict[str, Any]]) -> Bits:
    known = described(project)
    bits = [
        known[row["pixels_sha256"]]
        if row["pixels_sha256"] in known
        else describe(_film(project.images_dir, row))
        for row in rows
    ]
    return np.array(bits, np.uint8).reshape(-1, BYTES)


def _film(folder: Path, row: dict[str, Any]) -> Film:
    film: Film = map_shard(folder / row["shard"])[row["row"]]
    return film
