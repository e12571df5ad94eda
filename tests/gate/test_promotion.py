"""The alias moves on a verdict, once, whatever is killed or runs beside it; and back again."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import migrated_stores
import pytest
import safetensors.torch
from contest import GATE, Contest
from mlflow.exceptions import MlflowException
from requests import ConnectionError
from rich.console import Console
from ruamel.yaml import YAML

from flows.commands import gate as command
from flows.commands.status import _show_champion
from lapvqa import storage
from lapvqa.errors import BusyError, ConfigError, MissingArtifactError
from lapvqa.evaluation import external_encoders
from lapvqa.evaluation.evaluate import load_encoders
from lapvqa.evaluation.features import encoder_digest
from lapvqa.gate import judge, looks
from lapvqa.gate.verdict import CONTAMINATED, SPENT, Outcome
from lapvqa.lineage import evaluations, ledger
from lapvqa.lineage.ledger import CHAMPION, DECISION, LOOK, MODEL
from lapvqa.lineage.origins import EVALUATION
from lapvqa.lineage.recording import Commit
from lapvqa.lineage.runs import Run
from lapvqa.machine import Machine
from lapvqa.networks.weights import serialise
from lapvqa.params import ModelParams, load_params
from lapvqa.pretrain.model import initial_model
from lapvqa.project import Project
from tasks import promotion, settling
from tasks.display import Display
from tasks.mlflow_records import registry
from tasks.mlflow_records.connection import Store, connect

SIZES = ModelParams(
    image_size=32, patch_size=16, width=8, depth=1, heads=1, pooled_grid=2,
    decoder_width=8, decoder_depth=1, decoder_heads=1,
)  # fmt: skip
QUIET = Display(Console(quiet=True))


@dataclass
class Story:
    """A project whose exported encoder changes, with made-up answers of each."""

    contest: Contest

    @property
    def project(self) -> Project:
        return self.contest.project

    @property
    def store(self) -> Store:
        return connect(self.project, Machine())

    def export(self, seed: int, skill: float) -> str:
        """Export an encoder and publish its results; return the sha256 of its weights."""
        folder = self.project.model_dir("captioning")
        weights = initial_model(SIZES, seed=seed).vision_encoder.state_dict()
        storage.write_bytes(folder / "encoder_final.pt", serialise(weights))
        storage.write_bytes(folder / registry.WEIGHTS, safetensors.torch.save(weights))
        sha256 = storage.sha256_file(folder / registry.WEIGHTS)
        card = {"model": SIZES.model_dump(), "init_seed": 99, "sha256": {registry.WEIGHTS: sha256}}
        storage.write_json(folder / registry.CARD, card)
        digests = {name: encoder_digest(one) for name, one in load_encoders(folder).items()}
        self.contest.predict(
            self.project.root / "results", {"trained": skill, "untrained": 0.3}, digests=digests
        )
        return sha256

    def judged_before(self, sha256: str, skill: float) -> None:
        """Leave what judging a registered model with `lapvqa evaluate --encoder` leaves."""
        name, project = f"model-{sha256[:12]}", self.project
        path = registry.fetch(
            self.store, project, sha256, project.state / "champions" / sha256[:16]
        )
        external_encoders.claim(name, path, project)
        digest = external_encoders.read_encoders(project)[name]["digest"]
        self.contest.other(name, skill, digests={name: digest})
        evaluations.record(
            project, Run(EVALUATION, 0.0, 1.0), name=name, task="vqa", encoder=digest,
            commit=Commit(None, None),
        )  # fmt: skip

    def gate(self, **options: bool) -> promotion.GateResult:
        return promotion.run_gate(self.project, QUIET, **options)

    def champion(self) -> str:
        found = registry.aliased(self.store, self.project, CHAMPION)
        return found.sha256 if found else ""

    def said(self, kind: str, **facts: object) -> list[dict[str, Any]]:
        payloads = (one.payload or {} for one in ledger.entries(self.project) if one.kind == kind)
        return [said for said in payloads if facts.items() <= said.items()]

    def moves(self) -> list[dict[str, Any]]:
        return [said for said in self.said(MODEL) if CHAMPION in said["aliases"]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> tuple[Path, list[str]]:
    """A project with a first champion, and a better candidate of which nobody was asked yet."""
    project = Project(tmp_path_factory.mktemp("story").resolve())
    migrated_stores.give(tmp_path_factory, project)
    yaml = YAML(typ="safe", pure=True)
    values = yaml.load((repository / "params.yaml").read_text())
    values["gate"] = GATE.model_dump()
    values["evaluate"]["common"]["bootstrap_draws"] = 200
    with project.params.open("w") as file:
        yaml.dump(values, file)
    project.dvc_yaml.write_text("stages: {}\n")
    ledger.append(project, ledger.RUN, Run("ingest", 0.0, 1.0).payload())
    story = Story(Contest(project, load_params(project.params)))
    story.contest.arrive(200)
    first = story.export(1, 0.6)
    result = story.gate()
    assert result.moved
    assert result.judgement is not None
    assert result.judgement.optimistic
    story.contest.seal()
    story.contest.arrive(600)
    second = story.export(2, 0.8)
    story.judged_before(first, 0.6)
    return project.root, [first, second]


@pytest.fixture
def story(told: tuple[Path, list[str]], tmp_path: Path) -> Story:
    root = tmp_path.resolve() / "copy"
    shutil.copytree(told[0], root)
    project = Project(root)
    contest = Contest(project, load_params(project.params))
    contest.patients = [f"p{k:05d}" for k in range(800)]
    return Story(contest)


@pytest.fixture
def models(told: tuple[Path, list[str]]) -> list[str]:
    return told[1]


def test_an_export_is_a_candidate_until_a_gate_has_passed(story: Story, models: list[str]) -> None:
    first, second = models
    settling.register(story.project, story.store)
    candidate = registry.aliased(story.store, story.project, registry.CANDIDATE)
    assert candidate is not None
    assert candidate.sha256 == second
    assert story.champion() == first
    version = story.store.client.get_model_version_by_alias(registry.MODEL, CHAMPION)
    assert version.tags[promotion.FIGURE].startswith("optimistic")


def test_promoted_back_by_hand_and_not_undone(story: Story, models: list[str]) -> None:
    first, second = models
    plan = story.gate(dry_run=True)
    assert plan.question is not None
    assert plan.question.faults == ()
    assert story.said(LOOK, candidate=second) == [], "a dry run asks nothing"
    result = story.gate()
    assert result.moved
    assert story.champion() == second
    assert len(story.said(ledger.RUN, stage=EVALUATION)) == 1, "predictions are used by digest"
    version = story.store.client.get_model_version_by_alias(registry.MODEL, CHAMPION)
    assert version.tags[promotion.FIGURE].startswith("of patients who had no part")
    assert "nothing newer" in story.gate().why

    assert command.rollback(story.project) == 0
    assert story.champion() == first
    assert "roll back to version 1" in story.project.freshness_page.read_text()
    settling.register(story.project, story.store)  # what the next run does
    assert "went back" in story.gate().why
    assert story.champion() == first
    with pytest.raises(ConfigError, match="the first"):
        promotion.rollback(story.project)
    assert story.gate(again=True).moved
    assert story.champion() == second
    assert len(story.said(LOOK, candidate=second)) == 1, "the same patients are not asked twice"
    assert ledger.verify(story.project) == []


@pytest.mark.parametrize(
    "ask", [promotion.rollback, lambda clone: promotion.run_gate(clone, QUIET)]
)
def test_a_clone_without_the_registry_says_what_is_missing(
    story: Story, models: list[str], tmp_path: Path, ask: Callable[[Project], object]
) -> None:
    clone = Project(tmp_path / "clone")
    for name in ("ledger", "models", "params.yaml"):
        source = story.project.root / name
        if source.is_dir():
            shutil.copytree(source, clone.root / name)
        else:
            shutil.copy(source, clone.root / name)
    before = sorted(clone.root.rglob("*"))
    with pytest.raises(ConfigError, match=r"version 1 .* registry of this clone") as refused:
        ask(clone)
    assert "servers.mlflow_tracking_uri" in (refused.value.hint or "")
    assert sorted(clone.root.rglob("*")) == before
    connect(clone, Machine())  # another command has made a registry since
    with pytest.raises(ConfigError, match=r"version 1 .* registry of this clone"):
        ask(clone)


def test_a_clone_that_could_not_be_judged_is_left_as_it_is(
    tmp_path: Path, repository: Path
) -> None:
    empty = Project(tmp_path)
    shutil.copy(repository / "params.yaml", tmp_path)
    with pytest.raises(MissingArtifactError):
        promotion.run_gate(empty, QUIET, dry_run=True)
    with pytest.raises(ConfigError, match="no champion"):
        promotion.rollback(empty)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_candidate_that_was_judged_is_not_asked_about_again(
    story: Story, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    story.export(3, 0.6)
    verdict = story.gate().judgement
    assert verdict is not None
    assert verdict.verdict.outcome is not Outcome.PROMOTE
    known = len(ledger.entries(story.project))
    for dry_run, again in ((False, False), (False, True), (True, False)):
        result = story.gate(dry_run=dry_run, again=again)
        assert result.judgement is not None
        assert result.judgement.decision == verdict.decision
        assert "was judged on these patients" in result.why
    assert len(ledger.entries(story.project)) == known
    assert command.execute(story.project, dry_run=True, again=False, as_json=False) == 0
    said = capsys.readouterr().out
    assert "nothing to judge: version" in said
    assert f"verdict: {verdict.verdict.outcome.upper()}" in said
    assert "would ask" not in said


def test_a_spent_budget_is_said_before_it_is_asked(
    story: Story, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    params = YAML().load(story.project.params)
    params["gate"]["budget"] = {"total": 1e-5, "share": 1.0}
    YAML().dump(params, story.project.params)
    assert command.execute(story.project, dry_run=True, again=False, as_json=False) == 0
    said = capsys.readouterr().out
    assert "would not ask" in said
    assert "lapvqa gate --seal --new-round" in said
    assert story.gate().judgement.verdict.reasons == (SPENT,)  # type: ignore[union-attr]


def test_nobody_goes_back_to_a_model_that_saw_an_erased_patient(
    story: Story, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = models
    assert story.gate().moved
    trained = ledger.append(story.project, ledger.RUN, Run("pretrain", 0.0, 1.0).payload())
    exported = Run(
        "export", 0.0, 1.0, sources={"model": trained}, files={"weights": {"sha256": first}}
    )
    ledger.append(story.project, ledger.RUN, exported.payload())
    erased = {"verdict": "contaminated", "runs": [trained], "decision": "retrain from scratch"}
    ledger.append(story.project, DECISION, erased)
    with pytest.raises(ConfigError, match="erased"):
        promotion.rollback(story.project)
    assert story.champion() != first
    _show_champion(story.project, Console())
    assert "erased" not in capsys.readouterr().out
    erased = {"verdict": "contaminated", "runs": [_made(story, story.champion())]}
    ledger.append(story.project, DECISION, erased)
    _show_champion(story.project, Console())
    assert "trained on a patient who is erased now" in capsys.readouterr().out


def test_a_contaminated_champion_is_replaced_by_one_no_better(
    story: Story, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = models
    third = story.export(3, 0.6)
    refused = story.gate().judgement
    assert refused is not None
    assert refused.verdict.outcome is not Outcome.PROMOTE
    erased = {"verdict": "contaminated", "runs": [_made(story, first)]}
    ledger.append(story.project, DECISION, erased)
    assert command.execute(story.project, dry_run=True, again=False, as_json=False) == 0
    assert "its successor need not be better" in capsys.readouterr().out
    result = story.gate()
    assert result.judgement is not None
    assert result.judgement.verdict.outcome is Outcome.PROMOTE
    assert CONTAMINATED in result.judgement.verdict.reasons
    assert story.champion() == third
    looked = looks.account(ledger.entries(story.project), result.judgement.manifest)
    assert [one.promoted for one in looked.looks] == [False, False], "no level comes back"
    ledger.append(story.project, DECISION, erased | {"runs": [_made(story, third)]})
    fourth = story.export(2, 0.9)
    ledger.append(story.project, DECISION, erased | {"runs": [_made(story, fourth)]})
    plan = story.gate(dry_run=True).question
    assert plan is not None
    assert any("candidate's training saw a patient" in why for why in plan.faults)


def _made(story: Story, sha256: str) -> str:
    run = Run("export", 0.0, 1.0, files={"weights": {"sha256": sha256}})
    return ledger.append(story.project, ledger.RUN, run.payload())


def test_two_gates_at_once_move_the_alias_once(story: Story, models: list[str]) -> None:
    results: list[promotion.GateResult | BusyError] = []

    def one() -> None:
        try:
            results.append(story.gate())
        except BusyError as error:
            results.append(error)

    gates = [threading.Thread(target=one) for _ in range(4)]
    for each in gates:
        each.start()
    for each in gates:
        each.join()
    assert [getattr(one, "moved", False) for one in results].count(True) == 1
    assert len(story.said(LOOK, candidate=models[1])) == 1
    assert [move["sha256"] for move in story.moves()] == models


class Killed(BaseException):
    """As a kill does it, nothing of the gate runs after this."""


def dying(target: Any, name: str, *, after: bool) -> Callable[[pytest.MonkeyPatch], None]:
    """Make a function the last thing that a gate does: before, or after it has done its work."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        work = getattr(target, name)

        def die(*arguments: Any, **options: Any) -> Any:
            if registry.CANDIDATE in arguments:
                return work(*arguments, **options)
            if after:
                work(*arguments, **options)
            raise Killed

        monkeypatch.setattr(target, name, die)

    return patch


