"""What NIH ChestX-ray14 says beside the findings: age, sex and view of each image, and boxes.

<folder>/Data_Entry_2017_v2020.csv, or Data_Entry_2017.csv (trailing commas, ages up to 414)
<folder>/BBox_List_2017.csv        984 boxes on 880 images
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lapvqa.datasets.account import Account
from lapvqa.datasets.labelled import key
from lapvqa.datasets.nih14 import ENTRY_FILES, LABELS, NAME
from lapvqa.datasets.tables import choice, find, number, read_rows, whole

BOX_FILE = "BBox_List_2017.csv"
MAX_AGE = 95
"""The highest age of the revised file; the first one has ages such as 414, in other units."""

# The header means nine columns where the lines have six: the comma within "Bbox [x,y,w,h]" splits
# one name into four, and three empty ones follow. By name, the first six are right.
_BOX_COLUMNS = ("Bbox [x", "y", "w", "h]")
_BOX_LABELS = {label: label for label in LABELS} | {"Infiltrate": "Infiltration"}
_AGE, _SEX, _VIEW = "Patient Age", "Patient Gender", "View Position"


@dataclass(frozen=True)
class Entry:
    """Age in years (at most 95, ``age_clipped`` if it was above), sex F or M, view PA or AP."""

    age: int
    age_clipped: bool
    sex: str
    view: str


@dataclass(frozen=True)
class Box:
    """A finding's place: xyxy in pixels of the released image, which is 1024 x 1024.

    ``sample`` as in ProbeDataset.
    """

    sample: str
    label: str
    xyxy: tuple[float, float, float, float]


def read_entries(folder: Path) -> dict[str, Entry]:
    """Return what is known of each image by its sample key; raises SourceError."""
    path = find(folder, ENTRY_FILES)
    entries = {}
    sexes, views = {"F": "F", "M": "M"}, {"PA": "PA", "AP": "AP"}
    for line, row in read_rows(path, ("Image Index", _AGE, _SEX, _VIEW)):
        place = f"{path.name}, line {line}"
        # Some copies of the first release write 058Y.
        age = whole(row[_AGE].removesuffix("Y"), _AGE, place)
        entries[key(NAME, row["Image Index"])] = Entry(
            age=min(age, MAX_AGE),
            age_clipped=age > MAX_AGE,
            sex=choice(row[_SEX], sexes, _SEX, place),
            view=choice(row[_VIEW], views, _VIEW, place),
        )
    return entries


def read_boxes(folder: Path, entries: Mapping[str, object]) -> tuple[tuple[Box, ...], Account]:
    """Return the boxes of images among ``entries`` (sample keys), and what was left out.

    The file says Infiltrate for Infiltration. Raises SourceError.
    """
    path = find(folder, [BOX_FILE])
    boxes, left_out, read = [], Counter[str](), 0
    for line, row in read_rows(path, ("Image Index", "Finding Label", *_BOX_COLUMNS)):
        read += 1
        place = f"{path.name}, line {line}"
        label = choice(row["Finding Label"], _BOX_LABELS, "Finding Label", place)
        x, y, w, h = (number(row[name], name, place) for name in _BOX_COLUMNS)
        sample = key(NAME, row["Image Index"])
        if sample not in entries:
            left_out["image is not in the Data_Entry csv"] += 1
        elif w <= 0 or h <= 0:
            left_out["box without area"] += 1
        else:
            boxes.append(Box(sample, label, (x, y, x + w, y + h)))
    return tuple(boxes), Account("boxes", read, len(boxes), left_out)
