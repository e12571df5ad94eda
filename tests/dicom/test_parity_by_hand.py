"""Pixels whose greys were worked out by hand from the formulas of PS3.3, read as whole files.

Each file is stripes of the listed values. At a side of 378 they are stored as they are, by way of
a table; at 756 every stored pixel is the average of four equal ones, which takes the other way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from made_dicom import bytes_of, dataset_of, dicom_bytes
from pydicom import Dataset

from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.render import read_image
from lapvqa.errors import DicomError


def lut(first: int, bits: int, data: list[int]) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(data), first, bits])
    item.add_new("LUTData", "US", data)
    return [item]


def linear(center: float, width: float, **more: Any) -> dict[str, Any]:
    return {"WindowCenter": center, "WindowWidth": width, **more}


def exact(center: float, width: float, **more: Any) -> dict[str, Any]:
    return linear(center, width, VOILUTFunction="LINEAR_EXACT", **more)


@dataclass(frozen=True)
class ByHand:
    """Stored values, the attributes, and the greys they come to."""

    values: list[int]
    greys: list[int]
    attributes: dict[str, Any] = field(default_factory=dict)
    bits: int = 12
    signed: bool = False


CASES = {
    # C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5) * 255; 1024: 63.77, 2047: 127.47, 2048: 127.53
    "linear": ByHand([0, 1024, 2047, 2048, 4095], [0, 64, 127, 128, 255], linear(2048, 4096)),
    # Black up to 100 - 0.5 - 10 / 2 = 94.5, white above 104.5; 95: 12.75, 100: 140.25, 104: 242.25
    "linear, narrow": ByHand([94, 95, 100, 104, 105], [0, 13, 140, 242, 255], linear(100, 11)),
    # C.11.2.1.3.2: ((x - c) / w + 0.5) * 255; 95: 11.59, 100: 127.5, 105: 243.41
    "exact, narrow": ByHand([94, 95, 100, 105, 106], [0, 12, 128, 243, 255], exact(100, 11)),
    # C.11.2.1.3.1: 255 / (1 + exp(-4 (x - c) / w)): 4.59, 68.58, 127.5, 186.42, 250.41
    "sigmoid": ByHand(
        [60, 90, 100, 110, 140],
        [5, 69, 128, 186, 250],
        linear(100, 40, VOILUTFunction="SIGMOID"),
    ),
    "width of 1": ByHand([0, 99, 100, 4095], [0, 0, 255, 255], linear(100, 1)),
    "first of several windows": ByHand(
        [94, 95, 100, 104, 105],
        [0, 13, 140, 242, 255],
        {"WindowCenter": [100, 2048], "WindowWidth": [11, 4096]},
    ),
    # -100 + 2 x: -100, 0, 100, 300 of -100 .. 300: 0, 63.75, 127.5, 255
    "rescale": ByHand(
        [0, 50, 100, 200], [0, 64, 128, 255], exact(100, 400, RescaleSlope=2, RescaleIntercept=-100)
    ),
    "falling rescale": ByHand(
        [0, 1023, 3072, 4095],
        [255, 191, 64, 0],  # 4095, 3072, 1023, 0 of 4095: 255, 191.3, 63.7, 0
        linear(2048, 4096, RescaleSlope=-1, RescaleIntercept=4095),
    ),
    "signed": ByHand(
        [-2048, -100, -50, 0, 50, 100, 2047],
        [0, 0, 64, 128, 191, 255, 255],
        exact(0, 200),
        signed=True,
    ),
    "signed, 8 bits": ByHand([-128, -64, 0, 127], [0, 64, 128, 255], linear(0, 256), 8, True),
    "signed, 16 bits": ByHand(
        [-32768, -16384, 0, 32767], [0, 64, 128, 255], linear(0, 65536), 16, True
    ),
    "unsigned, 16 bits": ByHand(
        [0, 16384, 32768, 65535], [0, 64, 128, 255], linear(32768, 65536), 16
    ),
    "10 bits": ByHand([0, 256, 512, 1023], [0, 64, 128, 255], linear(512, 1024), 10),
    # The LUT's first entry stands for all values before it, the last for all after (C.11.2.1.1).
    "VOI LUT": ByHand(
        [0, 10, 11, 12, 13, 4095],
        [0, 0, 51, 204, 255, 255],
        {"VOILUTSequence": lut(10, 8, [0, 51, 204, 255])},
    ),
    "VOI LUT of 12 bits": ByHand(
        [0, 1, 2], [0, 85, 255], {"VOILUTSequence": lut(0, 12, [0, 1365, 4095])}
    ),
    "VOI LUT before the window": ByHand(
        [0, 1, 2], [0, 85, 255], linear(100, 11, VOILUTSequence=lut(0, 12, [0, 1365, 4095]))
    ),
    "VOI LUT from a negative value": ByHand(
        [-3, -2, -1, 0, 1],
        [10, 10, 60, 200, 255],
        {"VOILUTSequence": lut(-2, 8, [10, 60, 200, 255])},
        signed=True,
    ),
    # 0, 100, 200, 400 of 0 .. 400: 0, 63.75, 127.5, 255
    "modality LUT, then the window": ByHand(
        [0, 1, 2, 3, 4095],
        [0, 64, 128, 255, 255],
        exact(200, 400, ModalityLUTSequence=lut(0, 16, [0, 100, 200, 400])),
    ),
    "modality LUT, then the VOI LUT": ByHand(
        [0, 1, 2],
        [255, 51, 0],
        {
            "ModalityLUTSequence": lut(0, 16, [3, 1, 0]),
            "VOILUTSequence": lut(0, 8, [0, 51, 204, 255]),
        },
    ),
    "rescale, then the VOI LUT": ByHand(
        [5, 6, 7],
        [0, 204, 255],  # 2 x - 10: 0, 2, 4
        {
            "RescaleSlope": 2,
            "RescaleIntercept": -10,
            "VOILUTSequence": lut(0, 8, [0, 51, 204, 255]),
        },
    ),
    "MONOCHROME1": ByHand(
        [0, 1024, 4095],
        [255, 191, 0],
        linear(2048, 4096, PhotometricInterpretation="MONOCHROME1"),
    ),
    "INVERSE": ByHand(
        [0, 1024, 4095], [255, 191, 0], linear(2048, 4096, PresentationLUTShape="INVERSE")
    ),
    "MONOCHROME1 and INVERSE are one inversion": ByHand(
        [0, 1024, 4095],
        [255, 191, 0],
        linear(2048, 4096, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"),
    ),
    "MONOCHROME1 with a VOI LUT": ByHand(
        [0, 1, 2],
        [255, 170, 0],
        {
            "PhotometricInterpretation": "MONOCHROME1",
            "VOILUTSequence": lut(0, 12, [0, 1365, 4095]),
        },
    ),
    "padding": ByHand(
        [0, 1024, 4094, 4095], [0, 64, 255, 0], linear(2048, 4096, PixelPaddingValue=4095)
    ),
    "padding to a limit": ByHand(
        [0, 1024, 3999, 4000, 4095],
        [0, 64, 249, 0, 0],
        linear(2048, 4096, PixelPaddingValue=4000, PixelPaddingRangeLimit=4095),
    ),
    "padding down to a limit": ByHand(
        [0, 1024, 3999, 4000, 4095],
        [0, 64, 249, 0, 0],
        linear(2048, 4096, PixelPaddingValue=4095, PixelPaddingRangeLimit=4000),
    ),
    "padding stays black when inverted": ByHand(
        [0, 1, 1024, 4095],
        [0, 255, 191, 0],
        linear(2048, 4096, PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1"),
    ),
    "negative padding": ByHand(
        [-2048, -100, 0, 100],
        [0, 0, 128, 255],
        exact(0, 200, PixelPaddingValue=-2048, PhotometricInterpretation="MONOCHROME2"),
        signed=True,
    ),
    # Four equal parts: the percentiles 0.5 and 99.5 are the extremes.
    "no VOI": ByHand([1000, 1500, 2000, 3000], [0, 64, 128, 255]),
    "no VOI, a VOI LUT function and no window": ByHand(
        [1000, 1500, 2000, 3000], [0, 64, 128, 255], {"VOILUTFunction": "SIGMOID"}
    ),
}


def stripes(case: ByHand, side: int) -> bytes:
    kind = np.dtype(f"{'i' if case.signed else 'u'}{1 if case.bits <= 8 else 2}")
    cols = np.arange(side) * len(case.values) // side
    pixels = np.broadcast_to(np.array(case.values, kind)[cols], (side, side))
    dataset = dataset_of(np.ascontiguousarray(pixels), bits=case.bits)
    for name, value in case.attributes.items():
        if name.startswith("PixelPadding"):  # its VR depends on the sign
            dataset.add_new(name, "SS" if case.signed else "US", value)
        else:
            setattr(dataset, name, value)
    return bytes_of(dataset)


@pytest.mark.parametrize("side", [378, 756])
@pytest.mark.parametrize("name", CASES)
def test_greys_are_those_worked_out_by_hand(name: str, side: int) -> None:
    case = CASES[name]
    pixels = read_image(stripes(case, side)).pixels
    count = len(case.values)
    middles = [int((stripe + 0.5) * 378 / count) for stripe in range(count)]
    assert [int(pixels[189, x]) for x in middles] == case.greys


def test_colours_become_the_luma_worked_out_by_hand() -> None:
    colours = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    cols = np.arange(378) * len(colours) // 378
    pixels = np.broadcast_to(np.array(colours, np.uint8)[cols], (378, 378, 3))
    stored = read_image(dicom_bytes(np.ascontiguousarray(pixels), bits=8)).pixels
    middles = [int((stripe + 0.5) * 378 / 5) for stripe in range(5)]
    # .299 R + .587 G + .114 B: 76.2, 149.7, 29.1
    assert [int(stored[189, x]) for x in middles] == [0, 76, 150, 29, 255]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"NumberOfFrames": 3}, Reason.MULTI_FRAME),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.UNSUPPORTED_PHOTOMETRIC),
        ({"PhotometricInterpretation": "CMYK"}, Reason.UNSUPPORTED_PHOTOMETRIC),
        ({"RescaleSlope": 0, "RescaleIntercept": 5, **linear(100, 10)}, Reason.CONSTANT_IMAGE),
        ({"HighBit": 16}, Reason.BAD_HEADER),
        ({"HighBit": 10}, Reason.BAD_HEADER),
        ({"VOILUTSequence": lut(0, 12, [])}, Reason.BAD_HEADER),
        ({"VOILUTSequence": lut(0, 12, [7, 7, 7])}, Reason.CONSTANT_IMAGE),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
def test_what_no_rule_covers_is_turned_away(attributes: dict[str, Any], reason: Reason) -> None:
    case = ByHand([0, 1, 4095], [], attributes)
    with pytest.raises(DicomError) as caught:
        read_image(stripes(case, 378))
    assert caught.value.reason == reason


def test_uncompressed_luma_and_chroma_are_turned_away() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    with pytest.raises(DicomError) as caught:
        read_image(dicom_bytes(pixels, bits=8, PhotometricInterpretation="YBR_FULL"))
    assert caught.value.reason == Reason.UNSUPPORTED_PHOTOMETRIC


@pytest.mark.parametrize(
    "name", ["WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"]
)
@pytest.mark.parametrize("text", ["nan", "inf", "1e999"])
def test_numbers_that_are_none_are_turned_away(name: str, text: str) -> None:
    marker = "12345.5"
    attributes = {**exact(100, 400, RescaleSlope=2, RescaleIntercept=-100), name: marker}
    data = stripes(ByHand([0, 50, 200], [], attributes), 378)
    assert data.count(marker.encode()) == 1
    with pytest.raises(DicomError) as caught:
        read_image(data.replace(marker.encode(), text.ljust(len(marker)).encode()))
    assert caught.value.reason == Reason.BAD_HEADER
