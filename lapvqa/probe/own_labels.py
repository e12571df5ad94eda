"""A table of labels of one's own: a CSV file that names images or studies of the archive.

One column names the image (SOP Instance UID, MIMIC's dicom_id) or the study (Study Instance UID,
MIMIC's study_id); identifiers are turned into keys as ingest does, keys may stand there as well.
Every column of 1, 0, -1 (uncertain) and blanks (not known) is a label; others are left out by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lapvqa.datasets import tables
from lapvqa.errors import SourceError
from lapvqa.identity import Keyring
from lapvqa.metrics.classification import UNKNOWN

FORM = (
    "one column image_id (SOP Instance UID) or study_id (Study Instance UID), and a column of 1, "
    "0, -1 (uncertain) or nothing (not known) per label"
)
UNCERTAIN = -1
_IMAGES = ("imageid", "image", "dicomid", "sopinstanceuid", "imagekey")
_STUDIES = ("studyid", "study", "studyinstanceuid", "studykey")
_KEYS = ("imagekey", "studykey")
_VALUES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": UNCERTAIN, "-1.0": UNCERTAIN, "": None}
_NO_LABEL = re.compile(r"patient|subject|accession|(^|_)id$|uid$", re.IGNORECASE)

Value = int | None
"""1, 0, UNCERTAIN, or None: not known."""


@dataclass(frozen=True)
class FilmLabels:
    """Labels of films: image key -> a target per name, 1, 0 or ``classification.UNKNOWN``.

    ``source``: where they come from, in words; ``facts``: what the protocol says of them besides.
    """

    names: tuple[str, ...]
    rows: Mapping[str, Sequence[int]] = field(repr=False)
    source: str
    facts: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnTable:
    """What the file says: key -> a value per label; ``of_images``: else the keys are studies'."""

    names: tuple[str, ...]
    values: Mapping[str, Sequence[Value]] = field(repr=False)
    of_images: bool
    ignored: tuple[str, ...]


def find_table(folder: Path, files: Iterable[str]) -> Path | None:
    """Return the one CSV file among ``files``; None if there is none, SourceError if several."""
    found = sorted(name for name in files if name.lower().endswith((".csv", ".csv.gz")))
    if len(found) > 1:
        raise SourceError(
            f"expected one CSV file in the folder of labels, found {len(found)}",
            hint="leave one there; join tables by image_id or study_id first",
        )
    return folder / found[0] if found else None


def read_own_table(path: Path, keyring: Keyring) -> OwnTable:
    """Read the table; SourceError without a column of names or of labels, or for a row twice."""
    header = tables.read_header(path)
    named, of_images = _naming_column(path.name, header)
    rows = [row for _, row in tables.read_rows(path, header)]
    others = [name for name in header if name != named]
    labels = [name for name in others if _is_label(name, [row[name] for row in rows])]
    if not labels:
        raise SourceError(
            f"{path.name}: expected columns of labels, found none among {len(others)}",
            hint=f"expected form: {FORM}",
        )
    to_key = _to_key(named, of_images, keyring)
    values: dict[str, list[Value]] = {}
    for row in rows:
        key = to_key(row[named].strip())
        if key in values:
            raise SourceError(
                f"{path.name}: expected each {named} once, found one twice",
                hint="keep one row of it",
            )
        values[key] = [_VALUES[row[name].strip()] for name in labels]
    return OwnTable(
        tuple(labels), values, of_images, tuple(name for name in others if name not in labels)
    )


def target(value: Value, uncertain: str) -> int:
    """Return 1, 0 or UNKNOWN; ``uncertain``: zeros | ones | ignore."""
    if value is None:
        return UNKNOWN
    if value == UNCERTAIN:
        return {"zeros": 0, "ones": 1}.get(uncertain, UNKNOWN)
    return value


def _naming_column(file: str, header: Sequence[str]) -> tuple[str, bool]:
    plain = {re.sub(r"[^a-z]", "", name.lower()): name for name in header}
    for names, of_images in ((_IMAGES, True), (_STUDIES, False)):
        for name in names:
            if name in plain:
                return plain[name], of_images
    raise SourceError(
        f"{file}: expected a column that names images or studies, found "
        f"{', '.join(header[:6]) or 'nothing'}",
        hint=f"expected form: {FORM}",
    )


def _is_label(name: str, column: Sequence[str]) -> bool:
    values = {value.strip() for value in column}
    return values <= _VALUES.keys() and bool(values - {""}) and not _NO_LABEL.search(name)


def _to_key(named: str, of_images: bool, keyring: Keyring) -> Callable[[str], str]:
    if re.sub(r"[^a-z]", "", named.lower()) in _KEYS:
        return str
    if of_images:
        return keyring.image
    # MIMIC's files write s50414267, its tables 50414267.
    return lambda study: keyring.study(re.sub(r"^s(?=\d+$)", "", study))
