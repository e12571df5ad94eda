"""Examples with boxes: findings that were detected, phrases that were grounded, drawn as SVG.

Colours are fixed, for boxes lie on grey, not on the page.
"""

from __future__ import annotations

import io
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from lapvqa import storage
from lapvqa.errors import SchemaError
from lapvqa.evaluation.results import EXTRA
from lapvqa.metrics.boxes.overlap import as_boxes, iou
from lapvqa.metrics.boxes.phrase_grounding import Several, phrase_ious
from lapvqa.metrics.boxes.voc import VINDR, FoundBoxes, TrueBoxes, find_hits
from lapvqa.report.examples import (
    ArchivePictures,
    Picture,
    Row,
    choose,
    encode_png,
    rows_by_sample,
)
from lapvqa.report.page_results import system_name
from lapvqa.schemas import STORED_SIZE

TRUE = "true"
_STYLES = {
    TRUE: ("#ffffff", ""),
    "trained": ("#56b4e9", "10 5"),
    "untrained": ("#f0a030", "3 5"),
}
_OTHER = ("#e69fd0", "14 4 3 4")
_FONT = 17  # of 384 units


@dataclass(frozen=True)
class DrawnBox:
    """``corners``: x0, y0, x1, y1 in stored pixels; ``kind``: TRUE, or the system that found it."""

    corners: tuple[float, float, float, float]
    kind: str
    tag: str = ""


def draw(
    picture: Picture, boxes: Sequence[DrawnBox], *, ident: str, again: bool, label: str
) -> Markup:
    """Return a picture [384, 384] under its boxes, as SVG; ``label`` says what is seen.

    ``ident``: the picture's id within the page; ``again``: it has been drawn under that id.
    """
    return Markup(
        '<svg class="boxes" viewBox="0 0 {0} {0}" role="img" aria-label="{1}">{2}</svg>'
    ).format(STORED_SIZE, label, layers(picture, boxes, ident=ident, again=again))


def layers(picture: Picture, boxes: Sequence[DrawnBox], *, ident: str, again: bool) -> Markup:
    """Return what ``draw`` has within its SVG."""
    if again:
        ground = Markup('<use href="#{}"/>').format(ident)
    else:
        ground = Markup('<image id="{}" width="{}" height="{}" href="{}"/>').format(
            ident, STORED_SIZE, STORED_SIZE, picture.address
        )
    # Tags last: no line crosses them.
    return ground + Markup("").join([_lines(box) for box in boxes] + [_tag(box) for box in boxes])


def _lines(box: DrawnBox) -> Markup:
    x0, y0, x1, y1 = (round(value, 1) for value in box.corners)
    colour, dashes = _STYLES.get(box.kind, _OTHER)
    size = Markup('x="{}" y="{}" width="{}" height="{}" fill="none"').format(
        x0, y0, round(x1 - x0, 1), round(y1 - y0, 1)
    )
    # A dark line below keeps the light one visible on bone.
    return Markup(
        '<rect {0} stroke="#000" stroke-opacity=".55" stroke-width="5"/>'
        '<rect {0} stroke="{1}" stroke-width="3" stroke-dasharray="{2}"/>'
    ).format(size, colour, dashes or "none")


def _tag(box: DrawnBox) -> Markup:
    """Write a true box's tag at its first corner, a found one's at its last."""
    if not box.tag:
        return Markup("")
    x0, y0, x1, y1 = box.corners
    x, y, anchor = (x1 - 4, y1 - 5, "end")
    if box.kind == TRUE:
        x, y, anchor = (x0 + 4, y0 + _FONT - 1, "start")
    colour, _ = _STYLES.get(box.kind, _OTHER)
    limit = STORED_SIZE - 3
    return Markup(
        '<text x="{}" y="{}" text-anchor="{}" fill="{}" font-size="{}" font-weight="700" '
        'font-family="sans-serif" stroke="#000" stroke-width="3" paint-order="stroke">{}</text>'
    ).format(
        round(min(x, limit), 1), round(min(max(y, _FONT), limit), 1), anchor, colour, _FONT, box.tag
    )


