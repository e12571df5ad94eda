"""Map stored values to the greys that a radiologist's screen shows.

In the order that PS3.4 N.2 fixes: stored value (PS3.5 8.1.1), Modality LUT (PS3.3 C.11.1), VOI LUT
(C.11.2), then the presentation: MONOCHROME1 shows its lowest value white (C.7.6.3.1.2), and
Presentation LUT Shape INVERSE inverts (C.11.6). Every step is a function of the one stored value,
so together they are one display function: a ``Ramp`` where it is a straight line between black and
white (a linear window after a linear rescale), a table of every value's grey otherwise.
"""

from __future__ import annotations

import math
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from lapvqa.dicom.pixels import Cells, Coding, Values
from lapvqa.images.area import count_values

Table = NDArray[np.uint16]
"""The grey of each value in ascending order, 0 black .. 65535 white."""

TABLE_WHITE = 65_535
PERCENTILES = (0.5, 99.5)
RENDERED = "rendered"
_SAMPLE_SIDE = 512
_FUNCTIONS = frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"})


@dataclass(frozen=True)
class Ramp:
    """Greys that rise, or fall, in a straight line with the stored value between two clamps."""

    black: float
    """The stored value shown black; above ``white`` if the image is inverted."""
    white: float


def linear_display(dataset: Dataset, coding: Coding, cells: Cells) -> tuple[Ramp, str] | None:
    """Return the display function as a Ramp and how it was chosen, window | rendered | percentile.

    None if it is not a straight line. Only a file without a usable VOI, and not ``is_rendered``,
    has its ``cells`` [rows, cols] looked at: their percentiles 0.5 and 99.5 become black and white.
    Raises ValueError if the attributes make no sense.
    """
    if dataset.get("ModalityLUTSequence") or dataset.get("VOILUTSequence"):
        return None
    if dataset.get("PixelPaddingValue") is not None:
        return None
    slope, intercept = _rescale(dataset)
    window = first_window(dataset) or (_ALL_BYTES if is_rendered(dataset, coding) else None)
    if slope == 0 or (window and not window.is_linear):
        return None
    if window:
        black, white = ((edge - intercept) / slope for edge in window.edges())
    else:
        extremes = _percentiles(coding.values(), _counts(coding, cells))
        if extremes is None:
            return None
        black, white = extremes if slope > 0 else extremes[::-1]
    if is_inverted(dataset):
        black, white = white, black
    if not (math.isfinite(black) and math.isfinite(white)) or black == white:
        return None
    if window is _ALL_BYTES:
        return Ramp(black, white), RENDERED
    return Ramp(black, white), "window" if window else "percentile"


def tabulated_display(dataset: Dataset, coding: Coding, cells: Cells) -> tuple[Table, str]:
    """Return the display function as a table, whatever its form, and how it was chosen.

    lut | window | rendered | percentile; percentiles as in ``linear_display``. Raises ValueError
    if the attributes make no sense.
    """
    values = coding.values()
    modality = apply_modality_lut(dataset, values)
    padding = padding_mask(dataset, coding)
    grey, voi = apply_voi_lut(dataset, modality) or (None, "percentile")
    if grey is None and is_rendered(dataset, coding):
        grey, voi = apply_windowing(_ALL_BYTES, values), RENDERED
    elif grey is None:
        counts = np.where(padding, 0, _counts(coding, cells))
        extremes = _percentiles(modality, counts)
        if extremes is None:
            return np.zeros(coding.count, np.uint16), voi
        black, white = extremes
        grey = np.clip((modality - black) / (white - black), 0, 1)
    if is_inverted(dataset):
        grey = 1 - grey
    grey = np.where(padding, 0.0, grey)
    if not np.isfinite(grey).all():
        raise ValueError("the greys are not numbers")
    return np.rint(grey * TABLE_WHITE).astype(np.uint16), voi


def apply_modality_lut(dataset: Dataset, values: Values) -> Values:
    """Apply the Modality LUT, or Rescale Slope and Intercept, or nothing (PS3.3 C.11.1)."""
    sequence = dataset.get("ModalityLUTSequence")
    if sequence:
        table, first, _ = _lut(sequence[0], values)
        return _look_up(table, first, values)
    slope, intercept = _rescale(dataset)
    return values * slope + intercept


