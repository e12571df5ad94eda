"""The account of the stage: every file that the inventory lists has exactly one fate.

It is an image that is taken, a reject, a companion (an object that goes with images and is none: a
DICOMDIR, a structured report), or another file, by kind: a report, a table of the layout, a text, a
viewer's program. Companions and other files cost nothing and are listed in companions.parquet, so
that none of them is lost in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow as pa

from lapvqa.dicom.reasons import Reason
from lapvqa.ingest import study_tables
from lapvqa.ingest.archives.found import Files
from lapvqa.ingest.archives.protocol import Archive
from lapvqa.ingest.study_tables import Reports
from lapvqa.ingest.verdicts import Candidate, accepted
from lapvqa.recorder import Recorder
from lapvqa.schemas import COMPANIONS


def companions_table(
    candidates: Sequence[Candidate], archive: Archive, files: Files, reports: Reports
) -> pa.Table:
    """Return data/companions.parquet's rows, sorted by path: every file that is no image."""
    rows = [
        (candidate.result.path, "companion", _words(candidate.result.companion))
        for candidate in companions(candidates)
    ]
    read = {candidate.result.path for candidate in candidates}
    kinds = {**dict.fromkeys(reports.paths, "report"), **dict.fromkeys(archive.tables, "table")}
    for path in files.facts.keys() - read:
        what = kinds.get(path) or files.others.get(path) or "picture"
        rows.append((path, "other", what))
    columns = list(zip(*sorted(rows), strict=True)) if rows else [(), (), ()]
    arrays = [pa.array(values, pa.string()) for values in columns]
    return pa.table(arrays, schema=COMPANIONS)


def companions(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that are no images and no rejects."""
    return [candidate for candidate in candidates if candidate.reason is Reason.COMPANION]


def account(
    candidates: Sequence[Candidate],
    archive: Archive,
    files: Files,
    *,
    studies: pa.Table,
    reports: Reports,
    rejects: pa.Table,
    beside: pa.Table,
    recorder: Recorder,
) -> dict[str, int | float | str]:
    """Check in = out + rejects (of files: + companions + others); report and return the counts.

    ``beside`` are the rows of ``companions_table``.
    """
    rejected = Counter(rejects["kind"].to_pylist())
    sides = [sum(counts.values()) for counts in by_side(beside)]
    known_studies = study_tables.studies_in(candidates)
    sums = {
        "files": (len(files.facts), len(accepted(candidates)), rejected["file"], *sides),
        "studies": (len(known_studies), len(studies), rejected["study"]),
        "reports": (len(reports.paths), len(reports.texts), rejected["report"]),
    }
    for kind, (total, taken, out, *rest) in sums.items():
        if total != taken + out + sum(rest):
            raise AssertionError(
                f"{kind}: {total} in, {taken} taken, {out} rejected, {rest} beside"
            )
        line = f"{kind}: {total} in = {taken} taken + {out} rejected"
        if kind == "files":
            line += f" + {described(beside)}"
        recorder.say(line)
    return {
        "files": len(files.facts),
        "images": sums["files"][1],
        "files_rejected": rejected["file"],
        "companions": sides[0],
        "other_files": sides[1],
        "patients": len(set(studies["patient_key"].to_pylist())),
        "studies": len(studies),
        "studies_rejected": rejected["study"],
        "reports": len(reports.texts),
        "reports_rejected": rejected["report"],
    }


def by_side(beside: pa.Table) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many companions there are by kind, and how many other files."""
    kinds = Counter(zip(beside["kind"].to_pylist(), beside["what"].to_pylist(), strict=True))
    companions, others = (
        {what: number for (kind, what), number in kinds.items() if kind == side}
        for side in ("companion", "other")
    )
    return companions, others


def described(beside: pa.Table) -> str:
    """Return "1 companions (dicomdir 1) + 3 other files (text 2, viewer 1)"."""
    companions, others = by_side(beside)
    return f"{_counted('companions', companions)} + {_counted('other files', others)}"


def by_kind(counts: Iterable[tuple[str, int]]) -> str:
    """Return "text 3, viewer 1", most frequent first."""
    ordered = sorted(counts, key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{what} {number}" for what, number in ordered)


def _counted(name: str, counts: dict[str, int]) -> str:
    shown = f" ({by_kind(counts.items())})" if counts else ""
    return f"{sum(counts.values())} {name}{shown}"


def _words(companion: str | None) -> str:
    return (companion or "other object").replace("_", " ")
