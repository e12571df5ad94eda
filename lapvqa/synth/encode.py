"""Write a picture as the DICOM files that archives hold: syntaxes, depths, polarities, windows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from lapvqa.synth.radiograph import Film

# UUID-derived UIDs (PS3.5 B.2) need no registered root.
_IMPLEMENTATION = "2.25.302043790172249692526321623266752743501"
_VERSION = "LAPVQA_SYNTH_1"

# Share of the archive in each transfer syntax.
SYNTAXES: dict[str, float] = {
    ExplicitVRLittleEndian: 0.33,
    ImplicitVRLittleEndian: 0.15,
    RLELossless: 0.10,
    JPEGLSLossless: 0.12,
    JPEG2000Lossless: 0.10,
    DeflatedExplicitVRLittleEndian: 0.06,
    ExplicitVRBigEndian: 0.07,
    JPEGBaseline8Bit: 0.07,
}
_PLUGINS = {RLELossless: "pylibjpeg", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg"}
_BITS = {12: 0.84, 10: 0.05, 14: 0.06, 16: 0.05}
_VOI = {"window": 0.42, "windows": 0.22, "lut": 0.18, "none": 0.18}


@dataclass(frozen=True)
class Encoding:
    """How one file stores its pixels."""

    syntax: str
    bits: int
    inverted: bool
    """MONOCHROME1: the smallest value is shown white."""
    voi: str
    """window, windows (several to choose from), lut, or none."""
    rescale: tuple[float, float] | None
    """Slope and intercept of the modality transform."""


def _shuffled(
    rng: np.random.Generator, shares: dict[str, float] | dict[int, float], count: int
) -> list[object]:
    """Return ``count`` values in the given shares, each present if there is room, shuffled."""
    values = list(shares)
    edges = np.cumsum([shares[value] for value in values])  # type: ignore[index]
    places = (np.arange(count) + 0.5) / count * edges[-1]
    listed = [values[int(i)] for i in np.searchsorted(edges, places)]
    return [listed[i] for i in rng.permutation(count)]


def sample_encodings(rng: np.random.Generator, count: int) -> list[Encoding]:
    """Return an archive's encodings in fixed shares, independent of what the images show."""
    syntaxes, voi = _shuffled(rng, SYNTAXES, count), _shuffled(rng, _VOI, count)
    bits = _shuffled(rng, _BITS, count)
    inverted = rng.permutation(np.arange(count) < round(0.15 * count))
    encodings = []
    for number in range(count):
        baseline = syntaxes[number] == JPEGBaseline8Bit
        slope = (float(rng.choice([0.5, 1.0, 2.0])), float(rng.choice([-1024.0, 0.0, 100.0])))
        # A 16-bit table does not fit one explicit US element.
        choice = "window" if bits[number] == 16 and voi[number] == "lut" else str(voi[number])
        encodings.append(
            Encoding(
                syntax=str(syntaxes[number]),
                bits=8 if baseline else int(str(bits[number])),
                inverted=bool(inverted[number]),
                voi=choice,
                rescale=slope if choice != "lut" and rng.random() < 0.2 else None,
            )
        )
    return encodings


def uid_of(*parts: object) -> str:
    """Return a UUID-derived UID that depends on ``parts`` only."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _stored(film: Film, encoding: Encoding) -> tuple[NDArray[np.unsignedinteger], float, float]:
    """Return stored values, and the display window's ends in the same unit."""
    largest = (1 << encoding.bits) - 1
    low, high = (end * largest for end in film.window)
    pixels = np.round(film.values * np.float32(largest)).astype(np.uint16)
    if encoding.bits == 8:
        pixels, low, high = film.displayed().astype(np.uint16), 0.0, float(largest)
    if encoding.inverted:
        pixels, low, high = np.uint16(largest) - pixels, largest - high, largest - low
    return (pixels.astype(np.uint8) if encoding.bits == 8 else pixels), low, high


