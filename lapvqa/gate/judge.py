"""One gate, from the predictions to a signed verdict in the ledger.

Order: what can be refused without comparing scores is refused, and costs nothing; then the look is
paid for (``looks``); then the scores are compared (``evidence``) and the rule is applied
(``verdict``). Killed in between, the look stays paid, and nothing is promoted. Nothing here moves
an alias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lapvqa import storage
from lapvqa.evaluation import sealed
from lapvqa.gate import champions, looks
from lapvqa.gate import endpoints as found
from lapvqa.gate.budget import Budget
from lapvqa.gate.contenders import UNTRAINED, Contender, Prepared, Role, gather
from lapvqa.gate.endpoints import Endpoint
from lapvqa.gate.evidence import Reader, weigh
from lapvqa.gate.verdict import SPENT, Outcome, Verdict, decide
from lapvqa.lineage import ledger, runs, signing
from lapvqa.lineage.ledger import DECISION, Entry
from lapvqa.params import GateParams, Params
from lapvqa.project import Project


@dataclass(frozen=True)
class Judgement:
    """A verdict, and where it stands."""

    verdict: Verdict
    manifest: str
    optimistic: bool
    """Figures shown of a promoted model are of the patients it was promoted on."""
    left_out: tuple[str, ...] = ()
    decision: str = ""
    """Id of the ledger's entry; empty of a dry run."""
    file: Path | None = None
    given: str = ""
    """The day of the verdict, where the same was asked before and it stands."""


@dataclass(frozen=True)
class Question:
    """What a gate would ask, and what speaks against asking."""

    manifest: str
    prepared: Prepared
    reader: Reader
    endpoints: Mapping[str, Endpoint]
    patients: frozenset[str]
    account: looks.Account
    budget: Budget
    faults: tuple[str, ...]
    contaminated: bool = False
    """The champion's training saw a patient who is erased now."""
    answered: Entry | None = None
    """The verdict of a look that asked the same."""

    @property
    def hindrances(self) -> tuple[str, ...]:
        """Why no look would be taken."""
        return self.faults if self.level > 0 else (*self.faults, SPENT)

    @property
    def level(self) -> float:
        """The level that a look would be granted now; 0 when the budget is spent."""
        return self.budget.level(self.account.looks)


def ask(
    project: Project,
    candidate: Contender,
    champion: Contender,
    anchor: Contender | None,
    params: Params,
) -> Question:
    """Look at all that may be known before a look is paid for; raises ConfigError of the rule."""
    gate, rule = params.gate, sealed.read_rule(project)
    endpoints = found.find_all(gate)
    contenders: dict[Role, Contender] = {"candidate": candidate, "champion": champion}
    if anchor is not None and anchor.sha256 != champion.sha256:
        contenders["anchor"] = anchor
    primary = [endpoints[name] for name in gate.primary]
    is_first = champion.system == UNTRAINED
    prepared = gather(project, contenders, endpoints, gate.primary, sealed=True)
    patients = prepared.patients(primary)
    manifest = looks.manifest_of(rule)
    faults: list[str] = []
    if len(patients) < gate.patients and is_first:
        manifest = looks.SHOWN
        prepared = gather(project, contenders, endpoints, gate.primary, sealed=False)
        patients = prepared.patients(primary)
    if not rule.share and not is_first:
        faults.append("no test patients are sealed: `lapvqa gate --seal` keeps those who arrive")
    elif len(patients) < gate.patients:
        which = "sealed" if manifest != looks.SHOWN else "test"
        faults.append(
            f"{len(patients)} {which} patients have predictions, {gate.patients} are asked"
        )
    entries = ledger.entries(project)
    erased = champions.contaminated(entries)
    if candidate.sha256 in erased:
        faults.append("the candidate's training saw a patient who is erased now")
    faults = [*prepared.faults, *faults]
    reader = Reader(project, prepared, params.evaluate)
    if not faults:
        faults = [
            gap for name, one in endpoints.items() if name not in prepared.absent
            for gap in reader.gaps(one)
        ]  # fmt: skip
    asked = {
        **_asked(candidate, champion, anchor, gate), "manifest": manifest,
        "inputs": dict(prepared.inputs), "champion_contaminated": champion.sha256 in erased,
    }  # fmt: skip
    account = looks.account(entries, manifest)
    budget = Budget(gate.budget.total, gate.budget.share)
    return Question(
        manifest,
        prepared,
        reader,
        endpoints,
        patients,
        account,
        budget,
        tuple(faults),
        champion.sha256 in erased,
        None if faults else looks.verdict_on(entries, asked),
    )


