"""The comparison of encoders as files: JSON for machines, CSV for `dvc plots`, SVG to look at.

evaluations/comparison.json: {"reference", "p_value", "delong_p", "encoders": {name: encoder.json},
"lines": [{"task", "writer", "metric", "systems": {system: {"value", "low", "high", "num_samples",
"difference": {"value", "low", "high", "p_value"} or null, "delong_p": {label: p}, "note",
"training": null, or {"state": contaminated | unknown training | stated training, "why": [text]}}},
"not_computed": {system: reason}}]}.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple
from typing import Any

from markupsafe import Markup

from lapvqa import storage
from lapvqa.evaluation import differences
from lapvqa.evaluation.compare import REFERENCE, ComparisonLine, Score
from lapvqa.evaluation.results import BASELINE
from lapvqa.project import Project
from lapvqa.report.figures import Axis, nice_axis, number

NAMES = ("comparison.json", "comparison.csv", "comparison.svg")

_COLUMNS = (
    "row", "task", "writer", "system", "metric", "value", "low", "high", "num_samples",
    "difference", "difference_low", "difference_high", "p_value", "note", "training",
)  # fmt: skip
_DECIMALS = 6

_WIDTH, _LEFT, _RIGHT = 940, 240, 640  # pixels: all, and the ends of the tracks
_ROW, _HEAD, _FOOT, _GAP = 22, 30, 22, 26
_BLACK, _GREY, _RULE = "#16202a", "#52606d", "#d3dae1"
_FILLS = {REFERENCE: "#0b62a8", "untrained": "#b34700", BASELINE: "#6b5b95"}
_OTHER = "#0a6b4d"
_MAX_LETTERS = 30


def write(
    lines: Sequence[ComparisonLine], encoders: Mapping[str, Mapping[str, Any]], project: Project
) -> dict[str, Any]:
    """Write the three files into evaluations/; return the content of the JSON."""
    folder = project.evaluations_dir("x").parent
    document = as_document(lines, encoders)
    storage.write_json(folder / "comparison.json", document)
    storage.write_bytes(folder / "comparison.csv", _csv(lines))
    storage.write_bytes(folder / "comparison.svg", draw(lines).encode())
    return document


def as_document(
    lines: Sequence[ComparisonLine], encoders: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
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
        **_rounded(asdict(score.estimate)),
        "num_samples": score.num_samples,
        "difference": difference,
        "delong_p": _rounded(score.delong),
        "note": score.note or None,
        "training": score.doubt and {"state": score.doubt.state, "why": list(score.doubt.why)},
    }


def _rounded(numbers: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        key: None if value is None else round(value, _DECIMALS) + 0.0
        for key, value in numbers.items()
    }


def _csv(lines: Sequence[ComparisonLine]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(["" if cell is None else cell for cell in row] for row in _rows(lines))
    return text.getvalue().encode()


def _rows(lines: Sequence[ComparisonLine]) -> Iterator[list[str | float | None]]:
    for line in lines:
        for name, score in line.scores.items():
            one = _system(score)
            difference = one["difference"] or {}
            yield [
                f"{line.name}: {name}", line.task, line.writer, name, line.metric,
                one["value"], one["low"], one["high"], score.num_samples,
                *(difference.get(key) for key in ("value", "low", "high", "p_value")),
                score.note,
                f"{score.doubt.state}: {'; '.join(score.doubt.why)}" if score.doubt else "",
            ]  # fmt: skip


def draw(lines: Sequence[ComparisonLine]) -> str:
    """Return the SVG; a system without a value on a line says why."""
    body, y = Markup(""), _GAP + 10
    for line in lines:
        panel, height = _panel(line)
        body += Markup('<g transform="translate(0 {})">{}</g>\n').format(y, panel)
        y += height + _GAP
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" '
        'font-family="sans-serif" font-size="13" fill="{2}">\n'
        "<title>Encoders compared: primary metric of each task, with its interval</title>\n"
        '<rect width="100%" height="100%" fill="#fff"/>\n{3}</svg>\n'
    ).format(_WIDTH, y, _BLACK, body)


def _panel(line: ComparisonLine) -> tuple[Markup, int]:
    axis = _axis(line)
    names = [*line.scores, *line.absent]
    bottom = _HEAD + _ROW * len(names)
    parts = [
        Markup('<text x="16" y="12" font-weight="700">{}</text>').format(line.name),
        Markup('<text x="{}" y="12" fill="{}">{}</text>').format(_LEFT, _GREY, line.metric),
        *_ticks(axis, bottom),
        *_reference(line, axis, bottom),
    ]
    for place, name in enumerate(names):
        y = _HEAD + _ROW * place + _ROW // 2
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
                _LEFT - 14, y + 4, _short(name)
            )
        )
        score = line.scores.get(name)
        parts.append(_missing(y) if score is None else _mark(score, name, axis, y))
    return Markup("\n").join(parts), bottom + _FOOT


def _axis(line: ComparisonLine) -> Axis:
    ends = [
        end for score in line.scores.values() for end in astuple(score.estimate) if end is not None
    ]
    return nice_axis(ends or [0.0, 1.0], line.metric)


def _ticks(axis: Axis, bottom: int) -> Iterator[Markup]:
    for tick in axis.ticks:
        x = _place(axis, tick)
        yield Markup(
            '<path d="M{0} {1}V{2}" stroke="{3}"/>'
            '<text x="{0}" y="{4}" fill="{5}" font-size="11" text-anchor="middle">{6}</text>'
        ).format(x, _HEAD, bottom, _RULE, bottom + 14, _GREY, number(tick))


def _reference(line: ComparisonLine, axis: Axis, bottom: int) -> Iterator[Markup]:
    """Draw trained's value through the rows of the others."""
    score = line.scores.get(REFERENCE)
    if score is not None and score.estimate.value is not None:
        yield Markup('<path d="M{} {}V{}" stroke="{}" stroke-dasharray="2 3"/>').format(
            _place(axis, score.estimate.value), _HEAD, bottom, _FILLS[REFERENCE]
        )


def _mark(score: Score, name: str, axis: Axis, y: int) -> Markup:
    estimate, ink = score.estimate, _FILLS.get(name, _OTHER)
    if estimate.value is None:
        return _missing(y, "undefined")
    bar = Markup("")
    if estimate.limits is not None:
        low, high = (_place(axis, limit) for limit in estimate.limits)
        bar = Markup('<path d="M{} {}H{}" stroke="{}" stroke-width="2"/>').format(low, y, high, ink)
    notes = [score.note, score.doubt.state if score.doubt else ""]
    said = ", ".join(filter(None, notes))
    note = Markup('<tspan fill="{}"> {}</tspan>').format(_GREY, said) if said else ""
    return Markup(
        '{}<circle cx="{}" cy="{}" r="4.5" fill="{}"/><text x="{}" y="{}">{}{}</text>'
    ).format(bar, _place(axis, estimate.value), y, ink, _RIGHT + 14, y + 4, estimate.shown(), note)


def _missing(y: int, why: str = "not computed") -> Markup:
    return Markup('<text x="{}" y="{}" fill="{}">{}</text>').format(_LEFT + 4, y + 4, _GREY, why)


def _place(axis: Axis, value: float) -> str:
    return f"{_LEFT + (_RIGHT - _LEFT) * axis.share(value):.1f}"


def _short(name: str) -> str:
    return name if len(name) <= _MAX_LETTERS else f"{name[: _MAX_LETTERS - 1]}…"
