"""Example studies: image, reference report, generated report, findings right, missed, invented.

The choice is by rule, never by how well a report came out: studies in the order of their key
(a keyed hash, so the order means nothing), a study with findings and one without in turn.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from lapvqa.data.shards import ShardStore
from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.layout import Layout
from lapvqa.rrg.labeler import FINDINGS, NO_FINDING, find

_DEVICES = "Support Devices"
_SIZE = 256  # pixels of the longer side on the page
_FRONTAL = ("PA", "AP")

Row = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """A PNG for the page, base64."""

    data: str
    width: int
    height: int
    view: str


@dataclass(frozen=True)
class Example:
    """One test study; ``picture`` is None when its shard cannot be read."""

    study: str
    picture: Picture | None
    reference: str
    generated: str
    right: list[str]
    missed: list[str]
    invented: list[str]
    not_looked_for: list[str]
    """Known of the study, but nothing the labeler has words for."""
    truth_from: str


def pick_examples(
    predictions: pa.Table, images: pa.Table, layout: Layout, *, count: int
) -> list[Example]:
    """Return ``count`` studies that the trained system wrote a report for, by the rule above."""
    rows = [row for row in predictions.to_pylist() if row["system"] == "trained"]
    chosen = _alternate(sorted(rows, key=lambda row: str(row["sample"])), count)
    places = _places(images, {row["sample"] for row in chosen})
    store = ShardStore(layout.images_dir)
    return [_example(row, places.get(row["sample"]), store) for row in chosen]


def _alternate(rows: list[Row], count: int) -> list[Row]:
    ill = [row for row in rows if NO_FINDING not in _truth(row)]
    well = [row for row in rows if NO_FINDING in _truth(row)]
    turns = chain.from_iterable(zip_longest(ill, well))
    return [row for row in turns if row is not None][:count]


def _truth(row: Row) -> frozenset[str]:
    """Return the findings of a study: as the archive labels it, else as its reference says."""
    if row["truth"] is None:
        return find(row["reference"])
    known = frozenset(row["truth"]) - {NO_FINDING}
    # As the labeler has it: devices are no disease.
    return known if known - {_DEVICES} else known | {NO_FINDING}


def _example(row: Row, place: Row | None, store: ShardStore) -> Example:
    truth, looked_for = _truth(row), frozenset({*FINDINGS, NO_FINDING})
    written = find(row["hypothesis"])
    return Example(
        study=row["sample"][:8],
        picture=None if place is None else _picture(place, store),
        reference=row["reference"],
        generated=row["hypothesis"],
        right=sorted(truth & written),
        missed=sorted(truth & looked_for - written),
        invented=sorted(written - truth),
        not_looked_for=sorted(truth - looked_for),
        truth_from="the reference report" if row["truth"] is None else "the archive's labels",
    )


def _places(images: pa.Table, studies: set[str]) -> dict[str, Row]:
    """Return where one image of each study lies: a frontal view first, then by key."""
    wanted = images.filter(pa.compute.is_in(images["study_key"], pa.array(sorted(studies))))
    best: dict[str, Row] = {}
    for image in sorted(
        wanted.to_pylist(), key=lambda row: (row["view"] not in _FRONTAL, row["image_key"])
    ):
        best.setdefault(image["study_key"], image)
    return best


def _picture(place: Row, store: ShardStore) -> Picture | None:
    try:
        pixels = store.read([place["shard"]], [place["row"]])[0]
    except (MissingArtifactError, SchemaError):
        return None  # the page says so in the picture's place
    return encode_png(_content(pixels, place), view=place["view"])


def _content(pixels: NDArray[np.uint8], place: Row) -> NDArray[np.uint8]:
    """Cut away the padding: stored [384, 384] -> content [height, width]."""
    height = max(round(place["native_rows"] * place["scale"]), 1)
    width = max(round(place["native_cols"] * place["scale"]), 1)
    top, left = round(place["offset_y"]), round(place["offset_x"])
    return pixels[top : top + height, left : left + width]


def encode_png(pixels: NDArray[np.uint8], *, view: str) -> Picture:
    """Shrink uint8 [height, width] to at most 256 pixels a side and encode it as PNG."""
    image = Image.fromarray(pixels)
    image.thumbnail((_SIZE, _SIZE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return Picture(base64.b64encode(buffer.getvalue()).decode(), image.width, image.height, view)
