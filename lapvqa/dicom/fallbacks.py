"""What an attribute that cannot be used is replaced by: as if the file did not have it.

A rescale needs both of its numbers (PS3.3 C.11.1.1), a window a center, a width in its range and a
known function (C.11.2.1.2). A file in which a device wrote NaN, AUTO or 2048,0 into one of them, or
left one out, is no worse than a file without any: the greys come from what is left, as pydicom and
dcmtk do it. That is noted beside the image.
"""

from __future__ import annotations

import math
from collections.abc import MutableSequence
from typing import Literal

from pydicom import DataElement, Dataset
from pydicom.tag import Tag

from lapvqa.dicom.grayscale import first_window

RESCALE_IGNORED = "rescale ignored"
WINDOW_IGNORED = "window ignored"

_RESCALE = ("RescaleSlope", "RescaleIntercept")
_WINDOW = ("WindowCenter", "WindowWidth")


def drop_unusable(dataset: Dataset) -> list[str]:
    """Remove the rescale or the windows of a grey image if they cannot be used; say which."""
    notes = []
    if not dataset.get("ModalityLUTSequence"):
        states = {_state(dataset, name) for name in _RESCALE}
        if states not in ({"number"}, {"absent"}):
            _remove(dataset, *_RESCALE)
            notes.append(RESCALE_IGNORED)
    if not dataset.get("VOILUTSequence"):
        states = {_state(dataset, name) for name in _WINDOW}
        if states != {"absent"} and (states != {"number"} or first_window(dataset) is None):
            _remove(dataset, *_WINDOW)
            notes.append(WINDOW_IGNORED)
    return notes


def _state(dataset: Dataset, name: str) -> Literal["number", "absent", "unusable"]:
    """Say what the attribute's first value is; the others are not asked for."""
    try:
        value = dataset.get(name)
    except Exception:  # noqa: BLE001 - one of several values is no number
        value = str(dataset.get_item(name).value, "ascii", "replace").split("\\")[0].strip(" \0")
        dataset[name] = DataElement(Tag(name), "LO", value)
    first = value[0] if isinstance(value, MutableSequence) and value else value
    if first is None or first == "" or first == []:
        return "absent"
    try:
        return "number" if math.isfinite(float(first)) else "unusable"
    except (TypeError, ValueError):
        return "unusable"


def _remove(dataset: Dataset, *names: str) -> None:
    for name in names:
        dataset.pop(Tag(name), None)
