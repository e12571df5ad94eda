"""A difference's error: that of independent implementations, by patient."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lapvqa.evaluation.compare import Drawn
from lapvqa.gate.endpoints import Endpoint
from lapvqa.gate.evidence import paired
from lapvqa.metrics.paired import delong_test
from lapvqa.params import BootstrapParams
from lapvqa.probe.on_chexpert import TASK
from lapvqa.schemas import PROBE_PREDICTIONS

COMMON = BootstrapParams(bootstrap_draws=400)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Drawn]:
    """Two readers of 150 patients with two films each."""
    generator = np.random.default_rng(0)
    ill = generator.integers(0, 2, 150)
    common = generator.normal(size=150)
    found = {}
    for system, signal in (("a", 1.2), ("b", 0.7)):
        noise = generator.normal(size=(150, 2))
        rows = [
            {"sample": f"s{p}-{film}", "patient": f"p{p}", "system": system, "label": "Edema",
             "target": int(ill[p]),
             "score": float(1 / (1 + np.exp(-signal * ill[p] - common[p] - noise[p, film] / 2)))}
            for p in range(150) for film in range(2)
        ]  # fmt: skip
        table = pa.Table.from_pylist(rows, schema=PROBE_PREDICTIONS)
        found[system] = Drawn.of(table, system, TASK, COMMON)
    return found


def test_an_auc_has_the_larger_of_two_errors(drawn: dict[str, Drawn]) -> None:
    pair = paired(drawn["a"], drawn["b"], Endpoint("x", TASK, "auc/Edema"))
    assert pair is not None
    one, other = (drawn[name].rows.sort_by("sample") for name in "ab")
    delong = delong_test(
        one["target"].to_numpy(), np.asarray(one["score"]), np.asarray(other["score"]),
        one["patient"].to_pylist(), confidence=0.95,
    )  # fmt: skip
    assert delong is not None
    assert pair.value == pytest.approx(delong.difference)
    assert pair.patients == 150
    bootstrap = paired(drawn["a"], drawn["b"], Endpoint("x", TASK, "mean_auc"))  # one class: equal
    assert bootstrap is not None
    assert bootstrap.value == pytest.approx(pair.value)
    assert pair.error == max(bootstrap.error, delong.standard_error)
    assert bootstrap.error == pytest.approx(delong.standard_error, rel=0.15)


def test_what_is_not_defined_is_no_evidence(drawn: dict[str, Drawn]) -> None:
    for metric in ("auc/Fracture", "mean_fame"):
        assert paired(drawn["a"], drawn["b"], Endpoint("x", TASK, metric)) is None


@pytest.mark.parametrize("patients", [2, 5])
def test_few_patients_are_no_evidence(drawn: dict[str, Drawn], patients: int) -> None:
    """They have no draws; an error that is NaN would be within every margin and below every p."""
    rows = drawn["a"].rows
    targets = dict(zip(rows["patient"].to_pylist(), rows["target"].to_pylist(), strict=True))
    kinds = [[key for key, target in targets.items() if target == kind] for kind in (0, 1)]
    chosen = pa.array([kinds[place % 2][place] for place in range(patients)])
    few = [
        Drawn.of(one.rows.filter(pc.is_in(one.rows["patient"], chosen)), system, TASK, COMMON)
        for system, one in drawn.items()
    ]
    assert np.isfinite(few[0].values[0]).any()
    assert paired(*few, Endpoint("x", TASK, "mean_auc")) is None
    assert paired(*few, Endpoint("x", TASK, "auc/Edema")) is None
