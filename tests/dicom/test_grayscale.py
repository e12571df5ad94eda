from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_dicom import dataset_of, ramp
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from lapvqa.dicom import grayscale
from lapvqa.dicom.grayscale import Ramp, Table, Window, apply_windowing
from lapvqa.dicom.pixels import Coding

TWELVE = Coding(12)
SIGNED_TWELVE = Coding(12, signed=True)


def lut_item(first: int, bits: int, data: list[int]) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(data), first, bits])
    item.add_new("LUTData", "US", data)
    return item


def values_of(coding: Coding, cells: list[int]) -> list[float]:
    return list(coding.values()[coding.ranks(np.array(cells, np.uint16))])


def display(
    dataset: Dataset, coding: Coding, cells: NDArray[np.uint16]
) -> tuple[Ramp | Table, str]:
    """The display function in whichever form ``render`` asks for first."""
    linear = grayscale.linear_display(dataset, coding, cells)
    return linear or grayscale.tabulated_display(dataset, coding, cells)


def table_of(dataset: Dataset, coding: Coding, cells: NDArray[np.uint16]) -> NDArray[np.float64]:
    """The grey, 0 to 65535, of each value in ascending order, by whichever way is taken."""
    shown, _ = display(dataset, coding, cells)
    if not isinstance(shown, Ramp):
        return shown.astype(np.float64)
    grey = (coding.values() - shown.black) / (shown.white - shown.black)
    return np.clip(grey, 0, 1) * 65535


def test_bits_above_the_high_bit_are_no_part_of_the_value() -> None:
    assert values_of(TWELVE, [0, 1, 4095, 4096, 0xF005]) == [0, 1, 4095, 0, 5]
    assert values_of(Coding(12, down=4), [0x0010, 0xFFF0, 0xFFFF]) == [1, 4095, 4095]
    found = values_of(SIGNED_TWELVE, [0, 0x7FF, 0x800, 0xFFF, 0xF7FF])
    assert found == [0, 2047, -2048, -1, 2047]
    assert values_of(Coding(8, signed=True), [127, 128, 255]) == [127, -128, -1]
    assert values_of(Coding(16, signed=True), [0, 0x7FFF, 0x8000, 0xFFFF]) == [0, 32767, -32768, -1]
    assert values_of(Coding(10, signed=True, down=2), [0x0004, 0x0FFF, 0xF7FC]) == [1, -1, 511]


def test_linear_window_is_the_example_of_the_standard() -> None:
    # PS3.3 C.11.2.1.2.1, note 2: c = 2048, w = 1 -> below 2047.5 black, above white;
    # c = 0, w = 100 -> y = 0 up to -50, 255 above 49.
    assert list(apply_windowing(Window(2048, 1), np.array([2047.0, 2048.0]))) == [0, 1]
    values = np.array([-51.0, -50.0, -0.5, 49.0, 50.0])
    assert apply_windowing(Window(0, 100), values) == pytest.approx([0, 0, 0.5, 1, 1])


