"""Pixels whose greys were worked out by hand from the formulas of PS3.3, read as whole files.

Each file is stripes of the listed values. At a side of 378 they are stored as they are, by way of
a table; at 756 every stored pixel is the average of four equal ones, which takes the other way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from made_dicom import bytes_of, dataset_of, dicom_bytes
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from lapvqa.dicom.parse import parse
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
    # Entries of 12 bits: 0, 1365, 4095 are 0, 85, 255 whatever bits are announced.
    "VOI LUT whose bits are overstated": ByHand(
        [0, 1, 2], [0, 85, 255], {"VOILUTSequence": lut(0, 16, [0, 1365, 4095])}
    ),
    "VOI LUT whose bits are understated": ByHand(
        [0, 1, 2], [0, 85, 255], {"VOILUTSequence": lut(0, 8, [0, 1365, 4095])}
    ),
    # Of 12 bits announced and used 4095 is white, though no entry reaches it: 0, 127.53, 249.1
    "VOI LUT that ends below white": ByHand(
        [0, 1, 2], [0, 128, 249], {"VOILUTSequence": lut(0, 12, [0, 2048, 4000])}
    ),
    "VOI LUT of the word's bits that ends below white": ByHand(
        [0, 1, 2], [0, 128, 249], {"VOILUTSequence": lut(0, 16, [0, 2048, 4000])}
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
    # 63536 is what a -2000 looks like under VR US.
    "negative padding, written as unsigned": ByHand(
        [-2000, -1999, 0, 2000],
        [0, 255, 128, 0],
        exact(0, 4000, PixelPaddingValue=63536, PhotometricInterpretation="MONOCHROME1"),
        signed=True,
    ),
    "negative padding to a limit, written as unsigned": ByHand(
        [-2000, -1990, -1980, 2000],
        [0, 0, 254, 0],
        exact(
            0,
            4000,
            PixelPaddingValue=63536,
            PixelPaddingRangeLimit=63546,
            PhotometricInterpretation="MONOCHROME1",
        ),
        signed=True,
    ),
    "padding of 8 signed bits, written as unsigned": ByHand(
        [-100, -99, 0, 127],
        [0, 226, 127, 0],
        linear(0, 256, PixelPaddingValue=156, PhotometricInterpretation="MONOCHROME1"),
        8,
        True,
    ),
    "8 bits without VOI are greys already": ByHand([10, 60, 128, 200], [10, 60, 128, 200], bits=8),
    "8 bits without VOI, MONOCHROME1": ByHand(
        [10, 60, 128, 200],
        [245, 195, 127, 55],
        {"PhotometricInterpretation": "MONOCHROME1"},
        8,
    ),
    "8 bits without VOI, with padding": ByHand(
        [10, 60, 128, 255], [10, 60, 128, 0], {"PixelPaddingValue": 255}, 8
    ),
    "8 bits and a rescale that changes nothing": ByHand(
        [10, 60, 128, 200], [10, 60, 128, 200], {"RescaleSlope": 1, "RescaleIntercept": 0}, 8
    ),
    # 10, 60, 110, 210 of 10 .. 210
    "8 bits and a rescale": ByHand(
        [10, 60, 110, 210], [0, 64, 128, 255], {"RescaleSlope": 1, "RescaleIntercept": 5}, 8
    ),
    "7 of 8 bits": ByHand([10, 35, 60, 110], [0, 64, 128, 255], bits=7),
    "signed 8 bits without VOI": ByHand([-100, -50, 0, 100], [0, 64, 128, 255], {}, 8, True),
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
            dataset.add_new(name, "SS" if case.signed and value < 0 else "US", value)
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


NO_NUMBERS = ["nan", "inf", "1e999", "2048,0", "AUTO", ""]


@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("name", ["WindowCenter", "WindowWidth"])
def test_a_window_that_is_none_gives_way_to_percentiles(name: str, text: str) -> None:
    shown, note = with_text({**exact(100, 400), name: "12345.5"}, text)
    assert (shown, note) == ([0, 64, 128, 255], "window ignored")


@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept"])
def test_a_rescale_that_is_none_leaves_the_stored_values(name: str, text: str) -> None:
    # 1000, 1500, 2000, 3000 in the window 1000 .. 3000
    attributes = exact(2000, 2000, RescaleSlope=2, RescaleIntercept=-100)
    shown, note = with_text({**attributes, name: "12345.5"}, text)
    assert (shown, note) == ([0, 64, 128, 255], "rescale ignored")


def with_text(attributes: dict[str, Any], text: str) -> tuple[list[int], str]:
    """The greys of four stripes and the note, with ``text`` in place of the number 12345.5."""
    marker = b"12345.5"
    data = stripes(ByHand([1000, 1500, 2000, 3000], [], attributes), 378)
    assert data.count(marker) == 1
    changed = data.replace(marker, text.encode().ljust(len(marker)))
    pixels = read_image(changed).pixels
    return [int(pixels[189, x]) for x in (47, 141, 236, 330)], parse(changed).note


@pytest.mark.parametrize(
    ("attributes", "greys", "note"),
    [
        ({"RescaleSlope": 2}, [0, 64, 128, 255], "rescale ignored"),
        ({"RescaleIntercept": -1024}, [0, 64, 128, 255], "rescale ignored"),
        ({"WindowCenter": 100}, [0, 64, 128, 255], "window ignored"),
        (linear(100, 0), [0, 64, 128, 255], "window ignored"),
        (linear(100, 11, VOILUTFunction="AUTO"), [0, 64, 128, 255], "window ignored"),
        # 1000, 1500, 2000, 3000 of 1000 .. 2000; the second of two windows is not asked for
        (
            exact(["1500", "AUTO"], ["1000", "AUTO"]),
            [0, 128, 255, 255],
            "",
        ),
        (
            exact("AUTO", 10, VOILUTSequence=lut(1000, 8, [0] + [255] * 3000)),
            [0, 255, 255, 255],
            "",
        ),
        (
            {"RescaleSlope": 2, "RescaleIntercept": "", "WindowCenter": "x", "WindowWidth": 5},
            [0, 64, 128, 255],
            "rescale ignored; window ignored",
        ),
    ],
    ids=str,
)
def test_what_is_left_shows_the_image(
    attributes: dict[str, Any], greys: list[int], note: str
) -> None:
    dataset = Dataset()
    plain = {name: value for name, value in attributes.items() if name in ("VOILUTSequence",)}
    data = stripes(ByHand([1000, 1500, 2000, 3000], [], plain), 378)
    dataset = dcmread(BytesIO(data))
    for name, value in attributes.items():
        if name not in plain:
            texts = value if isinstance(value, list) else [value]
            text = "\\".join(map(str, texts)).encode()
            vr = "CS" if name == "VOILUTFunction" else "DS"
            dataset[name] = RawDataElement(Tag(name), vr, len(text), text, 0, False, True)
    changed = bytes_of(dataset)
    pixels = read_image(changed).pixels
    assert [int(pixels[189, x]) for x in (47, 141, 236, 330)] == greys
    assert parse(changed).note == note
