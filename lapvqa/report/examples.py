"""The samples that the page shows, and their pictures: small PNGs embedded in it.

Samples are chosen by rule, never by how well an answer came out: in the order of the SHA-256 of
their name, which means nothing; one of each group in turn, so that every kind of question, phrase
or study is seen.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.images.shards import ShardStore
from lapvqa.project import Project
from lapvqa.report.page_results import SYSTEMS
from lapvqa.schemas import FRONTAL_VIEWS

SIZE = 256  # pixels of the longer side on the page

Row = dict[str, Any]


def choose(samples: Iterable[tuple[str, str]], count: int) -> list[str]:
    """Return ``count`` of (name, group): groups in their order, one name of each in turn."""
    groups: dict[str, list[str]] = {}
    for name, group in sorted(set(samples), key=lambda pair: _digest(pair[0])):
        groups.setdefault(group, []).append(name)
    turns = chain.from_iterable(zip_longest(*(groups[group] for group in sorted(groups))))
    return [name for name in turns if name is not None][:count]


def rows_by_sample(predictions: pa.Table, samples: list[str]) -> dict[str, dict[str, Row]]:
    """Return sample -> system -> row, samples as given, systems in the order shown."""
    rows = predictions.filter(pc.is_in(predictions["sample"], pa.array(samples, pa.string())))
    by_place = {(row["sample"], row["system"]): row for row in rows.to_pylist()}
    return {
        sample: {
            name: by_place[sample, name] for name in systems_of(rows) if (sample, name) in by_place
        }
        for sample in samples
    }


def systems_of(predictions: pa.Table) -> list[str]:
    """Return the systems present, in the order shown."""
    present = set(pc.unique(predictions["system"]).to_pylist())
    return [*(name for name in SYSTEMS if name in present), *sorted(present - set(SYSTEMS))]


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@dataclass(frozen=True)
class Picture:
    """A PNG for the page, base64.

    ``film``: of an image of the archive ``pixels_sha256``, by which an erasure finds the picture
    wherever a page is copied to.
    """

    data: str
    width: int
    height: int
    view: str
    film: str = "elsewhere"

    @property
    def address(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/png;film={self.film};base64,{self.data}"


class ArchivePictures:
    """Pictures of the archive's images; None where the page must say that one is missing."""

    def __init__(self, images: pa.Table, project: Project) -> None:
        self._images = images
        self._store = ShardStore(project.images_dir)

    def of_images(self, keys: Iterable[str], *, whole: bool = False) -> dict[str, Picture | None]:
        """Return the picture of each image; ``whole``: with its padding, as boxes count."""
        wanted = set(keys)
        places = {row["image_key"]: row for row in self._rows("image_key", wanted)}
        return {key: self._picture(places.get(key), whole) for key in sorted(wanted)}

    def of_studies(self, keys: Iterable[str]) -> dict[str, Picture | None]:
        """Return one picture of each study: a frontal view first, then by key."""
        wanted = set(keys)
        best: dict[str, Row] = {}
        for image in self._rows("study_key", wanted):
            best.setdefault(image["study_key"], image)
        return {key: self._picture(best.get(key), whole=False) for key in sorted(wanted)}

    def _rows(self, column: str, keys: set[str]) -> list[Row]:
        mask = pc.is_in(self._images[column], pa.array(sorted(keys), pa.string()))
        rows: list[Row] = self._images.filter(mask).to_pylist()
        return sorted(rows, key=lambda row: (row["view"] not in FRONTAL_VIEWS, row["image_key"]))

    def _picture(self, place: Row | None, whole: bool) -> Picture | None:
        if place is None:
            return None
        try:
            pixels = self._store.read([place["shard"]], [place["row"]])[0]
        except (MissingArtifactError, SchemaError):
            return None  # the page says so in the picture's place
        shown = pixels if whole else _content(pixels, place)
        return encode_png(shown, view=place["view"], film=place["pixels_sha256"])


def _content(pixels: NDArray[np.uint8], place: Row) -> NDArray[np.uint8]:
    """Cut away the padding: stored [384, 384] -> content [height, width]."""
    height = max(round(place["native_rows"] * place["scale"]), 1)
    width = max(round(place["native_cols"] * place["scale"]), 1)
    top, left = round(place["offset_y"]), round(place["offset_x"])
    return pixels[top : top + height, left : left + width]


def encode_png(pixels: NDArray[np.uint8], *, view: str, film: str = Picture.film) -> Picture:
    """Shrink uint8 [height, width] to at most 256 pixels a side and encode it as PNG."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIZE, SIZE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Picture(data, image.width, image.height, view, film)
