"""Ask the gate about the exported encoder, and move the alias ``champion`` on its verdict.

Nothing else moves that alias, but `lapvqa rollback`. MLflow cannot compare and set, so it is moved
under a lock of ours, and only if it stands where the verdict found it. Killed anywhere, the next
gate finishes what was decided (``lapvqa.gate.champions``); an alias that a person has moved in
MLflow meanwhile is left where it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.gate import champions, endpoints, judge
from lapvqa.gate.champions import DROPPED, ROLLBACK
from lapvqa.gate.contenders import TRAINED, UNTRAINED, Contender
from lapvqa.gate.judge import Judgement, Question
from lapvqa.lineage import evaluations, ledger
from lapvqa.lineage.ledger import CHAMPION, DECISION, MODEL, Entry
from lapvqa.machine import load_machine
from lapvqa.params import Params, load_params
from lapvqa.project import Project
from lapvqa.uptodate import staleness
from tasks import champion, settling
from tasks.display import Display
from tasks.mlflow_records import registry
from tasks.mlflow_records.connection import Store, answering, connect
from tasks.mlflow_records.registry import Registered

FIGURE = "lapvqa.figure"
"""Tag of a promoted version: of which patients the figures are that one sees of it."""
_HONEST = "of patients who had no part in its promotion; public sets were guards"
_OPTIMISTIC = "optimistic: of the patients it was promoted on"


@dataclass(frozen=True)
class GateResult:
    """What one gate came to.

    ``judgement``: None where nobody was to be judged; ``why``: why there was nothing to judge, also
    where a verdict stands. ``question``: what a dry run would have asked.
    """

    candidate: Registered | None
    champion: Registered | None
    """The one after the gate."""
    moved: bool = False
    judgement: Judgement | None = None
    question: Question | None = None
    why: str = ""


@answering()
def run_gate(
    project: Project, display: Display, *, dry_run: bool = False, again: bool = False
) -> GateResult:
    """Judge the pipeline's encoder against the champion; promote it if the verdict says so.

    ``dry_run``: say what would be asked, without a look, a prediction or a move. ``again``: judge
    weights that a person has gone back from. Raises BusyError while a run or another gate is at
    work, RecordsUnavailableError without MLflow, ConfigError where results are not up to date.
    """
    params = load_params(project.params)
    # What can be refused at once is, and leaves nothing on the disk.
    endpoints.find_all(params.gate)
    _weights(project, params)
    champion.require_registry(project)
    with storage.lock(project.run_lock, what="a run of this project"):
        store = connect(project, load_machine(project))
        moved = not dry_run and finish(project, store)
        entries = ledger.entries(project)
        candidate = _candidate(project, store, params, dry_run=dry_run)
        stands = champion.find(project, store, entries)
        why = _nothing_to_judge(candidate, stands, entries, again=again)
        if why:
            return GateResult(candidate, stands, moved, why=why)
        _require_current(project, params)
        make = _Contest(project, store, params, display, dry_run)
        first = champions.anchor(entries)
        contest = (
            make.own(candidate.sha256, untrained=False),
            make.registered(stands.sha256) if stands else make.own("", untrained=True),
            make.registered(first) if stands and first not in (None, stands.sha256) else None,
        )
        if dry_run:
            question = judge.ask(project, *contest, params)
            if question.answered is None:
                return GateResult(candidate, stands, question=question)
            judgement, moved = judge.recorded(project, question.answered), False
        else:
            judgement = judge.judge(project, *contest, params)
            moved = finish(project, store)
            stands = champion.find(project, store)
        return GateResult(
            candidate, stands, moved, judgement, why=_given_before(candidate, judgement)
        )


@answering()
def rollback(project: Project) -> tuple[Registered, Registered]:
    """Make the champion's predecessor the champion again; return (before, now).

    No later gate promotes the weights that were left, unless asked to. Raises ConfigError where
    there is nothing to go back to.
    """
    entries = ledger.entries(project)
    if champions.last_move(entries) is None and champions.pending(entries) is None:
        raise _nowhere("no champion")
    champion.require_registry(project)
    store = connect(project, load_machine(project))
    finish(project, store)
    entries = ledger.entries(project)
    now = champion.find(project, store, entries)
    before = champions.predecessor(entries, now.sha256) if now else None
    if now is None or before is None:
        raise _nowhere(f"version {now.version}, the first" if now else "no champion")
    to = registry.find(store, project, before)
    if to is None:
        raise champion.not_registered(
            f"the champion before version {now.version} was {before[:12]}"
        )
    if to.sha256 in champions.contaminated(entries):
        raise ConfigError(
            f"version {to.version} was trained on a patient who is erased now: it is no champion",
            hint="`lapvqa retrain` trains another one; `lapvqa gate` judges it",
        )
    decision = {
        "what": ROLLBACK, "decision": f"roll back to version {to.version}",
        "champion": now.sha256, "candidate": to.sha256,
    }  # fmt: skip
    ledger.append(project, DECISION, decision)
    finish(project, store)
    return now, to


@answering()
def judge_champion(project: Project, task: str, display: Display) -> str:
    """Judge the champion by one evaluation on the data of today; return its name there.

    Before there is one, what was exported last. Raises what ``run_gate`` does.
    """
    with storage.lock(project.run_lock, what="a run of this project"):
        store = connect(project, load_machine(project))
        finish(project, store)
        model = champion.find(project, store) or _candidate(
            project, store, load_params(project.params), dry_run=False
        )
        return _judged(project, store, model.sha256, [task], display)


def finish(project: Project, store: Store) -> bool:
    """Do what was decided and is not done yet; return whether the alias moved.

    Every step may be repeated: a kill between any two of them loses nothing.
    """
    with _alias_lock(project):
        entries = ledger.entries(project)
        move = champions.pending(entries)
        if move is None:
            return False
        stands = registry.aliased(store, project, CHAMPION)
        to = registry.find(store, project, move.to)
        at = stands.sha256 if stands else ""
        elsewhere = bool(move.before) and at not in (move.before, move.to)
        if to is None or elsewhere:
            why = "its version is gone" if to is None else "somebody moved the alias meanwhile"
            said = {"what": DROPPED, "of": move.decision, "decision": f"no move: {why}"}
            ledger.append(project, DECISION, said)
            return False
        registry.set_alias(store, project, CHAMPION, to)
        if move.promotion:
            figure = _OPTIMISTIC if move.optimistic else _HONEST
            registry.tag(store, project, to, {FIGURE: figure})
        model = {
            "name": registry.model_name(store, project), "aliases": [CHAMPION], **to._asdict(),
            "decision": move.decision, "predecessor": move.before or None,
        }  # fmt: skip
        ledger.append(project, MODEL, model)
        return True


def _nowhere(found: str) -> ConfigError:
    return ConfigError(
        f"expected a champion that was promoted over another one, found {found}",
        hint="`lapvqa lineage log` tells what was promoted",
    )


def _candidate(project: Project, store: Store, params: Params, *, dry_run: bool) -> Registered:
    """Return the exported encoder's version, registered if it is not; MissingArtifactError."""
    weights = _weights(project, params)
    if not dry_run:
        settling.register(project, store)
    digest = storage.sha256_file(weights)
    return registry.find(store, project, digest) or Registered("not registered yet", digest)


