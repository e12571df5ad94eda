"""The command line: ``lapvqa``. Options and help only; each command lives in ``flows.commands``.

Nothing heavy is imported here: `lapvqa --help` must answer in a moment.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lapvqa import __version__, runtime
from lapvqa.errors import (
    EXIT_FAULT,
    EXIT_INTERRUPTED,
    EXIT_USER,
    ConfigError,
    LapvqaError,
    of_the_machine,
)
from lapvqa.evaluation.task_table import EVALUATIONS
from lapvqa.project import Project

_TASKS = ", ".join(EVALUATIONS)
_EPILOG = (
    "Exit codes: 0 done, or nothing to do; 2 wrong use, settings or input folder; 3 bad data "
    "(more rejects than allowed, a damaged file); 4 another run is at work; 70 a fault of LAPVQA; "
    "130 interrupted, the next run continues; 128 + N a stage was ended by signal N (137: killed)."
)

app = typer.Typer(
    name="lapvqa",
    help="From a chest X-ray archive to an evaluated, traceable vision encoder.",
    epilog=_EPILOG,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    rest = [argument for argument in given if argument != "--debug"]  # wherever it stands
    runtime.one_blas_thread()
    runtime.seldom_look_for_garbage()
    runtime.escape_what_cannot_be_shown()
    try:
        with runtime.interruptible():  # from the first moment on: imports take seconds
            code = app(rest or ["--help"], prog_name="lapvqa", standalone_mode=False)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence names the fault as ours
        if len(rest) < len(given):
            traceback.print_exc()
        return _explain(error)
    if code == EXIT_INTERRUPTED:
        from flows.commands import terminal

        terminal.show_problem("interrupted", "run the same again")  # a stage says that it goes on
    return int(code or 0)


def _explain(error: Exception) -> int:
    """Print an error as what happened and what to do; return the exit code."""
    from flows.commands import terminal

    if isinstance(error, LapvqaError):
        terminal.show_error(error)
        return error.exit_code
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "lapvqa"
        said = error.format_message()
        no_access = said.endswith(("is not readable.", "is not writable."))
        to_do = "grant access, or name another place" if no_access else f"see `{command} --help`"
        terminal.show_problem(said, to_do)
        return EXIT_USER
    if (refused := of_the_machine(error, _root())) is not None:
        terminal.show_error(refused)
        return refused.exit_code
    # No text of the exception itself: it may quote what stands in a file.
    place = traceback.extract_tb(error.__traceback__)[-1]
    terminal.show_problem(
        f"unexpected {type(error).__name__} at {Path(place.filename).name}:{place.lineno}; "
        "this is a fault of LAPVQA",
        "run again with --debug and report what it prints (after reading it for patient data)",
    )
    return EXIT_FAULT


def _root() -> Path | None:
    """Return the project's folder; None outside of one."""
    try:
        return _find_project().root
    except (ConfigError, OSError):
        return None


def _project_or_none() -> Project | None:
    root = _root()
    return None if root is None else Project(root)


def _find_project() -> Project:
    """Return the project around the working folder; ConfigError if there is none."""
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return Project(folder)
    raise ConfigError(
        f"expected dvc.yaml in {here} or a folder above it, found none",
        hint="change into the folder of your LAPVQA project (the clone), then run again",
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lapvqa {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error; works anywhere.")
    ] = False,
) -> None:
    """From a chest X-ray archive to an evaluated, traceable vision encoder."""


@app.command("inspect")
def inspect_(
    paths: Annotated[list[Path], typer.Argument(help="Image files, reports, or folders of both.")],
    png: Annotated[
        Path | None, typer.Option(help="Write the images as they would be stored into this folder.")
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="Show the words of each report that would be learnt.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, help="At most so many image files of a folder.")
    ] = 200,
) -> int:
    """Say what the pipeline would make of a file, a folder or a report. Writes nothing else."""
    from flows.commands.inspection import execute

    return execute(_find_project(), paths, png=png, text=text, limit=limit)


