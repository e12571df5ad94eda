"""The two ways from cells to greys, clamp-average-map and look-up-average, give the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_dicom import bytes_of, dataset_of, dicom_bytes, ramp
from numpy.typing import NDArray
from pydicom import Dataset

from lapvqa.dicom import grayscale
from lapvqa.dicom.pixels import Coding
from lapvqa.dicom.render import ramped, read_image, tabulated
from lapvqa.images.geometry import fit_of

FINE = 65_535
"""White in steps so fine that rounding to them does not count."""

codings = st.builds(
    lambda bits, signed, shift: Coding(bits, signed=signed, down=min(shift, 16 - bits)),
    st.integers(8, 16), st.booleans(), st.sampled_from([0, 0, 0, 1, 4]),
)  # fmt: skip


def noisy_cells(rows: int, cols: int, seed: int) -> NDArray[np.uint16]:
    """Slopes and noise over all 16 bits, so that bits outside a mask are set too."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 65_535, rows)[:, None] * np.linspace(0.2, 1, cols)
    return (slope.astype(np.int64) ^ rng.integers(0, 1 << 16, (rows, cols))).astype(np.uint16)


@given(
    coding=codings,
    rows=st.integers(380, 600),
    cols=st.integers(300, 600),
    place=st.floats(-0.2, 1.2),
    share=st.floats(0.001, 3),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT"]),
    slope=st.sampled_from([1.0, 0.25, 2.6, -1.0, -0.3]),
    intercept=st.sampled_from([0.0, -1024.0, 17.3]),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
    shape=st.sampled_from([None, "IDENTITY", "INVERSE"]),
)
@settings(max_examples=120)
def test_both_ways_agree_within_a_fiftieth_of_a_grey_before_rounding(
    coding: Coding, rows: int, cols: int, place: float, share: float, function: str,
    slope: float, intercept: float, photometric: str, shape: str | None,
) -> None:  # fmt: skip
    cells = noisy_cells(rows, cols, coding.bits)
    span = coding.count * abs(slope)
    center = (coding.lowest + place * coding.count) * slope + intercept
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth = f"{center:.8g}", f"{max(2, share * span):.8g}"
    dataset.VOILUTFunction, dataset.PhotometricInterpretation = function, photometric
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    if shape is not None:
        dataset.PresentationLUTShape = shape
    linear = grayscale.linear_display(dataset, coding, cells)
    assert linear is not None
    table, voi = grayscale.tabulated_display(dataset, coding, cells)
    assert voi == linear[1] == "window"
    fit = fit_of(rows, cols)
    by_table = tabulated(cells, coding, table, fit, white=FINE) / 257
    by_ramp = ramped(cells, coding, linear[0], fit, white=FINE)
    if by_ramp is None:  # too narrow to be exact; the table is taken
        assert abs(linear[0].white - linear[0].black) < 0.02 * coding.count
        return
    assert np.abs(by_ramp / 257 - by_table).max() < 0.02


@given(
    bits=st.sampled_from([8, 10, 12, 16]),
    signed=st.booleans(),
    slope=st.sampled_from([1.0, 2.5, -1.0]),
    photometric=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
@settings(max_examples=30)
def test_both_ways_agree_on_percentiles(
    bits: int, signed: bool, slope: float, photometric: str
) -> None:
    coding = Coding(bits, signed=signed)
    cells = (ramp(bits, rows=700, cols=520) ^ coding.flip).astype(np.uint16)
    dataset = Dataset()
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, -5
    dataset.PhotometricInterpretation = photometric
    linear = grayscale.linear_display(dataset, coding, cells)
    assert linear is not None
    assert linear[1] == "percentile"
    table, voi = grayscale.tabulated_display(dataset, coding, cells)
    assert voi == "percentile"
    fit = fit_of(*cells.shape)
    by_ramp = ramped(cells, coding, linear[0], fit, white=FINE)
    assert by_ramp is not None
    assert (
        np.abs(by_ramp / 257 - tabulated(cells, coding, table, fit, white=FINE) / 257).max() < 0.02
    )
    values = coding.values()[coding.ranks(cells)] * slope - 5
    low, high = np.percentile(values, grayscale.PERCENTILES)
    black, white = (high, low) if photometric == "MONOCHROME1" else (low, high)
    assert [linear[0].black * slope - 5, linear[0].white * slope - 5] == pytest.approx(
        [black, white]
    )


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 90.25, "WindowWidth": 131.5}])
def test_the_window_goes_before_the_average(bits: int, window: dict[str, Any]) -> None:
    # Black and white columns, one of each per stored pixel, far outside the window: averaged
    # first they would lie within it, or saturate; the right grey is the middle one.
    pixels = np.zeros((756, 756), np.uint8 if bits == 8 else np.uint16)
    pixels[:, 1::2] = (1 << bits) - 1
    pixels[:, :200] = 0
    grey = read_image(dicom_bytes(pixels, bits=bits, **window)).pixels
    assert set(np.unique(grey[:378, :100])) == {0}
    assert set(np.unique(grey[:378, 101:378])) == {128}


def test_stray_bits_change_nothing_in_either_way() -> None:
    pixels = ramp(12, rows=800, cols=700)
    overlaid = pixels | (noisy_cells(800, 700, 3) << 12)
    linear = {"WindowCenter": 2000, "WindowWidth": 3000}
    for attributes in (linear, {**linear, "PixelPaddingValue": 4000}, {}):
        plain = read_image(dicom_bytes(pixels, **attributes))
        assert np.array_equal(read_image(dicom_bytes(overlaid, **attributes)).pixels, plain.pixels)
    shifted = dataset_of((pixels << 4).astype(np.uint16), HighBit=15, **linear)
    plain = read_image(dicom_bytes(pixels, **linear))
    assert np.array_equal(read_image(bytes_of(shifted)).pixels, plain.pixels)
