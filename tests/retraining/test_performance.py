"""Has the champion fallen: how often that errs, and what it sees, with several films a patient."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lapvqa.evaluation.task_table import find
from lapvqa.params import BootstrapParams
from lapvqa.retraining import performance
from lapvqa.retraining.performance import Comparison
from lapvqa.schemas import PROBE_PREDICTIONS

TASK = find("probe_chexpert")
COMMON = BootstrapParams(bootstrap_draws=60)
KNOWN = {f"p{number}" for number in range(200)}


def predictions(rng: np.random.Generator, *, patients: int, signal: float) -> pa.Table:
    """Two films a patient, of whom new ones are told from each other by ``signal``."""
    rows = []
    for number in range(patients):
        shared = rng.normal()
        strength = 1.5 if f"p{number}" in KNOWN else signal
        label = int(rng.random() < 0.4)
        for film in range(2):
            score = strength * label + 0.7 * shared + 0.7 * rng.normal()
            rows += [
                {
                    "sample": f"s{number}-{film}", "patient": f"p{number}", "system": "encoder",
                    "label": name, "target": label, "score": 1 / (1 + np.exp(-score)),
                }
                for name in ("Edema", "Cardiomegaly")
            ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PROBE_PREDICTIONS)


def compared(rng: np.random.Generator, signal: float) -> Comparison:
    table = predictions(rng, patients=500, signal=signal)
    found = performance.compare(TASK, table, "encoder", KNOWN, margin=0.02, common=COMMON)
    assert isinstance(found, Comparison), found
    assert (found.before.patients, found.now.patients) == (200, 300)
    return found


def test_it_seldom_errs_and_sees_what_it_says_it_would() -> None:
    rng = np.random.default_rng(0)
    assert sum(compared(rng, 1.5).has_fallen for _ in range(20)) <= 1
    fallen = [compared(rng, 0.3) for _ in range(10)]
    assert sum(one.has_fallen for one in fallen) >= 8
    assert np.mean([one.before.value - one.now.value for one in fallen]) > fallen[0].visible


@pytest.mark.parametrize(("patients", "which"), [(210, "10 new"), (20, "20 judged before")])
def test_a_few_patients_tell_nothing(patients: int, which: str) -> None:
    known = {f"p{number}" for number in range(min(patients, 200))}
    table = predictions(np.random.default_rng(0), patients=max(patients, 60), signal=1.0)
    found = performance.compare(TASK, table, "encoder", known, margin=0.02, common=COMMON)
    assert isinstance(found, str)
    assert which in found
