"""``lapvqa rejects``: what was rejected and why; read it again, or waive it.

Paths are shown as the archive names them, on this terminal only: they may hold patients' numbers.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from flows.commands import terminal
from lapvqa import storage
from lapvqa.errors import ConfigError, MissingArtifactError, no_such
from lapvqa.lineage import dvc_cache, ledger
from lapvqa.project import Project
from lapvqa.uptodate import hashes, manifest

if TYPE_CHECKING:
    from rich.console import Console

Row = dict[str, str | None]
KINDS = ("file", "report", "study")


def show(project: Project, *, reason: str | None, kind: str | None, files: bool) -> int:
    """Print the rejects by reason with what to do, or each one."""
    from lapvqa.ingest.rejects import load_waivers, mark

    rows = select(project, reason=reason, kind=kind)
    console = terminal.console()
    if not rows:
        console.print("nothing was rejected")
        _show_beside(project, console)
        _show_older(project, console)
        return 0
    waived = load_waivers(project).marks
    if files:
        _show_each(project, rows, waived, console)
        _show_older(project, console)
        return 0
    groups = Counter((str(row["reason"]), str(row["kind"]), str(row["stage"])) for row in rows)
    remedies = {str(row["reason"]): str(row["remedy"]) for row in rows}
    waivers = Counter(str(row["reason"]) for row in rows if (mark(row), row["reason"]) in waived)
    columns = ("reason", "kind", "stage", "how many", "waived", "what to do")
    cells = [
        [reason_, *of, str(number), str(waivers[reason_] or ""), remedies[reason_]]
        for (reason_, *of), number in groups.most_common()
    ]
    terminal.show_table(console, columns, cells)
    console.print(
        "each file: --files; read again: lapvqa rejects retry; accept: lapvqa rejects waive"
    )
    _show_beside(project, console)
    _show_older(project, console)
    return 0


def _show_each(
    project: Project, rows: list[Row], waived: set[tuple[str, str]], console: Console
) -> None:
    """Print a line per file and report; studies of which the same is said stand together."""
    from rich.columns import Columns

    from lapvqa.ingest.rejects import mark

    same = _same_uid(project, rows)
    studies: dict[str, list[str]] = {}
    for row in rows:
        note = " (waived)" if (mark(row), row["reason"]) in waived else ""
        text = f"{row['reason']}{note}; {row['detail']}"
        if row["kind"] == "study":
            studies.setdefault(text, []).append(str(row["file"]))
            continue
        if others := same.get(str(row["file"])):
            text += f"; the same image UID: {', '.join(others)}"
        console.print(f"{row['kind']} {row['file']}: {text}", markup=False, soft_wrap=True)
    for text, names in studies.items():
        console.print(f"{terminal.counted(len(names), 'study')}: {text}", markup=False)
        console.print(Columns(names, padding=(0, 2)))


def _same_uid(project: Project, rows: list[Row]) -> dict[str, list[str]]:
    """Return the other files with the UID of each that was rejected for it, where it is kept."""
    from flows.commands import whois
    from lapvqa.dicom.reasons import Reason

    again = [str(row["file"]) for row in rows if row["reason"] == Reason.DUPLICATE_UID]
    if not again:
        return {}
    try:
        same = whois.by_uid(whois.rows_of(project))
    except (ConfigError, MissingArtifactError):  # read on another machine, or before
        return {}
    return {path: whois.twins(path, same) for path in again}


def _show_older(project: Project, console: Console) -> None:
    """Say that what tokens rejected is left out, where it is of other studies."""
    if project.token_rejects.exists() and not tokens_is_of_present(project):
        number = len(_token_rejects(project))
        console.print(
            f"not shown: {terminal.counted(number, 'reject')} of tokens, which has not read the "
            "studies that are here now: they are of another archive, or of an earlier state of it",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def tokens_is_of_present(project: Project) -> bool:
    """Tell whether tokens has read the studies that are here, as far as dvc.lock tells.

    An ingest that failed, as of a new archive, has left none.
    """
    studies = project.studies.relative_to(project.root).as_posix()
    lock = manifest.locked(project).get("tokens")
    if lock is None or studies not in lock.deps:
        return True
    known = manifest.load(project)
    hasher = hashes.Hasher(project, known.artefacts if known else {})
    return hasher.md5(studies) == lock.deps[studies]


def _show_beside(project: Project, console: Console) -> None:
    """Print how many files are neither images nor rejects, by kind."""
    from lapvqa.ingest.account import described
    from lapvqa.schemas import COMPANIONS

    if project.companions.exists():
        beside = storage.read_table(project.companions, COMPANIONS, made_by="ingest")
        where = project.companions.relative_to(project.root)
        console.print(f"not rejected, and no images: {described(beside)}; listed in {where}")


def retry(project: Project, *, reason: str | None, path: str | None) -> int:
    """Forget the rejected files, so that the next run reads them again."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from lapvqa.ingest.one_file import FileResult
    from lapvqa.ingest.result_store import forget
    from lapvqa.schemas import INVENTORY

    rows = [row for row in select(project, reason=reason, kind=None) if path in (None, row["file"])]
    known = {(row["file"], row["reason"]) for row in rows if row["kind"] == "file"}
    listed = storage.read_table(project.inventory("source"), INVENTORY, made_by="inventory")
    paths = pa.array([file for file, _ in known], pa.string())
    asked = listed.filter(pc.is_in(listed["path"], paths))
    present = {(row["path"], row["size"], row["mtime_ns"]) for row in asked.to_pylist()}

    def unwanted(result: FileResult) -> bool:  # of another archive a file may have the same path
        is_present = (result.path, result.size, result.mtime_ns) in present
        return is_present and (result.path, result.reason) in known

    with storage.lock(project.run_lock, what="a run of this project"):
        number = forget(project.work_dir("ingest"), unwanted)
        if number and project.rejects.exists():
            # An output that is missing makes the stage stale; the next `rejects` finds it there.
            kept = project.work_dir("ingest") / project.rejects.name
            project.rejects.replace(kept)
            md5 = hashes.md5_file(kept)
            if cached := dvc_cache.stored(project, md5):  # else DVC brings back what it was
                cached.unlink()
    console = terminal.console()
    console.print(
        f"{terminal.counted(number, 'file')} will be read again by the next `lapvqa run`"
        if number
        else "no further file will be read again"
    )
    others = Counter(str(row["kind"]) for row in rows)
    others["file"] -= number
    told = {kind: terminal.counted(others[kind], kind) for kind in KINDS if others[kind] > 0}
    if "file" in told:
        told["file"] += (
            " (by comparison: duplicates, splits, views; of a passing cause; or asked for before)"
        )
    if told:
        console.print(f"not among them, for every run judges them anew: {', '.join(told.values())}")
    return 0