@app.command()
def run(
    stage: Annotated[
        str | None, typer.Option(help="Only this stage, and before it what it stands on.")
    ] = None,
    params: Annotated[
        Path | None,
        typer.Option(help="Write this file's values into params.yaml first; says what changed."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Sizes that fit a machine: demo, laptop, gpu-24, gpu-40, gpu-80, gpu-141, or auto."
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            help="Read this archive from now on (kept in local.yaml). "
            "The folder that params.yaml names switches back."
        ),
    ] = None,
    reports: Annotated[
        Path | None,
        typer.Option(
            help="Its reports, if they lie elsewhere: a table or a folder. With --source, or alone."
        ),
    ] = None,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Go on although many input files are gone; what was made of them goes too.",
        ),
    ] = False,
) -> int:
    """Run what is not up to date: the whole pipeline, or one stage. Resumes by itself."""
    from flows.commands.run import execute

    return execute(
        _find_project(), stage=stage, params_file=params, preset=preset, source=source,
        reports=reports,
        accept_loss=accept_loss,
    )  # fmt: skip


@app.command()
def plan(
    preset: Annotated[
        str | None,
        typer.Option(help="What a run with this preset would take, memory, time and disk."),
    ] = None,
) -> int:
    """Show what would run, and why; run nothing."""
    from flows.commands.plan import execute

    return execute(_find_project(), preset=preset)


@app.command()
def status() -> int:
    """Show stages, what is running, champion, what arrived and is wanted, rejects, disk use."""
    from flows.commands.status import execute

    return execute(_find_project())


@app.command()
def plan_memory(
    params: Annotated[
        Path | None, typer.Option(help="Plan for this file's values over params.yaml's.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Of a GPU, such as 80GB; else what this machine's device has."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Plan for this preset's values, as of `lapvqa run`.")
    ] = None,
) -> int:
    """Show the peak memory of pretraining, and the largest micro-batch that fits."""
    from flows.commands.plan_memory import execute

    return execute(_find_project(), params_file=params, memory=memory, preset=preset)


rejects_app = typer.Typer(
    help="What was rejected and why; read it again, or waive it.",
    invoke_without_command=True,
    no_args_is_help=False,
)
app.add_typer(rejects_app, name="rejects")

_Reason = Annotated[str | None, typer.Option(help="Only this reason code.")]
_File = Annotated[str | None, typer.Option("--file", help="Only this file of the archive.")]


@rejects_app.callback()
def rejects(
    context: typer.Context,
    reason: _Reason = None,
    kind: Annotated[str | None, typer.Option(help="Only file, report or study.")] = None,
    files: Annotated[bool, typer.Option("--files", help="List each one.")] = False,
) -> int:
    """List what was rejected, by reason, with what to do."""
    if context.invoked_subcommand is not None:
        return 0
    from flows.commands.rejects import show

    return show(_find_project(), reason=reason, kind=kind, files=files)


@rejects_app.command()
def retry(reason: _Reason = None, file: _File = None) -> int:
    """Read rejected files again at the next run.

    Files rejected by comparison (duplicates, splits, views) or for a passing cause, reports and
    studies need none of this: every run judges them anew.
    """
    from flows.commands.rejects import retry as execute

    return execute(_find_project(), reason=reason, path=file)


@rejects_app.command()
def waive(
    reason: Annotated[str, typer.Option(help="The reason code to accept.")],
    note: Annotated[str, typer.Option(help="Why it is no cause to stop; kept.")],
    file: _File = None,
) -> int:
    """Keep rejected files from counting against the budget (waivers.yaml)."""
    from flows.commands.rejects import waive as execute

    return execute(_find_project(), reason=reason, path=file, note=note)


@app.command()
def doctor() -> int:
    """Check this machine: packages, GPU, disk, every DICOM codec, tokenizer, stores.

    Outside of a project, what concerns the machine alone.
    """
    from flows.commands.doctor import execute

    return execute(_project_or_none())


@app.command()
def demo(
    patients: Annotated[int, typer.Option(min=10, help="Patients of the MIMIC-CXR copy.")] = 300,
    studies: Annotated[int, typer.Option(min=10, help="Their studies in all.")] = 800,
    seed: Annotated[int, typer.Option(help="Another seed, other patients.")] = 0,
) -> int:
    """Make the demo archive, then run the pipeline on it."""
    from flows.commands.demo import execute

    return execute(_find_project(), patients=patients, studies=studies, seed=seed)


@app.command()
def retrain(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be decided, and why; change nothing.")
    ] = False,
    due: Annotated[
        bool,
        typer.Option("--due", help="Only if something else asks: for cron, systemd and the like."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="In spite of freeze, pause, and the month's hours.")
    ] = False,
    start: Annotated[
        str | None,
        typer.Option("--from", help="scratch, or champion: where the training begins, this time."),
    ] = None,
) -> int:
    """Decide by the rule `retraining` of params.yaml whether the encoder is trained anew; do it."""
    from flows.commands.retrain import execute

    if start not in (None, "scratch", "champion"):
        raise typer.BadParameter("scratch or champion", param_hint="--from")
    return execute(_find_project(), due=due, dry_run=dry_run, force=force, way=start)