def _weights(project: Project, params: Params) -> Path:
    """Return the exported encoder's file; MissingArtifactError before export."""
    folder = project.model_dir(params.pretrain.objective)
    return storage.require(folder / registry.WEIGHTS, made_by="export")


def _nothing_to_judge(
    candidate: Registered, champion: Registered | None, entries: list[Entry], *, again: bool
) -> str:
    if champion is not None and champion.sha256 == candidate.sha256:
        return f"version {champion.version} is the champion, and nothing newer was exported"
    if not again and champions.rolled_back(entries, candidate.sha256):
        return (
            f"somebody went back from version {candidate.version}; "
            "`lapvqa gate --again` judges it once more"
        )
    return ""


def _given_before(candidate: Registered, judgement: Judgement) -> str:
    if not judgement.given:
        return ""
    return (
        f"version {candidate.version} was judged on these patients on {judgement.given}; the "
        "verdict stands, at no cost, until new patients come, or champion, predictions or rule are "
        "others"
    )


@dataclass(frozen=True)
class _Contest:
    """Makes the contenders, and the predictions that they lack."""

    project: Project
    store: Store
    params: Params
    display: Display
    dry_run: bool

    def own(self, sha256: str, *, untrained: bool) -> Contender:
        """Return the pipeline's encoder or its untrained twin, judged by the stages."""
        from lapvqa.evaluation.evaluate import load_encoders
        from lapvqa.evaluation.features import encoder_digest

        system = UNTRAINED if untrained else TRAINED
        folder = self.project.model_dir(self.params.pretrain.objective)
        digest = encoder_digest(load_encoders(folder)[system])
        return Contender(sha256, digest, self.project.root / "results", system)

    def registered(self, sha256: str) -> Contender:
        """Return an earlier model, judged by `lapvqa evaluate --encoder` wherever it is not yet."""
        from lapvqa.evaluation import external_encoders

        name = _name_of(sha256)
        if not self.dry_run:
            tasks = endpoints.tasks(endpoints.find_all(self.params.gate).values())
            _judged(self.project, self.store, sha256, tasks, self.display)
        known = external_encoders.read_encoders(self.project).get(name, {})
        results = self.project.evaluations_dir(name)
        return Contender(sha256, str(known.get("digest", "")), results, name)


def _name_of(sha256: str) -> str:
    """Return what a registered model is called among the encoders that were judged."""
    return f"model-{sha256[:12]}"


def _judged(
    project: Project, store: Store, sha256: str, tasks: Iterable[str], display: Display
) -> str:
    """Judge registered weights by the tasks whose judgement of them is not current; their name."""
    from lapvqa.evaluation import external_encoders
    from tasks.judging import judge_encoder

    name, kept = _name_of(sha256), project.champion(sha256)
    path = registry.fetch(store, project, sha256, kept)
    external_encoders.claim(name, path, project)
    digest = str(external_encoders.read_encoders(project)[name]["digest"])
    for task in tasks:
        if not evaluations.is_current(project, name=name, task=task, encoder=digest):
            judge_encoder(name, path, task, project, display)
    return name


def _require_current(project: Project, params: Params) -> None:
    """Raise ConfigError if results of the pipeline's own model are known to be out of date."""
    tasks = endpoints.tasks(endpoints.find_all(params.gate).values())
    wanted = {"export", *(f"evaluate@{task}" for task in tasks)}
    stale = [
        state.name for state in staleness.check(project)
        if state.name in wanted and state.stale and state.known
    ]  # fmt: skip
    if stale:
        raise ConfigError(
            f"expected results of the present weights and data, found {', '.join(stale)} "
            "out of date",
            hint="`lapvqa run` first, then `lapvqa gate`",
        )


def _alias_lock(project: Project) -> AbstractContextManager[None]:
    return storage.lock(project.state / "champion.lock", what="a move of the champion")
