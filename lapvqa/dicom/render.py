"""The second half of reading a file: pixel data decoded, and rendered as a screen would show it.

The display function comes first and resampling last, as a viewer shows an image smaller than it
is (PS3.4 N.2: Modality LUT, VOI LUT, Presentation LUT; spatial transformations come after). Where
that function is a straight line between two clamps (PS3.3 C.11.2.1.2.1), averaging the clamped
stored values and mapping the average gives the same greys: an average and a straight line may
change places, a clamp and an average may not. It takes a single pass over the cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from lapvqa.dicom import grayscale
from lapvqa.dicom.grayscale import TABLE_WHITE, Ramp, Table
from lapvqa.dicom.header import MONOCHROME, Header
from lapvqa.dicom.parse import ParsedDicom, parse
from lapvqa.dicom.pixels import Cells, Coding, Values, digest, read_cells
from lapvqa.dicom.reasons import Reason, as_reason, quiet
from lapvqa.errors import DicomError
from lapvqa.images.area import clamped_means, mapped_means
from lapvqa.images.geometry import LANE_END, Fit, fit_image, fit_of, framed, require_lanes

Greys = NDArray[np.uint16]

_WHITE = 255
_MAX_FACTOR = 1 << 16
_MAX_EDGE_ERROR = 0.005
"""In greys of 255: how far rounding a window's edge may move black or white."""


@dataclass(frozen=True)
class DicomImage:
    """One stored image: ``pixels`` uint8 [384, 384], 0 black."""

    pixels: NDArray[np.uint8]
    fit: Fit
    voi: str
    """lut | window | rendered | percentile: how intensity was chosen."""
    meta: Header
    decoded_sha256: str
    """Of the decoded values, before any grey transformation: ``pixels.digest``."""


def read_image(data: bytes) -> DicomImage:
    """Read one DICOM file's bytes; raises DicomError with its reason if they give no radiograph."""
    return render(parse(data))


def render(parsed: ParsedDicom) -> DicomImage:
    """Decode the pixels and render them as a screen would; raises DicomError."""
    header, dataset = parsed.header, parsed.dataset
    with quiet(), as_reason(Reason.DECODE_FAILED, "decodable pixel data"):
        cells, coding = read_cells(header, dataset, parsed.pixel_data, vr=parsed.pixel_vr)
    # Of colour only the luma is left, to which the grey transformations do not belong.
    attributes = dataset if header.photometric in MONOCHROME else Dataset()
    return show(attributes, coding, cells, header)


def show(attributes: Dataset, coding: Coding, cells: Cells, header: Header) -> DicomImage:
    """Render ``cells`` [rows, cols] as the grey ``attributes`` say; raises DicomError."""
    with quiet(), as_reason(Reason.BAD_HEADER, "usable grey transformations"):
        fit = fit_of(*cells.shape)
        greys, voi = _greys(attributes, coding, cells, fit)
    pixels = greys.astype(np.uint8)
    if int(pixels.max()) - int(pixels.min()) < 2:
        raise DicomError(Reason.CONSTANT_IMAGE, f"one grey everywhere: {int(pixels.min())} of 255")
    return DicomImage(framed(pixels, fit), fit, voi, header, digest(cells, coding))


def _greys(dataset: Dataset, coding: Coding, cells: Cells, fit: Fit) -> tuple[Greys, str]:
    if linear := grayscale.linear_display(dataset, coding, cells):
        ramp, voi = linear
        greys = ramped(cells, coding, ramp, fit)
        if greys is not None:
            return greys, voi
    table, voi = grayscale.tabulated_display(dataset, coding, cells)
    return tabulated(cells, coding, table, fit), voi


def ramped(
    cells: Cells, coding: Coding, ramp: Ramp, fit: Fit, *, white: int = _WHITE
) -> Greys | None:
    """Clamp, average, then map: the greys of the content, uint16 [h, w], 0 .. ``white``.

    None where the kernel is not exact enough (a window of few stored values, or a giant image),
    and for an image that must be enlarged.
    """
    unit = 1 << coding.down
    begin, end = ((edge - coding.lowest) * unit for edge in (ramp.black, ramp.white))
    inside = np.clip(sorted((begin, end)), 0, (coding.count - 1) * unit)
    factor = _edge_factor(inside, fit, allowed=_MAX_EDGE_ERROR / _WHITE * abs(end - begin))
    if fit.scale >= 1 or factor is None:
        return None
    low, high = (np.uint32(edge) for edge in np.rint(inside * factor))
    greys = np.empty(fit.content_shape, np.uint16)
    bits = (np.uint32(number) for number in (coding.mask, coding.flip, factor))
    zero, span, top = begin * factor, (end - begin) * factor, float(white)
    clamped_means(cells, fit.longest, *bits, low, high, zero, top, span, top, greys)
    return greys


def _edge_factor(edges: Values, fit: Fit, *, allowed: float) -> int | None:
    """Return into how many parts to divide a value, since edges may lie between values.

    With more parts an edge lies nearer to a whole one, but the lanes are 32 bits wide.
    """
    finest = (LANE_END - 1) // (fit.longest * max(1, int(np.ceil(edges[1]))))
    factor = 1 << (min(finest, _MAX_FACTOR).bit_length() - 1)
    error = np.abs(np.rint(edges * factor) - edges * factor).max() / factor
    return factor if error <= allowed else None


def tabulated(
    cells: Cells, coding: Coding, table: Table, fit: Fit, *, white: int = _WHITE
) -> Greys:
    """Look up, then average: the greys of the content, uint16 [h, w], 0 .. ``white``."""
    step = TABLE_WHITE / white
    if fit.scale >= 1:
        large, _ = fit_image(table[coding.ranks(cells)])
        return np.floor(large[fit.content] / step + 0.5).astype(np.uint16)
    require_lanes(fit, largest=TABLE_WHITE)
    greys = np.empty(fit.content_shape, np.uint16)
    bits = (np.uint32(number) for number in (coding.mask, coding.flip, coding.down))
    mapped_means(cells, fit.longest, *bits, table, 0.0, 1.0, step, float(white), greys)
    return greys
