"""``lapvqa rejects``: what was rejected and why; read it again, or waive it.

Paths are shown as the archive names them, on this terminal only: they may hold patients' numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import terminal
from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.lineage import dvc_cache, ledger
from lapvqa.project import Project
from lapvqa.uptodate import hashes

if TYPE_CHECKING:
    from rich.console import Console

Row = dict[str, str | None]


def show(project: Project, *, reason: str | None, kind: str | None, files: bool) -> int:
    """Print the rejects by reason with what to do, or each file."""
    from rich.table import Table

    from lapvqa.ingest.rejects import load_waivers, mark

    rows = select(project, reason=reason, kind=kind)
    console = terminal.console()
    if not rows:
        console.print("nothing was rejected")
        _show_beside(project, console)
        return 0
    waived = load_waivers(project).marks
    if files:
        for row in rows:
            note = " (waived)" if (mark(row), row["reason"]) in waived else ""
            text = f"{row['kind']} {row['file']}: {row['reason']}{note}; {row['detail']}"
            console.print(text, markup=False, soft_wrap=True)
        return 0
    table = Table()
    for name in ("stage", "kind", "reason"):
        table.add_column(name, no_wrap=True)
    for name in ("how many", "waived"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what to do")
    groups = Counter((str(row["stage"]), str(row["kind"]), str(row["reason"])) for row in rows)
    remedies = {str(row["reason"]): str(row["remedy"]) for row in rows}
    waivers = Counter(str(row["reason"]) for row in rows if (mark(row), row["reason"]) in waived)
    for (stage, kind_, reason_), number in groups.most_common():
        shown = str(waivers[reason_]) if waivers[reason_] else ""
        table.add_row(stage, kind_, reason_, str(number), shown, remedies[reason_])
    console.print(table)
    console.print(
        "each file: --files; read again: lapvqa rejects retry; accept: lapvqa rejects waive"
    )
    _show_beside(project, console)
    return 0


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

    rows = select(project, reason=reason, kind="file")
    known = {(row["file"], row["reason"]) for row in rows if path in (None, row["file"])}
    listed = storage.read_table(project.inventory("source"), INVENTORY, made_by="inventory")
    asked = listed.filter(pc.is_in(listed["path"], pa.array([file for file, _ in known])))
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
    if number:
        console.print(
            f"{terminal.counted(number, 'file')} will be read again by the next `lapvqa run`"
        )
    else:
        console.print(
            "no such rejected file was read by itself: rejects by comparison (duplicates, splits, "
            "views) and those of a passing cause are judged anew by every run"
        )
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
    from lapvqa.schemas import REJECTS

    rows = read_rejects(project)
    if project.token_rejects.exists():
        rows += _table(project.token_rejects, REJECTS)
    reasons = sorted({str(row["reason"]) for row in rows})
    if reason is not None and reason not in reasons:
        raise ConfigError(
            f"nothing was rejected as {reason!r}", hint=f"reasons found: {', '.join(reasons)}"
        )
    return [row for row in rows if reason in (None, row["reason"]) and kind in (None, row["kind"])]


def _table(path: Path, schema: Any) -> Sequence[Row]:
    rows: list[Row] = storage.read_table(path, schema, made_by="tokens").to_pylist()
    return rows
