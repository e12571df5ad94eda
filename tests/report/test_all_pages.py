"""Every page that people are given, in a real browser: on a phone, in the dark, on paper."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keyboard import Keyboard, keyboard, needs_chromium
from test_freshness import write_history

from lapvqa.erasure import receipt
from lapvqa.lineage import drawing, ledger
from lapvqa.lineage.ancestry import Ancestry
from lapvqa.lineage.card import document, html
from lapvqa.lineage.graph import FILE, RUN, Graph, Node
from lapvqa.pages.templates import templates
from lapvqa.project import Project
from lapvqa.report import freshness

sys.path.insert(0, str(Path(__file__).parents[1] / "lineage"))
import written_ledger

pytestmark = needs_chromium
PAGES = ("report", "freshness", "lineage", "card", "receipt", "try")
PAPER_WIDTH = 688
"""Pixels between the margins of a sheet of A4."""

# Names, order, ids and contrast (WCAG 2.2, AA), in words.
FAULTS = """
(() => {
  const faults = [], all = what => [...document.querySelectorAll(what)];
  const say = (what, one) => faults.push(`${what}: ${one.outerHTML.slice(0, 120)}`);
  const shown = one => one.checkVisibility({opacityProperty: true, visibilityProperty: true});
  const name = one => (one.getAttribute("aria-label") || one.getAttribute("alt")
    || [...(one.labels || [])].map(label => label.textContent).join("") || one.textContent).trim();
  for (const one of all("a[href], button, summary, input, meter, img, th, [role]"))
    if (shown(one) && !name(one)) say("no name", one);
  if (!document.title || !document.documentElement.lang) say("no title or language", document.head);
  const ids = all("[id]").map(one => one.id);
  for (const one of all("[id]"))
    if (ids.indexOf(one.id) !== ids.lastIndexOf(one.id)) say("id twice", one);
  for (const one of all("th:not([scope])")) say("heads neither row nor column", one);
  const regions = all("[role=region]").filter(shown).map(name);
  for (const one of all("[role=region]").filter(shown))
    if (regions.indexOf(name(one)) !== regions.lastIndexOf(name(one))) say("name twice", one);
  let level = 0;
  for (const one of all("h1, h2, h3, h4, h5").filter(shown)) {
    if (+one.tagName[1] > level + 1) say("a level left out", one);
    level = +one.tagName[1];
  }
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([red, green, blue]) => [red, green, blue].map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const below = one => {
    if (one.closest(".node")) return numbers(getComputedStyle(one.closest(".node").querySelector("rect")).fill);
    for (; one; one = one.parentElement) {
      const found = numbers(getComputedStyle(one).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (texts.nextNode()) {
    const one = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || seen.has(one) || !shown(one) || one.matches("script, style, title")) continue;
    seen.add(one);
    const style = getComputedStyle(one), ink = numbers(one instanceof SVGElement ? style.fill : style.color);
    const [low, high] = [light(ink), light(below(one))].sort((a, b) => a - b);
    if ((high + 0.05) / (low + 0.05) < 4.5) say("contrast " + ((high + 0.05) / (low + 0.05)).toFixed(2), one);
  }
  if (!seen.size) say("no text", document.body);
  return [...new Set(faults)].slice(0, 5);
})()
"""  # noqa: E501
CUT = """
[...document.querySelectorAll("body *")]
  .filter(one => one.checkVisibility() && one.getBoundingClientRect().right > innerWidth + 1)
  .map(one => one.outerHTML.slice(0, 120)).slice(0, 3)
"""


def _receipt() -> dict[str, Any]:
    digest = "0123456789abcdef" * 4
    store = {"store": "DVC's cache", "files": 412, "bytes": 4_120_000, "held_traces": 17,
             "kinds": {"keys": 17}, "method": "unlinked, made anew", "removed": 17,
             "files_after": 412, "hold_traces_after": 0, "only_list_the_archive": 0}  # fmt: skip
    return {
        "request": "R-42", "patient": digest[:16], "number": 1, "begun": "2026-11-29T19:00:00Z",
        "written": "2026-11-29T19:05:00Z", "state": receipt.COMPLETE,
        "scope": {"rows": {"images": 3}, "split": None}, "stores": [store],
        "outputs": [{"path": "data/images", "before": digest[:32], "after": None}],
        "over_deletion": {"images": {"shards": 9, "rows_rewritten_per_row_of_patient": 169.7}},
        "models": [{"run": digest[:12], "weights": {"models/captioning/encoder_final.pt": digest}}],
        "metrics": [], "decision": {"decision": "<b>retrain</b>"}, "ways": [],
        "absence": {"left": {}, "named_by_the_archive": 4, "limits": ["backups are not reached"]},
        "archive": {"files_still_there": 0}, "tombstone": {"marks": 3}, "recipients": [],
        "training_set": {"patients": 10, "root": digest, "absent": digest, "remark": ""},
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(page: str, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every page, as a file."""
    folder = tmp_path_factory.mktemp("pages")
    history = Project(tmp_path_factory.mktemp("history"))
    write_history(history)
    told = ledger.entries(written_ledger.write(tmp_path_factory.mktemp("ledger")))
    model = [one for one in Ancestry(told).runs.values() if one.weights][-1]
    drawn = Graph()
    drawn.add("run", Node("ingest", RUN, {"took": "3 s"}))
    for number in range(40):
        drawn.add(str(number), Node(f"data/tokens/shard-{number:05d}.parquet", FILE))
        drawn.connect("run", str(number))
    trying = templates(repository / "flows/try_page").get_template("page.html")
    made = {
        "report": page,
        "freshness": freshness.render(freshness.find_events(history)),
        "lineage": drawing.render("ingest", ["ingest made 40 files"], drawn),
        "card": html.render(document.card(Ancestry(told), model)),
        "receipt": receipt.render(_receipt()),
        "try": trying.render(about="models/captioning, epoch 3", probe="Linear probe").replace(
            'id="found" hidden', 'id="found"'
        ),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyboard]:
    with keyboard(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def _open(
    browser: Keyboard, page: Path, *, width: int, dark: bool = False, media: str = ""
) -> None:
    theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.call("Emulation.setEmulatedMedia", media=media, features=[theme])
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
        mobile=False,
    )  # fmt: skip
    browser.requests.clear()
    browser.open(page)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_by_everybody_and_asks_nobody(
    browser: Keyboard, folder: Path, name: str
) -> None:
    for dark in (False, True):
        _open(browser, folder / f"{name}.html", width=400, dark=dark)
        browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert browser.evaluate(FAULTS) == []
        assert browser.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    browser.evaluate("document.documentElement.style.fontSize = '200%'")
    assert browser.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert all(one.startswith(("file:", "data:")) for one in browser.requests)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_on_paper_and_it_is_light(
    browser: Keyboard, folder: Path, name: str
) -> None:
    _open(browser, folder / f"{name}.html", width=PAPER_WIDTH, dark=True, media="print")
    assert browser.evaluate(CUT) == []
    assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    first = "document.querySelector('thead')?.offsetHeight"  # a table, no blocks as on a phone
    assert browser.evaluate(first) != 0


def test_the_checks_can_fail(browser: Keyboard, folder: Path, tmp_path: Path) -> None:
    broken = (folder / "freshness.html").read_text().replace(
        "</main>",
        '<h4 style="color: #999; width: 90rem">grey</h4><img src="data:,"><p id="main"></main>',
    )  # fmt: skip
    (tmp_path / "broken.html").write_text(broken)
    _open(browser, tmp_path / "broken.html", width=400)
    told = " ".join(browser.evaluate(FAULTS))
    for fault in ("no name: <img", "id twice", "a level left out: <h4", "contrast 2.8"):
        assert fault in told
    _open(browser, tmp_path / "broken.html", width=PAPER_WIDTH, media="print")
    assert "<h4" in " ".join(browser.evaluate(CUT))
