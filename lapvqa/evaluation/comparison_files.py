"""The comparison of encoders as files: JSON for machines, CSV for `dvc plots`, SVG to look at.

evaluations/comparison.json: {"reference", "p_value", "delong_p", "encoders": {name: encoder.json},
"lines": [{"task", "writer", "metric", "systems": {system: {"value", "low", "high", "num_samples",
"difference": {"value", "low", "high", "p_value"} or null, "delong_p": {label: p}, "note"}},
"not_computed": {system: reason}}]}.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lapvqa import storage
from lapvqa.evaluation import differences
from lapvqa.evaluation.compare import REFERENCE, Line, Score
from lapvqa.evaluation.comparison_picture import draw
from lapvqa.project import Project

NAMES = ("comparison.json", "comparison.csv", "comparison.svg")

_COLUMNS = (
    "row", "task", "writer", "system", "metric", "value", "low", "high", "num_samples",
    "difference", "difference_low", "difference_high", "p_value", "note",
)  # fmt: skip
_DECIMALS = 6


def write(
    lines: Sequence[Line], encoders: Mapping[str, Mapping[str, Any]], project: Project
) -> dict[str, Any]:
    """Write the three files into evaluations/; return the content of the JSON."""
    folder = project.evaluations_dir("x").parent
    document = as_document(lines, encoders)
    storage.write_json(folder / "comparison.json", document)
    storage.write_bytes(folder / "comparison.csv", _csv(lines))
    storage.write_bytes(folder / "comparison.svg", draw(lines).encode())
    return document


def as_document(lines: Sequence[Line], encoders: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the comparison as plain JSON; numbers carry six decimals."""
    return {
        "reference": REFERENCE,
        "p_value": differences.P_VALUE,
        "delong_p": differences.DELONG,
        "encoders": {name: dict(facts) for name, facts in encoders.items()},
        "lines": [
            {
                "task": line.task,
                "writer": line.writer or None,
                "metric": line.metric,
                "systems": {name: _system(score) for name, score in line.scores.items()},
                "not_computed": dict(line.absent),
            }
            for line in lines
        ],
    }


def _system(score: Score) -> dict[str, Any]:
    difference = None if score.difference is None else _rounded(asdict(score.difference))
    return {
        **_rounded(score.estimate._asdict()),
        "num_samples": score.num_samples,
        "difference": difference,
        "delong_p": _rounded(score.delong),
        "note": score.note or None,
    }


def _rounded(numbers: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        key: None if value is None else round(value, _DECIMALS) + 0.0
        for key, value in numbers.items()
    }


def _csv(lines: Sequence[Line]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(["" if one is None else one for one in row] for row in _rows(lines))
    return text.getvalue().encode()


def _rows(lines: Sequence[Line]) -> Iterator[list[str | float | None]]:
    for line in lines:
        for name, score in line.scores.items():
            one = _system(score)
            difference = one["difference"] or {}
            yield [
                f"{line.name}: {name}", line.task, line.writer, name, line.metric,
                one["value"], one["low"], one["high"], score.num_samples,
                *(difference.get(key) for key in ("value", "low", "high", "p_value")),
                score.note,
            ]  # fmt: skip
