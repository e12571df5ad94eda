"""Lay real radiographs into FOLDER, as a delivery has them: ``first_hour_films.py FOLDER``.

They are samples of the package pydicom-data (MIT licence), most of them DICOM working group 4's: a
chest and a leg by computed radiography, a slice of CT, an ultrasound picture. Nothing is fetched.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydicom.data import get_testdata_file

FILMS = {
    "chest/as_made.dcm": "RG1_UNCR.dcm",
    "chest/sent_again.dcm": "RG1_J2KR.dcm",  # the same pixels, packed by JPEG 2000
    "chest/from_web_viewer.dcm": "RG1_J2KI.dcm",  # packed with loss
    "leg/leg.dcm": "RG3_J2KR.dcm",
    "ct/slice.dcm": "693_J2KR.dcm",
    "ultrasound/picture.dcm": "US1_J2KR.dcm",
    "disc/report.dcm": "reportsi.dcm",
}
"""Place in the folder -> name of the sample."""
REPORT = """FINDINGS: There are multiple rounded opacities of both lungs. The heart is of normal
size. No pleural effusion. No pneumothorax.

IMPRESSION: Multiple pulmonary nodules.
"""
"""Of the chest, in our words: the samples bring none."""


def main(folder: str = "films") -> int:
    """Write the folder; return 1 with what to do if the samples are not installed."""
    root = Path(folder)
    for place, name in FILMS.items():
        found = get_testdata_file(name, download=False)
        if found is None:
            sys.stderr.write("needs the samples: pip install pydicom-data==1.0.0\n")
            return 1
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(Path(str(found)).read_bytes())
    whole = (root / "chest/as_made.dcm").read_bytes()
    (root / "chest/cut_off.dcm").write_bytes(whole[: len(whole) // 2])
    (root / "chest/report.txt").write_text(REPORT)
    sys.stdout.write(f"{len(FILMS) + 1} DICOM files and a report in {folder}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