schedule_app = typer.Typer(
    help="Wait for what asks for a retraining, and have it done; its clock, and timers of others.",
    invoke_without_command=True,
    no_args_is_help=False,
)
app.add_typer(schedule_app, name="schedule")

_Count = Annotated[int, typer.Option("--count", min=1, max=100, help="How many.")]
_Json = Annotated[bool, typer.Option("--json", help="For machines.")]


@schedule_app.callback()
def schedule(
    context: typer.Context,
    cron: Annotated[
        str | None, typer.Option(help='When to ask: "0 2 * * *" is every night at two. Kept.')
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="Of these times, as Europe/Berlin; else this machine's.")
    ] = None,
    crontab: Annotated[
        bool, typer.Option("--crontab", help="Print a line for crontab instead.")
    ] = False,
    systemd: Annotated[
        bool, typer.Option("--systemd", help="Print a service and a timer for systemd instead.")
    ] = False,
) -> int:
    """Stay and look for what asks for a retraining, until interrupted."""
    from flows.commands import schedule as command

    if zone and not cron:
        raise ConfigError(
            "--zone says in which zone --cron is meant, and found no --cron",
            hint='lapvqa schedule --cron "0 2 * * *" --zone Europe/Berlin',
        )
    if crontab and systemd:
        raise ConfigError("expected --crontab or --systemd, found both", hint="one looks: use one")
    if context.invoked_subcommand is not None:
        if cron or crontab or systemd:
            raise ConfigError(
                f"`lapvqa schedule {context.invoked_subcommand}` takes no option before its name",
                hint="`lapvqa schedule deploy --cron` makes a clock for a deployment",
            )
        return 0
    project = _find_project()
    if crontab:
        return command.print_crontab(project, cron=cron, zone=zone)
    if systemd:
        return command.print_systemd(project, cron=cron, zone=zone)
    return command.execute(project, cron=cron, zone=zone)


@schedule_app.command("list")
def schedule_list(as_json: _Json = False) -> int:
    """Show the clock, what is wanted, what would be decided now, and the last rounds."""
    from flows.commands.schedule import show

    return show(_find_project(), as_json=as_json)


@schedule_app.command("next")
def schedule_next(count: _Count = 5, as_json: _Json = False) -> int:
    """Show the next times of the clock."""
    from flows.commands.schedule import times

    return times(_find_project(), count=count, as_json=as_json)


@schedule_app.command("deploy")
def schedule_deploy(
    cron: Annotated[str | None, typer.Option(help="When to ask. Kept.")] = None,
    zone: Annotated[str | None, typer.Option(help="Of these times; else this machine's.")] = None,
) -> int:
    """Leave the looking to workers of the Prefect server in local.yaml: a deployment, a pool."""
    from flows.commands.schedule import deploy

    return deploy(_find_project(), cron=cron, zone=zone)


@schedule_app.command("pause")
def schedule_pause() -> int:
    """Let nothing begin by itself until `resume`; by hand with --force it does."""
    from flows.commands.schedule import set_paused

    return set_paused(_find_project(), paused=True)


@schedule_app.command("resume")
def schedule_resume() -> int:
    """Go on; times of the clock that have passed meanwhile are not made up for."""
    from flows.commands.schedule import set_paused

    return set_paused(_find_project(), paused=False)


@schedule_app.command("remove")
def schedule_remove() -> int:
    """Remove the clock, and the deployment if there is one."""
    from flows.commands.schedule import remove

    return remove(_find_project())


@app.command()
def receive() -> int:
    """Receive studies by C-STORE into the archive, until interrupted (local.yaml: intake)."""
    from flows.commands.receive import execute

    return execute(_find_project())