def judge(
    project: Project,
    candidate: Contender,
    champion: Contender,
    anchor: Contender | None,
    params: Params,
) -> Judgement:
    """Decide, write the verdict into the ledger and sign it; the caller holds the run lock.

    ``champion``: of a first gate the untrained encoder; ``anchor``: the first champion, if any.
    What was asked before in all is not asked again: its verdict stands, and costs nothing.
    """
    question = ask(project, candidate, champion, anchor, params)
    if question.answered is not None:
        return _renewed(project, candidate, question.answered)
    gate = params.gate
    rule = found.make_rule(gate)
    look: str | None = None
    left_out: tuple[str, ...] = ()
    if question.hindrances:
        verdict = Verdict(Outcome.INCONCLUSIVE, question.level, question.hindrances)
    else:
        facts = {"candidate": candidate.sha256, "champion": champion.sha256}
        look, level = looks.take(
            project, question.manifest, question.patients, question.budget, facts
        )
        evidence, left_out = weigh(question.reader, question.endpoints, gate)
        evidence = replace(evidence, contaminated=question.contaminated)
        if champion.system == UNTRAINED:
            evidence = replace(evidence, opponent=champion.title)
        verdict = decide(rule, evidence, level)
    judgement = Judgement(
        verdict, question.manifest, optimistic=question.manifest == looks.SHOWN, left_out=left_out
    )
    said = _said(project, question, judgement, candidate, champion, anchor, look, params)
    decision = ledger.append(project, DECISION, said)
    file = _sign(project, candidate, {**said, "decision_id": decision}, decision)
    return replace(judgement, decision=decision, file=file)


def recorded(project: Project, entry: Entry) -> Judgement:
    """Return a judgement as the ledger has it."""
    said = entry.payload or {}
    verdict = Verdict(
        Outcome(said["verdict"]), said["level"], tuple(said["reasons"]), said["needed_patients"]
    )
    file = next(project.verdicts.glob(f"*-{entry.id[:12]}.dsse.json"), None)
    return Judgement(
        verdict, said["manifest"], said["optimistic"], tuple(said["not_judged"]), entry.id, file,
        f"{datetime.fromtimestamp(entry.time, UTC):%Y-%m-%d}",
    )  # fmt: skip


def _renewed(project: Project, candidate: Contender, entry: Entry) -> Judgement:
    """Return a verdict that stands; one that promotes is decided anew, so that the alias moves.

    That is the case where somebody went back from the candidate and asks again. A gate that was
    killed before it signed is finished here.
    """
    judgement, said = recorded(project, entry), entry.payload or {}
    if judgement.verdict.outcome is Outcome.PROMOTE:
        decision = ledger.append(project, DECISION, said)
    elif judgement.file is not None:
        return judgement
    else:
        decision = entry.id
    file = _sign(project, candidate, {**said, "decision_id": decision}, decision)
    return replace(judgement, decision=decision, file=file)


def _asked(
    candidate: Contender, champion: Contender, anchor: Contender | None, rule: GateParams
) -> dict[str, Any]:
    """Return who was compared by which rule: facts of a DECISION."""
    return {
        "candidate": candidate.sha256,
        "champion": champion.sha256,
        "anchor": anchor.sha256 if anchor else None,
        "rule_sha256": runs.digest(rule.model_dump()),
    }


def _said(
    project: Project, question: Question, judgement: Judgement, candidate: Contender,
    champion: Contender, anchor: Contender | None, look: str | None, params: Params,
) -> dict[str, Any]:  # fmt: skip
    """Return the entry of the decision: its inputs and reasons, no number of the test set."""
    verdict, entries = judgement.verdict, ledger.entries(project)
    shown = [
        name for name, one in question.endpoints.items()
        if not one.task.tests_archive and name not in question.prepared.absent
    ]  # fmt: skip
    return {
        "what": looks.GATE,
        "verdict": str(verdict.outcome),
        "decision": f"{verdict.outcome}: {'; '.join(verdict.reasons)}",
        "reasons": list(verdict.reasons),
        "needed_patients": verdict.needed_patients,
        "level": verdict.level,
        "manifest": question.manifest,
        "patients": len(question.patients),
        "look": look,
        **_asked(candidate, champion, anchor, params.gate),
        "runs": _makers(entries, candidate.sha256),
        "rule": params.gate.model_dump(),
        "inputs": dict(question.prepared.inputs),
        "not_judged": [
            *(f"{name}: {why}" for name, why in question.prepared.absent.items()),
            *judgement.left_out,
        ],
        "guards_on_shown_sets": shown,
        "optimistic": judgement.optimistic,
        "champion_contaminated": question.contaminated,
    }


def _makers(entries: list[Entry], sha256: str) -> list[str]:
    """Return the runs that wrote these weights."""
    told = ((entry.id, runs.of_entry(entry)) for entry in entries)
    return [
        id for id, run in told
        if run and any(facts.get("sha256") == sha256 for facts in run.files.values())
    ]  # fmt: skip


def _sign(project: Project, candidate: Contender, said: dict[str, Any], decision: str) -> Path:
    statement = signing.statement({"encoder.safetensors": candidate.sha256}, signing.VERDICT, said)
    today = datetime.now(UTC).date().isoformat()
    file = project.verdicts / f"{today}-{decision[:12]}.dsse.json"
    storage.write_bytes(file, signing.sign(project, statement))
    return file
