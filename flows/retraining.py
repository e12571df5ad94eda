"""The flow of retraining: decide, and what is decided, from new studies to the gate.

A round's order and its record are ``lapvqa.retraining.rounds``; here its steps are the pipeline's.
Importing this module imports Prefect: ``flows.commands.retrain`` starts the server before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow
from rich.console import Console

from flows.commands import drift, edit_settings
from flows.commands.gate import show
from flows.commands.run import run_pipeline
from lapvqa import runtime, storage
from lapvqa.errors import LapvqaError
from lapvqa.evaluation.results import PREDICTIONS
from lapvqa.evaluation.task_table import find_all
from lapvqa.lineage import members
from lapvqa.params import load_params
from lapvqa.pretrain.files import ENCODER_FILE
from lapvqa.project import Project
from lapvqa.report import freshness
from lapvqa.retraining import performance, rounds, situation, starts
from lapvqa.retraining.wanted import Round
from tasks import prefect_private, promotion
from tasks.display import Display
from tasks.prefect_calls import kept

_LAST_OF_DATA = "firewall"
"""The stage up to which new studies are taken in before anything is trained."""


@flow(name="retraining", persist_result=False)
@kept
def retraining(root: str = ".") -> dict[str, Any]:
    """Decide on a retraining of the project in ``root``, and do it; return what came of it.

    Raises BusyError while a round is at work, and the error of a stage that fails.
    """
    if prefect_private.is_of_a_deployment():  # a worker reads what is printed: it may die
        runtime.outlive_reader()
    project = Project(Path(root).resolve())
    work = PipelineWork(project, Console())

    def now() -> datetime:
        return situation.zoned_now(project)

    try:
        turn = rounds.take_turn(project, work, now, work.say)
    finally:
        freshness.write_page(project)
    return {"answer": str(turn.decision.answer), "why": turn.decision.why, "outcome": turn.outcome}


@dataclass(frozen=True)
class PipelineWork:
    """The steps of a round, by the pipeline (``lapvqa.retraining.rounds.Work``)."""

    project: Project
    console: Console

    def look_for_drift(self) -> None:
        """Bring the data up to date and look; a look that cannot be taken stops no training."""
        for line in drift.look_of_a_round(self.project, self._take_in):
            self.say(line)

    def count_new(self) -> int:
        """Bring the data up to date; return the studies to learn from that are new."""
        self._take_in()
        return starts.new_studies(self.project, self._objective)

    def judge_champion(self) -> tuple[str, dict[str, Any] | None]:
        """Judge the champion on the archive's test patients of today; facts if it has fallen.

        Those whom the present results know against those who are new, by one head taught today.
        """
        self._take_in()
        # Its test patients are the archive's own, so that new ones come to it.
        task = next(task for task in find_all() if task.folder is None)
        encoder = self.project.model_dir(self._objective) / ENCODER_FILE
        before = self.project.result_dir(task.name) / PREDICTIONS
        if not (encoder.exists() and before.exists()):
            return "nobody has judged it before", None
        name = promotion.judge_champion(self.project, task.name, Display(self.console))
        params = load_params(self.project.params)
        known = set(storage.read_columns(before, ["patient"])["patient"].to_pylist())
        now = storage.read_columns(self.project.evaluations_dir(name) / task.name / PREDICTIONS)
        found = performance.compare(
            task, now, name, known,
            margin=params.retraining.fallen, common=params.evaluate.common,
        )  # fmt: skip
        if isinstance(found, str):
            return found, None
        return found.words(), found.facts() if found.has_fallen else None

    def train(self, at_work: Round) -> dict[str, Any]:
        """Bring everything up to date, beginning from scratch or from the champion's weights."""
        members.require(self.project)  # else a training of hours could not be told of
        begin = {"pretrain": {"continue_from": at_work.start}}
        with storage.lock(self.project.run_lock, what="a run of this project"):
            for key, before, after in edit_settings.set_params(self.project, begin):
                self.console.print(f"params.yaml: {key} {before} -> {after}", markup=False)
        result = run_pipeline(self.project.root, console=self.console)
        starts.forget_others(self.project, at_work.start)
        return {
            "prefect_flow_run": result.prefect_flow_run,
            "stages": [one.name for one in result.stages if one.status == "ran"],
        }

    def gate(self) -> dict[str, Any]:
        """Ask the gate; the alias moves only there.

        A gate that cannot be asked makes no training undone: `lapvqa gate` asks it later.
        """
        try:
            found = promotion.run_gate(self.project, Display(self.console))
        except LapvqaError as error:
            self.say(f"the gate could not be asked, `lapvqa gate` does so later: {error.message}")
            return {"outcome": "not asked", "error": type(error).__name__}
        outcome = found.judgement.verdict.outcome if found.judgement else found.why
        show(found, self.project, self.console)
        return {"outcome": str(outcome), "moved": found.moved}

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _take_in(self) -> None:
        run_pipeline(self.project.root, stage=_LAST_OF_DATA, console=self.console)

    @property
    def _objective(self) -> str:
        return load_params(self.project.params).pretrain.objective
