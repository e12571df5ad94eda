"""95 % intervals hold the truth 95 times in 100: a short form of simulated_coverage.py.

Its 2,000 studies with 1,000 draws give 93.8 to 95.2 (docs/metrics.md). Here 600 studies have a
standard error of 0.9 points, so 0.95 is asked for within two and a half of them.
"""

from __future__ import annotations

import numpy as np
import pytest
from simulated_coverage import answers, coverage, delong_coverage

SIZES = {"studies": 600, "patients": 300, "draws": 500}


@pytest.mark.slow
def test_intervals_by_patient_cover_and_by_sample_do_not() -> None:
    population = answers(np.random.default_rng(0))
    shares = coverage(population, **SIZES, by_sample=False)
    assert all(0.928 <= share <= 0.972 for share in shares.values()), shares
    naive = coverage(population, **SIZES | {"studies": 200}, by_sample=True)
    assert all(share < 0.92 for share in naive.values()), naive


@pytest.mark.slow
def test_delongs_interval_by_patient_covers_the_difference() -> None:
    found = delong_coverage(studies=2000, patients=300, by_sample=False)
    assert all(0.94 <= share <= 0.96 for share in found.values()), found
