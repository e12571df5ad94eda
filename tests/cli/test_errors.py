"""Every error says what happened and what to do, on stderr, with its exit code; golden texts."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cli_answer import Lapvqa

from flows.commands import plan
from lapvqa.errors import BusyError, RejectBudgetError
from lapvqa.project import DRAWN_MARK, Project
from tasks import prefect_server

GOLDEN = {
    ("rnu",): (2, "No such command 'rnu'. Did you mean 'run'?", "see `lapvqa --help`"),
    ("run", "--stgae", "x"): (
        2, "No such option: --stgae (Possible options: --stage)", "see `lapvqa run --help`",
    ),
    ("schedule", "--cron", "0 0 2 * * *"): (
        2,
        "expected five fields (minute hour day month weekday), found '0 0 2 * * *': 6 fields",
        'every night at two: --cron "0 2 * * *"',
    ),
    ("schedule", "next"): (
        2,
        "expected a clock of this project, found none",
        'make one: lapvqa schedule --cron "0 2 * * *"',
    ),
    ("open", "prefct"): (
        2, "there is no page 'prefct'", "did you mean prefect?",
    ),
    ("export-lineage", "--format", "prv"): (2, "there is no format 'prv'", "did you mean prov?"),
    ("evaluate", "rgr"): (2, "there is no task 'rgr'", "did you mean rrg?"),
    ("score", "vqaa", "x.parquet"): (2, "there is no task 'vqaa'", "did you mean vqa?"),
    ("pull", "pacs"): (
        2, "there is no server in local.yaml called 'pacs'",
        "known: none; one more: intake: {pull: {NAME: {url: https://pacs.example/dicom-web}}}",
    ),
    ("plan", "--preset", "gpu80"): (2, "there is no preset 'gpu80'", "did you mean gpu-80?"),
    ("lineage", "why", "evaluate@rgr"): (
        2, "there is no stage 'evaluate@rgr'", "did you mean evaluate@rrg?",
    ),
    ("lineage",): (2, "Missing argument 'target'.", "see `lapvqa lineage up --help`"),
    ("run", "--stage", "tokns"): (2, "there is no stage 'tokns'", "did you mean tokens?"),
    ("run", "--stage", "xyz"): (
        2,
        "there is no stage 'xyz'",
        "known: inventory, ingest, tokens, evaluate@probe_nih14, evaluate@rrg, report",
    ),
    ("run", "--source", "nowhere"): (
        2,
        "expected a folder with DICOM files at nowhere, found nothing",
        "give the folder that holds the archive: lapvqa run --source DIR",
    ),
    ("run", "--source", "toy.py"): (
        2,
        "expected a folder with DICOM files at toy.py, found a file",
        "give the folder that holds the archive: lapvqa run --source DIR",
    ),
    ("run", "--params", "nowhere.yaml"): (
        2,
        "expected a YAML file with parameters at nowhere.yaml, found none",
        "give a file laid out as params.yaml; it may hold a part of it only",
    ),
    ("lineage", "results/rrg/metric.json"): (
        2,
        "'results/rrg/metric.json' is no file, metric or run that this project made",
        "did you mean results/rrg/metrics.json or results/probe_nih14/metrics.json or "
        "results/rrg?",
    ),
}  # fmt: skip


@pytest.mark.parametrize("arguments", list(GOLDEN), ids=" ".join)
def test_golden_texts(toy: Project, lapvqa: Lapvqa, arguments: tuple[str, ...]) -> None:
    code, what, to_do = GOLDEN[arguments]
    answer = lapvqa(*arguments)
    assert answer.err == f"error: {what}\n  what to do: {to_do}\n"
    assert (answer.code, answer.out) == (code, "")


def test_outside_a_project(tmp_path: Path, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = lapvqa("plan")
    assert answer.err == (
        f"error: expected dvc.yaml in {tmp_path} or a folder above it, found none\n"
        "  what to do: change into the folder of your LAPVQA project (the clone), then run again\n"
    )
    assert answer.code == 2


def test_the_project_is_found_from_a_folder_below(
    toy: Project, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy.tokens_dir)
    assert lapvqa("plan").out == "nothing to do: every stage is up to date\n"


@pytest.mark.parametrize("command", ["run", "plan", "status"])
def test_a_wrong_parameter_is_named_with_the_nearest(
    toy: Project, lapvqa: Lapvqa, command: str
) -> None:
    toy.params.write_text(toy.params.read_text().replace("max_length: 64 ", "max_lenght: 64 "))
    answer = lapvqa(command)
    assert answer.code == 2
    assert answer.err.startswith(
        "error: params.yaml: tokens.max_lenght is not a known parameter; nearest: max_length (line "
    )


@pytest.mark.parametrize("command", ["run", "plan", "status"])
def test_an_empty_file_of_parameters_is_said_to_be_empty(
    toy: Project, lapvqa: Lapvqa, command: str
) -> None:
    toy.params.write_text("# nothing\n")
    dvc_yaml = (Path(__file__).parents[2] / "dvc.yaml").read_text()
    for text in (toy.dvc_yaml.read_text(), dvc_yaml):  # that names parameters, too
        toy.dvc_yaml.write_text(text)
        answer = lapvqa(command)
        assert answer.code == 2
        assert answer.err.startswith("error: params.yaml is empty; expected inventory, ingest, ")
        assert "what to do: restore it: git checkout params.yaml" in answer.err


def test_a_missing_archive_is_said_before_any_server_starts(toy: Project, lapvqa: Lapvqa) -> None:
    toy.params.write_text(toy.params.read_text().replace("demo/mimic-cxr", "demo/elsewhere"))
    answer = lapvqa("run")
    assert answer.err == (
        f"error: expected an archive of DICOM files and reports at {toy.root}/demo/elsewhere, "
        "found nothing\n"
        "  what to do: make the demo archive with `lapvqa demo`, or name yours: "
        "lapvqa run --source DIR\n"
    )
    assert answer.code == 2
    assert not toy.prefect_home.exists()


def test_a_demo_archive_that_was_not_drawn_to_its_end_is_no_archive(
    toy: Project, lapvqa: Lapvqa
) -> None:
    params = toy.params.read_text()
    source = toy.root / re.findall(r"source: *(\S+)", params)[0]
    (source.parent / DRAWN_MARK).touch()
    (source / "new.dcm").touch()
    answer = lapvqa("run")
    assert answer.code == 2
    assert "found one that was not drawn to its end" in answer.err
    assert "run `lapvqa demo` again" in answer.err


def test_a_second_run_says_who_holds_the_lock(toy: Project, lapvqa: Lapvqa) -> None:
    toy.params.write_text(toy.params.read_text().replace("max_length: 64 ", "max_length: 65 "))
    with toy.run_lock.open("w") as lock:
        lock.write("process 4711 on ward-7, since 2026-01-01 00:00:00\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        for arguments in (["run"], ["run", "--source", "demo"], ["demo"]):
            answer = lapvqa(*arguments)
            assert answer.code == 4
            assert "process 4711 on ward-7, since 2026-01-01 00:00:00" in answer.err
            assert "lapvqa status" in answer.err
    assert not toy.local.exists(), "settings must not change while a run is at work"


@pytest.mark.parametrize(
    ("error", "code"), [(RejectBudgetError("7 of 9 files", hint="look"), 3), (BusyError("x"), 4)]
)
def test_exit_codes_are_those_of_the_error(
    toy: Project, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    monkeypatch.setattr(plan, "execute", _raise(error))
    assert lapvqa("plan").code == code


def test_our_own_fault_hides_its_text_but_names_the_place(
    toy: Project, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "execute", _raise(KeyError("Jane Doe")))
    answer = lapvqa("plan")
    assert answer.code == 70
    pattern = r"error: unexpected KeyError at test_errors\.py:\d+; this is a fault of LAPVQA\n"
    assert re.match(pattern, answer.err)
    assert "--debug" in answer.err
    assert "Jane Doe" not in answer.err
    assert "Traceback" not in answer.err


def _full_database(folder: Path) -> Exception:
    """What SQLAlchemy makes of a database that may not grow: SQLite's own error, wrapped."""
    with closing(sqlite3.connect(folder / "full.db")) as database:
        database.execute("PRAGMA max_page_count = 2")
        try:
            database.execute("CREATE TABLE big AS SELECT randomblob(100000)")
        except sqlite3.OperationalError as error:
            wrapper = RuntimeError("Jane Doe")
            wrapper.__cause__ = error
            return wrapper
    raise AssertionError("SQLite took what it had no room for")


