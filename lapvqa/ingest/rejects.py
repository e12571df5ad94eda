"""The budget of rejects: how many a run may have, and which of them a person has waived.

waivers.yaml, in the project's folder and meant for git, lists rejects that are no cause to stop. It
identifies a file by the digest of its bytes (of its path, where they could not be read), so it
names nobody.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
from pydantic import Field

from lapvqa import storage
from lapvqa.dicom.reasons import BY_REQUEST
from lapvqa.errors import RejectBudgetError
from lapvqa.ingest.columns import Column
from lapvqa.params import RejectBudgetParams, Section, read_settings
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.recorder import counted as in_words
from lapvqa.schemas import REJECTS


class Waiver(Section):
    """One reject that does not count against the budget."""

    file: str
    reason: str
    note: str = ""


class Waivers(Section):
    """All of waivers.yaml."""

    waivers: list[Waiver] = Field(default_factory=list)

    @property
    def marks(self) -> set[tuple[str, str]]:
        """Pairs of file mark and reason."""
        return {(waiver.file, waiver.reason) for waiver in self.waivers}


def load_waivers(project: Project) -> Waivers:
    """Read waivers.yaml if it is there; ConfigError lists every fault."""
    if not project.waivers.exists():
        return Waivers()
    return read_settings(Waivers, project.waivers)


def mark(row: Mapping[str, str | None]) -> str:
    """Return the digest that stands for a reject's file in waivers.yaml."""
    digest = row["sha256"]
    return digest or "path-" + hashlib.sha256(str(row["file"]).encode()).hexdigest()[:16]


def read_rejects(project: Project) -> list[dict[str, str | None]]:
    """Return the last run's rejects of ingest, also of a run that exceeded its budget.

    What ingest keeps for itself stands in for the output where DVC has deleted it; else it may be
    of the archive read last, and the output, restored from DVC's cache, of another one.
    """
    kept = project.work_dir("ingest") / project.rejects.name
    path = project.rejects if project.rejects.exists() or not kept.exists() else kept
    rows: list[dict[str, str | None]] = storage.read_table(
        path, REJECTS, made_by="ingest"
    ).to_pylist()
    return rows


def require_budget(
    paths: Column,
    rejects: pa.Table,
    budget: RejectBudgetParams,
    waivers: Waivers,
    recorder: Recorder,
    *,
    uncounted: Collection[str] = (),
) -> None:
    """Report the counts by reason; raise RejectBudgetError above an allowed share of ``paths``.

    Files left out on request, waived ones and ``uncounted`` paths do not count. A folder is one of
    the first folders in which the paths differ; the error names it by its place, for its name may
    name a patient.
    """
    rows: list[dict[str, str | None]] = rejects.to_pylist()
    by_reason = Counter(f"{row['kind']} {row['reason']}" for row in rows)
    listed = ", ".join(f"{reason}: {count}" for reason, count in by_reason.most_common())
    if listed:
        recorder.say(f"rejected by reason: {listed}")
    files = [row for row in rows if row["kind"] == "file"]
    counted = [
        row for row in files if row["reason"] not in BY_REQUEST and row["file"] not in uncounted
    ]
    waived = [row for row in counted if (mark(row), row["reason"]) in waivers.marks]
    if waived:
        recorder.say(f"{in_words(len(waived), 'rejected file')} waived by waivers.yaml")
    kept = [str(row["file"]) for row in counted if row not in waived]
    where = "see `lapvqa rejects`, which also retries and waives; correct the archive, or raise "
    if len(files) == len(paths):
        raise RejectBudgetError(
            f"no image is left: all {len(paths)} files were rejected; {listed}",
            hint="see `lapvqa rejects`, which says what to do about each reason",
        )
    if len(kept) > budget.overall * len(paths):
        raise RejectBudgetError(
            f"{len(kept)} of {len(paths)} files were rejected "
            f"({len(kept) / len(paths):.1%}), allowed are {budget.overall:.1%}; {listed}",
            hint=where + "ingest.reject_budget.overall in params.yaml",
        )
    for place, of, rejected, total in (
        worst_folders(paths.to_pylist(), kept, budget) if kept else ()
    ):
        raise RejectBudgetError(
            f"{rejected} of {total} files in folder {place} of {of} (in order of name) were "
            f"rejected ({rejected / total:.1%}), allowed are {budget.per_folder:.1%}; {listed}",
            hint=where + "ingest.reject_budget.per_folder in params.yaml",
        )


def worst_folders(
    paths: Sequence[str], rejected: Sequence[str], budget: RejectBudgetParams
) -> list[tuple[int, int, int, int]]:
    """Return (place, number of folders, rejected, files) of the folders above their budget."""
    depth = _common_depth(paths)
    totals = Counter(_folder(path, depth) for path in paths)
    counts = Counter(_folder(path, depth) for path in rejected)
    return [
        (place, len(totals), counts[folder], totals[folder])
        for place, folder in enumerate(sorted(totals), start=1)
        if totals[folder] >= budget.folder_min_files
        and counts[folder] > budget.per_folder * totals[folder]
    ]


def _common_depth(paths: Sequence[str]) -> int:
    # Of sorted paths, what the first and the last share, all share.
    first, last = min(paths).split("/")[:-1], max(paths).split("/")[:-1]
    depth = 0
    while depth < min(len(first), len(last)) and first[depth] == last[depth]:
        depth += 1
    return depth


def _folder(path: str, depth: int) -> str:
    return "/".join([*path.split("/", depth + 1)[:-1], ""])