@app.command()
def pull(
    source: Annotated[str, typer.Argument(help="A server of local.yaml: intake.pull.")],
    since: Annotated[str | None, typer.Option(help="First day, such as 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day; else today.")] = None,
    days: Annotated[int, typer.Option(min=1, help="Days up to --until, without --since.")] = 7,
    now: Annotated[bool, typer.Option("--now", help="Whatever the hours of local.yaml.")] = False,
) -> int:
    """Fetch from a DICOMweb server the studies that the archive lacks."""
    from flows.commands.pull import execute

    return execute(_find_project(), source, since=since, until=until, days=days, now=now)


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="Others write DICOM files and reports here.")],
    name: Annotated[str, typer.Option(help="What this source is called.")] = "watch",
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the files where they are; else they are moved.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="End when all that is there is in.")] = False,
) -> int:
    """Take studies and reports from a folder into the archive, until interrupted."""
    from flows.commands.watch import execute

    return execute(_find_project(), folder, name=name, keep=keep, once=once)


class _UpByDefault(TyperGroup):
    """`lapvqa lineage TARGET` is `lapvqa lineage up TARGET`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``up`` before what names no question."""
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["up", *args]
        return super().parse_args(ctx, args)


lineage_app = typer.Typer(
    cls=_UpByDefault,
    help="Where a result came from, what came of a film or a patient, and whether all still fits. "
    "`lapvqa lineage TARGET` is `lapvqa lineage up TARGET`.",
    no_args_is_help=False,
)
app.add_typer(lineage_app, name="lineage")

_Target = Annotated[
    str,
    typer.Argument(
        help="A file or folder, a metric (TASK.METRIC or FILE:METRIC), a stage, a run of Prefect, "
        "MLflow or the ledger, a commit, md5 or sha256 (short is enough), a model "
        "(models:/lapvqa-encoder@champion), a DICOM file, a study or a patient."
    ),
]
_Html = Annotated[
    Path | None, typer.Option("--html", help="Write a page with the graph, to click through.")
]


@lineage_app.command()
def up(target: _Target, as_json: _Json = False, html: _Html = None) -> int:
    """Show what it came from: every artefact up to the inventory of the DICOM files."""
    from flows.commands.lineage import up as execute

    return execute(_find_project(), target, as_json=as_json, html=html)


@lineage_app.command()
def down(target: _Target, as_json: _Json = False, html: _Html = None) -> int:
    """Show what came of it: rows, trainings that sampled it, models, predictions, metrics."""
    from flows.commands.lineage import down as execute

    return execute(_find_project(), target, person=False, as_json=as_json, html=html)


@lineage_app.command()
def patient(
    patient_id: Annotated[str, typer.Argument(help="As the headers have it, or the keyed hash.")],
    as_json: _Json = False,
    html: _Html = None,
) -> int:
    """List every artefact, model and metric that a patient (or a study) touched."""
    from flows.commands.lineage import down as execute

    return execute(_find_project(), patient_id, person=True, as_json=as_json, html=html)


@app.command("compare")
@lineage_app.command()
def diff(
    first: _Target,
    second: _Target,
    keys: Annotated[
        bool, typer.Option("--keys", help="The keyed hashes of who came and went, too.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Without paired differences, which take seconds.")
    ] = False,
    as_json: _Json = False,
    html: _Html = None,
) -> int:
    """Compare two models or runs: patients, parameters, code, environment, metrics."""
    from flows.commands.lineage import diff as execute

    return execute(
        _find_project(), first, second, keys=keys, paired=not quick, as_json=as_json, html=html
    )


@lineage_app.command()
def why(
    stage: Annotated[str, typer.Argument(help="A stage of dvc.yaml, or a task.")],
    as_json: _Json = False,
    html: _Html = None,
) -> int:
    """Say why a stage would run now, or why it last ran."""
    from flows.commands.lineage import why as execute

    return execute(_find_project(), stage, as_json=as_json, html=html)


@lineage_app.command()
def verify(as_json: _Json = False, html: _Html = None) -> int:
    """Hash everything again, walk the ledger's chain, name the first thing that does not match."""
    from flows.commands.lineage import verify as execute

    return execute(_find_project(), as_json=as_json, html=html)


@lineage_app.command()
def log(
    limit: Annotated[int, typer.Option(min=1, help="At most so many events.")] = 20,
    as_json: _Json = False,
    html: _Html = None,
) -> int:
    """Tell what happened to this project, newest first."""
    from flows.commands.lineage import log as execute

    return execute(_find_project(), limit=limit, as_json=as_json, html=html)


