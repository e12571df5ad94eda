"""Whole pictures beside dcmtk's: its programs apply the greys at full size, in their own order and
arithmetic, and what they wrote is averaged here. So the order of operations is checked by a
program that shares nothing with ours.
"""

from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_dicom import dicom_bytes
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom import uid as uids

from lapvqa.dicom.grayscale import Ramp, linear_display
from lapvqa.dicom.parse import parse
from lapvqa.dicom.pixels import read_cells
from lapvqa.dicom.render import read_image
from lapvqa.images.geometry import Fit

PROGRAMS = {
    uids.JPEGBaseline8Bit: "dcmj2pnm",
    uids.JPEGLosslessSV1: "dcmj2pnm",
    uids.JPEGLSLossless: "dcml2pnm",
}
ABSENT = [name for name in ("dcm2pnm", "dcmj2pnm", "dcml2pnm") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(
    bool(ABSENT), reason=f"dcmtk is not installed (apt-get install dcmtk): no {', '.join(ABSENT)}"
)


def by_dcmtk(data: bytes, options: list[str], folder: Path) -> NDArray[np.float64]:
    """The greys of dcmtk at full size, 0 .. 255."""
    (folder / "one.dcm").write_bytes(data)
    syntax = parse(data).header.transfer_syntax
    program = [PROGRAMS.get(uids.UID(syntax), "dcm2pnm"), "+opw", *options, folder / "one.dcm"]
    found = subprocess.run(program, check=True, capture_output=True, timeout=120)
    magic, size, top, numbers = found.stdout.split(b"\n", 3)
    assert (magic, top) == (b"P2", b"65535")
    cols, rows = (int(side) for side in size.split())
    return np.array(numbers.split(), np.float64).reshape(rows, cols) / 257


def averaged(greys: NDArray[np.float64], fit: Fit) -> NDArray[np.float64]:
    """The mean under each stored pixel, by integrating along each axis and taking differences."""
    for axis, count in enumerate(fit.content_shape):
        side = greys.shape[axis]
        whole = np.concatenate([np.zeros((1, greys.shape[1 - axis])), np.cumsum(
            np.moveaxis(greys, axis, 0), axis=0
        )])  # fmt: skip
        edges = np.minimum(np.arange(count + 1) / fit.scale, side)
        upto = np.stack([np.interp(edges, np.arange(side + 1), line) for line in whole.T], axis=1)
        greys = np.moveaxis(np.diff(upto, axis=0) / np.diff(edges)[:, None], 0, axis)
    return greys


def windowing_of(data: bytes) -> list[str]:
    """dcmtk's option for what we choose: the LUT, the window, or our percentiles as a window."""
    parsed = parse(data)
    if parsed.dataset.get("VOILUTSequence"):
        return ["+Wl", "1"]
    if parsed.dataset.get("WindowCenter") is not None:
        return ["+Wi", "1"]
    cells, coding = read_cells(parsed.header, parsed.dataset, parsed.pixel_data, vr=parsed.pixel_vr)
    linear = linear_display(parsed.dataset, coding, cells)
    assert linear is not None
    ramp: Ramp = linear[0]
    low, high = sorted((ramp.black, ramp.white))
    return ["+Ww", str((low + high) / 2 + 0.5), str(high - low + 1)]


def largest_difference(data: bytes, folder: Path) -> float:
    image = read_image(data)
    expected = averaged(by_dcmtk(data, windowing_of(data), folder), image.fit)
    return float(np.abs(image.pixels[image.fit.content] - expected).max())


def kind_of(path: Path) -> tuple[Any, ...]:
    dataset = dcmread(path, stop_before_pixels=True)
    return (
        dataset.file_meta.TransferSyntaxUID, dataset.PhotometricInterpretation,
        dataset.BitsStored, "WindowCenter" in dataset, "VOILUTSequence" in dataset,
    )  # fmt: skip


@pytest.mark.corpus
def test_radiographs_look_as_dcmtk_shows_them(tmp_path: Path, corpus: Path) -> None:
    chosen: dict[tuple[Any, ...], Path] = {}
    for path in sorted((corpus / "mimic-cxr").rglob("*.dcm")):
        kind = kind_of(path)
        if kind[0] != uids.JPEG2000Lossless:  # dcmtk has no decoder for it
            chosen.setdefault(kind, path)
    assert len(chosen) >= 10
    for kind, path in chosen.items():
        data = path.read_bytes()
        if read_image(data).fit.scale < 1:
            lossy = kind[0] == uids.JPEGBaseline8Bit  # two decoders may differ by 1
            assert largest_difference(data, tmp_path) <= (1.6 if lossy else 0.6), kind


def shaded(bits: int, *, signed: bool) -> NDArray[Any]:
    """Slopes and noise, 760 x 620, over the whole range."""
    y, x = np.mgrid[:760, :620]
    noise = np.random.default_rng(bits).normal(0, 0.03, x.shape)
    share = np.clip(0.5 + 0.45 * np.sin(x / 90) * np.cos(y / 70) + noise, 0, 1)
    values = np.rint(share * ((1 << bits) - 1)).astype(np.int64)
    return (values - ((1 << (bits - 1)) if signed else 0)).astype(np.int16 if signed else np.uint16)


def curve() -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 12])
    item.add_new("LUTData", "US", [int(4095 * (index / 4095) ** 0.6) for index in range(4096)])
    return [item]