def box_legend(kinds: Sequence[str]) -> Markup:
    """Return the key to the lines of boxes."""
    items = []
    for kind in kinds:
        colour, dashes = _STYLES.get(kind, _OTHER)
        items.append(
            Markup(
                '<li><svg width="44" height="18" aria-hidden="true"><rect width="44" height="18" '
                'fill="#333"/><line x1="4" x2="40" y1="9" y2="9" stroke="{}" stroke-width="3" '
                'stroke-dasharray="{}"/></svg>{}</li>'
            ).format(
                colour,
                dashes or "none",
                "true box" if kind == TRUE else f"found: {system_name(kind)}",
            )
        )
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


DETECTION_RULE = (
    "Test images in the order of their key, those with findings first. A system finds many boxes; "
    "only its surest are drawn, as many as there are true ones and at least three. Numbers are "
    "true boxes, letters found ones. Right is a box that overlaps one of its finding by more than "
    "0.4 (IoU), which no surer one has claimed."
)

_AT_LEAST = 3


@dataclass(frozen=True)
class Detected:
    """One system's detections, box by box in words; ``boxes`` are all that is drawn."""

    system: str
    figure: Markup
    boxes: list[DrawnBox]
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
    predictions: pa.Table, folder: Path, *, count: int
) -> list[DetectionExample]:
    """Return ``count`` images of DETECTION_PREDICTIONS, at most those of extra/examples.npz.

    ``folder``: the task's results. Raises MissingArtifactError without that file, SchemaError if
    it is another.
    """
    pictures = read_pictures(folder)
    rows = rows_by_sample(predictions, list(pictures)[:count])
    return [
        _detection_example(name, of_system, pictures[name], ident=f"{folder.name}-{number}")
        for number, (name, of_system) in enumerate(rows.items(), start=1)
    ]


def read_pictures(folder: Path) -> dict[str, Picture]:
    """Return sample -> picture of extra/examples.npz in a task's results, in its order."""
    stage = f"evaluate@{folder.name}"
    path = storage.require(folder / EXTRA / "examples.npz", made_by=stage)
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            samples, pixels = archive["samples"].tolist(), archive["pixels"]
        pairs = zip(samples, pixels, strict=True)
        return {str(name): encode_png(one, view="") for name, one in pairs}
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise SchemaError(
            f"results/{folder.name}/extra/examples.npz: expected samples and pixels, found {error}",
            hint=f"run `lapvqa run --stage {stage}` again",
        ) from error


def _detection_example(
    name: str, rows: Mapping[str, Row], picture: Picture, *, ident: str
) -> DetectionExample:
    systems = [
        _detected(system, row, name, picture, ident=ident, again=place > 0)
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
        *(DrawnBox(tuple(box), TRUE, str(number))
          for number, box in enumerate(row["true_boxes"], start=1)),
        *(DrawnBox(tuple(box), system, letter)
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
        np.array([names.index(name) for name in row[column]], dtype=np.int64)
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


GROUNDING_RULE = (
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
    boxes: list[DrawnBox]
    systems: list[Grounded]


def grounding_examples(
    predictions: pa.Table, archive: ArchivePictures, *, task: str, count: int, several: Several
) -> list[GroundingExample]:
    """Return ``count`` phrases of GROUNDING_PREDICTIONS, chosen by the rule."""
    columns = (predictions[name].to_pylist() for name in ("sample", "category"))
    chosen = rows_by_sample(predictions, choose(zip(*columns, strict=True), count))
    firsts = [next(iter(rows.values())) for rows in chosen.values()]
    pictures = archive.of_images((row["image"] for row in firsts), whole=True)
    return [
        _grounding_example(number, rows, pictures[row["image"]], several, ident=f"{task}-{number}")
        for number, (rows, row) in enumerate(zip(chosen.values(), firsts, strict=True), start=1)
    ]


def _grounding_example(
    number: int,
    rows: Mapping[str, Row],
    picture: Picture | None,
    several: Several,
    *,
    ident: str,
) -> GroundingExample:
    row = next(iter(rows.values()))
    systems = [_grounded(system, of_system, several) for system, of_system in rows.items()]
    boxes = [
        *(DrawnBox(tuple(box), TRUE) for box in row["true_boxes"]),
        *(DrawnBox(tuple(of_system["found_box"]), system) for system, of_system in rows.items()
          if of_system["found_box"] is not None),
    ]  # fmt: skip
    said = ", ".join(
        f"{system_name(grounded.system)} IoU {grounded.overlap:.2f}" for grounded in systems
    )
    figure = Markup("")
    if picture is not None:
        figure = draw(
            picture, boxes, ident=ident, again=False,
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
