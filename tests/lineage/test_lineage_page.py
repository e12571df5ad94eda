"""The drawn graph in a real browser: clicked through by mouse and by keys, it asks nobody."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from told_project import Told

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from keyboard import Keyboard, keyboard, needs_chromium

from lapvqa.lineage import drawing, graph
from lapvqa.lineage.graph import FILE, Graph, Node

_CLICK = """(() => {{
  const boxes = [...document.querySelectorAll(".node")];
  const box = boxes.find(one => one.textContent.startsWith("{0}"));
  box.querySelector("rect").dispatchEvent(new MouseEvent("click", {{bubbles: true}}));
}})()"""
_CHOSEN = """({
  name: document.getElementById("name").textContent,
  facts: document.getElementById("facts").textContent,
  near: [...document.querySelectorAll(".node.near title")].map(one => one.textContent).sort(),
})"""


@pytest.fixture
def page(told: Told, tmp_path: Path) -> Iterator[Keyboard]:
    drawing.write_page(told.project)
    with keyboard(tmp_path / "browser") as opened:
        opened.open(told.project.lineage_page)
        yield opened


@needs_chromium
def test_a_box_that_is_clicked_shows_its_facts_and_its_ancestry(page: Keyboard) -> None:
    page.evaluate(_CLICK.format("tokens"))
    chosen = page.evaluate(_CHOSEN)
    assert chosen["name"] == "tokens"
    assert "Prefect run" in chosen["facts"]
    assert {"inventory", "ingest", "pretrain", "export", "results/vqa/metrics.json"} <= set(
        chosen["near"]
    )
    page.evaluate(_CLICK.format("export"))
    assert "data/inventory" in page.evaluate(_CHOSEN)["near"]
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert all(one.startswith(("file:", "data:")) for one in page.requests)


@needs_chromium
def test_keys_alone_reach_a_box_and_open_it(page: Keyboard) -> None:
    while page.focus()["name"] != "g":
        page.press("Tab")
    page.press("Enter")
    assert page.evaluate(_CHOSEN)["name"] in page.focus()["text"]


def test_every_edge_goes_from_left_to_right(told: Told) -> None:
    drawn = graph.of_present(told.project)
    column = {name: number for number, layer in enumerate(drawn.layers()) for name in layer}
    assert set(column) == set(drawn.nodes)
    assert drawn.edges
    assert all(column[source] < column[target] for source, target in drawn.edges)


def test_the_same_answer_gives_the_same_bytes_and_no_markup_leaks(told: Told) -> None:
    pages = [drawing.render("a", [], graph.of_present(told.project)) for _ in range(2)]
    assert pages[0] == pages[1]
    evil = Graph()
    evil.add("x", Node("</script><script>alert(1)</script>", FILE, {"<b>": "</script><i>"}))
    page = drawing.render("<title>", ["<pre>"], evil)
    assert "<script>alert" not in page
    assert "</script><i>" not in page
