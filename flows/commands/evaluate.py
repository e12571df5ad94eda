"""``lapvqa evaluate``: judge the pipeline's encoder or others, and set them side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands import terminal
from lapvqa.errors import ConfigError, LapvqaError
from lapvqa.evaluation.task_table import EVALUATIONS, find
from lapvqa.project import Project

if TYPE_CHECKING:
    from rich.console import Console


Encoders = dict[str, Path]


def execute(
    project: Project,
    *,
    task: str | None,
    every: bool,
    only_compare: bool,
    encoders: list[Path],
    names: list[str],
    trained_on: list[str],
    as_json: bool,
) -> int:
    """Compute what is asked for and print it; the exit code is that of the first task that failed.

    Raises ConfigError for options that do not fit together.
    """
    _check(task, every, only_compare, encoders, names, trained_on)
    tasks = [*EVALUATIONS] if every else [task] if task else []
    for one in tasks:
        find(one)  # an unknown one is named before anything is computed
    # JSON alone goes to standard output, so that it can be piped.
    said = terminal.progress_console() if as_json else terminal.console()
    code = 0
    if encoders:
        code = _judge(_named(encoders, names), trained_on, tasks, project, said)
    else:
        for one in tasks:
            _run_stage(one, project, said)
    if task:
        folders = [project.evaluations_dir(name) for name in _named(encoders, names)]
        return code or _show_task(task, folders or [project.root / "results"], as_json)
    if only_compare and trained_on:
        _state(names, trained_on, project)
    _compare(project, as_json)
    return code


def _check(
    task: str | None, every: bool, only_compare: bool, encoders: list[Path], names: list[str],
    trained_on: list[str],
) -> None:  # fmt: skip
    if (task is not None) + every + only_compare != 1:
        raise ConfigError(
            "expected one of: a task, --all, --compare",
            hint=f"lapvqa evaluate --all, or one task of {', '.join(EVALUATIONS)}",
        )
    if only_compare and encoders:
        raise ConfigError(
            "--compare computes nothing, so it takes no --encoder",
            hint="lapvqa evaluate --all --encoder PATH computes, then compares",
        )
    if trained_on and len(trained_on) != (len(names) if only_compare else len(encoders)):
        whose = "--name" if only_compare else "--encoder"
        raise ConfigError(
            f"expected --trained-on as often as {whose}, in the same order",
            hint=f'{whose} X --trained-on "what X was trained on"; of the pipeline\'s own encoder '
            "its card tells",
        )
    if names and not (only_compare and trained_on) and len(names) != len(encoders):
        raise ConfigError(
            f"expected a --name for each --encoder, found {len(names)} for {len(encoders)}",
            hint="give --name as often as --encoder, in the same order, or not at all",
        )


def _named(paths: list[Path], names: list[str]) -> Encoders:
    """Return name -> path of each encoder; ConfigError if two have one name."""
    from lapvqa.evaluation import external_encoders

    encoders: Encoders = {}
    for place, path in enumerate(paths):
        name = external_encoders.name_of(path, names[place] if names else None)
        if name in encoders:
            raise ConfigError(
                f"two encoders would be called {name}: {encoders[name]} and {path}",
                hint="give each a --name, in the order of --encoder",
            )
        encoders[name] = path
    return encoders


def _state(names: list[str], trained_on: list[str], project: Project) -> None:
    """Keep what was stated of the training of encoders that have been judged."""
    from lapvqa.evaluation import external_encoders

    for name, text in zip(names, trained_on, strict=True):
        external_encoders.state(name, text, project)


def _run_stage(task: str, project: Project, console: Console) -> None:
    from flows.commands.run import bring_stage_up_to_date

    bring_stage_up_to_date(project, f"evaluate@{task}", console)


def _judge(
    encoders: Encoders, trained_on: list[str], tasks: list[str], project: Project, console: Console
) -> int:
    """Judge each encoder by each task, in this process; say what failed and go on."""
    from lapvqa import storage
    from lapvqa.evaluation import external_encoders
    from tasks.display import Display
    from tasks.judging import judge_encoder

    code, display = 0, Display(console)
    # A run at work would replace images and tables under our feet.
    with storage.lock(project.run_lock, what="a run of this project"):
        for name, path in encoders.items():
            external_encoders.claim(name, path, project)
        if trained_on:
            _state(list(encoders), trained_on, project)
        for name, path in encoders.items():
            for task in tasks:
                try:
                    judge_encoder(name, path, task, project, display)
                except LapvqaError as error:
                    display.clear()
                    if len(tasks) == len(encoders) == 1:
                        raise
                    display.say(f"{name}, {task}: failed")
                    terminal.show_error(error)
                    code = code or error.exit_code
    return code


def _show_task(task: str, folders: list[Path], as_json: bool) -> int:
    """Print the metrics of one task as `lapvqa score` does; of several encoders as a list."""
    from flows.commands.score import show
    from lapvqa import storage
    from lapvqa.evaluation.results import METRICS, read_result

    if as_json:
        contents = [
            storage.read_json(folder / task / METRICS, made_by=f"evaluate@{task}")
            for folder in folders
        ]
        terminal.print_json(contents[0] if len(contents) == 1 else contents)
        return 0
    console = terminal.console()
    for folder in folders:
        show(read_result(folder / task, task), console)
    if folders[0].parent.name == "evaluations":
        console.print("beside the others: lapvqa evaluate --compare")
    return 0


def _compare(project: Project, as_json: bool) -> None:
    from flows.commands import comparison
    from lapvqa.evaluation import external_encoders
    from lapvqa.evaluation.compare import compare
    from lapvqa.params import load_params
    from lapvqa.report.comparison import write

    encoders, common = (
        external_encoders.read_encoders(project),
        load_params(project.params).evaluate.common,
    )
    lines = list(compare(project, list(encoders), common=common))
    document = write(lines, encoders, project)
    if as_json:
        terminal.print_json(document)
        return
    comparison.show(lines, terminal.console(), common)