def _unreadable_database(folder: Path) -> Exception:
    try:
        sqlite3.connect(folder / "no" / "such.db")
    except sqlite3.OperationalError as error:
        return error
    raise AssertionError("SQLite opened what is not there")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (_full_database, "no space left on the disk"),
        (_unreadable_database, "expected to read or write a database in .lapvqa/"),
        (lambda _: OSError(errno.ENOSPC, "full", "x"), "no space left on the disk"),
        (lambda _: PermissionError(errno.EACCES, "Permission denied", "/else/Doe^Jane"),
         "a file or folder outside the project, found: Permission denied"),
        (lambda _: PermissionError(errno.EACCES, "Permission denied", "data/images/x"),
         "data/ of the project, found: Permission denied"),
    ],
)  # fmt: skip
def test_what_the_machine_refuses_is_no_fault_of_ours(
    toy: Project,
    lapvqa: Lapvqa,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    make: Callable[[Path], Exception],
    what: str,
) -> None:
    monkeypatch.setattr(plan, "execute", _raise(make(tmp_path)))
    answer = lapvqa("plan")
    assert what in answer.err
    assert "fault of LAPVQA" not in answer.err
    assert "Doe" not in answer.err
    assert answer.code == 2


@pytest.mark.parametrize("arguments", [["-h"], ["run", "-h"], ["lineage", "-h"], ["rejects", "-h"]])
def test_h_is_help(lapvqa: Lapvqa, arguments: list[str]) -> None:
    answer = lapvqa(*arguments)
    assert "Usage:" in answer.out
    assert answer.out == lapvqa(*arguments[:-1], "--help").out


