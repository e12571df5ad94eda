"""``lapvqa doctor``: is this machine fit for a run? Each check tries one thing that a run needs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from flows.commands import terminal
from lapvqa import runtime
from lapvqa.errors import EXIT_USER, LapvqaError
from lapvqa.machine import load_machine
from lapvqa.project import Project

OK, WARN, FAIL = "ok", "warn", "fail"
_COLOURS = {OK: "green", WARN: "yellow", FAIL: "red"}
_WIDE, _INDENT = 110, 51  # columns from which remedies stand below the findings, and where
_FREE_FAIL, _FREE_WARN = 1e9, 10e9
_SENTENCE = "No acute cardiopulmonary process; heart size is normal."
_KNOWN_IDS = ("hello world", [31373, 995])


@dataclass(frozen=True)
class Check:
    """One finding; FAIL only for what a run cannot do without."""

    name: str
    status: str
    found: str
    remedy: str = ""


def execute(project: Project | None) -> int:
    """Print each check as it is made; EXIT_USER if something needed does not work.

    None: outside of a project only ``OF_THE_MACHINE`` are made.
    """
    console = terminal.console()
    checks = []
    made = run_all(Project(Path.cwd()), OF_THE_MACHINE) if project is None else run_all(project)
    for check in made:
        checks.append(check)
        name = f"  {check.name:44} "
        beside = len(check.status.ljust(4) + name + check.found) <= console.width
        head = f"[{_COLOURS[check.status]}]{check.status:4}[/]{name}"
        console.print(head, end="" if beside else "\n", soft_wrap=True)
        console.print(("" if beside else "      ") + check.found, markup=False, soft_wrap=True)
        if check.remedy:
            indent = " " * (_INDENT if console.width >= _WIDE else 6)
            console.print(f"{indent}what to do: {check.remedy}", markup=False, soft_wrap=True)
    console.print(_verdict(checks), markup=False)
    if project is None:
        console.print(
            "no project here (no dvc.yaml in this folder or above it): its settings, locked "
            "packages and stores were not looked at",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    return EXIT_USER if any(check.status == FAIL for check in checks) else 0


def _verdict(checks: list[Check]) -> str:
    counts = {
        status: sum(check.status == status for check in checks) for status in (OK, WARN, FAIL)
    }
    numbers = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    fit = "this machine is fit for a run" if not counts[FAIL] else "a run would fail here"
    return f"{numbers}: {fit}"


def python(project: Project) -> Iterator[Check]:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    right = (3, 11) <= sys.version_info[:2] <= (3, 13)
    remedy = "" if right else "the lock was resolved for Python 3.11 to 3.13; make the .venv anew"
    new_enough = sys.version_info >= (3, 11)
    yield Check("Python", OK if right else WARN if new_enough else FAIL, version, remedy)


def packages(project: Project) -> Iterator[Check]:
    """Installed versions beside requirements/lock.txt."""
    lock = project.root / "requirements" / "lock.txt"
    if not lock.exists():
        yield Check("packages", WARN, "no requirements/lock.txt", "restore it from git")
        return
    lines = lock.read_text(encoding="utf-8").splitlines()
    needed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    wanted = [
        (one.name, str(one.specifier).removeprefix("=="))
        for one in needed
        if one.marker is None or one.marker.evaluate()
    ]
    missing, other = [], []
    for name, version in wanted:
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if installed.split("+")[0] != version.split("+")[0]:
            other.append(f"{name} {installed} (lock: {version})")
    remedy = "pip install -r requirements/lock.txt"
    if missing:
        yield Check("packages", FAIL, f"missing: {_some(missing)}", remedy)
    if other:
        yield Check("packages", WARN, f"other versions: {_some(other)}", remedy)
    if not missing and not other:
        yield Check("packages", OK, f"{len(wanted)} as locked")


def torch(project: Project) -> Iterator[Check]:
    """Where training would run."""
    import torch as library

    from lapvqa.networks.device import choose_device

    if library.cuda.is_available():
        name = library.cuda.get_device_name(0)
        memory = library.cuda.get_device_properties(0).total_memory
        count = library.cuda.device_count()
        found = f"{library.__version__}, {count} x {name}, {terminal.size(memory)}"
        yield Check("torch", OK, found)
    else:
        choose_device(load_machine(project))  # raises where there is a GPU that torch cannot use
        remedy = "enough for the demo; the full-size model needs a GPU and torch built for it"
        yield Check("torch", WARN, f"{library.__version__}, no GPU", remedy)


def compiler(project: Project) -> Iterator[Check]:
    """A compiler: torch.compile builds its kernels with one."""
    for_gpu = runtime.has_gpu() and load_machine(project).device != "cpu"
    name = f"{'C' if for_gpu else 'C++'} compiler"
    found = runtime.compiler(for_gpu=for_gpu)
    if found:
        yield Check(name, OK, found)
        return
    needed = _compiles(project)
    remedy = "install gcc and g++" + (", or set pretrain.compile to false" if needed else "")
    yield Check(name, FAIL if needed else WARN, "none: pretrain.compile needs one", remedy)


def computing(project: Project) -> Iterator[Check]:
    """What training computes, in small: on the device of local.yaml, beside a CPU."""
    import torch as library

    from flows.commands.device_trials import trials
    from lapvqa.networks.device import Computer, choose_device

    computer = Computer(choose_device(load_machine(project)))
    where = str(computer.device)
    needed = _compiles(project)
    on_gpu = computer.device.type == "cuda"
    compiled = needed or (on_gpu and runtime.compiler(for_gpu=True) is not None)
    with library.random.fork_rng(devices=[]):  # weights are drawn on the CPU
        for trial in trials(computer, compiled=compiled):
            found = f"{trial.apart:.1%} apart from a CPU's, {terminal.span(trial.seconds)}"
            if trial.fault:
                status = FAIL
                remedy = "set device: cpu in local.yaml, or reinstall torch for this device"
                if trial.name.startswith("compiled"):
                    status = FAIL if needed else WARN
                    remedy = "see that a compiler works here"
                    remedy += ", or set pretrain.compile to false" if needed else ""
                yield Check(f"{trial.name}, {where}", status, trial.fault, remedy)
            else:
                yield Check(f"{trial.name}, {where}", OK, found)


def _compiles(project: Project) -> bool:
    """Return pretrain.compile; outside of a project nothing is asked for."""
    from lapvqa.params import load_params

    return project.params.exists() and load_params(project.params).pretrain.compile


def disk(project: Project) -> Iterator[Check]:
    """Free space where the project lies."""
    free = shutil.disk_usage(project.root).free
    status = FAIL if free < _FREE_FAIL else WARN if free < _FREE_WARN else OK
    remedy = "" if status == OK else "free space: `dvc gc -w` drops results of older settings"
    yield Check("disk", status, f"{terminal.size(free)} free", remedy)


def codecs(project: Project) -> Iterator[Check]:
    """Every DICOM encoding, by decoding a tiny file of each."""
    from lapvqa.dicom import self_test

    for sample in self_test.SAMPLES:
        name = f"DICOM {sample.name}"
        try:
            wrong = self_test.check(sample)
        except self_test.NoDecoderError:
            remedy = "such files are rejected (decoder_missing); convert them with dcmdjpeg"
            yield Check(name, WARN, "no decoder is installed", remedy)
            continue
        if wrong:
            remedy = "reinstall the decoders: pip install -r requirements/lock.txt"
            yield Check(name, FAIL, wrong, remedy)
        else:
            exact = "exact" if sample.max_error == 0 else f"within {sample.max_error} grey values"
            yield Check(name, OK, f"decoded, {exact}")


def shards(project: Project) -> Iterator[Check]:
    """The stored images, every byte, if there are any."""
    from lapvqa.images.shards import verify_shards

    names = [path.name for path in project.images_dir.glob("*.arrow")]
    if not names:
        return
    try:
        images = verify_shards(project.images_dir, names)
    except LapvqaError as error:
        yield Check("stored images", FAIL, error.message, error.hint)
        return
    yield Check("stored images", OK, f"{images} in {len(names)} shards have their checksums")


def tokenizer(project: Project) -> Iterator[Check]:
    """GPT-2 tokens without a network."""
    from lapvqa.text import bpe

    encoding = bpe.encoding()
    text, ids = _KNOWN_IDS
    right = encoding.encode(text) == ids
    right = right and encoding.decode(encoding.encode(_SENTENCE)) == _SENTENCE
    remedy = "" if right else "restore lapvqa/text/gpt2.tiktoken.gz from git"
    found = "GPT-2 table from the package" if right else "wrong ids"
    yield Check("tokenizer", OK if right else FAIL, found, remedy)


def settings(project: Project) -> Iterator[Check]:
    """params.yaml, local.yaml, and the archive that they name."""
    from lapvqa.params import load_params

    params, machine = load_params(project.params), load_machine(project)
    yield Check("settings", OK, f"params.yaml is valid; {machine.workers} workers")
    folder = machine.folder("source", params.inventory, project)
    there = folder.is_dir()
    remedy = "" if there else "make the demo: lapvqa demo; or yours: lapvqa run --source DIR"
    yield Check("archive", OK if there else WARN, f"{folder}{'' if there else ': none'}", remedy)


def git(project: Project) -> Iterator[Check]:
    """The code's commit goes into every record."""
    if shutil.which("git") is None:
        remedy = "install git: records cannot name the code, `dvc metrics diff` cannot compare"
        yield Check("git", WARN, "not installed", remedy)
    elif not (project.root / ".git").exists():
        yield Check("git", WARN, "the project is no git clone", "clone it, or `git init`")
    else:
        yield Check("git", OK, "present")


