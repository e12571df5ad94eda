"""Figures as HTML and inline SVG: they follow the reader's theme, width and font size.

Positions are percentages and only lines are stretched, so text and marks keep their size on a
phone and in print. Systems differ by mark and dash as well as by colour. Each figure says in
words what it shows (``role="img"``); the numbers stand in the table beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lapvqa.evaluation.results import BASELINE, Interval
from lapvqa.report.page_results import system_name

MARKS = {
    "trained": Markup('<circle r="5"/>'),
    "untrained": Markup('<rect x="-4" y="-4" width="8" height="8"/>'),
    "head_trained": Markup('<path d="M0-6 6 5-6 5Z"/>'),
    "head_untrained": Markup('<path d="M0-6 6 5-6 5Z"/>'),
    BASELINE: Markup('<path d="M0-6 6 0 0 6-6 0Z"/>'),
}
_ROW = 15  # pixels of height for one system in an interval plot

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """One axis: its range, where it has ticks, and what it measures."""

    low: float
    high: float
    ticks: tuple[float, ...]
    label: str

    def share(self, value: float) -> float:
        """Return the place of ``value`` along the axis, 0 to 1, clipped."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


@dataclass(frozen=True)
class Line:
    """One line of a plot; ``style`` is a class of style.css; ``dots`` marks its points."""

    points: Points
    style: str
    dots: bool = False


def css_class(system: str) -> str:
    """Return the class that gives a system its colour, mark and dash."""
    return system if system in MARKS else "other"