@pytest.mark.parametrize("arguments", [["--debug", "plan"], ["plan", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(
    toy: Project, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(plan, "execute", _raise(KeyError("x")))
    assert "Traceback" in lapvqa(*arguments).err


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_whoever_ignored_it_before(
    toy: Project, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch, sign: signal.Signals
) -> None:
    def execute(*_: object, **__: object) -> int:
        os.kill(os.getpid(), sign)
        time.sleep(60)
        return 0

    monkeypatch.setattr(plan, "execute", execute)
    before = signal.signal(sign, signal.SIG_IGN)
    try:
        answer = lapvqa("plan")
        assert signal.getsignal(sign) is signal.SIG_IGN
    finally:
        signal.signal(sign, before)
    assert answer.code == 130
    assert answer.err == ("error: interrupted\n  what to do: run the same again\n")


def test_interrupted_while_a_server_starts(
    toy: Project, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Starting:
        process, url, stopped = "one", "http://127.0.0.1:1/api", False
        wait = staticmethod(_raise(KeyboardInterrupt()))

        def stop(self) -> None:
            self.stopped = True

    server = Starting()
    monkeypatch.setattr(prefect_server, "start_server_early", lambda *_, **__: server)
    answer = lapvqa("open", "prefect", "--no-browser")
    assert (answer.code, server.stopped) == (130, True)
    assert answer.out.splitlines()[-1] == (
        "Prefect's server had not come up yet; nothing is left of it"
    )
    assert "continues" not in answer.out + answer.err


def _raise(error: BaseException) -> Callable[..., int]:
    def execute(*_: object, **__: object) -> int:
        raise error

    return execute
