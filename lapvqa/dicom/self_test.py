"""Decode the sample file of each transfer syntax and compare it with what it was made of.

The pixels are a formula (``pattern``), so a decoder is compared with the truth and not with
another decoder. The files in samples/ are read as ingest reads files.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from lapvqa.dicom.parse import parse
from lapvqa.dicom.pixels import read_cells
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError

SIDE = 64


@dataclass(frozen=True)
class SampleFile:
    """One file; ``file`` is its name without suffix, ``name`` that of its transfer syntax."""

    file: str
    name: str
    bits: int
    max_error: int = 0
    """Largest difference from the pattern, in grey values; 0 where the encoding is exact."""


SAMPLES = (
    SampleFile("explicit_little", "explicit little endian", 12),
    SampleFile("implicit_little", "implicit little endian", 12),
    SampleFile("explicit_big", "explicit big endian", 12),
    SampleFile("deflated", "deflated", 12),
    SampleFile("rle", "RLE lossless", 12),
    SampleFile("jpeg_baseline", "JPEG baseline, 8 bits", 8, max_error=2),
    SampleFile("jpeg_extended_12", "JPEG extended, 12 bits", 12, max_error=1),
    SampleFile("jpeg_lossless", "JPEG lossless, process 14", 12),
    SampleFile("jpeg_lossless_sv1", "JPEG lossless, process 14 selection value 1", 12),
    SampleFile("jpegls_lossless", "JPEG-LS lossless", 12),
    SampleFile("jpegls_near", "JPEG-LS near-lossless", 12, max_error=3),
    SampleFile("j2k_lossless", "JPEG 2000 lossless", 12),
    SampleFile("j2k_lossy", "JPEG 2000", 12, max_error=20),
    SampleFile("htj2k_lossless", "High-Throughput JPEG 2000 lossless", 12),
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


def data_of(sample: SampleFile) -> bytes:
    """Return the file's bytes."""
    return (resources.files(__package__) / "samples" / f"{sample.file}.dcm").read_bytes()


def decode(sample: SampleFile) -> NDArray[np.float64]:
    """Return the pixel values [64, 64], read as ingest reads them.

    Raises NoDecoderError, or DicomError if reading fails.
    """
    try:
        parsed = parse(data_of(sample))
        cells, coding = read_cells(
            parsed.header, parsed.dataset, parsed.pixel_data, vr=parsed.pixel_vr
        )
    except DicomError as error:
        if error.reason in (Reason.DECODER_MISSING, Reason.UNSUPPORTED_SYNTAX):
            raise NoDecoderError(sample.name) from error
        raise
    decoded: NDArray[np.float64] = coding.values()[coding.ranks(cells)]
    return decoded


def check(sample: SampleFile) -> str:
    """Decode and compare; return the fault, empty if there is none. Raises NoDecoderError."""
    try:
        decoded = decode(sample)
    except (NoDecoderError, KeyboardInterrupt, SystemExit):
        raise
    except DicomError as error:
        return error.message
    except BaseException as error:  # noqa: BLE001 - a panic of a decoder in Rust is no Exception
        return f"the decoder raised {type(error).__name__}"
    truth = pattern(sample.bits)
    if decoded.shape != truth.shape:
        return f"expected {truth.shape[0]} x {truth.shape[1]} pixels, found {decoded.shape}"
    difference = np.abs(decoded - truth).max()
    if difference > sample.max_error:
        return f"differs by {difference:.0f} grey values, at most {sample.max_error} expected"
    return ""