def apply_voi_lut(dataset: Dataset, values: Values) -> tuple[Values, str] | None:
    """Apply the first VOI LUT, else the first window (PS3.3 C.11.2); None if there is neither.

    The standard leaves the choice between alternatives to the reader. Returns greys in [0, 1].
    """
    sequence = dataset.get("VOILUTSequence")
    if sequence:
        table, first, bits = _lut(sequence[0], values)
        return _look_up(table, first, values) / _white_of(table, bits), "lut"
    window = first_window(dataset)
    return None if window is None else (apply_windowing(window, values), "window")


@dataclass(frozen=True)
class Window:
    """A window in modality values, of one of the three functions of PS3.3 C.11.2.1.2 and .3."""

    center: float
    width: float
    function: str = "LINEAR"

    @property
    def is_usable(self) -> bool:
        """The standard asks for a width of at least 1 (LINEAR) or above 0."""
        return self.width >= 1 if self.function == "LINEAR" else self.width > 0

    @property
    def is_linear(self) -> bool:
        """Whether greys are a straight line between the two edges."""
        return self.function != "SIGMOID" and self.edges()[0] < self.edges()[1]

    def edges(self) -> tuple[float, float]:
        """Return the values shown black and white by LINEAR or LINEAR_EXACT."""
        if self.function == "LINEAR_EXACT":  # C.11.2.1.3.2
            return self.center - self.width / 2, self.center + self.width / 2
        middle, reach = self.center - 0.5, (self.width - 1) / 2  # C.11.2.1.2.1
        return middle - reach, middle + reach


_ALL_BYTES = Window(128, 256)
"""Shows 0 black and 255 white (PS3.3 C.11.2.1.2.1)."""


def apply_windowing(window: Window, values: Values) -> Values:
    """Map values to greys in [0, 1]."""
    grey: Values
    if window.function == "SIGMOID":  # C.11.2.1.3.1
        power = np.clip(-4 * (values - window.center) / window.width, -700, 700)
        grey = 1 / (1 + np.exp(power))
        return grey
    low, high = window.edges()
    if low == high:  # a width of 1: a step
        return (values > low).astype(np.float64)
    grey = np.clip((values - low) / (high - low), 0, 1)
    return grey


def is_inverted(dataset: Dataset) -> bool:
    """Say whether greys are inverted: MONOCHROME1 shows its lowest value white.

    In a DX image MONOCHROME1 and INVERSE stand together and mean one inversion (C.8.11.3).
    """
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip().upper()
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    return photometric == "MONOCHROME1" or shape == "INVERSE"


