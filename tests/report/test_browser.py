"""The report page in a real browser: nothing overflows, complains, or asks for anything."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from keyboard import CHROMIUM, Keyboard, keyboard, needs_chromium

pytestmark = needs_chromium

# A browser's own window is never as narrow as a phone; a frame is.
FRAME = """<!doctype html><html><head><link rel="icon" href="data:,"></head>
<body><iframe src="/page" style="border:0; height:900px; width:{width}px"></iframe></body></html>"""
# Appended to the page: tells the frame's owner what the browser made of it.
MEASURE = """
<script>
addEventListener("load", () => {
  const root = document.documentElement, seen = parent.document.documentElement.dataset;
  seen.overflow = root.scrollWidth - root.clientWidth;
  seen.width = root.clientWidth;
  seen.broken = [...document.images].filter(image => !image.naturalWidth).length;
  seen.background = getComputedStyle(document.body).backgroundColor;
});
</script>
"""


@dataclass(frozen=True)
class Seen:
    """What the browser made of the page."""

    facts: dict[str, str]
    console: str
    requests: list[str]


def _measure(page: str, folder: Path, *, width: int, dark: bool = False) -> Seen:
    requests: list[str] = []

    answers = {"/": FRAME.format(width=width), "/page": page + MEASURE}

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200 if self.path in answers else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(answers.get(self.path, "").encode())

        def log_message(self, *ignored: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = _browse(f"http://127.0.0.1:{server.server_port}/", folder, dark)
        server.shutdown()
    facts = dict(re.findall(r'data-(\w+)="([^"]*)"', done.stdout[: done.stdout.index("<head")]))
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return Seen(facts, console, requests)


def _browse(address: str, folder: Path, dark: bool) -> subprocess.CompletedProcess[str]:
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--hide-scrollbars",
        "--window-size=1400,900", "--virtual-time-budget=2000", "--dump-dom",
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        address,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.parametrize("width", [400, 1280])
def test_page_fits_the_window_and_loads_clean(page: str, tmp_path, width: int) -> None:
    seen = _measure(page, tmp_path, width=width)
    assert seen.facts == {
        "overflow": "0", "width": str(width), "broken": "0", "background": "rgb(255, 255, 255)",
    }  # fmt: skip
    assert seen.requests == ["/", "/page"]
    assert not seen.console


def test_long_words_of_a_report_do_not_push_the_page_wide(project, tmp_path) -> None:
    project.edit_metrics("probe_nih14", status="not computed", reason="x" * 500)
    card = project.paths.model_dir("captioning") / "card.json"
    card.write_text(json.dumps({"weights_" + "y" * 60: "z" * 500}))
    assert _measure(project.render(), tmp_path, width=400).facts["overflow"] == "0"


def test_dark_theme_is_used_when_asked_for(page: str, tmp_path) -> None:
    seen = _measure(page, tmp_path, width=1280, dark=True)
    assert seen.facts["background"] == "rgb(17, 22, 28)"
    assert not seen.console


def test_the_measurement_can_fail(page: str, tmp_path) -> None:
    broken = page.replace(
        "</main>",
        '<p style="width: 90rem">wide</p><img src="absent.png" alt="">'
        "<script>console.error('seen')</script></main>",
    )
    seen = _measure(broken, tmp_path, width=400)
    assert int(seen.facts["overflow"]) > 0
    assert seen.facts["broken"] == "1"
    assert "/absent.png" in seen.requests
    assert "seen" in seen.console


# By keys alone


@pytest.fixture
def keys(page: str, tmp_path) -> Iterator[Keyboard]:
    (tmp_path / "page.html").write_text(page)
    with keyboard(tmp_path / "keys") as opened:
        opened.open(tmp_path / "page.html")
        yield opened


def test_first_key_leads_past_the_head_to_the_results(keys) -> None:
    keys.press("Tab")
    assert keys.focus()["text"] == "Skip to the results"
    assert keys.focus()["inside"]
    keys.press("Enter")
    assert keys.focus()["name"] == "main"
    keys.press("Tab")
    assert keys.focus()["text"].startswith("The encoder after and before its training")


def test_keys_reach_everything_in_reading_order_and_show_where_they_are(keys) -> None:
    stops = keys.stops()
    seen = []
    for _ in stops:
        keys.press("Tab")
        seen.append(keys.focus())
    assert [one["place"] for one in seen] == stops
    assert all(one["outline"] >= 2 for one in seen[1:])  # the first is the link that appears
    assert [one["text"] for one in seen if not one["inside"]] == []
    keys.press("Tab")
    assert keys.focus()["place"] not in stops[1:]  # no trap: the page lets go
    assert all(one.startswith(("file:", "data:")) for one in keys.requests)


@pytest.mark.parametrize("key", ["Enter", " "])
def test_a_key_opens_what_is_folded_and_the_next_goes_inside(keys, key: str) -> None:
    before = len(keys.stops())
    while keys.focus()["name"] != "summary":
        keys.press("Tab")
    keys.press(key)
    assert len(keys.stops()) == before + 1  # the table inside, which scrolls
    keys.press("Tab")
    assert keys.focus()["text"] == "Linear probe, CheXpert-5: all metrics"
    keys.press("Tab")
    assert keys.focus()["text"] == "How this was measured"


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_overflows_with_everything_unfolded(page: str, tmp_path, width: int) -> None:
    unfolded = page.replace("<details>", "<details open>")
    assert "<details open>" in unfolded
    assert _measure(unfolded, tmp_path, width=width).facts["overflow"] == "0"
