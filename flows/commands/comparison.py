"""The table of encoders side by side: a block per task, a row per system; fits 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from lapvqa.evaluation.compare import REFERENCE, ComparisonLine, Score
from lapvqa.evaluation.results import MEANINGS, PAIRS, UNKNOWN_TRAINING, Interval
from lapvqa.metrics.paired import Difference
from lapvqa.params import BootstrapParams
from lapvqa.report.comparison import NAMES

_SURPRISING = 0.05
_WIDEST_NAME = 22
_OWN = {system for pair in PAIRS.values() for system in pair}


def show(lines: Sequence[ComparisonLine], console: Console, common: BootstrapParams) -> None:
    """Print each task's systems, their differences from trained, and where the files are."""
    console.print(
        f"Primary metric and {common.confidence:.0%} interval; difference from trained on the "
        "same draws of patients; p two-sided, not corrected for the number of comparisons",
    )
    names = {name for line in lines for name in (*line.scores, *line.absent)}
    width = min(_WIDEST_NAME, max(map(len, names), default=0))
    for line in lines:
        _show_line(line, width, console)
    bare: dict[str, dict[str, None]] = {}
    for line in lines:
        for why in filter(None, (score.no_interval for score in line.scores.values())):
            bare.setdefault(why, {})[line.name] = None
    for why, tasks in bare.items():
        console.print(f"\nno interval: {why} ({'; '.join(tasks)})", markup=False)
    doubted: dict[str, set[str]] = {}
    for line in lines:
        for name, score in line.scores.items():
            if score.doubt:
                doubted.setdefault(score.doubt.state, set()).add(name)
    for state in sorted(doubted):
        console.print(f"\n{state}: {MEANINGS[state]}", markup=False)
    for name in sorted(doubted.get(UNKNOWN_TRAINING, set()) - _OWN):
        console.print(
            f"  what to do: lapvqa evaluate --compare --name {name} --trained-on "
            f'"what {name} was trained on"',
            markup=False,
        )
    files = ", ".join(f"evaluations/{name}" for name in NAMES)
    console.print(f"\nwritten: {files}", soft_wrap=True)


def _show_line(line: ComparisonLine, width: int, console: Console) -> None:
    counts = sorted({score.num_samples for score in line.scores.values()})
    samples = f", {' or '.join(map(str, counts))} test samples" if counts else ""
    console.print(f"\n[bold]{line.name}[/bold]: {line.metric}{samples}")
    if line.scores:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=True, header_style="dim")
        table.add_column("", width=width, overflow="fold")
        table.add_column("value", width=20, no_wrap=True)
        table.add_column("minus trained", width=23, no_wrap=True)
        table.add_column("p", width=5, justify="right", no_wrap=True)
        for name, score in line.scores.items():
            table.add_row(name, score.estimate.shown(), *_difference(name, score))
        console.print(table)
    _show_delong(line, console)
    _show_doubts(line, console)
    for reason, absent in _by_reason(line.absent).items():
        console.print(f"{', '.join(absent)}: not computed: {reason}", markup=False)


def _difference(name: str, score: Score) -> tuple[str, str]:
    if score.difference is None:
        return ("" if name == REFERENCE else score.note), ""
    difference = score.difference
    interval = Interval(difference.value, difference.low, difference.high)
    return interval.shown("+z.3f"), _p(difference)


def _p(difference: Difference) -> str:
    return "" if difference.p_value is None else f"{difference.p_value:.3f}"


def _show_delong(line: ComparisonLine, console: Console) -> None:
    """Print for how many labels DeLong's test, too, finds a difference of AUCs."""
    found = []
    for name, score in line.scores.items():
        known = [one for one in score.delong.values() if one is not None]
        if known:
            found.append(f"{name} {sum(one < _SURPRISING for one in known)} of {len(known)}")
    if found:
        console.print(f"DeLong p below {_SURPRISING}, labels: {', '.join(found)}", markup=False)


def _show_doubts(line: ComparisonLine, console: Console) -> None:
    """Name the systems whose training may know the test images, with the reasons."""
    named: dict[tuple[str, str], list[str]] = {}
    for name, score in line.scores.items():
        if doubt := score.doubt:
            for why in doubt.why:
                named.setdefault((doubt.state, why), []).append(name)
    for (state, why), names in named.items():
        console.print(f"{state}: {', '.join(names)}: {why}", markup=False)


def _by_reason(absent: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in absent.items():
        reasons.setdefault(reason, []).append(name)
    return reasons
