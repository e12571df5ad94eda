"""Take docs/img/report.png from the report page of this project: needs chromium.

Run after `make demo`: ``python docs/make_picture.py``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "reports" / "index.html"
PICTURE = ROOT / "docs" / "img" / "report.png"
WIDTH, HEIGHT = 1180, 1320
COLOURS = 128  # flat colours: a palette keeps the file small


def main() -> int:
    """Write the picture; return 1 with a line that says why if that is impossible."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or not PAGE.exists():
        sys.stderr.write("needs chromium and reports/index.html (make demo)\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--hide-scrollbars", f"--user-data-dir={folder}/profile",
            f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}", PAGE.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        image = Image.open(shot).convert("RGB").quantize(COLOURS)
        image.save(PICTURE, optimize=True)
    sys.stdout.write(f"wrote {PICTURE.relative_to(ROOT)}, {PICTURE.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
