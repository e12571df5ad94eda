"""Example phrases of the grounding task: the true boxes, and the one each system found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from lapvqa.metrics.boxes.overlap import as_boxes
from lapvqa.metrics.boxes.phrase_grounding import Several, phrase_ious
from lapvqa.report.boxes import TRUE, Box, draw
from lapvqa.report.choice import Row, choose, rows_by_sample
from lapvqa.report.names import system_name
from lapvqa.report.pixels import Archive, Picture

RULE = (
    "Phrases are chosen by rule, not by result: in the order of a hash of their key, one of each "
    "category in turn. Right is a box with an IoU of 0.5 or more."
)

_RIGHT = 0.5


@dataclass(frozen=True)
class Grounded:
    """One system's box; ``overlap`` is its IoU with the true ones."""

    system: str
    overlap: float
    right: bool


@dataclass(frozen=True)
class GroundingExample:
    """A phrase about an image; ``figure`` is empty when the image cannot be read."""

    name: str
    category: str
    phrase: str
    picture: Picture | None
    figure: Markup
    boxes: list[Box]
    systems: list[Grounded]


def grounding_examples(
    predictions: pa.Table, archive: Archive, *, count: int, several: Several
) -> list[GroundingExample]:
    """Return ``count`` phrases of GROUNDING_PREDICTIONS, chosen by the rule."""
    columns = (predictions[name].to_pylist() for name in ("sample", "category"))
    chosen = rows_by_sample(predictions, choose(zip(*columns, strict=True), count))
    firsts = [next(iter(rows.values())) for rows in chosen.values()]
    pictures = archive.of_images((row["image"] for row in firsts), whole=True)
    return [
        _example(number, rows, pictures[row["image"]], several)
        for number, (rows, row) in enumerate(zip(chosen.values(), firsts, strict=True), start=1)
    ]


def _example(
    number: int, rows: Mapping[str, Row], picture: Picture | None, several: Several
) -> GroundingExample:
    row = next(iter(rows.values()))
    systems = [_grounded(system, one, several) for system, one in rows.items()]
    boxes = [
        *(Box(tuple(box), TRUE) for box in row["true_boxes"]),
        *(Box(tuple(one["found_box"]), system) for system, one in rows.items()
          if one["found_box"] is not None),
    ]  # fmt: skip
    said = ", ".join(f"{system_name(one.system)} IoU {one.overlap:.2f}" for one in systems)
    figure = Markup("")
    if picture is not None:
        figure = draw(
            picture, boxes, ident=f"pg-{number}", again=False,
            label=f"Chest radiograph with the true and the found boxes of the phrase "
            f"{row['phrase']!r}: {said}",
        )  # fmt: skip
    return GroundingExample(
        str(number), row["category"], row["phrase"], picture, figure, boxes, systems
    )


def _grounded(system: str, row: Row, several: Several) -> Grounded:
    found = np.full((1, 4), np.nan) if row["found_box"] is None else as_boxes([row["found_box"]])
    overlap = float(phrase_ious([as_boxes(row["true_boxes"])], found, several=several)[0])
    return Grounded(system, overlap, overlap >= _RIGHT)
