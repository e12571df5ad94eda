"""The evidence: each endpoint's difference between two models on the same patients, with its error.

By the comparison of encoders: the same draws of patients for both. Of one class's AUC DeLong's
error, by patient, stands beside the bootstrap's, and the larger one is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.evaluation.compare import Drawn
from lapvqa.evaluation.task import EvaluationTask
from lapvqa.gate import slices
from lapvqa.gate.contenders import Prepared, Role
from lapvqa.gate.endpoints import Endpoint
from lapvqa.gate.verdict import Evidence, Paired
from lapvqa.metrics.bootstrap import MAX_UNDEFINED_SHARE, Array
from lapvqa.metrics.paired import delong_test
from lapvqa.params import EvaluateParams, GateParams
from lapvqa.project import Project
from lapvqa.schemas import PROBE_PREDICTIONS

_AUC = "auc/"
_Choose = Callable[[pa.Table], pa.Table]


@dataclass
class Reader:
    """Draws of each contender's predictions, made once.

    ``gaps`` may be asked before a look is paid for; the differences are the look.
    """

    project: Project
    prepared: Prepared
    params: EvaluateParams
    drawn: dict[tuple[Role, str], Drawn] = field(default_factory=dict)

    def gaps(self, endpoint: Endpoint) -> Iterator[str]:
        """Yield whose predictions have no value of the metric, and why; no value is told."""
        for role in self.prepared.contenders:
            drawn = self._read(role, endpoint)
            if endpoint.metric not in drawn.measures.names:
                yield f"{endpoint.name}: there is no such metric of the {role}'s predictions"
            elif not _is_defined(_column(drawn, endpoint)):
                why = drawn.measures.undefined.get(endpoint.metric)
                yield f"{endpoint.name}: {why or 'not defined on so few patients'} ({role})"

    def paired(self, endpoint: Endpoint, other: Role) -> Paired | None:
        """Return candidate minus ``other``."""
        return paired(self._read("candidate", endpoint), self._read(other, endpoint), endpoint)

    def paired_within(self, endpoint: Endpoint, samples: set[str]) -> Paired | None:
        """Return candidate minus champion among some samples."""
        own = pa.array(sorted(samples), pa.string())
        first, second = (
            self._draw(role, endpoint, lambda rows: rows.filter(pc.is_in(rows["sample"], own)))
            for role in ("candidate", "champion")
        )
        return paired(first, second, endpoint)

    def rows(self, endpoint: Endpoint) -> pa.Table:
        """Return the candidate's rows."""
        table = self.prepared.tables["candidate", endpoint.task.name]
        return self.prepared.contenders["candidate"].rows(endpoint, table)

    def _read(self, role: Role, endpoint: Endpoint) -> Drawn:
        key = (role, endpoint.task.name)
        if key not in self.drawn:
            self.drawn[key] = self._draw(role, endpoint, lambda rows: rows)
        return self.drawn[key]

    def _draw(self, role: Role, endpoint: Endpoint, choose: _Choose) -> Drawn:
        contender = self.prepared.contenders[role]
        table = self.prepared.tables[role, endpoint.task.name]
        section = getattr(self.params, endpoint.task.name)
        task: EvaluationTask = endpoint.task.configured(section, self.project.root)
        rows = choose(contender.rows(endpoint, table))
        return Drawn.of(rows, contender.system_of(endpoint), task, self.params.common)


def weigh(
    reader: Reader, endpoints: Mapping[str, Endpoint], params: GateParams
) -> tuple[Evidence, tuple[str, ...]]:
    """Compare the scores; return the evidence, and what was left out of it, in words.

    This is the look: whoever calls it has paid for it.
    """
    prepared = reader.prepared
    judged = {name: one for name, one in endpoints.items() if name not in prepared.absent}
    sides: dict[Role, dict[str, Paired]] = {"champion": {}, "anchor": {}}
    for side, found in sides.items():
        if side in prepared.contenders:
            pairs = {name: reader.paired(one, side) for name, one in judged.items()}
            found |= {name: pair for name, pair in pairs.items() if pair is not None}
    parts, left_out = _slices(reader, endpoints, params)
    evidence = Evidence(sides["champion"], sides["anchor"], parts, dict(prepared.absent))
    return evidence, left_out


def paired(first: Drawn, second: Drawn, endpoint: Endpoint) -> Paired | None:
    """Return first minus second in the endpoint's metric; None where it is not defined.

    Its error is the standard deviation over the draws, of which few patients have none.
    """
    if endpoint.metric not in first.measures.names:
        return None
    values = np.subtract(*(_column(drawn, endpoint) for drawn in (first, second)))
    if not _is_defined(values):
        return None
    drawn = values[1:][np.isfinite(values[1:])]
    error = float(np.std(drawn, ddof=1))
    error = max(error, _delong_error(first.rows, second.rows, endpoint.metric))
    return Paired(float(values[0]), error, len(set(first.measures.patients)))


def _column(drawn: Drawn, endpoint: Endpoint) -> Array:
    """Return the metric on the observed patients, then on each draw."""
    values: Array = drawn.values.reshape(len(drawn.values), -1)
    return values[:, drawn.measures.names.index(endpoint.metric)]


def _is_defined(values: Array) -> bool:
    """Tell whether there is a value, and few draws without one."""
    drawn = np.isfinite(values[1:])
    fewest = max(2, (1 - MAX_UNDEFINED_SHARE) * len(drawn))
    return bool(np.isfinite(values[0]) and drawn.sum() >= fewest)


def _delong_error(first: pa.Table, second: pa.Table, metric: str) -> float:
    """Return DeLong's standard error of the difference of one class's AUC; else 0."""
    if not metric.startswith(_AUC) or first.schema.names != PROBE_PREDICTIONS.names:
        return 0.0
    label = metric.removeprefix(_AUC)
    known = (pc.field("label") == label) & pc.field("target").is_valid()
    one, other = (table.filter(known).sort_by("sample") for table in (first, second))
    test = delong_test(
        one["target"].to_numpy(), np.asarray(one["score"]), np.asarray(other["score"]),
        one["patient"].to_pylist(), confidence=0.95,
    )  # fmt: skip
    return 0.0 if test is None else test.standard_error


def _slices(
    reader: Reader, endpoints: Mapping[str, Endpoint], params: GateParams
) -> tuple[dict[str, dict[str, Paired]], tuple[str, ...]]:
    """Return slice -> primary endpoint -> pair; and the slices that are unknown or too small."""
    parts: dict[str, dict[str, Paired]] = {}
    left_out: dict[str, None] = {}
    for name in params.primary:
        endpoint = endpoints[name]
        rows = reader.rows(endpoint)
        patient_of = dict(zip(rows["sample"].to_pylist(), rows["patient"].to_pylist(), strict=True))
        for kind, values in slices.divide(reader.project, rows, params.slices).items():
            if not values:
                left_out[f"{kind}: no table tells it"] = None
            for part, samples in sorted(values.items()):
                if len({patient_of[sample] for sample in samples}) < params.slice_patients:
                    left_out[f"{part}: fewer than {params.slice_patients} patients"] = None
                    continue
                pair = reader.paired_within(endpoint, samples)
                if pair is None:
                    left_out[f"{part}: {name} is not defined there"] = None
                else:
                    parts.setdefault(part, {})[name] = pair
    return parts, tuple(left_out)
