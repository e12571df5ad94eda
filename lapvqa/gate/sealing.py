"""Open a sealed share: from now on a share of the test patients who arrive is kept for the gate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from lapvqa.errors import ConfigError
from lapvqa.evaluation import sealed
from lapvqa.evaluation.task_table import EVALUATIONS
from lapvqa.lineage import ledger, recording
from lapvqa.lineage.ledger import DECISION
from lapvqa.project import Project

SEAL = "seal"


@dataclass(frozen=True)
class Sealing:
    """What sealing writes: share, name and day of the round, and the test patients who stay shown.

    All test patients of now stay shown if any evaluation has ever run: somebody may have seen their
    results.
    """

    share: float
    round: str
    opened: str
    shown: frozenset[str]


def plan_round(project: Project, share: float, *, again: bool = False) -> Sealing:
    """Return what sealing would write now; nothing is written.

    ``again``: a new draw in place of one that is spent; whoever was sealed is shown then. Raises
    ConfigError for a share of 0, and for a second draw that is not asked for.
    """
    known = sealed.read_rule(project)
    if not share:
        raise ConfigError(
            "gate.sealed_share is 0: nobody would be sealed", hint="set it in params.yaml"
        )
    if known.share and not again:
        raise ConfigError(
            f"a share of {known.share:g} is sealed already, since {known.opened} ({known.round})",
            hint="--new-round draws anew among those who arrive from now on, and shows who was "
            "sealed until now; do so where the budget is spent",
        )
    number = 1 + sum(
        entry.kind == DECISION and (entry.payload or {}).get("what") == SEAL
        for entry in ledger.entries(project)
    )
    today = datetime.now(UTC).date().isoformat()
    shown = sealed.tested_patients(project) if _was_shown(project) else frozenset()
    return Sealing(share, f"round {number}", today, shown)


def open_round(project: Project, share: float, *, again: bool = False) -> Sealing:
    """Write sealed.json and tell the ledger; the caller holds the run lock.

    ``again`` and errors: see ``plan_round``.
    """
    planned = plan_round(project, share, again=again)
    sealed.write_rule(
        project, share=share, round_name=planned.round, opened=planned.opened, shown=planned.shown
    )
    said = {
        "what": SEAL, "decision": f"seal a share of {share:g} of test patients who arrive",
        "share": share, "round": planned.round, "shown_patients": len(planned.shown),
    }  # fmt: skip
    ledger.append(project, DECISION, said)
    return planned


def _was_shown(project: Project) -> bool:
    if not project.images.exists():
        return False
    ran = any(run.stage.startswith("evaluat") for run in recording.told(project))
    return ran or any(project.result_dir(task).exists() for task in EVALUATIONS)
