"""A browser that is used by its keys alone, over Chromium's own debugging protocol."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

_CODES = {"Tab": 9, "Enter": 13, " ": 32}
# What has the focus, in words that survive the way to Python.
_FOCUS = """
(() => {
  const one = document.activeElement, box = one.getBoundingClientRect(), style = getComputedStyle(one);
  return {
    name: one.tagName.toLowerCase(),
    place: [...document.querySelectorAll("*")].indexOf(one),
    text: (one.getAttribute("aria-label") || one.textContent).trim().replace(/\\s+/g, " "),
    outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
    inside: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  };
})()
"""  # noqa: E501
_STOPS = """
[...document.querySelectorAll("a[href], summary, [tabindex='0']")]
  .filter(one => one.checkVisibility())
  .map(one => [...document.querySelectorAll("*")].indexOf(one))
"""


class Keyboard:
    """One open page and its keys."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.requests: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its answer; requests of the page are noted meanwhile."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._connection.recv(timeout=30))
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    def open(self, page: Path) -> None:
        """Load a page and wait until it is there."""
        self.call("Network.enable")
        self.call("Page.navigate", url=page.as_uri())
        end = time.monotonic() + 30
        while self.evaluate("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < end, "the page does not load"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press and release a key."""
        text = {"Enter": "\r", " ": " "}.get(key)
        keys = {"key": key, "code": "Space" if key == " " else key,
                "windowsVirtualKeyCode": _CODES[key]}  # fmt: skip
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", **down, **keys)
        self.call("Input.dispatchKeyEvent", type="keyUp", **keys)

    def focus(self) -> dict[str, Any]:
        """Return what has the focus."""
        return self.evaluate(_FOCUS)

    def stops(self) -> list[int]:
        """Return the places in the document of all that a key should reach, in reading order."""
        return self.evaluate(_STOPS)


@contextmanager
def keyboard(profile: Path) -> Iterator[Keyboard]:
    """Start a browser without a window, and end it."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1280,900",
        "--force-prefers-reduced-motion", "--remote-debugging-port=0",
        f"--user-data-dir={profile}", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_address(profile), max_size=None, proxy=None) as connection:
            yield Keyboard(connection)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _address(profile: Path) -> str:
    """Return the address of the browser's only page."""
    end = time.monotonic() + 30
    file = profile / "DevToolsActivePort"
    while not (file.exists() and len(file.read_text().splitlines()) == 2):
        assert time.monotonic() < end, "the browser does not start"
        time.sleep(0.05)
    port, path = file.read_text().splitlines()
    with connect(f"ws://127.0.0.1:{port}{path}", proxy=None) as browser:
        browser.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
        targets = json.loads(browser.recv(timeout=30))["result"]["targetInfos"]
    page = next(one for one in targets if one["type"] == "page")
    return f"ws://127.0.0.1:{port}/devtools/page/{page['targetId']}"
