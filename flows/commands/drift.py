"""``lapvqa drift``: has what arrives changed against the frozen reference?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from flows.commands import terminal
from lapvqa.errors import BusyError, ConfigError, LapvqaError
from lapvqa.project import Project

if TYPE_CHECKING:
    from lapvqa.drift.compare import Compared
    from lapvqa.drift.look import Report
    from lapvqa.job import Job

_ADVICE = {
    "acquisition": "films are taken, stored or sent otherwise: ask what changed at their source",
    "prevalence": "other patients come: films differ as much as the findings say",
    "mixed": "films are taken otherwise, and other patients come",
    "reports": "the texts alone changed: a template, a language, another department",
    "unexplained": "films moved; without findings nothing says by what",
}
_EVALUATE = (
    "evaluate the champion on newly labelled patients before training anything; that is wanted "
    "now, and done by `lapvqa retrain --due` or the schedule"
)


def execute(project: Project, *, since: str | None, freeze: bool, as_json: bool) -> int:
    """Look, or freeze; print what was found. An alarm is no error: the exit code is 0."""
    from lapvqa.drift import look
    from lapvqa.report import freshness

    start = _moment(since)
    if freeze and since:
        raise ConfigError("--freeze takes no --since", hint="freeze first, then look")
    with _at_rest(project) as job:
        if freeze:
            frozen = look.freeze(job)
            said = {"what": "reference", "studies": len(frozen.studies), "at": frozen.at,
                    "digest": frozen.digest}  # fmt: skip
            lines = [
                f"reference frozen now: {terminal.counted(len(frozen.studies), 'study')}, in the "
                "place of any before; the ledger has an entry of it"
            ]
        else:
            report = _look(job, start)
            said, lines = report.to_json(), [*job.recorder.said, *_lines(report)]
        freshness.write_page(project)
    if as_json:
        terminal.print_json(said)
        return 0
    for line in lines:
        terminal.console().print(line, markup=False, soft_wrap=True)
    return 0


def look_of_a_round(project: Project, take_in: Callable[[], object]) -> list[str]:
    """Take in what is new and look; return what was found, or why nobody could look.

    A look that fails is on record as one that was asked for, so that retraining goes on. Raises
    BusyError while another run is at work.
    """
    from lapvqa.drift import looks

    try:
        take_in()
        with _at_rest(project) as job:
            report = _look(job, None)
            return [*job.recorder.said, *_lines(report)]
    except BusyError:
        raise
    except LapvqaError as error:
        looks.refuse(project, error.message)
        return [f"no look for drift could be taken: {error.message}; {error.hint}"]


@contextmanager
def _at_rest(project: Project) -> Iterator[Job]:
    """Hold the project still: a run at work would replace images and tables under our feet."""
    from lapvqa import storage
    from lapvqa.job import open_job
    from lapvqa.recorder import Recorder

    with storage.lock(project.run_lock, what="a run of this project"):
        recorder = Recorder(project.record("drift"), stage="drift", quiet=True)
        try:
            yield open_job(project, recorder)
        finally:
            recorder.close()


def _look(job: Job, start: float | None) -> Report:
    from lapvqa.drift import look
    from lapvqa.evaluation.evaluate import encoder_folder
    from lapvqa.evaluation.image_encoder import OwnEncoder
    from lapvqa.params import load_params
    from lapvqa.pretrain.files import load_encoder

    params = load_params(job.project.params)
    folder = encoder_folder(job)
    return look.look(
        params.drift, job, OwnEncoder(load_encoder(folder)), model=folder, since=start,
        dates_are_true=params.ingest.deid.dates == "keep",
    )  # fmt: skip


def _moment(since: str | None) -> float | None:
    if since is None:
        return None
    try:
        return datetime.fromisoformat(since).astimezone().timestamp()
    except ValueError:
        raise ConfigError(
            f"--since: expected a date such as 2026-11-01, found {since!r}",
            hint="write year, month and day; a time may follow, as 2026-11-01T18:00",
        ) from None


def _lines(report: Report) -> Iterator[str]:
    seen, known = report.window, report.reference
    months = f", of months {', '.join(map(str, known['months']))}" if known["months"] else ""
    when = terminal.moment(known["at"])[: len("2026-11-29")]
    yield (
        f"{seen['studies']} studies arrived from {seen['from']} to {seen['to']}; the reference "
        f"{known['digest'][:12]} has {known['studies']} to compare with{months}"
    )
    yield f"  the reference was frozen on {when}; `lapvqa drift --freeze` makes a new one"
    for remark in report.remarks:
        yield f"  {remark}"
    for one in report.compared:
        yield from _stream_lines(one)
    for name, why in report.left_out.items():
        yield f"  not compared: {name}: {why}"
    if report.alarm:
        yield f"DRIFT ({report.kind}): {_ADVICE[report.kind]}"
        yield f"what to do: {_EVALUATE}"
    elif report.level:
        yield f"no drift at level {report.level:.4f}, Holm over {len(report.compared)} streams"


def _stream_lines(one: Compared) -> Iterator[str]:
    mark = "DRIFT " if one.alarm else ""
    counts = f"{one.patients['new']} new against {one.patients['reference']}"
    yield f"  {mark}{one.name}: p {one.p:.4f}, {counts}; {_detectable(one)}"
    for change in one.changes if one.alarm else ():
        yield f"    {change}"
    if one.alarm and one.told_apart is not None:
        yield f"    a classifier tells new films from old with an AUC of {one.told_apart:.2f}"
    if one.p_given_findings is not None:
        yield f"    among patients of equal findings: p {one.p_given_findings:.4f}"


def _detectable(one: Compared) -> str:
    known = {name: value for name, value in one.detectable.items() if value is not None}
    if not known:
        return "no change of any size would be seen by so few"
    if "shift" in known:
        return f"a shift of {known['shift']:.2f} deviations would be seen"
    name = max(known, key=lambda block: known[block])
    return f"a change of {known[name]:.0%} of {name} would be seen"
