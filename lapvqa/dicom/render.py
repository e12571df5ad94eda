"""The second half of reading a file: pixel data decoded and shown as a screen would."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from lapvqa.data.geometry import Fit, fit_image
from lapvqa.dicom import grayscale
from lapvqa.dicom.faults import as_reason, quiet
from lapvqa.dicom.header import MONOCHROME, Header
from lapvqa.dicom.parse import ParsedDicom
from lapvqa.dicom.pixels import NATIVE, decoded_cells, native_cells
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError


@dataclass(frozen=True)
class DicomImage:
    """One stored image: ``pixels`` uint8 [384, 384], 0 black."""

    pixels: NDArray[np.uint8]
    fit: Fit
    voi: str
    """lut | window | percentile: how intensity was chosen."""
    meta: Header


def render(parsed: ParsedDicom) -> DicomImage:
    """Decode the pixels and show them as a screen would; raises DicomError."""
    header, dataset = parsed.header, parsed.dataset
    with quiet(), as_reason(Reason.DECODE_FAILED, "decodable pixel data"):
        if header.transfer_syntax in NATIVE:
            cells, values = native_cells(header, dataset, parsed.pixel_data, vr=parsed.pixel_vr)
        else:
            cells, values = decoded_cells(header, dataset, parsed.pixel_data)
    with quiet(), as_reason(Reason.BAD_HEADER, "usable grey transformations"):
        # Of colour only the luma is left, to which the grey transformations do not belong.
        described = dataset if header.photometric in MONOCHROME else Dataset()
        table, voi = grayscale.display_table(described, values, cells)
    grey, fit = fit_image(cv2.LUT(cells, table))
    pixels = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    _require_contrast(pixels, fit)
    return DicomImage(pixels, fit, voi, header)


def _require_contrast(pixels: NDArray[np.uint8], fit: Fit) -> None:
    top, left = int(fit.offset_y), int(fit.offset_x)
    height, width = round(fit.native_rows * fit.scale), round(fit.native_cols * fit.scale)
    content = pixels[top : top + height, left : left + width]
    if int(content.max()) - int(content.min()) < 2:
        raise DicomError(Reason.CONSTANT_IMAGE, f"one grey everywhere: {int(content.min())} of 255")
