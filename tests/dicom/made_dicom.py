"""DICOM files and projects, made in the test that needs them."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from lapvqa.params import read_yaml
from lapvqa.project import Project

REPOSITORY = Path(__file__).parents[2]
SIDE = 378
"""A square image of this side is stored pixel by pixel: scale 1, no offset."""


def ramp(bits: int = 12, *, rows: int = SIDE, cols: int = SIDE) -> NDArray[np.uint16]:
    """An image without any symmetry that uses the whole range 0 .. 2**bits - 1."""
    y, x = np.mgrid[:rows, :cols]
    slope = 3.0 * x / cols + 1.0 * y / rows + (x > 0.6 * cols) * (y < 0.3 * rows)
    return np.rint(slope / slope.max() * (2**bits - 1)).astype(np.uint16)


def dataset_of(
    pixels: NDArray[Any], *, bits: int = 12, syntax: UID = ExplicitVRLittleEndian, **attributes: Any
) -> Dataset:
    """A DX data set of ``pixels``, not compressed whatever ``syntax`` says."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = "1.2.3.4", "1.2.3"
    dataset.PatientID, dataset.Modality = "patient 1", "DX"
    dataset.StudyDate, dataset.StudyTime, dataset.ViewPosition = "21500102", "101500", "PA"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored = pixels.dtype.itemsize * 8, bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    big = not syntax.is_little_endian
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def bytes_of(dataset: Dataset) -> bytes:
    """The file that holds ``dataset``."""
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\0"
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def dicom_bytes(pixels: NDArray[Any], **options: Any) -> bytes:
    """A file of ``pixels``; options as of ``dataset_of``."""
    return bytes_of(dataset_of(pixels, **options))


def small_image(seed: int) -> NDArray[np.uint8]:
    """A picture of its own for each seed, 96 x 80."""
    noise = np.random.default_rng(seed).integers(0, 200, (12, 10))
    return np.kron(noise, np.ones((8, 8))).astype(np.uint8)


def write_project(root: Path, source: Path, *, workers: int = 1, **ingest: Any) -> Project:
    """A project folder over ``source`` with the repository's parameters; ``ingest`` overrides.

    Each worker is a process whose imports take a second.
    """
    from ruamel.yaml import YAML

    root.mkdir(parents=True, exist_ok=True)
    values = read_yaml(REPOSITORY / "params.yaml")
    values["ingest"].update(ingest)
    with (root / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(values, handle)
    with (root / "local.yaml").open("w") as handle:
        YAML(typ="safe").dump({"paths": {"source": str(source)}, "workers": workers}, handle)
    return Project(root)


def write_mimic(folder: Path, *, patients: int = 4, studies: int = 2, images: int = 2) -> Path:
    """An archive in MIMIC-CXR's layout, two images a study, a report for each study."""
    for patient in range(patients):
        subject = 10_000_000 + patient
        for study in range(studies):
            number = 50_000_000 + 10 * patient + study
            place = folder / f"files/p10/p{subject}/s{number}"
            place.mkdir(parents=True)
            for image in range(images):
                seed = 100 * patient + 10 * study + image
                data = dicom_bytes(
                    small_image(seed),
                    bits=8,
                    SOPInstanceUID=f"1.2.3.{seed + 1}",
                    StudyInstanceUID=f"1.2.{number}",
                    PatientID=str(subject),
                    StudyDate=f"2150{study + 1:02d}15",
                    ViewPosition="PA" if image == 0 else "LATERAL",
                )
                (place / f"{seed:08x}-aaaaaaaa.dcm").write_bytes(data)
            place.with_suffix(".txt").write_text(f"FINAL REPORT\n FINDINGS: Number {number}.\n")
    return folder


def copy_archive(source: Path, target: Path) -> Path:
    """A copy whose times are kept."""
    shutil.copytree(source, target, symlinks=True)
    return target
