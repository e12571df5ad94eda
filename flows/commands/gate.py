"""``lapvqa gate`` and ``lapvqa rollback``: candidate against champion, and the way back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.commands import terminal
from lapvqa.project import Project

if TYPE_CHECKING:
    from rich.console import Console

    from lapvqa.gate.judge import Judgement, Question
    from tasks.promotion import GateResult


def execute(project: Project, *, dry_run: bool, again: bool, as_json: bool) -> int:
    """Judge what was exported last, move the alias if it passes, and say why or why not."""
    from lapvqa.report import freshness
    from tasks.display import Display
    from tasks.promotion import run_gate

    console = terminal.progress_console() if as_json else terminal.console()
    result = run_gate(project, Display(console), dry_run=dry_run, again=again)
    if not dry_run:
        freshness.write_page(project)
    if as_json:
        terminal.print_json(as_json_of(result))
    else:
        show(result, project, console)
    return 0


def seal(project: Project, *, new_round: bool, dry_run: bool, as_json: bool) -> int:
    """Keep a share of the test patients who arrive from now on for the gate; or say what would be.

    A dry run writes nothing.
    """
    from lapvqa import storage
    from lapvqa.gate.sealing import open_round, plan_round
    from lapvqa.params import load_params

    share = load_params(project.params).gate.sealed_share
    if dry_run:
        sealing = plan_round(project, share, again=new_round)
        verb, after = "would be", "Nothing was written."
    else:
        with storage.lock(project.run_lock, what="a run of this project"):
            sealing = open_round(project, share, again=new_round)
        verb = "is"
        after = "Put the file under git. The evaluations on the archive run again."
    if as_json:
        told = {
            "sealed": not dry_run, "share": sealing.share, "round": sealing.round,
            "opened": sealing.opened, "shown_patients": len(sealing.shown),
        }  # fmt: skip
        return terminal.print_json(told)
    terminal.console().print(
        f"sealed.json: of the test patients who arrive from now on, a share of {sealing.share:g} "
        f"{verb} kept for the gate ({sealing.round}); nobody sees their results. {after}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    return 0


def rollback(project: Project) -> int:
    """Make the champion before this one the champion again."""
    from lapvqa.report import freshness
    from tasks.promotion import rollback as go_back

    before, now = go_back(project)
    freshness.write_page(project)
    terminal.console().print(
        f"champion: version {now.version} again ({now.sha256[:12]}), no longer {before.version} "
        f"({before.sha256[:12]}); `lapvqa gate --again` would judge that one once more",
        soft_wrap=True,
    )
    return 0


def show(result: GateResult, project: Project, console: Console) -> None:
    """Print what a gate came to, and who is champion after it."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if result.candidate:
        say(f"candidate: version {result.candidate.version} ({result.candidate.sha256[:12]})")
    if result.why:
        say(f"nothing to judge: {result.why}")
    if result.question:
        for line in _question(result.question):
            say(line)
    if result.judgement:
        for line in _judgement(result.judgement, project):
            say(line)
    if result.champion:
        moved = "now " if result.moved else ""
        say(f"champion: {moved}version {result.champion.version} ({result.champion.sha256[:12]})")
    else:
        say("champion: none yet")


def _question(question: Question) -> list[str]:
    from lapvqa.gate.verdict import CONTAMINATED, Outcome

    left = question.account.left(question.budget)
    missing = [why for why in question.hindrances if "no predictions of the" in why]
    others = [why for why in question.hindrances if why not in missing]
    whom = f"{question.manifest}, {len(question.patients)} patients"
    spent = (
        f"{len(question.account.looks)} looks before, {left:.3g} of {question.budget.total:g} left"
    )
    return [
        f"would not ask: {whom}; {spent}" if others
        else f"would ask: {whom}, at level {question.level:.2g}; {spent}",
        *([CONTAMINATED] if question.contaminated else ()),
        *(f"would make {why.replace('no predictions', 'predictions')}" for why in missing),
        *(f"would be {Outcome.INCONCLUSIVE.upper()}: {why}" for why in others),
    ]  # fmt: skip


def _judgement(judgement: Judgement, project: Project) -> list[str]:
    verdict = judgement.verdict
    needed = verdict.needed_patients
    lines = [
        f"verdict: {verdict.outcome.upper()} ({judgement.manifest}, level {verdict.level:.2g})"
    ]
    lines += [f"  {reason}" for reason in verdict.reasons]
    lines += [f"  about {needed} patients would tell"] if needed else []
    lines += [f"  not judged: {what}" for what in judgement.left_out]
    if judgement.optimistic and verdict.outcome == "promote":
        lines.append("  its figures are optimistic: of the patients it was promoted on")
    if judgement.file:
        lines.append(f"signed: {judgement.file.relative_to(project.root)}")
    return lines


def as_json_of(result: GateResult) -> dict[str, Any]:
    """Return a gate as plain values, for machines and for records."""
    judgement, question = result.judgement, result.question
    return {
        "candidate": result.candidate._asdict() if result.candidate else None,
        "champion": result.champion._asdict() if result.champion else None,
        "moved": result.moved,
        "nothing_to_judge": result.why or None,
        "verdict": asdict(judgement.verdict) if judgement else None,
        "manifest": judgement.manifest if judgement else question.manifest if question else None,
        "optimistic": judgement.optimistic if judgement else None,
        "not_judged": list(judgement.left_out) if judgement else None,
        "decision": judgement.decision if judgement else None,
        "would_ask": {
            "patients": len(question.patients), "level": question.level,
            "looks": len(question.account.looks), "left": question.account.left(question.budget),
            "faults": list(question.hindrances), "champion_contaminated": question.contaminated,
        } if question else None,
    }  # fmt: skip
