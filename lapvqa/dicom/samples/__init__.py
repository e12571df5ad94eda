"""A tiny file of each transfer syntax, to prove on any machine that its decoder works.

The pixels are a formula (``pattern``), so what is decoded is compared with the truth and not with
another decoder. ``make`` wrote the files. They are read as ingest reads files.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from lapvqa.dicom import pixels, read
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError

SIDE = 64


@dataclass(frozen=True)
class Sample:
    """One file, named as its transfer syntax in ``file``."""

    file: str
    name: str
    bits: int
    max_error: int = 0
    """Largest difference from the pattern, in grey values; 0 where the encoding is exact."""


SAMPLES = (
    Sample("explicit_little", "explicit little endian", 12),
    Sample("implicit_little", "implicit little endian", 12),
    Sample("explicit_big", "explicit big endian", 12),
    Sample("deflated", "deflated", 12),
    Sample("rle", "RLE lossless", 12),
    Sample("jpeg_baseline", "JPEG baseline, 8 bits", 8, max_error=2),
    Sample("jpeg_extended_12", "JPEG extended, 12 bits", 12, max_error=1),
    Sample("jpeg_lossless", "JPEG lossless, process 14", 12),
    Sample("jpeg_lossless_sv1", "JPEG lossless, process 14 selection value 1", 12),
    Sample("jpegls_lossless", "JPEG-LS lossless", 12),
    Sample("jpegls_near", "JPEG-LS near-lossless", 12, max_error=3),
    Sample("j2k_lossless", "JPEG 2000 lossless", 12),
    Sample("j2k_lossy", "JPEG 2000", 12, max_error=20),
    Sample("htj2k_lossless", "High-Throughput JPEG 2000 lossless", 12),
)


class NoDecoderError(Exception):
    """No decoder is installed for a sample's transfer syntax."""


def pattern(bits: int) -> NDArray[np.uint16]:
    """Return the true pixels [64, 64]: a slope with steps, from 0 to the largest value."""
    rows, cols = np.mgrid[:SIDE, :SIDE]
    level = 3 * cols + 2 * rows + 25 * ((rows // 16 + cols // 16) % 2)
    largest = 5 * (SIDE - 1)
    grey: NDArray[np.uint16] = np.minimum(level, largest) * (2**bits - 1) // largest
    return grey.astype(np.uint16)


def data_of(sample: Sample) -> bytes:
    """Return the file's bytes."""
    return (resources.files(__name__) / f"{sample.file}.dcm").read_bytes()


def decode(sample: Sample) -> NDArray[np.float64]:
    """Return the pixel values [64, 64], read as ingest reads them.

    Raises NoDecoderError, or DicomError if reading fails.
    """
    try:
        parsed = read.parse(data_of(sample))
        header, dataset, data = parsed.header, parsed.dataset, parsed.pixel_data
        if header.transfer_syntax in pixels.NATIVE:
            cells, coding = pixels.native_cells(header, dataset, data, vr=parsed.pixel_vr)
        else:
            cells, coding = pixels.decoded_cells(header, dataset, data)
    except DicomError as error:
        if error.reason in (Reason.DECODER_MISSING, Reason.UNSUPPORTED_SYNTAX):
            raise NoDecoderError(sample.name) from error
        raise
    decoded: NDArray[np.float64] = coding.values()[coding.ranks(cells)]
    return decoded


def check(sample: Sample) -> str:
    """Decode and compare; return what is wrong, empty if nothing. Raises NoDecoderError."""
    try:
        found = decode(sample)
    except (NoDecoderError, KeyboardInterrupt, SystemExit):
        raise
    except DicomError as error:
        return error.message
    except BaseException as error:  # noqa: BLE001 - a panic of a decoder in Rust is no Exception
        return f"the decoder raised {type(error).__name__}"
    truth = pattern(sample.bits)
    if found.shape != truth.shape:
        return f"expected {truth.shape[0]} x {truth.shape[1]} pixels, found {found.shape}"
    error_found = np.abs(found - truth).max()
    if error_found > sample.max_error:
        return f"differs by {error_found:.0f} grey values, at most {sample.max_error} expected"
    return ""
