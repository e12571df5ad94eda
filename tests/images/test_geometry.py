from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lapvqa.images.area import PART
from lapvqa.images.geometry import fit_image
from lapvqa.schemas import CONTENT_SIZE

sides = st.integers(min_value=40, max_value=900)


def area_weights(native: int, stored: int, scale: float) -> NDArray[np.float64]:
    """Weights [stored, native] of exact area averaging, worked out pixel by pixel."""
    weights = np.zeros((stored, native))
    for o in range(stored):
        begin, end = o / scale, min((o + 1) / scale, native)
        for i in range(int(begin), min(int(np.ceil(end)), native)):
            weights[o, i] = min(end, i + 1) - max(begin, i)
    return weights / weights.sum(axis=1, keepdims=True)


def test_the_kernels_count_in_the_size_of_the_content() -> None:
    assert PART == CONTENT_SIZE


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1000, 777), (777, 1000), (756, 756), (400, 391), (380, 1900)])
def test_shrinking_is_exact_area_averaging_at_the_stated_scale(
    shape: tuple[int, int], dtype: type[np.uint8 | np.uint16]
) -> None:
    top = 256 if dtype is np.uint8 else 65_536
    image = np.random.default_rng(0).integers(0, top, shape).astype(dtype)
    stored, fit = fit_image(image)
    height, width = fit.content_shape
    expected = area_weights(shape[0], height, fit.scale) @ image.astype(np.float64)
    expected = expected @ area_weights(shape[1], width, fit.scale).T
    assert stored.dtype == dtype
    assert np.abs(stored[fit.content] - expected).max() < 0.5 + 1e-8


@pytest.mark.parametrize("shape", [(757, 379), (379, 757), (1134, 1133)])
def test_averages_are_those_of_whole_number_arithmetic(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 65_536, shape).astype(np.uint16)
    image[:100, :100] = 65_535
    stored, fit = fit_image(image)
    longest = max(shape)
    last_row, last_col = (side - 1 for side in fit.content_shape)
    for o, q in [(0, 0), (5, 7), (150, 100), (last_row, last_col)]:
        total = area = 0
        for row in range(o * longest // 378, min(shape[0], -(-(o + 1) * longest // 378))):
            for col in range(q * longest // 378, min(shape[1], -(-(q + 1) * longest // 378))):
                high = min((o + 1) * longest, 378 * row + 378) - max(o * longest, 378 * row)
                wide = min((q + 1) * longest, 378 * col + 378) - max(q * longest, 378 * col)
                total += high * wide * int(image[row, col])
                area += high * wide
        assert int(stored[fit.content][o, q]) == (2 * total + area) // (2 * area)


def test_views_into_other_arrays_are_taken_as_they_are() -> None:
    image = np.random.default_rng(2).integers(0, 65_536, (500, 600)).astype(np.uint16)
    expected, _ = fit_image(image)
    for view in (np.asfortranarray(image), np.repeat(image, 2, axis=1)[:, ::2]):
        assert np.array_equal(fit_image(view)[0], expected)
    image.flags.writeable = False
    assert np.array_equal(fit_image(image)[0], expected)


def test_the_longest_lanes_do_not_overflow() -> None:
    image = np.full((200, 65_000), 65_535, np.uint16)
    stored, fit = fit_image(image)
    assert (stored[fit.content] == 65_535).all()
    with pytest.raises(ValueError, match="cannot fit"):
        fit_image(np.full((200, 65_538), 65_535, np.uint16))


@given(rows=st.integers(760, 1400), cols=st.integers(760, 1400), data=st.data())
@settings(max_examples=40)
def test_edges_of_a_rectangle_lie_exactly_where_the_mapping_says(
    rows: int, cols: int, data: st.DataObject
) -> None:
    # A stored pixel that is partly covered is as bright as the share that is covered, so the
    # brightness along a line through the middle gives both edges back, but for its rounding.
    y0, x0 = (data.draw(st.integers(0, side - 40)) for side in (rows, cols))
    y1, x1 = y0 + data.draw(st.integers(20, 39)), x0 + data.draw(st.integers(20, 39))
    image = np.zeros((rows, cols), dtype=np.uint16)
    image[y0:y1, x0:x1] = 65_535
    stored, fit = fit_image(image)
    left, top, right, bottom = fit.to_stored([[x0, y0, x1, y1]])[0]
    for line, begin, end in (
        (stored[int((top + bottom) / 2)], left, right),
        (stored[:, int((left + right) / 2)], top, bottom),
    ):
        bright = np.flatnonzero(line)
        share = line / 65_535
        middle = int((begin + end) / 2)
        assert bright[0] + 1 == pytest.approx(begin + share[bright[0]], abs=1e-5)
        assert middle + share[middle:].sum() == pytest.approx(end, abs=1e-5)


@given(rows=sides, cols=sides)
@settings(max_examples=50)
def test_last_six_pixels_and_the_surroundings_are_zero(rows: int, cols: int) -> None:
    if max(rows, cols) > 300 * min(rows, cols):
        return
    stored, fit = fit_image(np.full((rows, cols), 200, dtype=np.uint8))
    assert stored.shape == (384, 384)
    assert not stored[378:].any()
    assert not stored[:, 378:].any()
    inside = stored > 0
    assert inside.any(axis=1).sum() == round(rows * fit.scale)
    assert inside.any(axis=0).sum() == round(cols * fit.scale)
    assert max(inside.any(axis=1).sum(), inside.any(axis=0).sum()) == 378


@given(rows=sides, cols=sides, data=st.data())
@settings(max_examples=100)
def test_boxes_return_to_where_they_came_from(rows: int, cols: int, data: st.DataObject) -> None:
    _, fit = fit_image(np.zeros((rows, cols), dtype=np.uint8))
    x = sorted(data.draw(st.floats(0, cols)) for _ in range(2))
    y = sorted(data.draw(st.floats(0, rows)) for _ in range(2))
    box = np.array([[x[0], y[0], x[1], y[1]]])
    stored = fit.to_stored(box)
    assert np.abs(fit.to_native(stored) - box).max() < 1e-6
    assert stored.min() >= 0
    assert stored.max() <= 378 + 0.5


@pytest.mark.parametrize("shape", [(3056, 2544), (2539, 2705), (900, 317), (200, 151)])
def test_a_bright_rectangle_is_found_where_its_mapped_box_says(shape: tuple[int, int]) -> None:
    image = np.zeros(shape, dtype=np.uint16)
    x0, y0, x1, y1 = shape[1] // 3, shape[0] // 4, shape[1] - 20, shape[0] - 7
    image[y0:y1, x0:x1] = 50_000
    stored, fit = fit_image(image)
    mass = stored.astype(np.float64) / 50_000
    # Centre of mass and extent of the stored rectangle, in continuous coordinates.
    centre_x = (mass.sum(axis=0) @ (np.arange(384) + 0.5)) / mass.sum()
    centre_y = (mass.sum(axis=1) @ (np.arange(384) + 0.5)) / mass.sum()
    height, width = mass.sum(axis=0).max(), mass.sum(axis=1).max()
    found = np.array(
        [[centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2]]
    )
    assert np.abs(fit.to_native(found) - [[x0, y0, x1, y1]]).max() < 0.5


@pytest.mark.parametrize("shape", [(0, 10), (10, 0), (4000, 10)])
def test_impossible_shapes_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot fit"):
        fit_image(np.zeros(shape, dtype=np.uint8))