@app.command()
def card(
    model: Annotated[
        str | None, typer.Argument(help="A model's folder, its weights' sha256, or a run id.")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="As a page, not as Markdown.")] = False,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="The file as it is on a terminal, too; a pipe has it."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write this file instead of printing.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Hold this finished card against the ledger instead.")
    ] = None,
) -> int:
    """Make a model's card and datasheet from the ledger, or check a finished one."""
    from flows.commands.card import execute

    return execute(_find_project(), model=model, html=html, markdown=markdown, out=out, check=check)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The folder to write.")],
    model: Annotated[
        str | None, typer.Argument(help="A model, as for `lapvqa card`; else that of params.yaml.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="Such as apache-2.0; else export.license of params.yaml.")
    ] = None,
) -> int:
    """Write the encoder as a model repository: transformers, timm, card, licence."""
    from flows.commands.export import execute

    return execute(_find_project(), folder, model=model, license=license)


@app.command()
def bundle(
    target: Annotated[
        str | None, typer.Argument(help="A model's folder, an output, a stage, or a run id.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The zip to write.")] = None,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Pack predictions too: they hold patients' keys.")
    ] = False,
    weights: Annotated[bool, typer.Option("--weights", help="Pack weights too.")] = False,
    arriving: Annotated[
        Path | None, typer.Option("--import", help="Check this bundle and bring it in instead.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="With --import: the sender's signing.pub, got by itself.")
    ] = None,
) -> int:
    """Pack a run or model into one signed file, or bring in one from another project."""
    from flows.commands.bundle import bring_in, pack

    if arriving is not None:
        return bring_in(_find_project(), arriving, key=key)
    return pack(_find_project(), target, out, predictions=predictions, weights=weights)


@app.command()
def export_lineage(
    target: Annotated[
        str | None, typer.Argument(help="A run or model; without, the whole ledger.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="openlineage, prov or ro-crate.")
    ] = "openlineage",
    out: Annotated[
        Path | None, typer.Option(help="The file to write; of ro-crate, the folder.")
    ] = None,
) -> int:
    """Write the ledger in a format that other tools read."""
    from flows.commands.export_lineage import execute

    return execute(_find_project(), target=target, form=form, out=out)


@app.command()
def replay(
    steps: Annotated[str, typer.Option(help="FIRST:LAST steps of history.csv, from 1.")],
) -> int:
    """Compute a stretch of the training again and compare it with the logged losses."""
    from flows.commands.replay import execute

    return execute(_find_project(), steps=steps)


@app.command()
def evaluate(
    task: Annotated[str | None, typer.Argument(help=f"One of {_TASKS}.")] = None,
    encoder: Annotated[
        list[Path] | None,
        typer.Option(help="Judge the encoder at this local path instead; repeatable."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="What to call it, as often as --encoder; else its file's name."),
    ] = None,
    trained_on: Annotated[
        list[str] | None,
        typer.Option(
            help="What its maker says it was trained on, as often as --encoder; with --compare, of "
            "each --name that is judged already. Kept, and shown beside its results."
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All tasks, then the comparison.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Only the comparison, of what is computed.")
    ] = False,
    as_json: _Json = False,
) -> int:
    """Judge the pipeline's encoder or another one, by one task or all, and compare."""
    from flows.commands.evaluate import execute

    return execute(
        _find_project(), task=task, every=every, only_compare=compare, encoders=encoder or [],
        names=name or [], trained_on=trained_on or [], as_json=as_json,
    )  # fmt: skip


@app.command()
def score(
    task: Annotated[str, typer.Argument(help=f"One of {_TASKS}.")],
    predictions: Annotated[
        Path, typer.Argument(help="A file with the columns of results/TASK/predictions.parquet.")
    ],
    as_json: _Json = False,
) -> int:
    """Score anybody's predictions as the pipeline scores its own; write nothing."""
    from flows.commands.score import execute

    return execute(_find_project(), task=task, predictions=predictions, as_json=as_json)


_Films = Annotated[list[Path], typer.Argument(help="DICOM files, PNG, JPEG, or folders of them.")]
_Model = Annotated[
    str | None,
    typer.Option(
        help="A folder or file of weights, champion, or models:/NAME/VERSION; else the model that "
        "params.yaml names."
    ),
]


@app.command()
def embed(
    films: _Films,
    model: _Model = None,
    out: Annotated[Path, typer.Option(help="The table to write, of Parquet.")] = Path(
        "features.parquet"
    ),
) -> int:
    """Write the encoder's features of films to a table, a row per film, rejects with reasons."""
    from flows.commands.using import embed as execute

    return execute(_project_or_none(), films, model=model, out=out)


@app.command()
def caption(
    films: _Films,
    model: _Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON per film.")] = False,
) -> int:
    """Write the report of each film, as the captioning model does. Research use only."""
    from flows.commands.using import caption as execute

    return execute(_project_or_none(), films, model=model, as_json=as_json)


@app.command()
def ask(
    film: Annotated[Path, typer.Argument(help="A film, or a folder of them.")],
    question: Annotated[str, typer.Argument(help='Such as "is there pleural effusion?"')],
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON per film.")] = False,
) -> int:
    """Answer a question about a film with the head of the evaluation vqa. Research use only."""
    from flows.commands.using import ask as execute

    return execute(_find_project(), [film], question, as_json=as_json)


@app.command("try")
def try_(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it, or only say the address.")
    ] = True,
) -> int:
    """Open a page on this machine: drop a film, see report, findings, similar films, attention."""
    from flows.commands.try_page import execute

    return execute(_find_project(), port=port, browser=browser)


@app.command()
def drift(
    since: Annotated[
        str | None,
        typer.Option(help="Compare what arrived since this date, as 2026-11-01, not the window."),
    ] = None,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Make all studies that are here the new reference.")
    ] = False,
    as_json: _Json = False,
) -> int:
    """Say whether what arrives has changed against the frozen reference; trains nothing."""
    from flows.commands.drift import execute

    return execute(_find_project(), since=since, freeze=freeze, as_json=as_json)