def dvc(project: Project) -> Iterator[Check]:
    """DVC's folder and cache."""
    if not (project.root / ".dvc" / "config").exists():
        yield Check("DVC", FAIL, "no .dvc/config", "restore .dvc from git, or `dvc init`")
        return
    yield _writable("DVC cache", project.root / ".dvc")


def prefect(project: Project) -> Iterator[Check]:
    """The server that records runs."""
    url = load_machine(project).servers.prefect_api_url or os.environ.get("PREFECT_API_URL")
    if url:
        yield _answers("Prefect, served", f"{url.rstrip('/')}/health", url)
        return
    yield _database("Prefect, embedded", project.prefect_home / "prefect.db", project)
    with tempfile.TemporaryDirectory() as elsewhere:  # its import makes its home: a look does not
        home = os.environ.setdefault("PREFECT_HOME", elsewhere)
        import prefect.server.api.server
    if home == elsewhere:
        del os.environ["PREFECT_HOME"]
    version = prefect.__version__
    yield Check("Prefect server", OK, f"{version} can be started")


def mlflow(project: Project) -> Iterator[Check]:
    """The store of parameters and metrics, and what waits for it."""
    from tasks.mlflow_records.connection import MOVE, cannot_migrate

    uri = load_machine(project).servers.mlflow_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri and uri.startswith("http"):
        yield _answers("MLflow, served", f"{uri.rstrip('/')}/health", uri)
    elif cannot_migrate():
        yield Check("MLflow, embedded", WARN, "cannot make its tables: its path has a %", MOVE)
    else:
        yield _database("MLflow, embedded", project.mlflow_db, project)
    waiting = sum(1 for _ in project.spool.glob("*/*/record.json"))
    if waiting:
        yield Check("MLflow records", WARN, f"{waiting} wait", "lapvqa sync")


