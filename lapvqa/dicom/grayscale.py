"""From stored cell values to what a radiologist's screen shows, as one table of 256 or 65,536.

Order as PS3.4 N.2 fixes it: stored value (PS3.5 8.1.1), Modality LUT (PS3.3 C.11.1), VOI LUT
(C.11.2), then the presentation: MONOCHROME1 shows its lowest value white (C.7.6.3.1.2), and
Presentation LUT Shape INVERSE inverts (C.11.6). Every step is a function of the one stored value,
so the whole of it is tabulated once per file and the image pays for one lookup.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

Values = NDArray[np.float64]
Cells = NDArray[np.uint8] | NDArray[np.uint16]

PERCENTILES = (0.5, 99.5)
_SAMPLE_SIDE = 512


def stored_values(*, allocated: int, stored: int, high_bit: int, signed: bool) -> Values:
    """Return the pixel value of each possible cell content 0 .. 2**allocated - 1 (PS3.5 8.1.1).

    Bits above High Bit may hold an overlay of old; they are no part of the value.
    """
    cells = np.arange(1 << allocated, dtype=np.int64)
    values = (cells >> (high_bit + 1 - stored)) & ((1 << stored) - 1)
    if signed:
        values -= (values >> (stored - 1)) << stored
    return values.astype(np.float64)


def display_table(dataset: Dataset, values: Values, cells: Cells) -> tuple[NDArray[np.uint16], str]:
    """Return the grey (0 black .. 65535 white) of each cell content, and how it was chosen.

    ``values`` as from ``stored_values``; ``cells`` [rows, cols] is looked at only where the file
    has no usable VOI: then the percentiles 0.5 and 99.5 become black and white ("percentile").
    """
    modality = modality_lut(dataset, values)
    padding = padding_mask(dataset, values)
    chosen = voi_lut(dataset, modality)
    grey, voi = chosen or (_percentile_window(modality, padding, cells), "percentile")
    if is_inverted(dataset):
        grey = 1 - grey
    grey = np.where(padding, 0.0, grey)
    return np.rint(grey * 65535).astype(np.uint16), voi


def modality_lut(dataset: Dataset, values: Values) -> Values:
    """Apply the Modality LUT, or Rescale Slope and Intercept, or nothing (PS3.3 C.11.1)."""
    sequence = dataset.get("ModalityLUTSequence")
    if sequence:
        table, first, _ = _lut(sequence[0], values)
        return _look_up(table, first, values)
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    slope = 1.0 if slope is None else float(slope)
    return values * slope + (0.0 if intercept is None else float(intercept))


def voi_lut(dataset: Dataset, values: Values) -> tuple[Values, str] | None:
    """Apply the first VOI LUT, else the first window (PS3.3 C.11.2); None if there is neither.

    The standard leaves the choice between alternatives to the reader. Returns greys in [0, 1].
    """
    sequence = dataset.get("VOILUTSequence")
    if sequence:
        table, first, bits = _lut(sequence[0], values)
        # Some writers understate the bits; a value above white is white's new place.
        white = max(float((1 << bits) - 1), float(table.max()))
        return _look_up(table, first, values) / white, "lut"
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if center is None or width is None or width < (1 if function == "LINEAR" else 1e-9):
        return None
    return window(values, center=center, width=width, function=function), "window"


def window(values: Values, *, center: float, width: float, function: str = "LINEAR") -> Values:
    """Map values to greys in [0, 1] (PS3.3 C.11.2.1.2.1, C.11.2.1.3.1, C.11.2.1.3.2)."""
    if function == "SIGMOID":
        grey: Values = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
        return grey
    if function == "LINEAR_EXACT":
        return _clipped((values - center) / width + 0.5)
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return _clipped((values - (center - 0.5)) / (width - 1) + 0.5)


def is_inverted(dataset: Dataset) -> bool:
    """Say whether the lowest value is white.

    In a DX image MONOCHROME1 and INVERSE stand together and mean one inversion (C.8.11.3).
    """
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip().upper()
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    return photometric == "MONOCHROME1" or shape == "INVERSE"


def padding_mask(dataset: Dataset, values: Values) -> NDArray[np.bool_]:
    """Mark the stored values that mean "no image here" (PS3.3 C.7.5.1.1.2); they become black."""
    begin = dataset.get("PixelPaddingValue")
    if begin is None:
        return np.zeros(values.shape, dtype=np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = sorted((float(begin), float(begin if limit is None else limit)))
    return (values >= ends[0]) & (values <= ends[1])


def _percentile_window(modality: Values, padding: NDArray[np.bool_], cells: Cells) -> Values:
    step = max(1, min(cells.shape) // _SAMPLE_SIDE)
    sample = cells[::step, ::step].ravel()
    shown = modality[sample[~padding[sample]]]
    if not shown.size:
        return _black(modality)
    low, high = np.percentile(shown, PERCENTILES)
    if low == high:
        low, high = shown.min(), shown.max()
    if low == high:
        return _black(modality)
    return _clipped((modality - low) / (high - low))


def _black(like: Values) -> Values:
    return np.zeros(like.shape, dtype=np.float64)


def _clipped(grey: Values) -> Values:
    clipped: Values = np.clip(grey, 0, 1)
    return clipped


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


def _look_up(table: Values, first: int, values: Values) -> Values:
    index = np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.intp)
    found: Values = table[index]
    return found


def _first(value: object) -> float | None:
    if value is None or value == "":
        return None
    values = np.atleast_1d(np.asarray(value, dtype=np.float64))
    return float(values[0]) if values.size else None
