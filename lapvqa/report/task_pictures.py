"""Each evaluation's figures and examples as one picture, an SVG that stands alone.

For viewers that show pictures and no page: MLflow's artifacts, `dvc plots`. A picture has what the
page shows of the task, in the same order; text is wrapped by counting letters.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from markupsafe import Markup

from lapvqa.report.box_examples import DetectionExample, GroundingExample, layers
from lapvqa.report.charts import PlotPanel
from lapvqa.report.examples import Picture
from lapvqa.report.page_results import system_name
from lapvqa.report.sections import PageSection
from lapvqa.report.text_examples import AnswerExample, ReportExample
from lapvqa.schemas import STORED_SIZE

_WIDTH, _GAP, _TOP = 1140, 28, 64
_SIDE = 256  # of a picture
_PLOT = 150  # of a plot
_LINE, _LETTER = 16, 6.3  # height of a line, mean width of a letter at 12 pixels
_BLACK, _GREY = "#16202a", "#52606d"
_INK = {"right": "#0a6b4d", "missed": "#a33b00", "invented": "#8a2f74", "wrong": "#8a2f74"}
_SIGNS = {"right": "✓", "missed": "–", "invented": "+", "wrong": "×"}
_CURVES = {"trained": ("#0b62a8", "none"), "untrained": ("#b34700", "5 3")}

_KEY = {
    "probe": "left: ROC, right: calibration; solid: trained encoder, dashed: untrained encoder",
    "answers": "✓ right   × wrong",
    "reports": "✓ right   – missed   + invented",
    "detection": "white, numbered: true boxes; dashed, lettered: found ones   "
    "✓ right   – missed   + invented",
    "grounding": "white: true boxes; blue, dashed: trained encoder; orange, dotted: untrained",
}


@dataclass(frozen=True)
class PictureText:
    """A paragraph below a picture."""

    words: str
    ink: str = _BLACK
    weight: int = 400


@dataclass(frozen=True)
class PictureCell:
    """One example: pictures side by side, each ``side`` wide, and the text below them."""

    pictures: Sequence[Markup]
    side: int
    texts: Sequence[PictureText]

    @property
    def width(self) -> int:
        """Width in pixels."""
        return len(self.pictures) * self.side + (len(self.pictures) - 1) * _GAP // 2

    @property
    def lines(self) -> list[tuple[str, PictureText]]:
        """The text, wrapped to the cell's width."""
        letters = int(self.width / _LETTER)
        return [(line, text) for text in self.texts for line in textwrap.wrap(text.words, letters)]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.side + _LINE * len(self.lines) + _GAP


def draw_picture(section: PageSection) -> str | None:
    """Return an SVG of the section's figures or examples; None if it has none."""
    cells = list(_cells(section))
    if not cells:
        return None
    columns = max(1, (_WIDTH - _GAP) // (cells[0].width + _GAP))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    body, y = Markup(""), _TOP
    for row in rows:
        for column, cell in enumerate(row):
            body += _placed(cell, _GAP + column * (cells[0].width + _GAP), y)
        y += max(cell.height for cell in row)
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" '
        'font-family="sans-serif" font-size="12">\n<title>{2}</title>\n'
        '<rect width="100%" height="100%" fill="#fff"/>\n'
        '<text x="{3}" y="30" font-size="18" font-weight="700" fill="{4}">{2}</text>\n'
        '<text x="{3}" y="50" fill="{5}">{6}</text>\n{7}</svg>\n'
    ).format(_WIDTH, y, section.result.task.title, _GAP, _BLACK, _GREY, _KEY[section.kind], body)


def _placed(cell: PictureCell, x: int, y: int) -> Markup:
    step = cell.side + _GAP // 2
    pictures = Markup("").join(
        Markup('<g transform="translate({} {})">{}</g>').format(x + place * step, y, picture)
        for place, picture in enumerate(cell.pictures)
    )
    lines = Markup("").join(
        Markup('<text x="{}" y="{}" fill="{}" font-weight="{}">{}</text>').format(
            x, y + cell.side + _LINE * number, text.ink, text.weight, line
        )
        for number, (line, text) in enumerate(cell.lines, start=1)
    )
    return pictures + lines + Markup("\n")


def _cells(section: PageSection) -> Iterable[PictureCell]:
    if section.kind == "probe":
        by_label = zip_longest(section.roc, section.calibration)
        return [_probe_cell([panel for panel in pair if panel is not None]) for pair in by_label]
    return [_cell(example) for example in section.examples]


def _cell(
    example: AnswerExample | DetectionExample | GroundingExample | ReportExample,
) -> PictureCell:
    match example:
        case AnswerExample():
            return _answer_cell(example)
        case DetectionExample():
            return _detection_cell(example)
        case GroundingExample():
            return _grounding_cell(example)
        case ReportExample():
            return _report_cell(example)


