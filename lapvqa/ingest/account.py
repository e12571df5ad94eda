"""The account of the stage: every file that the inventory lists has exactly one fate.

It is an image that is taken, a reject, a companion (an object that goes with images and is none: a
DICOMDIR, a structured report), or another file, by kind: a report, a table of the layout, a text, a
viewer's program. Companions and other files cost nothing and are listed in companions.parquet, so
that none of them is lost in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.dicom.reasons import Reason
from lapvqa.ingest import study_tables
from lapvqa.ingest.archives.found import Files
from lapvqa.ingest.archives.protocol import Archive
from lapvqa.ingest.columns import counted, in_order, is_one_of, mapped, positions, whole
from lapvqa.ingest.study_tables import Reports
from lapvqa.ingest.verdicts import is_taken
from lapvqa.recorder import Recorder
from lapvqa.recorder import counted as in_words
from lapvqa.schemas import COMPANIONS


def companions_table(
    judged: pa.Table, archive: Archive, files: Files, reports: Reports
) -> pa.Table:
    """Return data/companions.parquet's rows, sorted by path: every file that is no image."""
    going_with = companions(judged)
    what = mapped(going_with["companion"].fill_null("other object"), _words)
    columns = [going_with["path"], pa.repeat("companion", len(going_with)), what]
    beside = pa.table(columns, schema=COMPANIONS)
    rest = files.listed.filter(pa.array(positions(files.listed["path"], judged["path"]) < 0))
    what = whole(rest["kind"])
    tables = rest.filter(pa.array(is_one_of(rest["path"], archive.tables)))
    kinds = dict(zip(tables["path"].to_pylist(), tables["kind"].to_pylist(), strict=True))
    for name, paths in (
        ("report", reports.paths),
        ("table", kinds),
        ("file of reports", files_of_reports(archive, kinds)),
    ):
        what = pc.if_else(pa.array(is_one_of(rest["path"], paths)), name, what)
    others = pa.table([rest["path"], pa.repeat("other", len(rest)), what], schema=COMPANIONS)
    return in_order(pa.concat_tables([beside, others]))


def files_of_reports(archive: Archive, kinds: Mapping[str, str]) -> set[str]:
    """Return which of the archive's tables hold reports and are no tables by their ``kinds``.

    Several HL7 messages or FHIR resources in one file, whatever its suffix, and packed reports.
    """
    holders = {path.rpartition("#")[0] for path in archive.reports if "#" in path}
    return {
        path
        for path, kind in kinds.items()
        if kind.startswith("packed") or (kind != "table" and path in holders)
    }


def companions(judged: pa.Table) -> pa.Table:
    """Return the judged files that are no images and no rejects."""
    return judged.filter(pa.array(is_one_of(judged["reason"], [Reason.COMPANION])))


def account(
    judged: pa.Table,
    files: Files,
    *,
    studies: pa.Table,
    reports: Reports,
    rejects: pa.Table,
    beside: pa.Table,
    recorder: Recorder,
) -> dict[str, int | float | str]:
    """Check in = out + rejects (of files: + companions + others); report and return the counts.

    ``judged`` are the image files, ``beside`` the rows of ``companions_table``.
    """
    rejected = Counter(rejects["kind"].to_pylist())
    sides = [sum(counts.values()) for counts in by_side(beside)]
    known_studies = study_tables.studies_in(judged)
    sums = {
        "files": (len(files.listed), int(is_taken(judged).sum()), rejected["file"], *sides),
        "studies": (len(known_studies), len(studies), rejected["study"]),
        "reports": (len(reports.paths), len(reports.taken), rejected["report"]),
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
        "files": len(files.listed),
        "images": sums["files"][1],
        "files_rejected": rejected["file"],
        "companions": sides[0],
        "other_files": sides[1],
        "patients": len(pc.unique(studies["patient_key"])),
        "studies": len(studies),
        "studies_rejected": rejected["study"],
        "reports": len(reports.taken),
        "reports_rejected": rejected["report"],
    }


def by_side(beside: pa.Table) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many companions there are by kind, and how many other files."""
    companions, others = (
        counted(beside["what"].filter(pc.equal(beside["kind"], side)))
        for side in ("companion", "other")
    )
    return companions, others


def described(beside: pa.Table) -> str:
    """Return "1 companion (dicomdir 1) + 3 other files (text 2, viewer 1)"."""
    companions, others = by_side(beside)
    return f"{_counted('companion', companions)} + {_counted('other file', others)}"


def by_kind(counts: Iterable[tuple[str, int]]) -> str:
    """Return "text 3, viewer 1", most frequent first."""
    ordered = sorted(counts, key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{what} {number}" for what, number in ordered)


def _counted(name: str, counts: dict[str, int]) -> str:
    shown = f" ({by_kind(counts.items())})" if counts else ""
    return in_words(sum(counts.values()), name) + shown


def _words(companion: str | None) -> str:
    return (companion or "other object").replace("_", " ")
