"""The models that are compared, and their predictions: whether these may be used at all.

Looked at is whose they are, on whom, and what the firewall says of them; no score is read here, so
that a refusal spends nothing of a test set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap

from lapvqa import storage
from lapvqa.evaluation.compare import truth_of
from lapvqa.evaluation.contamination import OTHER
from lapvqa.evaluation.contract import contamination_of, protocol_of, reason_of
from lapvqa.evaluation.results import PREDICTIONS, state_of
from lapvqa.evaluation.sealed import SEALED
from lapvqa.evaluation.task import EvaluationTask
from lapvqa.gate.endpoints import Endpoint
from lapvqa.lineage import ledger
from lapvqa.lineage.ancestry import Ancestry
from lapvqa.lineage.ledger import TRAINED_ON
from lapvqa.lineage.row_numbers import PATIENT, RowNumbers, unpacked
from lapvqa.metrics import replicates
from lapvqa.project import Project

Role = Literal["candidate", "champion", "anchor"]
TRAINED, UNTRAINED = "trained", "untrained"


@dataclass(frozen=True)
class Contender:
    """A model in the contest.

    ``sha256``: of its encoder.safetensors, empty for the untrained encoder. ``digest``: of its
    weights as predictions name them. ``system``: what its predictions in ``results``, a folder per
    evaluation, call it.
    """

    sha256: str
    digest: str
    results: Path
    system: str

    @property
    def title(self) -> str:
        """What people call it."""
        return self.sha256[:12] or "untrained encoder"

    def file(self, task: EvaluationTask, *, sealed: bool) -> Path:
        """Return the file with its predictions; only the archive's own patients are sealed."""
        name = SEALED if sealed and task.tests_archive else PREDICTIONS
        return self.results / task.name / name

    def rows(self, endpoint: Endpoint, table: pa.Table) -> pa.Table:
        """Return its rows of a table of predictions, those of all its heads."""
        return table.filter(pc.is_in(table["system"], pa.array(self.heads(endpoint, table))))

    def heads(self, endpoint: Endpoint, table: pa.Table) -> list[str]:
        """Return the names of its heads in a table of predictions; none if it is not in it."""
        found = replicates.heads_by_system(pc.unique(table["system"]).to_pylist())
        return found.get(self.system_of(endpoint), [])

    def system_of(self, endpoint: Endpoint) -> str:
        """Return the system of the endpoint's predictions that is this model."""
        return endpoint.systems.get(self.system, self.system)


@dataclass(frozen=True)
class Prepared:
    """All contenders with their predictions, as far as these may be used.

    ``tables``: (role, evaluation) -> predictions. ``absent``: endpoint -> why it cannot be judged
    here. ``inputs``: file -> sha256.
    """

    contenders: Mapping[Role, Contender]
    tables: Mapping[tuple[Role, str], pa.Table]
    absent: Mapping[str, str]
    faults: tuple[str, ...]
    inputs: Mapping[str, str]

    def patients(self, endpoints: Iterable[Endpoint]) -> frozenset[str]:
        """Return the patients of whom the candidate's endpoints have predictions."""
        tables = [self.tables.get(("candidate", endpoint.task.name)) for endpoint in endpoints]
        return frozenset(
            patient for table in tables if table is not None
            for patient in pc.unique(table["patient"]).to_pylist()
        )  # fmt: skip


def gather(
    project: Project,
    contenders: Mapping[Role, Contender],
    endpoints: Mapping[str, Endpoint],
    primary: Iterable[str],
    *,
    sealed: bool,
) -> Prepared:
    """Read the predictions of all contenders and say what is wrong with them."""
    found: dict[tuple[Role, str], pa.Table] = {}
    absent: dict[str, str] = {}
    faults: list[str] = []
    inputs: dict[str, str] = {}
    primary, trainings = set(primary), _Trainings(project)
    for name, endpoint in endpoints.items():
        tables = {}
        for role, contender in contenders.items():
            path = contender.file(endpoint.task, sealed=sealed)
            if not path.exists():
                faults.append(f"{name}: no predictions of the {role}")
                continue
            inputs[path.relative_to(project.root).as_posix()] = storage.sha256_file(path)
            made_by = f"evaluate@{endpoint.task.name}"
            tables[role] = storage.read_table(path, endpoint.task.schema, made_by=made_by)
        reasons = {role: reason_of(table) for role, table in tables.items()}
        if len(tables) == len(contenders) and all(reasons.values()) and name not in primary:
            absent[name] = next(iter(reasons.values()))
            continue
        faults += [f"{name}: {role} not computed: {why}" for role, why in reasons.items() if why]
        tables = {role: table for role, table in tables.items() if not reasons[role]}
        for role, table in tables.items():
            found[role, endpoint.task.name] = table
            whose = f"{name}, {role}"
            faults += _foreign(contenders[role], endpoint, table, whose)
            faults += _contaminated(trainings, role, contenders[role], endpoint.task, table, whose)
        faults += _unequal(contenders, endpoint, tables)
    return Prepared(contenders, found, absent, tuple(dict.fromkeys(faults)), inputs)


