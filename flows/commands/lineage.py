"""``lapvqa lineage``: where a result came from, what came of a film, how models differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import own_files, terminal
from lapvqa.errors import EXIT_BAD_DATA
from lapvqa.lineage import wording
from lapvqa.lineage.impact import Impact, checkpoints
from lapvqa.lineage.targets import Key
from lapvqa.lineage.walk import ArtefactNode, Lineage
from lapvqa.lineage.wording import SHORT
from lapvqa.project import Project

if TYPE_CHECKING:
    from rich.tree import Tree

    from lapvqa.lineage.difference import Difference, MetricPair
    from lapvqa.lineage.graph import Graph
    from lapvqa.lineage.reasons import Why

_FILMS_SHOWN = 12


def up(project: Project, target: str, *, as_json: bool, html: Path | None) -> int:
    """Print the chain of artefacts from ``target`` up to the inventory."""
    from lapvqa.lineage.walk import trace

    _look_at_place(html)
    lineage = trace(project, target)
    lines = _headline(lineage)
    if html is not None:
        from lapvqa.lineage import graph

        _draw(html, f"Where {_title(lineage)} came from", lines, graph.of_lineage(lineage))
    if as_json:
        return terminal.print_json(lineage.to_json())
    console = terminal.console()
    for line in lines:
        console.print(line, markup=False)
    shown: set[Any] = set()
    for key in lineage.target.artefacts:
        console.print(_tree(lineage, key, shown))
    return 0


def down(project: Project, target: str, *, person: bool, as_json: bool, html: Path | None) -> int:
    """Print what came of ``target``: rows, trainings, runs, predictions, metrics, releases."""
    from lapvqa.lineage.impact import follow

    _look_at_place(html)
    impact = follow(project, target, person=person)
    lines = list(_impact_lines(impact))
    if html is not None:
        from lapvqa.lineage import graph

        _draw(html, lines[0], lines, graph.of_impact(impact))
    return terminal.print_json(impact.to_json()) if as_json else _print(lines)


def diff(
    project: Project, first: str, second: str, *, keys: bool, paired: bool, as_json: bool,
    html: Path | None,
) -> int:  # fmt: skip
    """Print how ``second`` differs from ``first``."""
    from lapvqa.lineage.difference import compare

    _look_at_place(html)
    difference = compare(project, first, second, paired=paired)
    lines = list(_difference_lines(difference, keys))
    if html is not None:
        from lapvqa.lineage import graph

        _draw(html, lines[0], lines, graph.of_difference(difference))
    return terminal.print_json(difference.to_json(keys=keys)) if as_json else _print(lines)


def why(project: Project, stage: str, *, as_json: bool, html: Path | None) -> int:
    """Print why a stage would run, or why it last ran."""
    from lapvqa.evaluation import task_table
    from lapvqa.lineage import reasons

    _look_at_place(html)
    if stage in task_table.EVALUATIONS:  # as other commands call it
        stage = f"evaluate@{stage}"
    answer = reasons.why(project, stage)
    lines = list(_why_lines(answer))
    if html is not None:
        from lapvqa.lineage.graph import of_why

        _draw(html, f"Why {stage} ran", lines, of_why(answer))
    return terminal.print_json(answer.to_json()) if as_json else _print(lines)


def verify(project: Project, *, as_json: bool, html: Path | None) -> int:
    """Read everything again; EXIT_BAD_DATA names the first thing that does not match."""
    from lapvqa.lineage.verification import verify as look

    _look_at_place(html)
    with terminal.progress_console().status("reading every artefact again") as shown:
        found = look(project, lambda path: shown.update(f"reading {path} again"))
    count, size = found.artefacts, terminal.size(found.bytes)
    lines = [
        f"{count} artefacts ({size}) hashed again, {found.entries} entries of the ledger and its "
        f"index: {_mismatches(len(found.faults))}"
    ]
    lines += [f"does not match: {fault}" for fault in found.faults]
    lines += [f"spoilt in DVC's cache too: {path}" for path in found.spoilt]
    lines += [f"not on this disk: {path}" for path in found.absent]
    if html is not None:
        from lapvqa.lineage.graph import of_present

        graph = of_present(project)
        for node in graph.nodes.values():
            node.marked = any(fault.startswith(node.title) for fault in found.faults)
        _draw(html, "Does everything still match?", lines, graph)
    if as_json:
        terminal.print_json(vars(found))
    else:
        _print(lines)
    if found.faults:
        terminal.show_problem(
            f"the first thing that does not match: {found.faults[0]}",
            _delete_first(found.spoilt) + found.remedy,
        )
    return EXIT_BAD_DATA if found.faults else 0


def _delete_first(spoilt: Sequence[str]) -> str:
    """Say which objects of the cache must go, so that DVC does not bring spoilt bytes back."""
    if not spoilt:
        return ""
    return (
        "`lapvqa run` makes it again and takes the spoilt object out of DVC's cache; before you "
        f"restore it otherwise, delete {' '.join(spoilt)}; "
    )


def _mismatches(faults: int) -> str:
    if not faults:
        return "all match"
    return "1 does not match" if faults == 1 else f"{faults} do not match"


def log(project: Project, *, limit: int, as_json: bool, html: Path | None) -> int:
    """Print what happened to this project, newest first."""
    from lapvqa.lineage.story import tell

    _look_at_place(html)
    events = tell(project, limit=limit)
    lines = []
    for event in events:
        lines.append(f"{terminal.moment(event.time)}  {event.sentence}")
        lines += [f"{'':21}{detail}" for detail in event.details]
    if html is not None:
        from lapvqa.lineage.graph import of_present

        _draw(html, "What happened to this project", lines, of_present(project))
    if as_json:
        return terminal.print_json([event.to_json() for event in events])
    return _print(lines or ["nothing has happened yet: run `lapvqa run`"])


# Printing


def _print(lines: Iterable[str]) -> int:
    console = terminal.console()
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    return 0


def _look_at_place(path: Path | None) -> None:
    """Raise an error if the page may not be written there: before the question is answered."""
    if path is not None:
        own_files.require(path, "--html", "a drawn graph", own_files.holds(b'<div class="drawing"'))


def _draw(path: Path, title: str, lines: Sequence[str], graph: Graph) -> None:
    from lapvqa.lineage import drawing

    drawing.write(path, title, lines, graph)


# up


def _title(lineage: Lineage) -> str:
    target = lineage.target
    return f"{target.metric} of {target.artefacts[0].path}" if target.metric else target.asked


def _headline(lineage: Lineage) -> list[str]:
    target = lineage.target
    lines = [target.remark] if target.remark else []
    for run in lineage.runs:
        if not run.run.outs:
            lines += [f"{name} {value}" for name, value in wording.run_facts(run)]
    if target.metric is not None:
        values = target.value if isinstance(target.value, dict) else {"": target.value}
        lines += [
            f"{target.metric} {system}: {_value(estimate)}" for system, estimate in values.items()
        ]
    return lines


def _value(estimate: Any) -> str:
    if isinstance(estimate, dict) and estimate.keys() >= {"value", "low", "high"}:
        return _bracketed(estimate["value"], estimate["low"], estimate["high"])
    return str(estimate)


def _bracketed(value: Any, low: Any, high: Any) -> str:
    """Return ``0.69 [0.61, 0.75]``; without an interval, the value alone."""
    if value is None:
        return "undefined"
    return str(value) if low is None or high is None else f"{value} [{low}, {high}]"


def _tree(lineage: Lineage, key: Key, shown: set[Any], tree: Tree | None = None) -> Tree:
    """Draw an artefact above what it was made from; each run of a stage is told once."""
    from rich.markup import escape
    from rich.tree import Tree

    node = lineage.nodes[key]
    run = node.origin and node.origin.id
    told = run is not None and run in shown
    label = f"[bold]{escape(node.path)}[/] {node.md5[:SHORT]}"
    if told:
        facts = [f"  stage {node.origin.stage} (see above)"] if node.origin else []
    else:
        facts = [escape(line) for line in _facts(node)]
    text = "\n".join([label, *_listed(node), *facts])
    branch = Tree(text) if tree is None else tree.add(text)
    shown.add(run)
    for upstream in () if told else node.inputs:
        _tree(lineage, upstream, shown, branch)
    return branch


def _listed(node: ArtefactNode) -> list[str]:
    if not node.path.startswith("data/inventory/") or "files" not in node.facts:
        return []
    size = terminal.size(node.facts["bytes"])
    return [f"  lists {node.facts['files']} files, {size}: the archive itself"]


def _facts(node: ArtefactNode) -> list[str]:
    if node.origin is None:
        return [f"  {node.kind}"]
    (_, when), *facts = wording.run_facts(node.origin)
    return [f"  stage {node.origin.stage}, {when}"] + [f"  {name} {text}" for name, text in facts]


# down


def _impact_lines(impact: Impact) -> Iterable[str]:
    target = impact.target
    yield f"What came of {target.kind} {target.key or target.asked}"
    if target.remark:
        yield target.remark
    if impact.films:
        splits = ", ".join(sorted({film["split"] for film in impact.films}))
        studies = len({film["study_key"] for film in impact.films})
        films = _count(len(impact.films), "film", "films")
        yield f"{films} of {_count(studies, 'study', 'studies')}, split {splits}"
        shards: dict[str, list[str]] = {}
        for film in impact.films:
            shards.setdefault(film["shard"], []).append(str(film["row"]))
        for shard, rows in shards.items():
            yield f"  data/images/{shard}: {_rows(rows)}"
    for place in impact.tokens:
        yield f"  {place.path}: {_rows([str(row) for row in place.rows])}"
    for one in impact.sampled:
        how = f"sampled {one.times} times" if one.role == "train" else "chose the best step by it"
        yield (
            f"{one.origin.stage} of {wording.when(one.origin)}, {how} ({one.role}, "
            f"{_count(one.studies, 'study', 'studies')}), run {one.origin.id[:SHORT]}"
        )
        yield f"  checkpoints: {_names(checkpoints(one.origin)) or 'none recorded'}"
    if target.key and not impact.sampled and not target.remark:
        yield "no training in the ledger sampled it"
    if impact.heads:
        tasks = ", ".join(head.stage.partition("@")[2] for head in impact.heads)
        yield f"heads that learn from films of its split, perhaps from it: {tasks}"
    for predicted in impact.predicted:
        yield f"{predicted.path}: {terminal.counted(predicted.rows, 'row')}"
    later = [run for run in impact.runs if run.id not in {one.origin.id for one in impact.sampled}]
    for run in later:
        outs = _names(list(run.run.outs)) or run.run.outcome
        yield f"{run.stage} of {wording.when(run)}, run {run.id[:SHORT]}: {outs}"
        yield from _main_metrics(run.run.counts, run.run.metrics)
    for version in impact.models:
        yield f"registered: {version.title}"
    for gone in impact.replaced:
        yield (
            f"replaced: a {gone['what']} from {gone['source']}, {terminal.moment(gone['time'])}: "
            f"{gone['now'][:SHORT]} took the place of {gone['before'][:SHORT]}"
        )
    for release in impact.releases:
        yield f"released: bundle {release.get('name') or release['bundle'][:SHORT]}"
    if not (impact.runs or impact.predicted or impact.films):
        yield "nothing: no run has read it"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _names(paths: list[str]) -> str:
    """Return paths, those of one folder together: ``results/vqa: extra, metrics.json``."""
    folders: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, []).append(name)
    return "; ".join(f"{folder}: {', '.join(names)}" for folder, names in folders.items())


def _rows(rows: list[str]) -> str:
    more = f" and {len(rows) - _FILMS_SHOWN} more" if len(rows) > _FILMS_SHOWN else ""
    return f"row{'s' * (len(rows) > 1)} {', '.join(rows[:_FILMS_SHOWN])}{more}"


def _main_metrics(counts: dict[str, Any], metrics: dict[str, float]) -> Iterable[str]:
    for name, value in metrics.items():
        system, _, metric = name.partition(".")
        if f"{metric}_{system}" in counts:
            low, high = metrics.get(f"{name}.low"), metrics.get(f"{name}.high")
            yield f"  {metric} {system}: {_bracketed(value, low, high)}"


# diff


def _difference_lines(difference: Difference, keys: bool) -> Iterable[str]:
    first, second = difference.sides
    yield f"{second.target.asked} against {first.target.asked}"
    if {name: run.id for name, run in first.runs.items()} == {
        name: run.id for name, run in second.runs.items()
    } and first.target.artefacts == second.target.artefacts:
        yield "the same: nothing differs"
        return
    for stage in dict.fromkeys([*first.runs, *second.runs]):
        runs = [side.runs.get(stage) for side in difference.sides]
        if all(runs) and runs[0] is not None and runs[1] is not None:
            same = runs[0].id == runs[1].id
            yield f"{stage}: " + (
                "the same run" if same else f"run {runs[0].id[:SHORT]} -> {runs[1].id[:SHORT]}"
            )
            yield from (f"  {change}" for change in difference.changes.get(stage, []))
        else:
            yield f"{stage}: only of {(first if runs[0] else second).target.asked}"
    for one in difference.members:
        noun = "patients" if one.kind == "patient" else "studies"
        yield (
            f"{one.role}: {one.before} -> {one.now} {noun}, {len(one.added)} added, "
            f"{len(one.removed)} removed"
        )
        if keys:
            yield from (f"  + {key}" for key in one.added)
            yield from (f"  - {key}" for key in one.removed)
    shown = [
        pair
        for pair in difference.metrics
        if (pair.difference is not None or pair.note) and pair.before != pair.now
    ]
    yield from map(_pair_line, shown)
    if len(difference.metrics) > len(shown):
        rest = len(difference.metrics) - len(shown)
        yield f"{rest} more metrics, with their intervals, or the same in both: --json"


def _pair_line(pair: MetricPair) -> str:
    values = " -> ".join(_interval(side) for side in (pair.before, pair.now))
    line = f"{pair.stage.removeprefix('evaluate@')}, {pair.name}: {values}"
    if pair.difference is None:
        return f"{line} ({pair.note})"
    p = pair.difference.get("p_value")
    shown = "" if p is None else f", p {p:.3f}"
    return f"{line}; difference {_interval(pair.difference, '+z.3f')}{shown}"


def _interval(values: dict[str, float | None], form: str = "z.3f") -> str:
    from lapvqa.evaluation.results import Interval

    return Interval(*(values.get(end) for end in ("value", "low", "high"))).shown(form)


# why


def _why_lines(answer: Why) -> Iterable[str]:
    if answer.stale:
        yield f"{answer.stage} would run now:"
        yield from (f"  {reason}" for reason in answer.stale)
    else:
        yield f"{answer.stage} is up to date"
    if answer.last is None:
        yield "it has not run yet"
        return
    yield f"it last ran {wording.when(answer.last)}, run {answer.last.id[:SHORT]}"
    if answer.previous is None:
        yield "  that was its first run in the ledger"
        return
    yield f"  since the run of {wording.when(answer.previous)} had changed:"
    for change in answer.changes:
        maker = answer.upstream.get(change.name)
        yield f"    {change}{f' by a new run of {maker}' if maker else ''}"
    if not answer.changes:
        yield "    nothing that is known: it was asked for"
