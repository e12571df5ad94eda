"""``lapvqa replay``: compute a stretch of the training again, and compare."""

from __future__ import annotations

from flows.commands import terminal
from lapvqa.errors import EXIT_BAD_DATA, ConfigError
from lapvqa.job import open_job
from lapvqa.params import load_params
from lapvqa.project import Project


def execute(project: Project, *, steps: str) -> int:
    """Print how the recomputed losses compare; EXIT_BAD_DATA if they differ."""
    first, last = _parse(steps)
    from lapvqa.pretrain.replay import replay
    from lapvqa.recorder import Recorder

    recorder = Recorder(project.record("replay"), stage="replay", quiet=True)
    try:
        params = load_params(project.params).pretrain
        job = open_job(project, recorder)
        replayed = replay(params, job, first=first, last=last)
    finally:
        recorder.close()
    console = terminal.console()
    start = f"the state after step {replayed.start}" if replayed.start else "the first step"
    console.print(f"replayed steps {first} to {last} from {start}", soft_wrap=True)
    if not replayed.differing and replayed.chain_agrees:
        console.print(
            f"{len(replayed.steps)} losses are the logged ones, bit by bit, and so is their chain"
        )
        return 0
    if not replayed.differing:
        console.print("the losses agree, their chain does not: earlier steps were other ones")
        return EXIT_BAD_DATA
    first_differing = replayed.differing[0]
    largest = max(abs(step.logged - step.replayed) for step in replayed.differing)
    console.print(
        f"{len(replayed.differing)} of {len(replayed.steps)} losses differ, "
        f"by {largest:.1e} at most; "
        f"the first at step {first_differing.step}: logged {first_differing.logged!r}, "
        f"found {first_differing.replayed!r}",
        soft_wrap=True,
    )
    if job.machine.training.processes * job.machine.training.nodes > 1:
        console.print(
            "  local.yaml names several processes for training, and a replay is one: it rounds "
            "differently, which is no fault",
            soft_wrap=True,
        )
    console.print(
        "  another processor, number of threads or processes, or version of torch rounds "
        "differently; larger differences mean other code or a changed history.csv",
        soft_wrap=True,
    )
    return EXIT_BAD_DATA


def _parse(steps: str) -> tuple[int, int]:
    first, _, last = steps.partition(":")
    if not (first.isdecimal() and last.isdecimal()):
        raise ConfigError(f"expected FIRST:LAST, found {steps!r}", hint="such as --steps 100:120")
    return int(first), int(last)