SHOWN: dict[str, dict[str, Any]] = {
    "window": {"WindowCenter": 1800, "WindowWidth": 2200},
    "window, MONOCHROME1": {
        "WindowCenter": 1800, "WindowWidth": 2200, "PhotometricInterpretation": "MONOCHROME1",
    },
    "window after rescale": {
        "WindowCenter": 350, "WindowWidth": 900, "RescaleSlope": "0.25", "RescaleIntercept": "-100",
    },
    "window after rescale, MONOCHROME1": {
        "WindowCenter": 350, "WindowWidth": 900, "RescaleSlope": "0.25", "RescaleIntercept": "-100",
        "PhotometricInterpretation": "MONOCHROME1",
    },
    "window, inverse": {
        "WindowCenter": 1800, "WindowWidth": 2200, "PresentationLUTShape": "INVERSE",
    },
    "sigmoid": {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "SIGMOID"},
    "VOI LUT": {"VOILUTSequence": curve()},
    "VOI LUT, MONOCHROME1": {
        "VOILUTSequence": curve(), "PhotometricInterpretation": "MONOCHROME1",
    },
    "no VOI": {},
    "no VOI, MONOCHROME1": {"PhotometricInterpretation": "MONOCHROME1"},
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_each_display_rule_looks_as_dcmtk_shows_it(name: str, tmp_path: Path) -> None:
    attributes = SHOWN[name] | ({"RescaleType": "US"} if "rescale" in name else {})
    data = dicom_bytes(shaded(12, signed=False), **attributes)
    # dcmtk keeps rescaled values as whole numbers; one of them is 255 / 900 of a grey here.
    assert largest_difference(data, tmp_path) <= (0.9 if "rescale" in name else 0.6)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_signed_pixels_look_as_dcmtk_shows_them(bits: int, tmp_path: Path) -> None:
    window = {"WindowCenter": 1 << (bits - 3), "WindowWidth": 1 << (bits - 1)}
    data = dicom_bytes(shaded(bits, signed=True), bits=bits, **window)
    assert largest_difference(data, tmp_path) <= 0.6


def test_the_comparison_sees_an_order_that_is_wrong(tmp_path: Path) -> None:
    data = dicom_bytes(shaded(12, signed=False), **SHOWN["window, MONOCHROME1"])
    dataset = dcmread(BytesIO(data))
    dataset.PhotometricInterpretation = "MONOCHROME2"
    stream = BytesIO()
    dataset.save_as(stream)
    shown = averaged(by_dcmtk(data, ["+Wi", "1"], tmp_path), read_image(data).fit)
    image = read_image(stream.getvalue())
    assert np.abs(image.pixels[image.fit.content] - shown).max() > 50