@given(
    center=st.floats(-500, 4000),
    width=st.floats(2, 6000),
    slope=st.sampled_from([1.0, 0.5, 2.25, -1.0]),
    intercept=st.sampled_from([0.0, -1024.0, 7.5]),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
@settings(max_examples=60)
def test_rescale_and_window_agree_with_pydicom(
    center: float, width: float, slope: float, intercept: float, function: str
) -> None:
    stored = np.arange(4096, dtype=np.uint16)
    dataset = dataset_of(stored.reshape(64, 64))
    dataset.WindowCenter, dataset.WindowWidth = f"{center:.6g}", f"{width:.6g}"
    dataset.VOILUTFunction = function
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    modality = apply_modality_lut(stored, dataset)
    shown = apply_voi_lut(modality, dataset).astype(np.float64)
    # pydicom spreads the window over the range that stored values may take after rescaling.
    low, high = intercept, 4095 * slope + intercept
    found, voi = grayscale.apply_voi_lut(
        dataset, grayscale.apply_modality_lut(dataset, stored.astype(np.float64))
    ) or (None, "")
    assert voi == "window"
    assert np.abs(found - (shown - low) / (high - low)).max() < 1e-6


@pytest.mark.parametrize(("first", "bits", "count"), [(0, 12, 4096), (100, 16, 50), (4000, 8, 20)])
def test_voi_lut_sequence_agrees_with_pydicom(first: int, bits: int, count: int) -> None:
    rng = np.random.default_rng(count)
    data = [int(value) for value in np.sort(rng.integers(0, 2**bits, count))]
    data[-1] = 2**bits - 1
    stored = np.arange(4096, dtype=np.uint16)
    dataset = dataset_of(stored.reshape(64, 64))
    dataset.VOILUTSequence = [lut_item(first, bits, data)]
    dataset.WindowCenter, dataset.WindowWidth = 1, 2  # the alternative that is not chosen
    found = grayscale.apply_voi_lut(dataset, stored.astype(np.float64))
    assert found is not None
    assert found[1] == "lut"
    expected = apply_voi_lut(stored, dataset, prefer_lut=True) / (2**bits - 1)
    assert np.abs(found[0] - expected).max() < 1e-12


def test_modality_lut_sequence_goes_before_the_window() -> None:
    dataset = dataset_of(ramp())
    dataset.ModalityLUTSequence = [lut_item(0, 16, [100, 200, 300, 400])]
    dataset.RescaleSlope = 7  # not used beside a LUT
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 250, 300, "LINEAR_EXACT"
    table, voi = grayscale.tabulated_display(dataset, TWELVE, ramp())
    assert voi == "window"
    # 100 -> (100 - 250) / 300 + .5 = 0; 200 -> 1/3; 300 -> 2/3; 400 and beyond -> 1
    assert list(table[[0, 1, 2, 3, 4000]]) == [0, 21845, 43690, 65535, 65535]


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME2", None, False),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
    ],
)
def test_lowest_value_is_white_once(photometric: str, shape: str | None, inverted: bool) -> None:
    dataset = dataset_of(ramp(), PhotometricInterpretation=photometric)
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    if shape is not None:
        dataset.PresentationLUTShape = shape
    table = table_of(dataset, TWELVE, ramp())
    assert (table[0], table[4095]) == ((65535, 0) if inverted else (0, 65535))


def test_padding_is_black_and_does_not_move_the_percentiles() -> None:
    cells = ramp()
    plain, voi = display(dataset_of(cells), TWELVE, cells)
    assert voi == "percentile"
    bordered = np.full((500, 500), 4095, np.uint16)
    bordered[:378, :378] = np.minimum(cells, 4000)
    dataset = dataset_of(bordered, PixelPaddingValue=4095, PhotometricInterpretation="MONOCHROME1")
    table = table_of(dataset, TWELVE, bordered)
    assert table[4095] == 0
    assert table[0] == 65535
    low, high = np.percentile(np.minimum(cells, 4000), [0.5, 99.5])
    assert int(table[int(low) + 300]) == pytest.approx(65535 * (1 - 300 / (high - low)), abs=30)
    assert isinstance(plain, Ramp)
    assert (plain.black, plain.white) == tuple(np.percentile(cells, [0.5, 99.5]))


def test_percentiles_are_black_and_white_whatever_the_outliers() -> None:
    cells = np.random.default_rng(0).integers(1000, 2000, (400, 400)).astype(np.uint16)
    cells[0, :3] = 4095
    assert display(dataset_of(cells), TWELVE, cells)[1] == "percentile"
    table = table_of(dataset_of(cells), TWELVE, cells)
    assert (table[:1000] == 0).all()
    assert (table[2000:4096] == 65535).all()
    assert int(table[1500]) == pytest.approx(32768, abs=300)


@pytest.mark.parametrize("width", [0, -5])
def test_an_unusable_window_gives_way_to_percentiles(width: int) -> None:
    dataset = dataset_of(ramp(), WindowCenter=100, WindowWidth=width)
    assert display(dataset, TWELVE, ramp())[1] == "percentile"


def test_a_negative_first_value_written_as_unsigned() -> None:
    dataset = dataset_of(ramp())
    dataset.VOILUTSequence = [lut_item(0x10000 - 2, 8, [0, 51, 102, 153, 204, 255])]
    shown, _ = grayscale.apply_voi_lut(dataset, SIGNED_TWELVE.values()) or (np.zeros(0), "")
    ranks = 2048 + np.array([-3, -2, 0, 3, 9])
    assert list(np.rint(shown[ranks] * 255)) == [0, 0, 102, 255, 255]
