"""Every transfer syntax decoded by us and by a second, independent decoder: the same values.

dcmtk (Debian: apt-get install dcmtk) decodes what it can; it has no JPEG 2000, so there the two
decoders are OpenJPEG and gdcm's, and the files are checked against the pixels they were made of.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from made_dicom import bytes_of, dataset_of
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom import uid as uids

from lapvqa.dicom.parse import parse
from lapvqa.dicom.pixels import NATIVE, Coding, digest, read_cells
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError

ROWS, COLS = 75, 68
DCMTK = ("dcmconv", "dcmcjpeg", "dcmdjpeg", "dcmcjpls", "dcmdjpls", "dcmcrle", "dcmdrle")
ABSENT = [program for program in DCMTK if shutil.which(program) is None]
needs_dcmtk = pytest.mark.skipif(
    bool(ABSENT), reason=f"dcmtk is not installed (apt-get install dcmtk): no {', '.join(ABSENT)}"
)

Program = tuple[str, ...]
Values = NDArray[np.int64]

# Name: how dcmtk writes the syntax, how dcmtk reads it, and the syntax.
BY_DCMTK: dict[str, tuple[Program, Program, uids.UID]] = {
    "explicit": (("dcmconv", "+te"), ("dcmconv", "+ti"), uids.ExplicitVRLittleEndian),
    "implicit": (("dcmconv", "+ti"), ("dcmconv", "+te"), uids.ImplicitVRLittleEndian),
    "big endian": (("dcmconv", "+tb"), ("dcmconv", "+te"), uids.ExplicitVRBigEndian),
    "deflated": (("dcmconv", "+td"), ("dcmconv", "+te"), uids.DeflatedExplicitVRLittleEndian),
    "RLE": (("dcmcrle",), ("dcmdrle",), uids.RLELossless),
    "JPEG lossless": (("dcmcjpeg", "+el", "+sv", "4"), ("dcmdjpeg",), uids.JPEGLossless),
    "JPEG lossless SV1": (("dcmcjpeg", "+e1"), ("dcmdjpeg",), uids.JPEGLosslessSV1),
    "JPEG-LS": (("dcmcjpls", "+el"), ("dcmdjpls",), uids.JPEGLSLossless),
}
BY_PYDICOM = (uids.RLELossless, uids.JPEGLSLossless, uids.JPEG2000Lossless)
BY_GDCM = {
    uids.RLELossless: gdcm.TransferSyntax.RLELossless,
    uids.JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    uids.JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    uids.JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
    uids.JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
}

kinds = pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
signs = pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
depths = pytest.mark.parametrize("bits", [8, 10, 12, 16])


def values_of(bits: int, *, signed: bool) -> Values:
    """Slopes, steps and noise over the whole range, both extremes included."""
    rng = np.random.default_rng(bits)
    y, x = np.mgrid[:ROWS, :COLS]
    slope = (2 * x + y + 40 * (x > 30)) / (2 * COLS + ROWS + 40) * (1 << bits)
    values = np.clip(slope + rng.normal(0, (1 << bits) / 50, slope.shape), 0, (1 << bits) - 1)
    values[0, :2] = 0, (1 << bits) - 1
    return values.astype(np.int64) - ((1 << (bits - 1)) if signed else 0)


def file_of(values: Values, bits: int, *, signed: bool, photometric: str) -> Dataset:
    kind = np.dtype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    dataset = dataset_of(values.astype(kind), bits=bits, PhotometricInterpretation=photometric)
    dataset.SeriesInstanceUID = "1.2.3.5"
    return dataset


def run(program: Program, source: Path, target: Path) -> None:
    subprocess.run([*program, source, target], check=True, capture_output=True, timeout=60)


def ours(data: bytes) -> Values:
    parsed = parse(data)
    cells, coding = read_cells(parsed.header, parsed.dataset, parsed.pixel_data, vr=parsed.pixel_vr)
    values: Values = coding.values()[coding.ranks(cells)].astype(np.int64)
    assert digest(cells, coding) == digest_by_hand(values)  # whatever wrote or packed the file
    return values


def digest_by_hand(values: Values) -> str:
    signed = values.min() < 0
    size = f"{values.shape[0]} {values.shape[1]} {'signed' if signed else 'unsigned'}\n"
    words = values.astype("<i2" if signed else "<u2").tobytes()
    return hashlib.sha256(size.encode() + words).hexdigest()


def theirs(path: Path) -> Values:
    """The values of an uncompressed little endian file, taken from its bytes by hand."""
    dataset = dcmread(path)
    assert dataset.file_meta.TransferSyntaxUID in NATIVE
    kind = "u1" if dataset.BitsAllocated == 8 else "<u2"
    cells = np.frombuffer(dataset.PixelData, kind, count=dataset.Rows * dataset.Columns)
    value = cells.astype(np.int64) >> (dataset.HighBit + 1 - dataset.BitsStored)
    value &= (1 << dataset.BitsStored) - 1
    if dataset.PixelRepresentation:
        value -= (value >> (dataset.BitsStored - 1)) << dataset.BitsStored
    return value.reshape(dataset.Rows, dataset.Columns)


def written_by_gdcm(source: Path, target: Path, syntax: int) -> bool:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    if not change.Change():
        return False
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    return bool(writer.Write())


def read_by_gdcm(path: Path) -> Values:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    image = reader.GetImage()
    format_ = image.GetPixelFormat()
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")
    sign = "i" if format_.GetPixelRepresentation() else "u"
    cells = np.frombuffer(buffer, f"<{sign}{format_.GetBitsAllocated() // 8}")
    return cells.reshape(image.GetDimension(1), image.GetDimension(0)).astype(np.int64)


@needs_dcmtk
@pytest.mark.parametrize("name", BY_DCMTK)
@depths
@signs
@kinds
def test_what_dcmtk_writes_is_read_as_dcmtk_reads_it(
    name: str, bits: int, signed: bool, photometric: str, tmp_path: Path
) -> None:
    write, read, syntax = BY_DCMTK[name]
    values = values_of(bits, signed=signed)
    plain = bytes_of(file_of(values, bits, signed=signed, photometric=photometric))
    (tmp_path / "plain.dcm").write_bytes(plain)
    run(write, tmp_path / "plain.dcm", tmp_path / "written.dcm")
    run(read, tmp_path / "written.dcm", tmp_path / "read.dcm")
    data = (tmp_path / "written.dcm").read_bytes()
    assert parse(data).header.transfer_syntax == syntax
    assert np.array_equal(theirs(tmp_path / "read.dcm"), values)
    assert np.array_equal(ours(data), values)


@needs_dcmtk
@pytest.mark.parametrize("syntax", BY_PYDICOM[:2], ids=lambda syntax: syntax.name)
@depths
@signs
def test_what_pydicom_writes_is_read_as_dcmtk_reads_it(
    syntax: uids.UID, bits: int, signed: bool, tmp_path: Path
) -> None:
    values = values_of(bits, signed=signed)
    dataset = file_of(values, bits, signed=signed, photometric="MONOCHROME2")
    dataset.compress(syntax)
    data = bytes_of(dataset)
    (tmp_path / "written.dcm").write_bytes(data)
    program = "dcmdrle" if syntax == uids.RLELossless else "dcmdjpls"
    run((program,), tmp_path / "written.dcm", tmp_path / "read.dcm")
    assert np.array_equal(theirs(tmp_path / "read.dcm"), values)
    assert np.array_equal(ours(data), values)


@pytest.mark.parametrize("syntax", BY_GDCM, ids=lambda syntax: syntax.name)
@depths
@signs
def test_what_gdcm_writes_is_read_as_it_was(
    syntax: uids.UID, bits: int, signed: bool, tmp_path: Path
) -> None:
    values = values_of(bits, signed=signed)
    dataset = file_of(values, bits, signed=signed, photometric="MONOCHROME2")
    (tmp_path / "plain.dcm").write_bytes(bytes_of(dataset))
    written = written_by_gdcm(tmp_path / "plain.dcm", tmp_path / "written.dcm", BY_GDCM[syntax])
    assert written
    assert np.array_equal(ours((tmp_path / "written.dcm").read_bytes()), values)


@depths
@signs
def test_jpeg_2000_is_read_alike_by_two_decoders(bits: int, signed: bool, tmp_path: Path) -> None:
    values = values_of(bits, signed=signed)
    dataset = file_of(values, bits, signed=signed, photometric="MONOCHROME2")
    dataset.compress(uids.JPEG2000Lossless)
    (tmp_path / "written.dcm").write_bytes(bytes_of(dataset))
    assert np.array_equal(ours(bytes_of(dataset)), values)
    assert np.array_equal(read_by_gdcm(tmp_path / "written.dcm"), values)


@needs_dcmtk
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_lossy_jpeg_is_read_as_dcmtk_reads_it(bits: int, tmp_path: Path) -> None:
    values = values_of(bits, signed=False)
    dataset = file_of(values, bits, signed=False, photometric="MONOCHROME2")
    (tmp_path / "plain.dcm").write_bytes(bytes_of(dataset))
    run(("dcmcjpeg", "+ee", "+q", "95"), tmp_path / "plain.dcm", tmp_path / "written.dcm")
    run(("dcmdjpeg",), tmp_path / "written.dcm", tmp_path / "read.dcm")
    data = (tmp_path / "written.dcm").read_bytes()
    assert parse(data).header.transfer_syntax == uids.JPEGExtended12Bit
    assert np.abs(ours(data) - theirs(tmp_path / "read.dcm")).max() <= (1 if bits == 8 else 0)
    run(("dcmcjpeg", "+eb", "+q", "95"), tmp_path / "plain.dcm", tmp_path / "written.dcm")
    run(("dcmdjpeg",), tmp_path / "written.dcm", tmp_path / "read.dcm")
    data = (tmp_path / "written.dcm").read_bytes()
    assert parse(data).header.transfer_syntax == uids.JPEGBaseline8Bit
    assert np.abs(ours(data) - theirs(tmp_path / "read.dcm")).max() <= 1


@needs_dcmtk
@pytest.mark.parametrize("bits", [8, 12])
def test_near_lossless_jpeg_ls_is_read_as_dcmtk_reads_it(bits: int, tmp_path: Path) -> None:
    values = values_of(bits, signed=False)
    dataset = file_of(values, bits, signed=False, photometric="MONOCHROME2")
    (tmp_path / "plain.dcm").write_bytes(bytes_of(dataset))
    run(("dcmcjpls", "+en", "+md", "3"), tmp_path / "plain.dcm", tmp_path / "written.dcm")
    run(("dcmdjpls",), tmp_path / "written.dcm", tmp_path / "read.dcm")
    found = ours((tmp_path / "written.dcm").read_bytes())
    assert np.array_equal(found, theirs(tmp_path / "read.dcm"))
    assert 0 < np.abs(found - values).max() <= 3


STRAY: dict[str, tuple[int, Callable[[NDArray[np.uint16]], NDArray[Any]]]] = {
    "high bit 15": (15, lambda cells: cells << 4),
    "overlay above": (11, lambda cells: cells | 0x9000),
    "overlay on both sides": (13, lambda cells: (cells << 2) | 0x4001),
}
STORED_WHOLE = {"native": ("dcmconv", "+te"), "RLE": ("dcmcrle",)}
STORED_AS_VALUES = {
    "JPEG lossless": ("dcmcjpeg", "+e1"),
    "JPEG-LS": ("dcmcjpls", "+el"),
}


@needs_dcmtk
@pytest.mark.parametrize("name", [*STORED_WHOLE, *STORED_AS_VALUES])
@pytest.mark.parametrize("stray", STRAY)
def test_bits_beside_the_value_are_never_taken_for_it(
    stray: str, name: str, tmp_path: Path
) -> None:
    values = values_of(12, signed=False)
    high_bit, spread = STRAY[stray]
    cells = spread(values.astype(np.uint16))
    dataset = file_of(cells.astype(np.uint16), 16, signed=False, photometric="MONOCHROME2")
    dataset.BitsStored, dataset.HighBit = 12, high_bit
    (tmp_path / "plain.dcm").write_bytes(bytes_of(dataset))
    run((STORED_WHOLE | STORED_AS_VALUES)[name], tmp_path / "plain.dcm", tmp_path / "written.dcm")
    data = (tmp_path / "written.dcm").read_bytes()
    if name in STORED_AS_VALUES and high_bit != 11:
        with pytest.raises(DicomError) as caught:
            ours(data)
        assert caught.value.reason == Reason.UNSUPPORTED_BITS
    else:
        assert np.array_equal(ours(data), values)


def test_the_check_can_fail() -> None:
    values = values_of(12, signed=True)
    data = bytes_of(file_of(values, 12, signed=True, photometric="MONOCHROME2"))
    wrong = Coding(12, signed=False)
    parsed = parse(data)
    cells, _ = read_cells(parsed.header, parsed.dataset, parsed.pixel_data, vr=parsed.pixel_vr)
    assert not np.array_equal(wrong.values()[wrong.ranks(cells)], values)