@pytest.mark.parametrize(
    ("kill", "looks_in_all"),
    [
        (dying(looks, "take", after=False), 1),
        (dying(looks, "take", after=True), 2),
        (dying(judge, "weigh", after=True), 2),
        (dying(judge, "_sign", after=False), 1),
        (dying(registry, "set_alias", after=False), 1),
        (dying(registry, "set_alias", after=True), 1),
        (dying(registry, "tag", after=True), 1),
    ],
    ids=["before-look", "after-look", "scores-read", "decided", "moving", "moved", "tagged"],
)
def test_a_gate_that_is_killed_is_finished_by_the_next(
    story: Story, models: list[str], monkeypatch: pytest.MonkeyPatch,
    kill: Callable[[pytest.MonkeyPatch], None], looks_in_all: int,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            story.gate()
    story.gate()
    assert story.champion() == models[1]
    assert [move["sha256"] for move in story.moves()] == models
    assert len(story.said(LOOK, candidate=models[1])) == looks_in_all
    assert len(story.said(DECISION, candidate=models[1], verdict=Outcome.PROMOTE)) == 1
    assert "nothing newer" in story.gate().why


def test_an_alias_that_somebody_moved_meanwhile_stays(
    story: Story, models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    third = story.export(3, 0.5)
    settling.register(story.project, story.store)
    by_hand = registry.find(story.store, story.project, third)
    assert by_hand is not None
    story.export(2, 0.8)
    with monkeypatch.context() as patch:
        dying(judge, "_sign", after=False)(patch)
        with pytest.raises(Killed):
            story.gate()
    registry.set_alias(story.store, story.project, CHAMPION, by_hand)
    assert not promotion.finish(story.project, story.store)
    assert story.champion() == third
    assert not promotion.finish(story.project, story.store), "it is not tried again"
    assert story.said(DECISION, what="dropped")


def test_projects_on_one_server_have_models_of_their_own(
    story: Story, models: list[str], tmp_path: Path
) -> None:
    other = Project(tmp_path / "other")
    ledger.append(other, ledger.RUN, Run("ingest", 0.0, 1.0).payload())
    other.state.mkdir()
    shared = Store(story.store.client, story.store.experiment, "http://mlflow.example")
    names = {registry.model_name(shared, one) for one in (story.project, other)}
    assert len(names) == 2
    assert registry.model_name(story.store, story.project) == registry.MODEL
    assert all(name.startswith(f"{registry.MODEL}-") for name in names)
    mine = registry.register_folder(shared, story.project, story.project.model_dir("captioning"))
    shutil.copytree(
        story.project.model_dir("captioning"), other.model_dir("captioning"), dirs_exist_ok=True
    )
    theirs = registry.register_folder(shared, other, other.model_dir("captioning"))
    assert mine.sha256 == theirs.sha256 == models[1]
    assert registry.aliased(shared, story.project, registry.CANDIDATE) == mine
    assert registry.aliased(shared, other, CHAMPION) is None


def test_a_gate_that_cannot_be_asked_undoes_no_training(
    story: Story, models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.retraining import PipelineWork  # brings Prefect

    work = PipelineWork(story.project, Console(quiet=True))
    move, away = registry.set_alias, [MlflowException("refused"), ConnectionError("away")]

    def fail(store: Store, project: Project, alias: str, to: registry.Registered) -> None:
        if alias == CHAMPION:
            raise away.pop()
        move(store, project, alias, to)

    with monkeypatch.context() as patch:
        patch.setattr(registry, "set_alias", fail)
        for _ in range(2):
            assert work.gate() == {"outcome": "not asked", "error": "RecordsUnavailableError"}
    assert story.champion() == models[0]
    assert work.gate()["moved"], "it was decided, and is done once MLflow answers"
    assert story.champion() == models[1]
    assert len(story.said(LOOK, candidate=models[1])) == 1
    (story.project.model_dir("captioning") / registry.WEIGHTS).unlink()
    assert work.gate() == {"outcome": "not asked", "error": "MissingArtifactError"}
