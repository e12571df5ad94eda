"""Damaged files, each a pure function of its number."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import cache
from io import BytesIO

import cv2
import numpy as np
from made_dicom import bytes_of, dataset_of, ramp
from pydicom import Dataset, dcmread
from pydicom import uid as uids
from pydicom.encaps import encapsulate

from lapvqa.dicom import self_test

WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def _lut() -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [1024, 0, 12])
    item.add_new("LUTData", "US", [int(4095 * (n / 1023) ** 0.5) for n in range(1024)])
    return item


def _compressed(dataset: Dataset, syntax: uids.UID) -> bytes:
    dataset.compress(syntax)
    return bytes_of(dataset)


def _colour_jpeg() -> bytes:
    red = ramp(8, rows=100, cols=90).astype(np.uint8)
    rgb = cv2.GaussianBlur(np.stack([red, red[::-1], red[:, ::-1]], axis=-1), (0, 0), 3)
    dataset = dataset_of(rgb, bits=8, PhotometricInterpretation="YBR_FULL")
    flags = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    _, stream = cv2.imencode(".jpg", rgb[..., ::-1], flags)
    dataset.file_meta.TransferSyntaxUID = uids.JPEGBaseline8Bit
    dataset.PixelData = encapsulate([stream.tobytes()])
    dataset["PixelData"].is_undefined_length = True
    return bytes_of(dataset)


@cache
def bases() -> dict[str, bytes]:
    """The whole files: every transfer syntax, and the grey transformations."""
    grey = ramp(12, rows=120, cols=100)
    large = ramp(12, rows=420, cols=400)
    signed = (grey.astype(np.int16) - 2048).astype(np.int16)
    rgb = np.stack([grey >> 4, 60 + (grey >> 5), grey >> 4], axis=-1).astype(np.uint8)
    made = {
        "inverted, no window": dataset_of(grey, PhotometricInterpretation="MONOCHROME1"),
        "large, window": dataset_of(large, **WINDOW),
        "signed, rescaled": dataset_of(
            signed, RescaleSlope=2, RescaleIntercept=100, WindowCenter=100, WindowWidth=8000
        ),
        "VOI LUT": dataset_of(grey >> 2, bits=10, VOILUTSequence=[_lut()]),
        "sigmoid": dataset_of(grey, VOILUTFunction="SIGMOID", **WINDOW),
        "padded": dataset_of(grey, PixelPaddingValue=0, PixelPaddingRangeLimit=99, **WINDOW),
        "RGB": dataset_of(rgb, bits=8),
        "big endian": dataset_of(grey, syntax=uids.ExplicitVRBigEndian, **WINDOW),
    }
    files = {name: bytes_of(dataset) for name, dataset in made.items()}
    files["colour JPEG"] = _colour_jpeg()
    files["large, RLE"] = _compressed(dataset_of(large, **WINDOW), uids.RLELossless)
    files["large, JPEG 2000"] = _compressed(dataset_of(large, **WINDOW), uids.JPEG2000Lossless)
    for sample in self_test.SAMPLES:
        files[sample.name] = self_test.data_of(sample)
    return files


@cache
def header_size(name: str) -> int:
    """Where the pixel data of a base begins, about."""
    data = bases()[name]
    mark = b"\x7f\xe0\x00\x10" if name in ("big endian", "explicit big endian") else b"\xe0\x7f\x10"
    return max(data.rfind(mark), 400)


def _flip(data: bytearray, chance: random.Random, place: int) -> None:
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = min(len(data) - 1, max(0, place + chance.randrange(-16, 16)))
        data[at] ^= 1 << chance.randrange(8)


def _cut(data: bytearray, chance: random.Random, place: int) -> None:
    del data[place:]


def _number(data: bytearray, chance: random.Random, place: int) -> None:
    """Overwrite what is often a length: the third or fourth word of an element."""
    place &= ~1
    value = chance.choice((0, 1, 2, 10, 0xFFFF, chance.randrange(1 << 16), chance.randrange(400)))
    data[place : place + 2] = struct.pack(chance.choice("<>") + "H", value)


def _long_number(data: bytearray, chance: random.Random, place: int) -> None:
    place &= ~1
    value = chance.choice((0, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFE, chance.randrange(1 << 32)))
    data[place : place + 4] = struct.pack("<I", value)


def _remove(data: bytearray, chance: random.Random, place: int) -> None:
    del data[place : place + chance.choice((1, 2, 4, 8, 12, 100, 1000))]


def _insert(data: bytearray, chance: random.Random, place: int) -> None:
    data[place:place] = chance.randbytes(chance.choice((1, 2, 8, 100, 1000)))


def _blank(data: bytearray, chance: random.Random, place: int) -> None:
    length = min(len(data) - place, chance.choice((2, 8, 64, 512, 4096)))
    data[place : place + length] = bytes([chance.choice((0, 255))]) * length


def _repeat(data: bytearray, chance: random.Random, place: int) -> None:
    data[place:place] = data[place : place + chance.choice((8, 12, 64, 1000))]


_PADDING = 0x00280120
# Samples per Pixel, Planar Configuration, Rows, Columns, Bits Allocated, Bits Stored, High Bit,
# Pixel Representation, Pixel Padding Value.
_ATTRIBUTES = (
    0x00280002, 0x00280006, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102,
    0x00280103, _PADDING,
)  # fmt: skip


def _attribute(data: bytearray, chance: random.Random, place: int) -> None:
    """Change a value that the standard gives a meaning, and leave the file well formed."""
    dataset = dcmread(BytesIO(bytes(data)))
    tag = chance.choice(_ATTRIBUTES)
    value = chance.choice((0, 1, 2, 3, 7, 8, 10, 11, 12, 15, 16, 64, 100, 378, 32767))
    signed = tag == _PADDING and dataset.PixelRepresentation == 1
    dataset.add_new(tag, "SS" if signed else "US", value)
    changed = BytesIO()
    dataset.save_as(changed, enforce_file_format=True)
    data[:] = changed.getvalue()


MUTATIONS: tuple[Callable[[bytearray, random.Random, int], None], ...] = (
    _flip, _flip, _cut, _number, _number, _long_number, _remove, _insert, _blank, _repeat,
    _attribute,
)  # fmt: skip


def mutated(number: int) -> tuple[str, str, bytes]:
    """Return base, kind and bytes of the ``number``-th damaged file."""
    chance = random.Random(number)
    name = chance.choice(sorted(bases()))
    kind = chance.choice(MUTATIONS)
    data = bytearray(bases()[name])
    in_header = chance.random() < 0.65
    low, high = (128, header_size(name) + 40) if in_header else (0, len(data))
    kind(data, chance, chance.randrange(low, min(high, len(data))))
    return name, kind.__name__.strip("_"), bytes(data)
