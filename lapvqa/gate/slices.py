"""The slices in which a candidate must not be worse: view, sex, age band, source.

A slice is of test samples. The tables tell the view of an image, and sex and age band of a study
where the headers say them; the source (the called AE title, or the name given to `lapvqa pull` or
`watch`) is known of studies that came that way. What nothing tells is no slice, and the verdict
says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa

from lapvqa import storage
from lapvqa.arrivals import first_of_studies
from lapvqa.project import Project
from lapvqa.schemas import FRONTAL_VIEWS

_BANDS = ((40, "below 40"), (60, "40 to 59"), (80, "60 to 79"), (200, "80 and above"))


Parts = dict[str, set[str]]
"""Value of a slice -> samples."""


def divide(project: Project, rows: pa.Table, names: Iterable[str]) -> dict[str, Parts]:
    """Return slice name -> value -> samples, of one system's rows; empty where no table tells."""
    images = storage.read_columns(project.images).sort_by("image_key").to_pylist()
    place = dict(_placed(rows, images))
    told = {"source": _sources(project), **_demographics(project)}
    divided: dict[str, Parts] = {}
    for name in names:
        parts = divided[name] = {}
        for sample, image in place.items():
            value = image["view"] if name == "view" else told[name].get(image["study_key"])
            if value:
                parts.setdefault(f"{name} {value}", set()).add(sample)
    return divided


def _placed(
    rows: pa.Table, images: list[dict[str, object]]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield each sample with the row of its image; of a study it is the first frontal one."""
    by_key = {image["image_key"]: image for image in images}
    by_study: dict[object, dict[str, object]] = {}
    for image in images:
        if image["view"] in FRONTAL_VIEWS:
            by_study.setdefault(image["study_key"], image)
    column = "image" if "image" in rows.schema.names else "sample"
    for sample, key in set(zip(rows["sample"].to_pylist(), rows[column].to_pylist(), strict=True)):
        own = by_key.get(key) or by_study.get(key)
        if own is not None:
            yield sample, own


def _demographics(project: Project) -> dict[str, dict[object, str]]:
    """Return sex and age: study -> value; studies of which nobody knows are left out."""
    if not project.demographics.exists():
        return {"sex": {}, "age": {}}
    rows = storage.read_columns(project.demographics).to_pylist()
    return {
        "sex": {row["study_key"]: row["sex"] for row in rows if row["sex"]},
        "age": {row["study_key"]: _wider(row["age_band"]) for row in rows if row["age_band"]},
    }


def _wider(band: str) -> str:
    """Return the band that holds one of ten years, ``40-49`` or ``90+``."""
    first = int(band.rstrip("+").partition("-")[0])
    return next(words for limit, words in _BANDS if first < limit)


def _sources(project: Project) -> dict[object, str]:
    """Return study -> the source that it came from, as the list of arrivals tells.

    Its report has a line of its own, with the name of whoever sends reports.
    """
    return {study: one.source for study, one in first_of_studies(project.arrivals).items()}
