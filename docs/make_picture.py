"""Make a picture of docs/img, from a finished project: the demo here, or PROJECT.

python docs/make_picture.py films FOLDER               # what `lapvqa inspect --png FOLDER` wrote
python docs/make_picture.py run [PROJECT]              # a run in a terminal, by its records
python docs/make_picture.py report|freshness [PROJECT] # pages of reports/; needs chromium
python docs/make_picture.py try FILM [PROJECT]         # `lapvqa try` with a film; needs chromium
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs/img"
sys.path[:0] = [str(ROOT), str(ROOT / "tests/report")]

from keyboard import CHROMIUM, Keyboard, keyboard  # noqa: E402

from flows.commands import run_summary  # noqa: E402
from lapvqa.project import Project  # noqa: E402
from tasks.display import Display, StageOutcome  # noqa: E402

PAGES = {"report": ("index.html", 1180, 1320), "freshness": ("freshness.html", 900, 1000)}
"""Name -> page below reports/, width and height in pixels."""
COLOURS = 128  # flat colours: a palette keeps the file small
_FILM, _GAP, _CAPTION = 190, 8, 22
_TERMINAL = 112  # the table of results has a line per row from 110 on
_AT_WORK = "pretrain"
"""The run is shown while this stage is at work, past its middle."""


def films(folder: str) -> Path:
    """Lay the renderings of a look side by side, their names below."""
    pictures = sorted(Path(folder).glob("*.png"))
    step = _FILM + _GAP
    sheet = Image.new("L", (step * len(pictures) - _GAP, _FILM + _CAPTION), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, picture in enumerate(pictures):
        with Image.open(picture) as film:
            sheet.paste(film.resize((_FILM, _FILM)), (number * step, 0))
        name = re.sub(r"^\d+-|\.png$", "", picture.name)
        draw.text((number * step, _FILM + 4), name, fill=0, font=font)
    return _saved(sheet, "first-hour-films", colours=64)


def run(project: str = str(ROOT)) -> Path:
    """Show a run half-way and at its end, by the program's own display."""
    seen, shown = Console(width=_TERMINAL, file=io.StringIO(), force_terminal=True), _recorder()
    display = Display(seen)
    display.say = lambda text: shown.print(text, markup=False)  # type: ignore[method-assign]
    shown.print("[bold]$ lapvqa run")
    for event in _events(Project(Path(project))):
        event(display)
    assert display._bar is not None
    shown.print(display._bar.get_renderable())
    display.clear()
    shown.print("[dim]...")
    run_summary.show_results(Project(Path(project)), shown)
    # Rich's own style asks a server for its font.
    style = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    picture = IMAGES / "run.svg"
    svg = shown.export_svg(title="", code_format=style, unique_id="run")
    picture.write_text(svg.replace("Fira Code", "DejaVu Sans Mono"), encoding="utf-8")
    return picture


def _recorder() -> Console:
    return Console(
        width=_TERMINAL, file=io.StringIO(), force_terminal=True, record=True, highlight=False,
        color_system="truecolor",
    )  # fmt: skip


def _events(project: Project) -> Iterator[Callable[[Display], None]]:
    """Yield what the stages told the display, from the first until one is half-way."""
    records = [path.read_text().splitlines() for path in project.record("x").parent.glob("*.jsonl")]
    stages = [[json.loads(line) for line in lines] for lines in records]
    stages.sort(key=lambda lines: float(lines[0]["t"]))
    yield lambda display: display.expect([lines[0]["stage"] for lines in stages], {})
    for lines in stages:
        name, began, ended = lines[0]["stage"], lines[0]["t"], lines[-1]["t"]
        yield lambda display, name=name: display.begin(name, "")  # type: ignore[misc]
        told = [line for line in lines if line["kind"] == "progress"]
        if name == _AT_WORK:
            halfway = next(line for line in told if line["done"] > 0.6 * line["total"])
            yield lambda display, halfway=halfway: display.progress(halfway)  # type: ignore[misc]
            return
        outcome = StageOutcome(name, "ran", ended - began)
        yield lambda display, outcome=outcome: display.end(outcome)  # type: ignore[misc]


def page(name: str, project: str = str(ROOT)) -> Path:
    """Show a page of reports/."""
    file, width, height = PAGES[name]
    with _browser(width, height) as browser:
        browser.open((Path(project) / "reports" / file).resolve())
        return _saved(_shot(browser), name, colours=COLOURS)


def try_page(film: str, project: str = str(ROOT)) -> Path:
    """Show the page of `lapvqa try` after a film was chosen and a question asked."""
    command = [str(Path(sys.executable).with_name("lapvqa")), "try", "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        told = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in server.stdout)
        address = next(found[0] for found in told if found)
        with _browser(1180, 1000) as browser:
            browser.call("DOM.enable")
            browser.call("Page.navigate", url=address)
            _until(browser, "document.readyState === 'complete' && location.protocol === 'http:'")
            browser.evaluate("document.getElementById('question').value = 'is there a mass?'")
            root = browser.call("DOM.getDocument")["root"]["nodeId"]
            field = browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
            browser.call("DOM.setFileInputFiles", files=[str(Path(film).resolve())], nodeId=field)
            _until(browser, "!document.getElementById('found').hidden")
            height = browser.evaluate("document.documentElement.scrollHeight")
            _size(browser, 1180, height)
            picture = _saved(_shot(browser), "try", colours=COLOURS)
        server.send_signal(signal.SIGINT)
    return picture


@contextmanager
def _browser(width: int, height: int) -> Iterator[Keyboard]:
    if CHROMIUM is None:
        raise SystemExit("needs chromium")
    with tempfile.TemporaryDirectory() as folder, keyboard(Path(folder)) as browser:
        browser.call("Page.enable")
        browser.call("Emulation.setScrollbarsHidden", hidden=True)
        _size(browser, width, height)
        yield browser


def _size(browser: Keyboard, width: int, height: int) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=height, deviceScaleFactor=1, mobile=False,
    )  # fmt: skip


def _until(browser: Keyboard, condition: str) -> None:
    end = time.monotonic() + 120
    while not browser.evaluate(condition):
        if time.monotonic() > end:
            raise SystemExit(str(browser.evaluate("document.body.innerText")))
        time.sleep(0.1)


def _shot(browser: Keyboard) -> Image.Image:
    data = browser.call("Page.captureScreenshot", format="png")["data"]
    return Image.open(io.BytesIO(b64decode(data))).convert("RGB")


def _saved(image: Image.Image, name: str, *, colours: int) -> Path:
    picture = IMAGES / f"{name}.png"
    # Every colour counts, also that of a few small marks.
    image.quantize(colours, Image.Quantize.MAXCOVERAGE).save(picture, optimize=True)
    return picture


def main(name: str = "report", *given: str) -> int:
    """Make the picture called ``name``, and say how large it is."""
    makers: dict[str, Callable[..., Path]] = {"films": films, "run": run, "try": try_page}
    made = makers[name](*given) if name in makers else page(name, *given)
    sys.stdout.write(f"wrote {made.relative_to(ROOT)}, {made.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