def legend(systems: Sequence[str]) -> Markup:
    """Return the key to marks and colours."""
    items = [
        Markup(
            '<li><svg class="{}" width="16" height="16" viewBox="-8 -8 16 16" '
            'aria-hidden="true">{}</svg>{}</li>'
        ).format(css_class(name), MARKS.get(name, MARKS["trained"]), system_name(name))
        for name in systems
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def line_legend(names: Sequence[str]) -> Markup:
    """Return the key to lines: systems, or other names that style.css has a line for."""
    items = [
        Markup(
            '<li><svg width="28" height="8" aria-hidden="true">'
            '<line class="line {}" x1="0" x2="28" y1="4" y2="4"/></svg>{}</li>'
        ).format(name, system_name(name))
        for name in names
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def interval_plot(
    rows: Mapping[str, Mapping[str, Interval]], *, axis: Axis, reference: float | None, label: str
) -> Markup:
    """Draw values with intervals: one row per key of ``rows``, one mark per system."""
    systems = list(dict.fromkeys(name for row in rows.values() for name in row))
    body = Markup("").join(
        Markup('<div class="name">{}</div>{}').format(name, _track(row, systems, axis, reference))
        for name, row in rows.items()
    )
    return Markup(
        '<div class="intervals" role="img" aria-label="{}">{}'
        '<div class="name"></div><div class="xticks">{}</div>'
        '<div class="name"></div><div class="xlabel">{}</div></div>{}'
    ).format(label, body, _xticks(axis), axis.label, legend(systems))


def single_track(row: Mapping[str, Interval], *, axis: Axis, label: str) -> Markup:
    """Draw one row of an interval plot, for a cell of a table."""
    return Markup('<div class="single" role="img" aria-label="{}">{}</div>').format(
        label, _track(row, list(row), axis, None)
    )


def _track(
    row: Mapping[str, Interval], systems: Sequence[str], axis: Axis, reference: float | None
) -> Markup:
    height = _ROW * len(systems) + 8
    if all(row.get(name, Interval(None)).value is None for name in systems):
        return Markup(
            '<svg class="track" width="100%" height="{}">'
            '<text class="undefined" x="4" y="{}">undefined</text></svg>'
        ).format(height, height / 2 + 4)
    parts = [
        _rule("grid", axis.share(tick)) for tick in axis.ticks if tick not in (axis.low, reference)
    ]
    if reference is not None:
        parts.append(_rule("reference", axis.share(reference)))
    for place, name in enumerate(systems):
        y = 4 + _ROW * place + _ROW / 2
        parts.append(_mark(row.get(name, Interval(None)), name, axis, y))
    return Markup('<svg class="track" width="100%" height="{}">{}</svg>').format(
        height, Markup("").join(parts)
    )


def _mark(interval: Interval, system: str, axis: Axis, y: float) -> Markup:
    if interval.value is None:
        return Markup('<text class="undefined" x="4" y="{}">undefined</text>').format(y + 4)
    line = Markup("")
    if interval.low is not None and interval.high is not None:
        line = Markup('<line x1="{}%" x2="{}%" y1="{}" y2="{}"/>').format(
            percent(axis.share(interval.low)), percent(axis.share(interval.high)), y, y
        )
    return Markup(
        '<g class="{}">{}<svg x="{}%" y="{}" width="1" height="1" overflow="visible">{}</svg></g>'
    ).format(
        css_class(system),
        line,
        percent(axis.share(interval.value)),
        y,
        MARKS.get(system, MARKS["trained"]),
    )


def _rule(style: str, share: float) -> Markup:
    return Markup('<line class="{}" x1="{}%" x2="{}%" y1="0" y2="100%"/>').format(
        style, percent(share), percent(share)
    )


def line_plot(lines: Sequence[Line], *, x: Axis, y: Axis, label: str, style: str) -> Markup:
    """Draw lines over two axes; ``label`` says in words what is seen."""
    grid = [
        Markup('<path class="grid" d="M0 {0}H1000"/>').format(_place(1 - y.share(tick)))
        for tick in y.ticks
    ] + [
        Markup('<path class="grid" d="M{0} 0V1000"/>').format(_place(x.share(tick)))
        for tick in x.ticks
    ]
    drawn = [_line(line, x, y) for line in lines if line.points]
    yticks = Markup("").join(
        Markup('<span style="bottom:{}%">{}</span>').format(percent(y.share(tick)), number(tick))
        for tick in y.ticks
    )
    return Markup(
        '<div class="plot {}" role="img" aria-label="{}"><div class="ylabel">{}</div>'
        '<div class="yticks">{}</div>'
        '<svg class="area" viewBox="0 0 1000 1000" preserveAspectRatio="none">{}{}</svg>'
        '<div class="xticks">{}</div><div class="xlabel">{}</div></div>'
    ).format(
        style,
        label,
        y.label,
        yticks,
        Markup("").join(grid),
        Markup("").join(drawn),
        _xticks(x),
        x.label,
    )


def _line(line: Line, x: Axis, y: Axis) -> Markup:
    places = [f"{_place(x.share(a))},{_place(1 - y.share(b))}" for a, b in line.points]
    drawn = Markup('<polyline class="{}" points="{}"/>').format(line.style, " ".join(places))
    if line.dots:  # lines of no length with round ends: they stay round when the area is stretched
        dots = "".join(f"M{place}h0" for place in places)
        drawn += Markup('<path class="{} dots" d="{}"/>').format(line.style, dots)
    return drawn


def _xticks(axis: Axis) -> Markup:
    return Markup("").join(
        Markup('<span style="left:{}%">{}</span>').format(percent(axis.share(tick)), number(tick))
        for tick in axis.ticks
    )


def nice_axis(values: Sequence[float], label: str, *, count: int = 5) -> Axis:
    """Return an axis over ``values`` whose ticks are round numbers, about ``count`` of them."""
    low, high = min(values), max(values)
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / count
    magnitude = 10.0 ** _floor_log10(rough)
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * 0.999)
    first, last = int(low // step), -int(-high // step)
    ticks = tuple(round(step * k, 12) for k in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks, label)


def _floor_log10(value: float) -> int:
    exponent = 0
    while value >= 10:
        value /= 10
        exponent += 1
    while value < 1:
        value *= 10
        exponent -= 1
    return exponent


def percent(share: float) -> str:
    """Return a share as a percentage without its sign, at most two decimals."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".")


def number(value: float) -> str:
    """Return a tick's number, short, with thousands set apart."""
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.6g}"


def _place(share: float) -> str:
    return f"{1000 * share:.1f}".rstrip("0").rstrip(".")
