"""Take a page of a project's reports/ as a picture for docs/img: needs chromium.

python docs/make_picture.py report              # report.png, after `make demo`
python docs/make_picture.py freshness PROJECT   # freshness.png, after the walk of fresh-walk.md
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"report": ("index.html", 1180, 1320), "freshness": ("freshness.html", 900, 1000)}
"""Name -> page below reports/, width and height in pixels."""
COLOURS = 128  # flat colours: a palette keeps the file small


def main(name: str = "report", project: str = str(ROOT)) -> int:
    """Write the picture; return 1 with a line that says why if that is impossible."""
    file, width, height = PAGES[name]
    page, picture = Path(project).resolve() / "reports" / file, ROOT / "docs/img" / f"{name}.png"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or not page.exists():
        sys.stderr.write(f"needs chromium and reports/{file}\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--hide-scrollbars", f"--user-data-dir={folder}/profile",
            f"--window-size={width},{height}", f"--screenshot={shot}", page.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        image = Image.open(shot).convert("RGB").quantize(COLOURS)
        image.save(picture, optimize=True)
    sys.stdout.write(f"wrote {picture.relative_to(ROOT)}, {picture.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
