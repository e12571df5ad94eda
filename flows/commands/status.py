"""``lapvqa status``: stages, what is running, champion, arrivals, rejects; changes nothing."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import terminal
from lapvqa import storage
from lapvqa.errors import LapvqaError
from lapvqa.project import Project
from lapvqa.uptodate import staleness
from lapvqa.uptodate.stagefile import CutLockError
from lapvqa.uptodate.staleness import StageState

if TYPE_CHECKING:
    from rich.console import Console

_FOLDERS = ("demo", "data", "models", "results", "reports", ".dvc/cache", ".lapvqa")
_COUNTS_SHOWN = 4
_WIDE = 110  # columns from which the stages' counts are shown too
_TAIL_BYTES = 65536


def execute(project: Project) -> int:
    """Print everything that can be known without waiting; works while a run goes on."""
    console = terminal.console()
    at_work = {progress.stage: progress for progress in stages_at_work(project)}
    _show_stages(project, at_work, console)
    _show_champion(project, console)
    _show_erasures(project, console)
    _show_retraining(project, console)
    _show_rejects(project, console)
    _show_coverage(project, console)
    _show_doubts(project, console)
    _show_disk(project, console)
    _show_running(project, at_work, console)  # last, where a person looks first
    return 0


def _show_running(project: Project, at_work: dict[str, Progress], console: Console) -> None:
    holder = storage.holder(project.run_lock)
    if holder:
        console.print(f"running: {holder}", markup=False)
    for progress in at_work.values():
        console.print(f"  {describe(progress)}", markup=False)
    if not holder and not at_work:
        console.print("running: nothing")


def _show_champion(project: Project, console: Console) -> None:
    """Say who is champion as the ledger tells: MLflow takes seconds to ask."""
    from lapvqa.gate import champions, looks
    from lapvqa.lineage import ledger

    entries = ledger.entries(project)
    last = champions.last_move(entries)
    if last is None:
        why = "`lapvqa gate` judges what was exported"
        if champions.is_set_without_gate(entries):
            why = champions.WITHOUT_GATE
        console.print(f"champion: none yet; {why}", soft_wrap=True)
    else:
        console.print(
            f"champion: version {last['version']} ({last['sha256'][:12]}) of {last['name']}",
            markup=False,
        )
        if last["sha256"] in champions.contaminated(entries):
            console.print("  it was trained on a patient who is erased now", style="red")
    said = list(looks.decisions(entries))
    if said:
        console.print(f"last gate: {said[-1]['decision']}", markup=False, soft_wrap=True)


def describe(progress: Progress) -> str:
    """Return one running stage in words: how far, how fast, how long still."""
    if progress.total is None:
        return f"{progress.stage}: since {terminal.moment(progress.started)}"
    eta = "unknown" if progress.eta_s is None else terminal.span(progress.eta_s)
    note = f" ({progress.note})" if progress.note else ""
    return (
        f"{progress.stage}: {progress.done}/{progress.total} {progress.unit}, "
        f"{progress.rate:.1f}/s, ETA {eta}{note}"
    )


def _show_stages(project: Project, at_work: dict[str, Progress], console: Console) -> None:
    from lapvqa.lineage import recording

    made, rows = {}, []
    with suppress(CutLockError):  # each stage says so
        made = recording.present(project)
    for state in staleness.check(project):
        run = made.get(state.name)
        counts = run.counts if run else {}
        rows.append([
            state.name,
            terminal.moment(run.started)[: -len(":00")] if run else "",
            terminal.span(run.seconds) if run else "",
            "running" if state.name in at_work else _state(project, state, counts),
        ])  # fmt: skip
        if console.width >= _WIDE:
            rows[-1][-1] += _counts(counts)
    terminal.show_table(console, ("stage", "last run", "took", "state"), rows)
    if console.width < _WIDE:
        console.print(f"with counts: lapvqa status | cat (or {_WIDE} columns)", style="dim")


def _state(project: Project, state: StageState, counts: dict[str, Any]) -> str:
    failure = _read(project.failure(state.name))
    if failure:
        return f"failed: {failure.get('message', '')}".split("\n")[0]
    if not state.stale:
        absent = counts.get("reason")
        return f"not computed: {absent}" if absent else "up to date"
    more = f" and {len(state.reasons) - 1} more" if len(state.reasons) > 1 else ""
    return f"{state.reasons[0]}{more}"


def _counts(counts: dict[str, Any]) -> str:
    shown = [f"{name} {value}" for name, value in counts.items() if name != "reason"]
    more = [f"and {len(shown) - _COUNTS_SHOWN} more"] if len(shown) > _COUNTS_SHOWN else []
    return "".join(f", {one}" for one in shown[:_COUNTS_SHOWN] + more)


def _show_erasures(project: Project, console: Console) -> None:
    """Say which erasures wait for the archive's owner."""
    for path in sorted(project.open_erasures.glob("*.json")):
        from lapvqa.erasure.erase import STEPS
        from lapvqa.erasure.journal import stands_at

        opened = _read(path)
        request, where = opened.get("request", ""), stands_at(opened.get("facts", {}), STEPS)
        if holder := storage.holder(project.erase_lock):
            where = f"it is at work: {holder}"
        console.print(
            f"erasure {path.stem} ({request}) is open: {where}; the same `lapvqa erase --yes` "
            "goes on",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def _show_retraining(project: Project, console: Console) -> None:
    """Say what is wanted, what has arrived, and what would be decided about it now."""
    from lapvqa.retraining import rounds, situation, wanted
    from lapvqa.retraining.decision import Answer

    record, asked = wanted.load(project), None
    with suppress(LapvqaError):  # a parameter that is being edited
        asked = rounds.ask(project, situation.zoned_now(project))
    for cause in record.causes:
        if asked is None or not situation.is_answered(cause, asked[0].answered):
            of = " ".join(str(value) for value in cause.facts.values())
            what = "an evaluation" if cause.cause == wanted.DRIFT else "a retraining"
            console.print(f"{what} is wanted: {cause.cause} {of}".rstrip(), markup=False)
    if record.round is not None:
        console.print(f"a round of retraining has begun: {record.round.began}", markup=False)
    if asked is None:
        return
    seen, decision = asked
    if seen.arrived.last:
        come = f"{seen.arrived.words()}, {terminal.size(seen.arrived.bytes)}"
        console.print(f"arrived since the last training: {come}", markup=False)
    if decision.answer is not Answer.NOTHING or seen.paused:
        console.print(f"retraining: {decision.said}", markup=False)


def _show_rejects(project: Project, console: Console) -> None:
    from flows.commands.rejects import tokens_is_of_present
    from flows.commands.run_summary import rejects

    paths = [project.rejects]
    if tokens_is_of_present(project):
        paths.append(project.token_rejects)
    for path in paths:
        if path.exists() and (counts := rejects(path)):
            parts = (f"{kind} {reason} {number}" for (kind, reason), number in counts.most_common())
            name = path.relative_to(project.root)
            console.print(f"rejected, {name}: {', '.join(parts)}", markup=False, soft_wrap=True)


def _show_coverage(project: Project, console: Console) -> None:
    from lapvqa.text.coverage import coverage, languages

    if not (project.tokens_dir.exists() and project.token_rejects.exists()):
        return
    parts = ", ".join(f"{verdict} {number}" for verdict, number in coverage(project) if number)
    console.print(f"reports by what their text became: {parts}", markup=False, soft_wrap=True)
    if not project.report_languages.exists():  # the tokens are those of an earlier version
        return
    rows, hint = languages(project)
    for row in rows:
        each = row.tokens_per_character
        console.print(
            f"reports in {row.language}: {row.reports}, {row.tokens} tokens"
            + ("" if each is None else f", {each:.2f} per character")
            + f"; cut {row.reports_cut} reports, {row.tokens_cut} tokens",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    if hint:
        console.print(hint, markup=False, soft_wrap=True)


def _show_doubts(project: Project, console: Console) -> None:
    from flows.commands.run_summary import show_doubts
    from lapvqa.evaluation.results import METRICS, read_result

    files = sorted(project.result_dir("x").parent.glob(f"*/{METRICS}"))
    show_doubts([read_result(file.parent, file.parent.name) for file in files], console)


def _show_disk(project: Project, console: Console) -> None:
    used = {name: _size(project.root / name) for name in _FOLDERS}
    parts = ", ".join(f"{name} {terminal.size(number)}" for name, number in used.items() if number)
    free = terminal.size(shutil.disk_usage(project.root).free)
    console.print(f"disk: {parts or 'nothing made yet'}; free {free}", markup=False)


def _size(folder: Path) -> int:
    """Return the bytes that a folder's files take up on disk; a hard link counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for path in folder.rglob("*"):
        try:
            stat = path.lstat()
        except FileNotFoundError:  # a run is at work
            continue
        if (stat.st_dev, stat.st_ino) not in seen:
            seen.add((stat.st_dev, stat.st_ino))
            total += stat.st_blocks * 512
    return total


def _read(path: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):  # not there, another user's, or just being written
        return {}
    return facts


@dataclass(frozen=True)
class Progress:
    """How far a running stage is."""

    stage: str
    started: float
    done: int | None = None
    total: int | None = None
    unit: str = ""
    rate: float | None = None
    eta_s: float | None = None
    note: str = ""


def stages_at_work(project: Project) -> list[Progress]:
    """Return the stages whose process is running now."""
    locks = sorted((project.state / "work").glob("*.lock"))
    return [progress_of(project, lock.stem) for lock in locks if storage.holder(lock)]


def progress_of(project: Project, stage: str) -> Progress:
    """Return how far the last run of a stage came, from its record."""
    started, last = time.time(), None
    for entry in _entries(project.record(stage)):
        if entry["kind"] == "start":
            started = entry["t"]
        elif entry["kind"] == "progress":
            last = entry
    if last is None:
        return Progress(stage, started)
    eta = last["eta_s"]
    if eta is not None:
        eta = max(eta - (time.time() - last["t"]), 0.0)
    return Progress(
        stage, started, last["done"], last["total"], last["unit"], last["rate"], eta, last["note"]
    )


def _entries(path: Path) -> list[dict[str, Any]]:
    """Return the first entry and those near the end; a line being written is left out."""
    try:
        with path.open("rb") as handle:
            first = handle.readline()
            end = handle.seek(0, 2)
            handle.seek(max(len(first), end - _TAIL_BYTES))
            lines = [first, *handle.read().splitlines()]
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:  # cut by the seek, or not yet whole
            continue
    return entries
