"""The comparison of encoders as one SVG that stands alone: intervals by task, a row per system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from lapvqa.evaluation.compare import REFERENCE, Line, Score
from lapvqa.metrics.bootstrap import Estimate
from lapvqa.report.figures import Axis, nice_axis, number

_WIDTH, _LEFT, _RIGHT = 940, 240, 640  # pixels: all, and the ends of the tracks
_ROW, _HEAD, _FOOT, _GAP = 22, 30, 22, 26
_BLACK, _GREY, _RULE = "#16202a", "#52606d", "#d3dae1"
_FILLS = {REFERENCE: "#0b62a8", "untrained": "#b34700", "most_common": "#6b5b95"}
_OTHER = "#0a6b4d"
_MAX_LETTERS = 30


def draw(lines: Sequence[Line]) -> str:
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


def _panel(line: Line) -> tuple[Markup, int]:
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


def _axis(line: Line) -> Axis:
    ends = [end for score in line.scores.values() for end in score.estimate if end is not None]
    return nice_axis(ends or [0.0, 1.0], line.metric)


def _ticks(axis: Axis, bottom: int) -> Iterator[Markup]:
    for tick in axis.ticks:
        x = _place(axis, tick)
        yield Markup(
            '<path d="M{0} {1}V{2}" stroke="{3}"/>'
            '<text x="{0}" y="{4}" fill="{5}" font-size="11" text-anchor="middle">{6}</text>'
        ).format(x, _HEAD, bottom, _RULE, bottom + 14, _GREY, number(tick))


def _reference(line: Line, axis: Axis, bottom: int) -> Iterator[Markup]:
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
    if estimate.low is not None and estimate.high is not None:
        bar = Markup('<path d="M{} {}H{}" stroke="{}" stroke-width="2"/>').format(
            _place(axis, estimate.low), y, _place(axis, estimate.high), ink
        )
    note = Markup('<tspan fill="{}"> {}</tspan>').format(_GREY, score.note) if score.note else ""
    return Markup(
        '{}<circle cx="{}" cy="{}" r="4.5" fill="{}"/><text x="{}" y="{}">{}{}</text>'
    ).format(
        bar, _place(axis, estimate.value), y, ink, _RIGHT + 14, y + 4, _numbers(estimate), note
    )


def _missing(y: int, why: str = "not computed") -> Markup:
    return Markup('<text x="{}" y="{}" fill="{}">{}</text>').format(_LEFT + 4, y + 4, _GREY, why)


def _numbers(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _place(axis: Axis, value: float) -> str:
    return f"{_LEFT + (_RIGHT - _LEFT) * axis.share(value):.1f}"


def _short(name: str) -> str:
    return name if len(name) <= _MAX_LETTERS else f"{name[: _MAX_LETTERS - 1]}…"
