"""Boxes drawn over a picture, as SVG; colours are fixed, for they lie on grey, not on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lapvqa.report.names import system_name
from lapvqa.report.pixels import Picture
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
class Box:
    """``corners``: x0, y0, x1, y1 in stored pixels; ``kind``: TRUE, or the system that found it."""

    corners: tuple[float, float, float, float]
    kind: str
    tag: str = ""


def draw(picture: Picture, boxes: Sequence[Box], *, ident: str, again: bool, label: str) -> Markup:
    """Return a picture [384, 384] under its boxes, as SVG; ``label`` says what is seen.

    ``ident``: the picture's id within the page; ``again``: it has been drawn under that id.
    """
    return Markup(
        '<svg class="boxes" viewBox="0 0 {0} {0}" role="img" aria-label="{1}">{2}</svg>'
    ).format(STORED_SIZE, label, layers(picture, boxes, ident=ident, again=again))


def layers(picture: Picture, boxes: Sequence[Box], *, ident: str, again: bool) -> Markup:
    """Return what ``draw`` has within its SVG."""
    if again:
        ground = Markup('<use href="#{}"/>').format(ident)
    else:
        ground = Markup('<image id="{}" width="{}" height="{}" href="{}"/>').format(
            ident, STORED_SIZE, STORED_SIZE, picture.address
        )
    # Tags last: no line crosses them.
    return ground + Markup("").join([_lines(one) for one in boxes] + [_tag(one) for one in boxes])


def _lines(box: Box) -> Markup:
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


def _tag(box: Box) -> Markup:
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


def legend(kinds: Sequence[str]) -> Markup:
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
