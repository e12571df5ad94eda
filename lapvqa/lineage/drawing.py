"""An answer as one self-contained page: its words, and its graph to click through."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from lapvqa import storage
from lapvqa.lineage import graph
from lapvqa.lineage.graph import Graph
from lapvqa.pages.templates import templates
from lapvqa.project import Project

_COLUMN, _ROW, _WIDTH, _MARGIN = 250, 30, 190, 12
_LETTERS = 26


def render(title: str, lines: Sequence[str], drawn: Graph) -> str:
    """Return the page; the same answer gives the same bytes."""
    layers = drawn.layers()
    numbers = {name: number for number, name in enumerate(drawn.nodes)}
    height = 2 * _MARGIN + _ROW * max(map(len, layers), default=0)
    places = {}
    for column, layer in enumerate(layers):
        top = (height - _ROW * len(layer)) / 2
        for row, name in enumerate(layer):
            places[name] = (_MARGIN + _COLUMN * column, round(top + _ROW * row))
    sources: dict[str, list[str]] = {name: [] for name in drawn.nodes}
    for source, target in drawn.edges:
        sources[target].append(drawn.nodes[source].title)
    nodes = [
        {
            "number": numbers[name], "kind": node.kind, "title": node.title,
            "marked": node.marked, "shown": _shown(node.title), "width": _WIDTH,
            "x": places[name][0], "y": places[name][1],
            "sources": sources[name],
        }
        for layer in layers
        for name in layer
        for node in (drawn.nodes[name],)
    ]  # fmt: skip
    edges = [
        {
            "source": numbers[source], "target": numbers[target],
            "path": _curve(places[source], places[target]),
        }
        for source, target in drawn.edges
    ]  # fmt: skip
    facts = {numbers[name]: node.facts for name, node in drawn.nodes.items()}
    data = json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c")
    page = templates(Path(__file__).parent).get_template("page.html")
    return page.render(
        title=title, lines=list(lines), nodes=nodes, edges=edges, data=Markup(data),
        width=2 * _MARGIN + _COLUMN * len(layers) - (_COLUMN - _WIDTH), height=height,
    )  # fmt: skip


def write(path: Path, title: str, lines: Sequence[str], drawn: Graph) -> None:
    """Write the page to a file."""
    storage.write_bytes(path, render(title, lines, drawn).encode())


def write_page(project: Project) -> None:
    """Write reports/lineage.html: what the project holds now, and where all of it came from."""
    write(project.lineage_page, "Where everything came from", [], graph.of_present(project))


def _curve(start: tuple[int, int], end: tuple[int, int]) -> str:
    x, y, to_x, to_y = start[0] + _WIDTH, start[1] + 12, end[0], end[1] + 12
    middle = (x + to_x) // 2
    return f"M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}"


def _shown(title: str) -> str:
    """Return as much of a title as fits into a box; of a path its end, which tells most."""
    if len(title) <= _LETTERS:
        return title
    return f"…{title[1 - _LETTERS :]}" if "/" in title else f"{title[: _LETTERS - 1]}…"
