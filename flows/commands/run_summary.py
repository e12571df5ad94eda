"""Show the outcome of a run: counts, metrics with intervals, and where to look."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from lapvqa import storage
from lapvqa.machine import Machine, load_machine
from lapvqa.project import Project
from lapvqa.recorder import counted
from lapvqa.uptodate import staleness

if TYPE_CHECKING:
    from lapvqa.evaluation.results import TaskResult

_WIDE = 110  # columns that a row with its intervals needs


def show(project: Project, console: Console, stage: str | None = None) -> None:
    """Print counts, the table of results, and where to look.

    ``stage``: the only one that was asked for. What it does not stand on may be of other data, so
    it is not shown.
    """
    show_counts(project, console)
    if stage is None or stage == "report":
        show_results(project, console)
    elif (task := stage.removeprefix("evaluate@")) != stage:
        show_results(project, console, [task])
    show_places(project, console, whole=stage is None)


def show_counts(project: Project, console: Console) -> None:
    """Print that nothing was lost: files in = ingested + rejected (by reason) + beside."""
    if not (project.images.exists() and project.rejects.exists()):
        return
    rejected = rejects(project.rejects)
    files = Counter({reason: n for (kind, reason), n in rejected.items() if kind == "file"})
    ingested = _num_rows(project.images)
    known = _num_rows(project.companions) if project.companions.exists() else 0
    beside = f" + {known} that are no images" if known else ""
    total = counted(ingested + files.total() + known, "file")
    console.print(
        f"{total} = {ingested} ingested + {files.total()} rejected{_by_reason(files)}{beside}"
    )
    if project.tokens_dir.exists() and project.token_rejects.exists():
        without = Counter({why: n for (_, why), n in rejects(project.token_rejects).items()})
        tokenised = sum(_num_rows(path) for path in project.tokens_dir.glob("*.parquet"))
        studies = tokenised + without.total()
        console.print(
            f"{counted(studies, 'study')} = {tokenised} reports tokenised + {without.total()} "
            f"without{_by_reason(without)}"
        )


def show_results(project: Project, console: Console, tasks: Collection[str] | None = None) -> None:
    """Print each task's primary metric, trained beside untrained, and the difference.

    A narrow terminal gets each interval below its value.
    """
    from lapvqa.evaluation.results import BASELINE, lacking
    from tasks.results import evaluated

    results = [result for result in evaluated(project) if tasks is None or result.task in tasks]
    if not results:
        return
    console.print(
        f"Results: value and {_confidence(project)} interval, patients resampled", markup=False
    )
    break_line = "\n" if console.width < _WIDE else " "
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("task", "trained", "untrained", "difference"):
        table.add_column(column, no_wrap=True)
    for result in results:
        for row in result.headlines():
            writer = f", {row.writer}" if row.writer else ""
            numbers = (row.trained.shown(), row.untrained.shown(), row.difference.shown("+z.3f"))
            cells = [text.replace(" [", f"{break_line}[", 1) for text in numbers]
            cells[-1] = _with_verdict(cells[-1], row.verdict)
            table.add_row(f"{result.task}{writer}{break_line}{result.primary}", *cells)
    if table.row_count:
        console.print(table)
    for why, names in lacking(results).items():
        console.print(f"{why} ({', '.join(names)})", markup=False)
    for result in results:
        if BASELINE in result.systems:
            console.print(
                f"{result.task}: the most common report, for every study, has {result.primary} "
                f"{result.interval(BASELINE, result.primary)}",
                markup=False,
            )
    for result in results:
        if not result.computed:
            console.print(f"{result.task}: not computed: {result.reason}", markup=False)
    show_doubts(results, console)


def _with_verdict(difference: str, verdict: str) -> str:
    """Return ``+0.302 [+0.200, +0.400] better``; of two lines the verdict ends the first."""
    first, *below = difference.split("\n")
    return "\n".join([f"{first} {verdict}", *below])


def show_doubts(results: Iterable[TaskResult], console: Console) -> None:
    """Say why test images may be known to training, where they may, and what follows."""
    from lapvqa.evaluation.results import MEANINGS

    tasks: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if doubt := result.doubt:
            tasks.setdefault((doubt.state, "; ".join(doubt.why)), []).append(result.task)
    for (state, why), names in tasks.items():
        console.print(f"{', '.join(names)}: {state}: {why}; {MEANINGS[state]}", markup=False)


def show_places(project: Project, console: Console, *, whole: bool = True) -> None:
    """Print the commands and pages that show more; ``whole``: all is as this run left it."""
    from tasks.mlflow_records.connection import public, tracking_uri
    from tasks.results import evaluated

    machine = load_machine(project)
    records = public(tracking_uri(project, machine))
    embedded = records.startswith("sqlite:")
    page = project.report_page
    is_old = not whole and any(state.stale for state in staleness.check(project))
    before = ", of before: `lapvqa run` brings it up to date" if is_old else ""
    places = {
        **({"report page": f"{_relative(page)}{before}"} if page.exists() else {}),
        "records": "lapvqa open mlflow" if embedded else records,
        "runs": _prefect_url(project, machine) or "lapvqa open prefect",
        "metrics": "dvc metrics show; commit dvc.lock, and `dvc metrics diff` compares with it",
    }
    computed = [result.task for result in evaluated(project) if result.computed]
    if computed:
        places["all metrics"] = f"lapvqa evaluate {computed[0]}, and each other task"
        metrics = project.result_dir(computed[0]) / "metrics.json"
        places["where from"] = f"lapvqa lineage {_relative(metrics)}"
    console.print("Where to look")
    for name, place in places.items():
        console.print(f"  {name:12} {place}", soft_wrap=True, markup=False)


def rejects(path: Path) -> Counter[tuple[str, str]]:
    """Return how many rejects a table holds by (kind, reason)."""
    columns = storage.read_columns(path, ["kind", "reason"]).to_pydict()
    return Counter(zip(columns["kind"], columns["reason"], strict=True))


def _num_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def _by_reason(counts: Counter[str]) -> str:
    parts = ", ".join(f"{reason} {number}" for reason, number in counts.most_common())
    return f" ({parts})" if parts else ""


def _confidence(project: Project) -> str:
    from lapvqa.params import load_params

    return f"{load_params(project.params).evaluate.common.confidence:.0%}"


def _prefect_url(project: Project, machine: Machine) -> str:
    """Return the served Prefect's address; empty if it is embedded.

    A run of this process has put the embedded server's own address into the environment.
    """
    ours = os.environ.get("PREFECT_HOME") == str(project.prefect_home)
    return machine.servers.prefect_api_url or (
        "" if ours else os.environ.get("PREFECT_API_URL", "")
    )


def _relative(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
