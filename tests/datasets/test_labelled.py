"""Three splits, disjoint by patient; unreadable files are counted, never dropped in silence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapvqa.datasets.labelled import ProbeDataset, Rows, carve_validation
from lapvqa.datasets.splits import key
from lapvqa.errors import SourceError


def rows(patients: list[str], prefix: str = "") -> Rows:
    names = tuple(f"{prefix}{i}.png" for i in range(len(patients)))
    return Rows(
        images=names,
        samples=names,
        patients=tuple(patients),
        places=tuple(f"x.csv, line {i + 2}" for i in range(len(patients))),
        targets=np.zeros((len(patients), 2), dtype=np.int8),
    )


def test_unreadable_images_leave_their_split_and_keep_alignment():
    dataset = ProbeDataset(
        "d", ("a", "b"), rows(["p"] * 300), rows(["q"] * 50, "v"), rows(["r"] * 50, "t")
    )
    readable = np.ones(400, dtype=bool)
    readable[[0, 349, 399]] = False
    kept = dataset.keep(readable)
    assert (len(kept.train), len(kept.validate), len(kept.test)) == (299, 49, 49)
    assert kept.images == tuple(np.array(dataset.images)[readable])


def test_more_than_one_percent_unreadable_is_an_error_that_names_a_line():
    dataset = ProbeDataset(
        "d", ("a", "b"), rows(["p"] * 300), rows(["q"] * 50, "v"), rows(["r"] * 50, "t")
    )
    readable = np.ones(400, dtype=bool)
    readable[7:12] = False
    with pytest.raises(SourceError, match=r"5 of 400 .* one is listed at x.csv, line 9"):
        dataset.keep(readable)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=80), st.randoms())
@settings(max_examples=100)
def test_carving_is_by_patient_whatever_the_order(numbers: list[int], random) -> None:
    patients = [f"p{number}" for number in numbers]
    if len(set(patients)) < 2:
        return
    train, validate = carve_validation(rows(patients))
    assert not set(train.patients) & set(validate.patients)
    assert len(train) + len(validate) == len(patients)
    assert len(train) >= 1
    assert len(validate) >= 1
    random.shuffle(patients)
    assert set(carve_validation(rows(patients))[1].patients) == set(validate.patients)


def test_keys_differ_between_datasets():
    assert key("CheXpert", "1") != key("NIH ChestX-ray14", "1")
