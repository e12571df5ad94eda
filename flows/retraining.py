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

from flows.commands import edit_settings
from flows.commands.run import run_pipeline
from lapvqa import storage
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.retraining import rounds, situation, starts
from lapvqa.retraining.wanted import Round

_LAST_OF_DATA = "firewall"
"""The stage up to which new studies are taken in before anything is trained."""


@flow(name="retraining", persist_result=False)
def retraining(root: str = ".") -> dict[str, Any]:
    """Decide on a retraining of the project in ``root``, and do it; return what came of it.

    Raises BusyError while a round is at work, and the error of a stage that fails.
    """
    project = Project(Path(root).resolve())
    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    def now() -> datetime:
        return situation.zoned_now(project)

    turn = rounds.take_turn(project, PipelineWork(project, console), now, say)
    return {"answer": str(turn.decision.answer), "why": turn.decision.why, "outcome": turn.outcome}


@dataclass(frozen=True)
class PipelineWork:
    """The steps of a round, by the pipeline (``lapvqa.retraining.rounds.Work``)."""

    project: Project
    console: Console

    def count_new(self) -> int:
        """Bring the data up to date; return the studies to learn from that are new."""
        run_pipeline(self.project.root, stage=_LAST_OF_DATA, console=self.console)
        return starts.new_studies(self.project, self._objective)

    def judge_champion(self) -> tuple[str, dict[str, Any] | None]:
        """Judge the champion on patients whose studies are new; facts if it has fallen."""
        raise NotImplementedError

    def train(self, at_work: Round) -> dict[str, Any]:
        """Bring everything up to date, beginning from scratch or from the champion's weights."""
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
        """Ask the gate; the alias moves only there."""
        return {"outcome": "not asked"}

    @property
    def _objective(self) -> str:
        return load_params(self.project.params).pretrain.objective