def ledger(project: Project) -> Iterator[Check]:
    """The ledger that `lapvqa lineage` reads."""
    from lapvqa.lineage import ledger as book

    faults = book.verify(project)
    found = f"{len(book.entries(project))} entries" + (f", {faults[0]}" if faults else "")
    remedy = "restore ledger/ from git or a backup; `lapvqa lineage verify`" if faults else ""
    yield Check("ledger", WARN if faults else OK, found, remedy)


CHECKS: tuple[Callable[[Project], Iterator[Check]], ...] = (
    python, packages, torch, compiler, computing, disk, git, settings, tokenizer, codecs, shards,
    dvc, prefect, mlflow, ledger,
)  # fmt: skip


OF_THE_MACHINE = (python, torch, compiler, computing, disk, tokenizer, codecs)
"""The checks that need no project."""


def run_all(
    project: Project, checks: Sequence[Callable[[Project], Iterator[Check]]] | None = None
) -> Iterator[Check]:
    """Make every check; one that breaks down is a finding, not the end."""
    for check in CHECKS if checks is None else checks:
        try:
            yield from check(project)
        except LapvqaError as error:
            yield Check(check.__name__, FAIL, error.message, error.hint)
        except Exception as error:  # noqa: BLE001 - broken installations raise anything
            remedy = "reinstall: pip install -r requirements/lock.txt"
            yield Check(check.__name__, FAIL, f"{type(error).__name__}: {error}", remedy)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _writable(name: str, folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Check(name, OK, "writable")
    except OSError as error:
        return Check(name, FAIL, f"{error.strerror}", f"grant write access to {folder}")


def _database(name: str, path: Path, project: Project) -> Check:
    if not path.exists():
        here = project.state if project.state.exists() else project.root
        check = _writable(name, here)
        return check if check.status == FAIL else Check(name, OK, "SQLite, made on first use")
    try:
        with closing(sqlite3.connect(path, timeout=1, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return Check(name, OK, "SQLite, in use now")
        return Check(name, FAIL, f"SQLite: {error}", f"grant write access to {path}")
    except sqlite3.DatabaseError as error:
        return Check(name, FAIL, f"SQLite: {error}", f"move {path} away; a new one is made")
    return Check(name, OK, f"SQLite, {terminal.size(path.stat().st_size)}, writable")


def _answers(name: str, health: str, url: str) -> Check:
    from tasks.mlflow_records.connection import public

    url = public(url)  # without a password
    try:
        with urllib.request.urlopen(public(health), timeout=5):
            return Check(name, OK, url)
    except (urllib.error.URLError, OSError, ValueError) as error:
        # Runs go on without it (embedded server, spooled records), so this is no failure.
        remedy = "start it, or correct servers in local.yaml; meanwhile runs record on this machine"
        return Check(name, WARN, f"{url} does not answer ({error})", remedy)
