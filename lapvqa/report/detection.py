"""Example images of the detection task: true boxes, and the surest that each system found."""

from __future__ import annotations

import io
import string
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from lapvqa import storage
from lapvqa.errors import SchemaError
from lapvqa.metrics.boxes.overlap import as_boxes, iou
from lapvqa.metrics.boxes.voc import VINDR, FoundBoxes, TrueBoxes, find_hits
from lapvqa.project import Project
from lapvqa.report.boxes import TRUE, Box, draw
from lapvqa.report.choice import Row, rows_by_sample
from lapvqa.report.names import system_name
from lapvqa.report.pixels import Picture, encode_png

RULE = (
    "Test images in the order of their key, those with findings first. Of the boxes that a system "
    "found the surest are drawn: as many as there are true ones, and at least three. Numbers are "
    "true boxes, letters found ones. Right is a box that overlaps one of its finding by more than "
    "0.4 (IoU), which no surer one has claimed."
)

_AT_LEAST = 3


@dataclass(frozen=True)
class Detected:
    """What one system found, box by box in words; ``boxes`` are all that is drawn."""

    system: str
    figure: Markup
    boxes: list[Box]
    right: list[str]
    missed: list[str]
    invented: list[str]


@dataclass(frozen=True)
class DetectionExample:
    """One test image."""

    name: str
    picture: Picture
    systems: list[Detected]


def detection_examples(
    predictions: pa.Table, project: Project, *, count: int
) -> list[DetectionExample]:
    """Return ``count`` images of DETECTION_PREDICTIONS, at most those of extra/examples.npz.

    Raises MissingArtifactError without that file, SchemaError if it is another.
    """
    pictures = read_pictures(project)
    rows = rows_by_sample(predictions, list(pictures)[:count])
    return [
        _example(number, name, of_system, pictures[name])
        for number, (name, of_system) in enumerate(rows.items(), start=1)
    ]


def read_pictures(project: Project) -> dict[str, Picture]:
    """Return sample -> picture of results/ad/extra/examples.npz, in its order."""
    path = storage.require(
        project.result_dir("ad") / "extra" / "examples.npz", made_by="evaluate@ad"
    )
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            samples, pixels = archive["samples"].tolist(), archive["pixels"]
        pairs = zip(samples, pixels, strict=True)
        return {str(name): encode_png(one, view="") for name, one in pairs}
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise SchemaError(
            f"results/ad/extra/examples.npz: expected samples and pixels, found {error}",
            hint="run `lapvqa run --stage evaluate@ad` again",
        ) from error


def _example(number: int, name: str, rows: Mapping[str, Row], picture: Picture) -> DetectionExample:
    systems = [
        _detected(system, row, name, picture, ident=f"ad-{number}", again=place > 0)
        for place, (system, row) in enumerate(rows.items())
    ]
    return DetectionExample(name[:8], picture, systems)


def _detected(
    system: str, row: Row, name: str, picture: Picture, *, ident: str, again: bool
) -> Detected:
    row = _surest(row)
    claims = _claims(row)
    true = [f"{label} ({number})" for number, label in enumerate(row["true_labels"], start=1)]
    found = list(zip(row["found_labels"], string.ascii_lowercase, row["found_scores"],
                     strict=False))  # fmt: skip
    right = [
        f"{label} ({claim + 1}) by {letter}, {score:.2f}"
        for (label, letter, score), claim in zip(found, claims, strict=False)
        if claim is not None
    ]
    missed = [one for place, one in enumerate(true) if place not in claims]
    invented = [
        f"{label} ({letter}), {score:.2f}"
        for (label, letter, score), claim in zip(found, claims, strict=False)
        if claim is None
    ]
    boxes = [
        *(Box(tuple(box), TRUE, str(number))
          for number, box in enumerate(row["true_boxes"], start=1)),
        *(Box(tuple(box), system, letter)
          for box, letter in zip(row["found_boxes"], string.ascii_lowercase, strict=False)),
    ]  # fmt: skip
    parts = {"right": right, "missed": missed, "invented": invented}
    said = "; ".join(f"{sign}: {', '.join(names)}" for sign, names in parts.items() if names)
    figure = draw(
        picture, boxes, ident=ident, again=again,
        label=f"Chest radiograph {name[:8]} with boxes, {system_name(system)}: "
        f"{said or 'no box'}",
    )  # fmt: skip
    return Detected(system, figure, boxes, right, missed, invented)


def _surest(row: Row) -> Row:
    """Return the row with the found boxes that are drawn, the surest first."""
    many = min(max(_AT_LEAST, len(row["true_boxes"])), len(string.ascii_lowercase))
    order = np.argsort(-np.asarray(row["found_scores"]), kind="stable")[:many].tolist()
    columns = ("found_labels", "found_boxes", "found_scores")
    return row | {column: [row[column][place] for place in order] for column in columns}


def _claims(row: Row) -> list[int | None]:
    """Return which true box each found one has claimed; None: none."""
    names = sorted({*row["true_labels"], *row["found_labels"]})
    true, found = (
        np.array([names.index(one) for one in row[column]], dtype=np.int64)
        for column in ("true_labels", "found_labels")
    )
    truth = TrueBoxes(np.zeros_like(true), true, as_boxes(row["true_boxes"]))
    given = FoundBoxes(
        np.zeros_like(found), found, as_boxes(row["found_boxes"]), np.array(row["found_scores"])
    )
    overlaps = iou(given.boxes, truth.boxes)
    overlaps[found[:, None] != true[None]] = -1
    return [
        int(overlaps[place].argmax()) if hit else None
        for place, hit in enumerate(find_hits(truth, given, VINDR).tolist())
    ]
