"""Write the files of lapvqa/dicom/samples: ``python tests/dicom/make_samples.py``.

Needs gdcm (JPEG) and imagecodecs (12-bit JPEG and HTJ2K; not among the project's packages), since
decoders outnumber encoders. The files are committed; run this only to change them.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from pydicom import Dataset, dcmread
from pydicom import uid as uids
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from lapvqa.dicom.self_test import SAMPLES, SIDE, SampleFile, pattern

_FOLDER = Path(__file__).parents[2] / "lapvqa" / "dicom" / "samples"
_MADE_UP = "1.2.826.0.1.3680043.8.498.1"


def main() -> None:
    """Write every sample."""
    for sample in SAMPLES:
        _WRITERS[sample.file](sample, _FOLDER / f"{sample.file}.dcm")


def _plain(
    sample: SampleFile, path: Path, *, syntax: uids.UID = uids.ExplicitVRLittleEndian
) -> None:
    data = _dataset(sample, syntax)
    kind = np.dtype(np.uint8 if sample.bits == 8 else np.uint16)
    order = kind.newbyteorder("<" if syntax.is_little_endian else ">")
    data.PixelData = pattern(sample.bits).astype(order).tobytes()
    data["PixelData"].VR = "OB" if sample.bits == 8 else "OW"
    data.save_as(
        path,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        enforce_file_format=True,
    )


def _dataset(sample: SampleFile, syntax: uids.UID) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = uids.DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = data.StudyInstanceUID = data.SeriesInstanceUID = _MADE_UP
    data.PatientID = "PHANTOM"
    data.Modality = "DX"
    data.Rows = data.Columns = SIDE
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = 8 if sample.bits == 8 else 16
    data.BitsStored, data.HighBit, data.PixelRepresentation = sample.bits, sample.bits - 1, 0
    return data


def _native(syntax: uids.UID) -> Callable[[SampleFile, Path], None]:
    return lambda sample, path: _plain(sample, path, syntax=syntax)


def _by_pydicom(syntax: uids.UID, **options: Any) -> Callable[[SampleFile, Path], None]:
    def write(sample: SampleFile, path: Path) -> None:
        _plain(sample, path)
        data = dcmread(path)
        data.compress(syntax, generate_instance_uid=False, **options)
        data.save_as(path, enforce_file_format=True)

    return write


def _by_gdcm(name: str) -> Callable[[SampleFile, Path], None]:
    def write(sample: SampleFile, path: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "plain.dcm"
            _plain(sample, plain)
            reader = gdcm.ImageReader()
            reader.SetFileName(str(plain))
            reader.Read()
            change = gdcm.ImageChangeTransferSyntax()
            change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
            change.SetInput(reader.GetImage())
            if not change.Change():
                raise RuntimeError(f"gdcm cannot encode {name}")
            writer = gdcm.ImageWriter()
            writer.SetFileName(str(path))
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            writer.Write()

    return write


def _by_imagecodecs(
    encoder: str, syntax: uids.UID, **options: Any
) -> Callable[[SampleFile, Path], None]:
    def write(sample: SampleFile, path: Path) -> None:
        imagecodecs = importlib.import_module("imagecodecs")

        stream = getattr(imagecodecs, encoder)(pattern(sample.bits), **options)
        data = _dataset(sample, syntax)
        data.PixelData = encapsulate([bytes(stream)])
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
        data.save_as(path, enforce_file_format=True)

    return write


_WRITERS: dict[str, Callable[[SampleFile, Path], None]] = {
    "explicit_little": _native(uids.ExplicitVRLittleEndian),
    "implicit_little": _native(uids.ImplicitVRLittleEndian),
    "explicit_big": _native(uids.ExplicitVRBigEndian),
    "deflated": _native(uids.DeflatedExplicitVRLittleEndian),
    "rle": _by_pydicom(uids.RLELossless),
    "jpeg_baseline": _by_gdcm("JPEGBaselineProcess1"),
    "jpeg_extended_12": _by_imagecodecs(
        "jpeg8_encode", uids.JPEGExtended12Bit, level=95, bitspersample=12
    ),
    "jpeg_lossless": _by_gdcm("JPEGLosslessProcess14"),
    "jpeg_lossless_sv1": _by_gdcm("JPEGLosslessProcess14_1"),
    "jpegls_lossless": _by_pydicom(uids.JPEGLSLossless),
    "jpegls_near": _by_pydicom(uids.JPEGLSNearLossless, jls_error=3),
    "j2k_lossless": _by_pydicom(uids.JPEG2000Lossless),
    "j2k_lossy": _by_pydicom(uids.JPEG2000, j2k_cr=[8]),
    "htj2k_lossless": _by_imagecodecs("htj2k_encode", uids.HTJ2KLossless, reversible=True),
}

if __name__ == "__main__":
    main()
