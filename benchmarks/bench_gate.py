"""50 gates in a row, 2,000 histories: what each rule promotes, and what it says of it.

``python benchmarks/bench_gate.py [HISTORIES]``. Simulated on the scale of an AUC: a model's error
on one test set is .010, two models' errors correlate by .9, a challenger truly differs from the
champion by N(-.001, .003). 1,000 patients for all gates, or 1,000 new ones for each, or all that
have arrived so far.

Rules: point comparison (what thresholds of pipelines do), a paired test at 5 %, Bonferroni over the
50 gates, the gate of lapvqa. Truly worse: than the first champion, the anchor.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapvqa.gate.budget import Budget, PastLook
from lapvqa.gate.verdict import Evidence, Outcome, Paired, Rule, decide

GATES, ERROR, CORRELATION, DRIFT, SPREAD = 50, 0.010, 0.9, -0.001, 0.003
PATIENTS = 1000
SHARE = 0.05
PAIR_ERROR = ERROR * np.sqrt(2 * (1 - CORRELATION))
RULE = Rule(primary=("auc",), margins={}, slice_margin=0.0, worthwhile=0.005)
RESULT = Path(__file__).parent / "results" / "gate.json"


@dataclass
class History:
    """What one rule did in one history."""

    promotions: int = 0
    worse_than_champion: int = 0
    worse_than_anchor: int = 0
    gain: float = 0.0
    optimism: float = 0.0
    """Of the last champion's reported figure."""


Promotes = Callable[[Paired, Paired, list[PastLook]], tuple[bool, float]]


def point(champion: Paired, _anchor: Paired, _past: list[PastLook]) -> tuple[bool, float]:
    return champion.value > 0, 0.5


def paired(level: float) -> Promotes:
    def promotes(champion: Paired, _: Paired, __: list[PastLook]) -> tuple[bool, float]:
        return champion.p_better() <= level, level

    return promotes


def gate(total: float) -> Promotes:
    budget = Budget(total, SHARE)

    def promotes(champion: Paired, anchor: Paired, past: list[PastLook]) -> tuple[bool, float]:
        level = budget.level(past)
        evidence = Evidence({"auc": champion}, {"auc": anchor})
        return decide(RULE, evidence, level).outcome is Outcome.PROMOTE, level

    return promotes


def run(promotes: Promotes, rng: np.random.Generator, *, patients: str) -> History:
    """Play 50 gates. ``patients``: the same ones | new ones | all that have arrived so far."""
    history, past = History(), []
    truth = {"anchor": 0.0, "champion": 0.0}
    first = rng.normal(0, ERROR, GATES)  # each model's error on the patients of each gate
    errs = {"anchor": first, "champion": first}
    for number in range(GATES):
        used = {"same": [0], "new": [number], "all": range(number + 1)}[patients]
        change = rng.normal(DRIFT, SPREAD)
        candidate = truth["champion"] + change
        # A challenger is made from the champion: it errs on these patients much as that one does.
        errors = _relative(errs["champion"], rng)
        pairs = [
            Paired(
                candidate - truth[side] + float((errors - errs[side])[used].mean()),
                PAIR_ERROR / np.sqrt(len(used)), PATIENTS * len(used),
            )
            for side in ("champion", "anchor")
        ]  # fmt: skip
        promoted, level = promotes(pairs[0], pairs[1], past)
        past.append(PastLook(level, promoted))
        if not promoted:
            continue
        history.promotions += 1
        history.worse_than_champion += change < 0
        history.worse_than_anchor += candidate < truth["anchor"]
        truth["champion"], errs["champion"] = candidate, errors
        # Where patients keep coming, the figure comes from those that come after the promotion.
        history.optimism = float(errors[0]) if patients == "same" else rng.normal(0, ERROR)
    history.gain = truth["champion"] - truth["anchor"]
    return history


def _relative(of: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the errors of a model that correlate with another one's."""
    return CORRELATION * of + np.sqrt(1 - CORRELATION**2) * rng.normal(0, ERROR, len(of))


def power(total: float, rng: np.random.Generator, *, effect: float, patients: int) -> float:
    """Return how often the gate's first look promotes a candidate of a true gain."""
    error = PAIR_ERROR * np.sqrt(PATIENTS / patients)
    promotes = gate(total)
    drawn = rng.normal(effect, error, 2000)
    first = [Paired(float(value), float(error), patients) for value in drawn]
    return float(np.mean([promotes(pair, pair, [])[0] for pair in first]))


def main(histories: int) -> None:
    rules: dict[str, tuple[Promotes, str]] = {
        "point comparison, same patients": (point, "same"),
        "paired 5 %, same patients": (paired(0.05), "same"),
        "Bonferroni 5 % / 50, same patients": (paired(0.05 / GATES), "same"),
        "paired 5 %, new patients": (paired(0.05), "new"),
        "gate, same patients": (gate(0.05), "same"),
        "gate, new patients": (gate(0.05), "new"),
        "gate, all reserved so far": (gate(0.05), "all"),
    }
    rows = {}
    print(f"{histories} histories of {GATES} gates")
    header = ("promotions", "worse", "P(worse than anchor)", "gain", "optimism")
    print(f"{'rule':36}" + "".join(f"{name:>22}" for name in header))
    for name, (promotes, patients) in rules.items():
        rng, started = np.random.default_rng(0), time.perf_counter()
        played = [run(promotes, rng, patients=patients) for _ in range(histories)]
        optimism = [history.optimism for history in played if history.promotions]
        row = {
            "promotions": float(np.mean([history.promotions for history in played])),
            "worse": float(np.mean([history.worse_than_champion for history in played])),
            "p_worse_than_anchor": float(np.mean([h.worse_than_anchor > 0 for h in played])),
            "gain": float(np.mean([history.gain for history in played])),
            "optimism": float(np.mean(optimism)) if optimism else 0.0,
            "seconds": round(time.perf_counter() - started, 2),
        }
        rows[name] = row
        shown = [f"{row[key]:22.4f}" for key in list(row)[:5]]
        print(f"{name:36}" + "".join(shown))
    rng = np.random.default_rng(1)
    powers = {
        f"{effect} at {patients} patients": power(0.05, rng, effect=effect, patients=patients)
        for effect in (0.005, 0.010, 0.020)
        for patients in (500, 1000, 4000)
    }
    for what, value in powers.items():
        print(f"power of the first look, true gain {what}: {value:.2f}")
    RESULT.write_text(
        json.dumps({"histories": histories, "rules": rows, "power": powers}, indent=1)
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