@app.command()
def gate(
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be asked, or sealed; ask, seal and move nothing.",
        ),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also what a rollback went back from.")
    ] = False,
    seal: Annotated[
        bool,
        typer.Option("--seal", help="Keep a share of the test patients who arrive from now on."),
    ] = False,
    new_round: Annotated[
        bool, typer.Option("--new-round", help="With --seal: draw anew, in place of a spent set.")
    ] = False,
    as_json: _Json = False,
) -> int:
    """Judge the exported encoder against the champion; it takes its place if it is better."""
    from flows.commands import gate as command

    if seal and again:
        raise ConfigError(
            "--again is about a candidate, and --seal judges none",
            hint="`lapvqa gate --seal`, or `lapvqa gate --again`",
        )
    if seal:
        return command.seal(_find_project(), new_round=new_round, dry_run=dry_run, as_json=as_json)
    if new_round:
        raise ConfigError(
            "--new-round says how to seal, and found no --seal",
            hint="lapvqa gate --seal --new-round",
        )
    return command.execute(_find_project(), dry_run=dry_run, again=again, as_json=as_json)


@app.command()
def rollback() -> int:
    """Make the champion before this one the champion again; the next run leaves it so."""
    from flows.commands.gate import rollback as execute

    return execute(_find_project())


@app.command()
def erase(
    patient: Annotated[
        str | None, typer.Option(help="The patient's id as the archive has it, or as the tables.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "--execute", help="Do it; without, only a look.")
    ] = False,
    request: Annotated[str, typer.Option(help="What the request is called, for the receipt.")] = "",
    also: Annotated[
        list[Path] | None,
        typer.Option(help="Search this folder too (bundles, copies); repeatable."),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Check the proof in this receipt; nothing else.")
    ] = None,
) -> int:
    """Erase a patient from every store: a look first, then the erasure with a receipt."""
    from flows.commands.erase import check as check_receipt
    from flows.commands.erase import execute

    if check is not None:
        return check_receipt(_find_project(), check)
    if patient is None:
        raise ConfigError("expected --patient ID", hint="or --check RECEIPT")
    return execute(_find_project(), patient=patient, request=request, do=yes, also=also or [])


@app.command("open")
def open_(
    place: Annotated[str, typer.Argument(help="report, mlflow, prefect or plots.")] = "report",
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it, or only say the address.")
    ] = True,
) -> int:
    """Open the report page, MLflow's or Prefect's pages, DVC's plots: without telemetry."""
    from flows.commands.open_pages import execute

    return execute(_find_project(), place, browser=browser)


@app.command()
def whois(
    key: Annotated[
        str,
        typer.Argument(help="Of a study, patient or image (8 digits or more); or a file's path."),
    ],
) -> int:
    """Name the archive's files behind a key: for who holds the key file; each question is kept."""
    from flows.commands.whois import execute

    return execute(_find_project(), key)


@app.command()
def sync() -> int:
    """Bring records that waited for MLflow into it."""
    from flows.commands.sync import execute

    return execute(_find_project())


if __name__ == "__main__":
    raise SystemExit(main())
