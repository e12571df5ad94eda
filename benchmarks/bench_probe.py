"""The table of 14 AUROCs with 1,000 draws of patients, beside a loop of scikit-learn.

    python benchmarks/bench_probe.py

Both see the same draws. The peer resamples the rows of the drawn patients and calls
roc_auc_score per label and draw, as is usual. In each turn it runs 50 of the 1,000 draws, and its
time is multiplied by 20; once, at the end, it runs all 1,000, and every number is compared. One
thread each. The ratio must be at least 8.
"""

from __future__ import annotations

import json
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from lapvqa.metrics.bootstrap import draw_values, interval
from lapvqa.metrics.classification import mean_and_class_aurocs

SAMPLES, PATIENTS, LABELS, DRAWS, SEED = 10_000, 3_000, 14, 1_000, 0
ALTERNATIONS, PEER_DRAWS, REQUIRED = 7, 50, 8.0
RESULT = Path(__file__).parent / "results" / "probe-cpu.json"


def make_predictions() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return targets and scores [n, 14] and patients; prevalences from 0.5 % to 20 %."""
    generator = np.random.default_rng(7)
    patient = np.concatenate(
        [np.arange(PATIENTS), generator.integers(0, PATIENTS, SAMPLES - PATIENTS)]
    )
    targets = (generator.random((SAMPLES, LABELS)) < np.geomspace(0.005, 0.2, LABELS)).astype(
        np.int8
    )
    person = generator.normal(size=(PATIENTS, LABELS))[patient]
    scores = 1 / (1 + np.exp(-(targets + person + generator.normal(size=targets.shape))))
    return targets, scores, [f"p{one}" for one in patient]


def drawn_rows(patients: list[str]) -> list[np.ndarray]:
    """Return the rows of each draw, read off the weights that our own statistic is given."""
    rows = []

    def keep(weights: np.ndarray) -> np.ndarray:
        rows.extend(np.repeat(np.arange(SAMPLES), one.astype(int)) for one in weights)
        return weights[:, 0]

    draw_values(keep, patients, draws=DRAWS, seed=SEED)
    return rows[1:]


def ours(targets: np.ndarray, scores: np.ndarray, patients: list[str]) -> np.ndarray:
    """Return all draws of the mean and of each label: [1 + draws, 1 + labels]."""
    statistic = mean_and_class_aurocs(targets, scores)
    return draw_values(statistic, patients, draws=DRAWS, seed=SEED)


def scikit_learn(targets: np.ndarray, scores: np.ndarray, draws: list[np.ndarray]) -> np.ndarray:
    """Return the same table for the given draws, without the observed row."""
    table = np.empty((len(draws), 1 + LABELS))
    for number, rows in enumerate(draws):
        table[number, 1:] = [
            roc_auc_score(targets[rows, label], scores[rows, label]) for label in range(LABELS)
        ]
    table[:, 0] = table[:, 1:].mean(axis=1)
    return table


def seconds(function: Callable[..., np.ndarray], *arguments: object) -> tuple[float, np.ndarray]:
    """Return the wall time of one call, and what it returned."""
    started = time.perf_counter()
    table = function(*arguments)
    return time.perf_counter() - started, table


def main() -> None:
    """Alternate, compare every number, print, keep; fail below the required ratio."""
    targets, scores, patients = make_predictions()
    draws = drawn_rows(patients)
    load = os.getloadavg()[0]
    own_times, peer_times = [], []
    for turn in range(ALTERNATIONS):
        own, table = seconds(ours, targets, scores, patients)
        some = draws[turn * PEER_DRAWS : (turn + 1) * PEER_DRAWS]
        part, _ = seconds(scikit_learn, targets, scores, some)
        own_times.append(own)
        peer_times.append(part * DRAWS / PEER_DRAWS)
    whole, theirs = seconds(scikit_learn, targets, scores, draws)
    apart = float(np.abs(table[1:] - theirs).max())
    assert apart < 1e-6, apart
    ends = [
        (interval(column, confidence=0.95), interval(np.append(column[0], other), confidence=0.95))
        for column, other in zip(table.T, theirs.T, strict=True)
    ]
    ratios = [peer / own for own, peer in zip(own_times, peer_times, strict=True)]
    result = {
        "samples": SAMPLES,
        "patients": PATIENTS,
        "labels": LABELS,
        "draws": DRAWS,
        "alternations": ALTERNATIONS,
        "ours_s": _spread(own_times),
        "scikit_learn_s_extrapolated": _spread(peer_times),
        "extrapolation": f"{PEER_DRAWS} of {DRAWS} draws per turn, times {DRAWS // PEER_DRAWS}",
        "scikit_learn_s_all_draws_once": round(whole, 2),
        "times_as_fast": _spread(ratios),
        "times_as_fast_all_draws": round(whole / statistics.median(own_times), 2),
        "largest_difference_of_a_draw": apart,
        "largest_difference_of_an_interval": max(
            abs(a - b) for one, other in ends for a, b in zip(one, other, strict=True)
        ),
        "load_average": [load, os.getloadavg()[0]],
        "threads": 1,
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "scikit-learn")},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    assert statistics.median(ratios) >= REQUIRED, ratios


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


if __name__ == "__main__":
    main()
