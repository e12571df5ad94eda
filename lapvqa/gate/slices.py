"""The slices in which a candidate must not be worse: view, sex, age band, source.

A slice is of test samples. The tables tell the view of an image; sex and age they tell where they
have such a column; the source (the called AE title) is known of studies that came by
`lapvqa receive`. What no table tells is no slice, and the verdict says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from lapvqa.project import Project
from lapvqa.schemas import FRONTAL_VIEWS

_BANDS = ((40, "below 40"), (65, "40 to 64"), (200, "65 and above"))


Parts = dict[str, set[str]]
"""Value of a slice -> samples."""


def divide(project: Project, rows: pa.Table, names: Iterable[str]) -> dict[str, Parts]:
    """Return slice name -> value -> samples, of one system's rows; empty where no table tells."""
    images = pq.read_table(project.images, partitioning=None).sort_by("image_key").to_pylist()
    place = dict(_placed(rows, images))
    divided: dict[str, Parts] = {}
    sources = _sources(project)
    for name in names:
        parts = divided[name] = {}
        for sample, image in place.items():
            value = sources.get(image["study_key"]) if name == "source" else _value(name, image)
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


def _value(name: str, image: Mapping[str, object]) -> str:
    value = image.get(name)
    if name == "age" and isinstance(value, int | float):
        return next((words for limit, words in _BANDS if value < limit), "")
    return str(value) if value else ""


def _sources(project: Project) -> dict[object, str]:
    """Return study -> the called AE title that it came to, as the log of arrivals tells."""
    log = project.state / "arrivals.jsonl"
    if not log.exists():
        return {}
    events = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:  # the last line, of a receiver that was killed
            continue
    return {event["study"]: str(event["source"]) for event in events if event.get("study")}