def _probe_cell(panels: Sequence[PlotPanel]) -> PictureCell:
    return PictureCell(
        [_plot(panel) for panel in panels], _PLOT, [PictureText(panels[0].label, weight=700)]
    )


def _answer_cell(example: AnswerExample) -> PictureCell:
    texts = [
        PictureText(f"{example.type}: {example.question}", weight=700),
        PictureText(f"true: {example.reference or '(empty)'}"),
    ]
    if example.reversed:
        texts.append(PictureText("reversed pair: the reference image is the later one", _GREY))
    for answer in example.answers:
        sign = "right" if answer.right else "wrong"
        said = f"{_SIGNS[sign]} {system_name(answer.system)}: {answer.text or '(empty)'}"
        texts.append(PictureText(said, _INK[sign]))
    titles = ", ".join(image.title.lower() for image in example.images)
    return PictureCell([_picture(image.picture) for image in example.images], _SIDE,
                [PictureText(titles, _GREY), *texts])  # fmt: skip


def _report_cell(example: ReportExample) -> PictureCell:
    words = "".join(piece.words for piece in example.reference)
    texts = [
        PictureText(f"Study {example.name}", weight=700),
        PictureText(f"reference: {words or '(empty)'}"),
    ]
    for report in example.written:
        words = "".join(piece.words for piece in report.pieces)
        texts.append(PictureText(f"{system_name(report.system)}: {words or '(empty)'}", weight=700))
        texts += _found(report.right, report.missed, report.invented)
    return PictureCell([_picture(example.picture)], _SIDE, texts)


def _detection_cell(example: DetectionExample) -> PictureCell:
    pictures, texts = [], [PictureText(f"Image {example.name}", weight=700)]
    for place, detected in enumerate(example.systems):
        ident = f"image-{example.name}"
        pictures.append(
            _scaled(layers(example.picture, detected.boxes, ident=ident, again=place > 0))
        )
        side = "" if len(example.systems) < 2 else ("left: ", "right: ")[place % 2]
        texts.append(PictureText(f"{side}{system_name(detected.system)}", _GREY))
        texts += _found(detected.right, detected.missed, detected.invented)
    return PictureCell(pictures, _SIDE, texts)


def _grounding_cell(example: GroundingExample) -> PictureCell:
    texts = [PictureText(f"“{example.phrase}”", weight=700), PictureText(example.category, _GREY)]
    for grounded in example.systems:
        sign = "right" if grounded.right else "wrong"
        said = f"{_SIGNS[sign]} {system_name(grounded.system)}: IoU {grounded.overlap:.2f}"
        texts.append(PictureText(said, _INK[sign]))
    picture = _picture(None)
    if example.picture is not None:
        ident = f"phrase-{example.name}"
        picture = _scaled(layers(example.picture, example.boxes, ident=ident, again=False))
    return PictureCell([picture], _SIDE, texts)


def _found(right: list[str], missed: list[str], invented: list[str]) -> list[PictureText]:
    signed = [("right", right), ("missed", missed), ("invented", invented)]
    return [
        PictureText(f"{_SIGNS[sign]} {name}", _INK[sign])
        for sign, names in signed
        for name in names
    ]


def _picture(picture: Picture | None) -> Markup:
    if picture is None:
        return Markup(
            '<rect width="{0}" height="{0}" fill="none" stroke="{1}" stroke-dasharray="4 4"/>'
            '<text x="20" y="40" fill="{1}">the image is not there</text>'
        ).format(_SIDE, _GREY)
    return Markup(
        '<rect width="{0}" height="{0}"/><image width="{0}" height="{0}" href="{1}"/>'
    ).format(_SIDE, picture.address)


def _scaled(content: Markup) -> Markup:
    return Markup('<svg width="{0}" height="{0}" viewBox="0 0 {1} {1}">{2}</svg>').format(
        _SIDE, STORED_SIZE, content
    )


def _plot(panel: PlotPanel) -> Markup:
    """Draw a panel's curves over the unit square."""
    side = _PLOT - 10
    lines = Markup("").join(
        Markup(
            '<polyline fill="none" stroke="{}" stroke-width="2" stroke-dasharray="{}" points="{}"/>'
        ).format(
            *_CURVES.get(system, (_GREY, "2 3")),
            " ".join(f"{side * x:.1f},{side * (1 - y):.1f}" for x, y in points),
        )
        for system, points in panel.curves.items()
    )
    return Markup(
        '<rect width="{0}" height="{0}" fill="none" stroke="{1}"/>'
        '<path d="M0 {0}L{0} 0" stroke="{1}" stroke-dasharray="1 4"/>{2}'
    ).format(side, _GREY, lines)