def waive(project: Project, *, reason: str, path: str | None, note: str) -> int:
    """Write the rejected files into waivers.yaml: they no longer count against the budget."""
    from ruamel.yaml import YAML

    from lapvqa.ingest.rejects import load_waivers, mark

    rows = [
        row
        for row in select(project, reason=reason, kind="file")
        if path is None or row["file"] == path
    ]
    if not rows:
        raise ConfigError(
            f"no rejected file with reason {reason}" + (" at that path" if path else ""),
            hint="see `lapvqa rejects --files`",
        )
    known = load_waivers(project)
    new: list[dict[str, Any]] = [
        {"file": mark(row), "reason": reason, "note": note}
        for row in rows
        if (mark(row), reason) not in known.marks
    ]
    entries = [waiver.model_dump() for waiver in known.waivers] + new
    yaml = YAML()
    with storage.atomic_path(project.waivers) as temporary, temporary.open("w") as handle:
        yaml.dump({"waivers": entries}, handle)
    if new:  # files by number: their paths may name a patient
        said = {"reason": reason, "files": len(new), "note": note}
        ledger.append(project, ledger.WAIVER, said)
    terminal.console().print(
        f"{len(new)} waived in {project.waivers.name}, {len(rows) - len(new)} were already; "
        "keep the file in git"
    )
    return 0


def select(project: Project, *, reason: str | None, kind: str | None) -> list[Row]:
    """Return the rejects of ingest and tokens that are asked for; ConfigError if none can be."""
    from lapvqa.ingest.rejects import read_rejects

    rows = read_rejects(project)
    if project.token_rejects.exists() and tokens_is_of_present(project):
        rows += _token_rejects(project)
    reasons = sorted({str(row["reason"]) for row in rows})
    if kind is not None and kind not in KINDS:
        raise no_such("kind", kind, KINDS)
    if reason is not None and reason not in reasons:
        raise no_such("reject of reason", reason, reasons)
    return [row for row in rows if reason in (None, row["reason"]) and kind in (None, row["kind"])]


def _token_rejects(project: Project) -> list[Row]:
    from lapvqa.schemas import REJECTS

    table = storage.read_table(project.token_rejects, REJECTS, made_by="tokens")
    rows: list[Row] = table.to_pylist()
    return rows