def _describe_pixels(
    data: Dataset, pixels: NDArray[np.unsignedinteger], encoding: Encoding
) -> None:
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME1" if encoding.inverted else "MONOCHROME2"
    data.PresentationLUTShape = "INVERSE" if encoding.inverted else "IDENTITY"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated = 8 * pixels.itemsize
    data.BitsStored = encoding.bits
    data.HighBit = encoding.bits - 1
    data.PixelRepresentation = 0


def _describe_voi(data: Dataset, low: float, high: float, encoding: Encoding) -> None:
    """Add modality and VOI transforms (PS3.3 C.11.1, C.11.2)."""
    if encoding.rescale is not None:
        slope, intercept = encoding.rescale
        data.RescaleSlope, data.RescaleIntercept = f"{slope:g}", f"{intercept:g}"
        data.RescaleType = "US"
        low, high = slope * low + intercept, slope * high + intercept
    if encoding.voi == "lut":
        data.VOILUTSequence = Sequence([_lut(low, high, encoding)])
        return
    if encoding.voi == "none":
        return
    # PS3.3 C.11.2.1.2.1: a linear window spans width - 1 values around centre - 0.5.
    centre, width = f"{0.5 * (low + high) + 0.5:.1f}", f"{high - low + 1:.1f}"
    if encoding.voi == "window":
        data.WindowCenter, data.WindowWidth = centre, width
        return
    data.WindowCenter = [centre, centre, centre]
    data.WindowWidth = [width, f"{1.35 * (high - low) + 1:.1f}", f"{0.75 * (high - low) + 1:.1f}"]
    data.WindowCenterWidthExplanation = ["NORMAL", "SOFTER", "HARDER"]


def _lut(low: float, high: float, encoding: Encoding) -> Dataset:
    """Return a VOI LUT that covers all stored values with a soft toe and shoulder."""
    entries = 1 << encoding.bits
    place = np.clip((np.arange(entries) - low) / (high - low), 0.0, 1.0)
    table = np.round(4095 * (0.8 * place + 0.2 * place * place * (3 - 2 * place)))
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, 0, 12])
    item.LUTExplanation = "NORMAL"
    item.add_new("LUTData", "US", [int(value) for value in table])
    return item


def _attach_pixels(data: Dataset, pixels: NDArray[np.unsignedinteger], encoding: Encoding) -> None:
    """Add the pixel data in the encoding's transfer syntax."""
    syntax = UID(encoding.syntax)
    data.LossyImageCompression = "00"
    if syntax in _PLUGINS:
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.PixelData = pixels.tobytes()
        # A new random SOP instance UID would make every build differ.
        data.compress(syntax, encoding_plugin=_PLUGINS[syntax], generate_instance_uid=False)
    elif syntax == JPEGBaseline8Bit:
        coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        data.LossyImageCompression = "01"
        data.LossyImageCompressionRatio = f"{pixels.size / len(coded):.2f}"
        data.LossyImageCompressionMethod = "ISO_10918_1"
        data.PixelData = encapsulate([coded])
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
    else:
        big = syntax == ExplicitVRBigEndian
        raw = pixels.astype(pixels.dtype.newbyteorder(">")) if big else pixels
        data.PixelData = raw.tobytes() + b"\0" * (raw.nbytes % 2)
        data["PixelData"].VR = "OW"


def to_dicom(film: Film, header: Dataset, encoding: Encoding) -> bytes:
    """Return the bytes of a DICOM file; ``header`` must name its SOP instance and is not changed.

    Nothing depends on time, host or library defaults: equal input gives equal bytes.
    """
    pixels, low, high = _stored(film, encoding)
    data = Dataset()  # Dataset(header) would share its elements
    data.update(header)
    data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    data.file_meta.ImplementationVersionName = _VERSION
    _describe_pixels(data, pixels, encoding)
    _describe_voi(data, low, high, encoding)
    _attach_pixels(data, pixels, encoding)
    syntax = UID(encoding.syntax)
    data.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    data.save_as(
        buffer,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        enforce_file_format=True,
    )
    return buffer.getvalue()