def padding_mask(dataset: Dataset, coding: Coding) -> NDArray[np.bool_]:
    """Mark the stored values that mean "no image here" (PS3.3 C.7.5.1.1.2); they become black.

    Padding is a cell of the image: 63536 is the -2000 of signed cells, whatever its VR says.
    """
    values = coding.values()
    begin = dataset.get("PixelPaddingValue")
    if begin is None:
        return np.zeros(values.shape, dtype=np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit")
    cell = 1 << int(dataset.get("BitsAllocated") or 16)
    ends = [int(begin) % cell, int(begin if limit is None else limit) % cell]
    if coding.signed:
        ends = [end - cell if end >= cell >> 1 else end for end in ends]
    low, high = sorted(ends)
    return (values >= low) & (values <= high)


def is_rendered(dataset: Dataset, coding: Coding) -> bool:
    """Say whether the bytes are greys already: 8 of 8 bits, unsigned, without rescale and VOI.

    So are the pictures (PNG, JPEG) that archives publish, and they are shown as they are: one film
    must have one stored form, whichever file it came in.
    """
    is_byte = coding.bits == 8 and not coding.signed
    fills = all(dataset.get(name) in (8, None) for name in ("BitsStored", "BitsAllocated"))
    return is_byte and fills and _rescale(dataset) == (1, 0) and not _has_lut(dataset)


def _has_lut(dataset: Dataset) -> bool:
    return bool(dataset.get("ModalityLUTSequence") or dataset.get("VOILUTSequence"))


def _counts(coding: Coding, cells: Cells) -> NDArray[np.int64]:
    """Count the values of about a quarter of a million cells or more, at even steps."""
    counts = np.zeros(coding.count, np.int64)
    step = max(1, min(cells.shape) // _SAMPLE_SIDE)
    mask, flip, down = (np.uint32(bits) for bits in (coding.mask, coding.flip, coding.down))
    count_values(cells, step, mask, flip, down, counts)
    return counts


def _percentiles(values: Values, counts: NDArray[np.int64]) -> tuple[float, float] | None:
    """Return percentiles 0.5 and 99.5 of values that occur ``counts`` times; None if all are equal.

    Linear between the two nearest, as NumPy's default. Minimum and maximum if they coincide.
    """
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(counts[order])
    if not ends[-1]:
        return None
    places = [percent / 100 * (ends[-1] - 1) for percent in PERCENTILES]
    low, high = _values_at(places, values[order], ends)
    if low == high:
        low, high = _values_at([0, ends[-1] - 1], values[order], ends)
    return None if low == high else (low, high)


def _values_at(places: Sequence[float], values: Values, ends: NDArray[np.int64]) -> list[float]:
    """Return what stands at ``places`` of the row in which value i ends before ``ends[i]``."""
    interpolated = []
    for place in places:
        before, after = (
            float(values[np.searchsorted(ends, index, side="right")])
            for index in (math.floor(place), math.ceil(place))
        )
        interpolated.append(before + (after - before) * (place - math.floor(place)))
    return interpolated


def _lut(item: Dataset, values: Values) -> tuple[Values, int, int]:
    """Return a LUT's data, the first value it maps, and its bits (PS3.3 C.11.1.1, C.11.2.1.1)."""
    length, first, bits = (int(number) for number in item.LUTDescriptor)
    length = length or 1 << 16
    if first > 0x7FFF and values.min() < 0:  # a negative number under VR US
        first -= 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):  # VR OW; 8-bit entries are packed two to a word
        little = item.original_encoding[1] is not False
        kind = "u1" if len(data) < 2 * length else ("<u2" if little else ">u2")
        table = np.frombuffer(data, dtype=kind)
    else:
        table = np.atleast_1d(np.asarray(data)).astype(np.int64) & 0xFFFF
    if len(table) < length or not 1 <= bits <= 16:
        raise ValueError(f"LUT of {len(table)} entries and {bits} bits, {length} announced")
    return table[:length].astype(np.float64), first, bits


def _white_of(table: Values, bits: int) -> float:
    """Return the entry of a VOI LUT that is white.

    Announced are the ``bits`` of an entry (PS3.3 C.11.2.1.1). Some writers understate them: the
    largest entry is then white. Others write the bits of the word: white is then the largest value
    of the bits that the entries use (4095 where they end at 4095, or at 4000), as viewers show it.
    """
    largest = int(table.max())
    used = (1 << largest.bit_length()) - 1
    return float(max(largest, min((1 << bits) - 1, used), 1))


def _look_up(table: Values, first: int, values: Values) -> Values:
    index = np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.intp)
    mapped: Values = table[index]
    return mapped


def _rescale(dataset: Dataset) -> tuple[float, float]:
    slope, intercept = _number(dataset, "RescaleSlope"), _number(dataset, "RescaleIntercept")
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def first_window(dataset: Dataset) -> Window | None:
    """Return the first window if there is a usable one."""
    center, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    if center is None or width is None:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip(" \0").upper()
    window = Window(center, width, function)
    return window if function in _FUNCTIONS and window.is_usable else None


def _number(dataset: Dataset, name: str) -> float | None:
    """Return the first number of an attribute, None if it is empty; raises ValueError."""
    value = dataset.get(name)
    first = value[0] if isinstance(value, MutableSequence) and value else value
    if first is None or first == "" or first == []:
        return None
    number = float(first)
    if not math.isfinite(number):
        raise ValueError(f"{name} is not a finite number")
    return number