def _foreign(
    contender: Contender, endpoint: Endpoint, table: pa.Table, whose: str
) -> Iterator[str]:
    made = protocol_of(table).get(f"encoder_sha256_{contender.system}")
    if made != contender.digest:
        yield f"{whose}: foreign predictions, of other weights"
    elif table.num_rows and not contender.heads(endpoint, table):
        yield f"{whose}: no rows of {contender.system_of(endpoint)}"


def _unequal(
    contenders: Mapping[Role, Contender], endpoint: Endpoint, tables: Mapping[Role, pa.Table]
) -> Iterator[str]:
    truths = {
        role: truth_of(replicates.rows_of(table, contenders[role].system_of(endpoint)))
        for role, table in tables.items()
    }
    first = next(iter(truths.values()), None)
    for role, truth in truths.items():
        if not truth.equals(first):
            yield f"{endpoint.name}: the {role} was tested on other patients, or other truth"


def _contaminated(
    trainings: _Trainings, role: Role, contender: Contender, task: EvaluationTask,
    table: pa.Table, whose: str,
) -> Iterator[str]:  # fmt: skip
    """Yield what the firewall says against these predictions.

    A champion was trained before what came since, so "trained on other images than are left now" is
    said of every champion. As a candidate it passed; what is asked is whether any of the patients
    of today is among those it was trained on.
    """
    stamp = contamination_of(table)
    if stamp is None:
        yield f"{whose}: nobody has looked for test images in its training"
        return
    codes = set(stamp.counts) if stamp else set()
    if role != "candidate" and contender.sha256 and OTHER in codes:
        codes.discard(OTHER)
        own = table["patient"].to_pylist() if task.tests_archive else []
        known = trainings.saw(contender.sha256, own)
        if known is None:
            yield f"{whose}: the ledger does not say whom it was trained on"
        elif known:
            yield f"{whose}: contaminated, trained on {known} of its test patients"
    if codes:
        yield f"{whose}: {state_of(codes)} ({', '.join(sorted(codes))})"


@dataclass
class _Trainings:
    """Whom the trainings of models saw; the ledger is walked once, and only if it is asked."""

    project: Project
    seen: dict[str, BitMap | None] = field(default_factory=dict)

    @cached_property
    def ancestry(self) -> Ancestry:
        """The runs of the ledger."""
        return Ancestry(ledger.entries(self.project))

    def saw(self, sha256: str, patients: Iterable[str]) -> int | None:
        """Return how many of ``patients`` the training of these weights saw; None: nobody knows."""
        if sha256 not in self.seen:
            self.seen[sha256] = self._find(sha256)
        seen = self.seen[sha256]
        if seen is None or not self.project.row_numbers.exists():  # a clone: whose rows?
            return None
        return len(RowNumbers(self.project, PATIENT).find_all(set(patients)) & seen)

    def _find(self, sha256: str) -> BitMap | None:
        runs = self.ancestry.runs.values()
        made = next((told for told in runs if _wrote(told.run.files.values(), sha256)), None)
        before = {told.id for told in self.ancestry.upstream(made)} if made else set()
        bitmaps = [
            unpacked(role["patients"])
            for entry in self.ancestry.entries
            if entry.kind == TRAINED_ON and entry.payload and entry.payload["run"] in before
            for role in entry.payload["roles"].values()
        ]
        return bitmaps[0].union(*bitmaps) if bitmaps else None


def _wrote(files: Iterable[Mapping[str, object]], sha256: str) -> bool:
    return any(facts.get("sha256") == sha256 for facts in files)
