"""``lapvqa plan``: what would run, and why; runs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flows.commands import terminal
from lapvqa import runtime
from lapvqa.project import Project
from lapvqa.uptodate import staleness
from lapvqa.uptodate.staleness import StageState

if TYPE_CHECKING:
    from rich.console import Console

_UPSTREAM = "upstream "
_REASONS_SHOWN = 3


def execute(project: Project, *, preset: str | None = None) -> int:
    """Print each stage that would run with its reasons, then those that would not.

    ``preset``: what a run with it would take instead; params.yaml stays.
    """
    console = terminal.console()
    if preset is not None:
        for line in _with_preset(project, preset):
            console.print(line, markup=False, soft_wrap=True)
        return 0
    states = current(project)
    if staleness.nothing_to_do(states):
        console.print("nothing to do: every stage is up to date")
        return 0
    if source := _other_source(project):
        console.print(source, markup=False, soft_wrap=True)
    for warning in warnings(project, states):
        console.print(warning, markup=False, soft_wrap=True)
    for state in states:
        if state.stale:
            _show(state, console)
    fresh = [state.name for state in states if not state.stale]
    if fresh:
        console.print(f"up to date: {', '.join(fresh)}", soft_wrap=True)
    return 0


def _with_preset(project: Project, preset: str) -> Iterator[str]:
    from flows.commands import cost, presets

    name = presets.choose(project) if preset == presets.AUTO else preset
    yield from presets.describe(project, name)
    stages = {state.name for state in staleness.check(project)}
    yield from cost.lines(project, presets.params_of(project, name), stages)
    yield f"nothing was changed: a look; `lapvqa run --preset {name}` does it"


def _other_source(project: Project) -> str:
    """Say which archive would be read, if the last run read another; else empty."""
    from lapvqa.uptodate import input_folders, manifest

    known = manifest.load(project)
    now = input_folders.places(project).folders["source"]
    if known is None or known.places.folders["source"] == now:
        return ""
    return f"source: {now}; the last run read {known.places.folders['source']}"


def warnings(project: Project, states: list[StageState]) -> Iterator[str]:
    """Yield what would stop a stage that would run, and what the run takes of the disk."""
    from flows.commands import cost, presets
    from lapvqa.machine import load_machine
    from lapvqa.params import load_params

    stale = {state.name for state in states if state.stale}
    params, machine = load_params(project.params), load_machine(project)
    for_gpu = runtime.has_gpu() and machine.device != "cpu"
    if "pretrain" in stale and params.pretrain.compile and not runtime.compiler(for_gpu=for_gpu):
        yield (
            "pretrain would fail: pretrain.compile is true, and there is no compiler here; "
            "install gcc and g++, or set pretrain.compile to false"
        )
    yield from presets.unfit(project, params)
    yield from cost.lines(project, params, stale)


def current(project: Project) -> list[StageState]:
    """Return the state of every stage; what the manifest cannot tell, DVC is asked."""
    states = staleness.check(project)
    if states and all(state.known for state in states):
        return states
    from tasks.dvc_repository import load_graph, stale_stages

    graph = load_graph(project.root)
    # What looks for new files runs each time; only what it finds tells whether others have to.
    looks = {node.name for node in graph if node.looks_around}
    stale = stale_stages(project, states, graph, done=looks)
    stale |= dict.fromkeys(looks, "always looks for new files; what it finds may concern others")
    return [
        StageState(node.name, node.name in stale, [stale[node.name]] if node.name in stale else [])
        for node in graph
    ]


def _show(state: StageState, console: Console) -> None:
    own = [reason for reason in state.reasons if not reason.startswith(_UPSTREAM)]
    above = [reason.removeprefix(_UPSTREAM) for reason in state.reasons if reason not in own]
    if terminal.is_terminal() and len(own) > _REASONS_SHOWN:
        own[_REASONS_SHOWN:] = [f"and {len(own) - _REASONS_SHOWN} more (all: lapvqa plan | cat)"]
    for reason in [*own, *([_UPSTREAM + ", ".join(above)] if above else [])]:
        console.print(f"{state.name}: {reason}", markup=False, soft_wrap=True)
