"""Count what the archive brought and what was ingested: files, reports, studies, encodings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lapvqa import storage
from lapvqa.project import Project
from lapvqa.schemas import COMPANIONS, IMAGES, REJECTS, STUDIES

SPLITS = ("train", "validate", "test")


@dataclass(frozen=True)
class RejectCount:
    """All rejects of one kind and reason."""

    kind: str
    stage: str
    reason: str
    remedy: str
    count: int


@dataclass(frozen=True)
class SplitSize:
    """Size of one split."""

    name: str
    patients: int
    studies: int
    images: int
    reports: int


@dataclass(frozen=True)
class ArchiveCounts:
    """Counts of one archive; ``files`` = images taken + files rejected."""

    files: int
    images: int
    studies: int
    patients: int
    with_report: int
    tokenised: int
    truncated: int
    companions: int
    """DICOM objects that go with images and are none."""
    others: int
    """Other files of the archive: reports, tables, texts, a viewer."""
    rejects: list[RejectCount]
    token_rejects: list[RejectCount]
    splits: list[SplitSize]
    encodings: Mapping[str, Mapping[str, int]]

    @property
    def rejected_files(self) -> int:
        """Files rejected at ingest."""
        return sum(item.count for item in self.rejects if item.kind == "file")


def count_archive(project: Project, images: pa.Table) -> ArchiveCounts:
    """Count what ingest and tokens wrote; MissingArtifactError names an absent file."""
    studies = storage.read_table(project.studies, STUDIES, made_by="ingest")
    rejects = _grouped(storage.read_table(project.rejects, REJECTS, made_by="ingest"))
    token_rejects = _grouped(storage.read_table(project.token_rejects, REJECTS, made_by="tokens"))
    tokenised, truncated = _tokens(project)
    beside = storage.read_table(project.companions, COMPANIONS, made_by="ingest")
    companions = pc.sum(pc.equal(beside["kind"], "companion")).as_py() or 0
    rejected = sum(item.count for item in rejects if item.kind == "file")
    return ArchiveCounts(
        files=images.num_rows + rejected,
        images=images.num_rows,
        studies=studies.num_rows,
        patients=len(pc.unique(studies["patient_key"])),
        with_report=studies.num_rows - studies["report"].null_count,
        tokenised=sum(tokenised.values()),
        truncated=truncated,
        companions=companions,
        others=beside.num_rows - companions,
        rejects=rejects,
        token_rejects=token_rejects,
        splits=_splits(images, studies, tokenised),
        encodings=_encodings(images),
    )


def _tokens(project: Project) -> tuple[Counter[str], int]:
    """Return reports tokenised by split, and how many of all were cut at the length limit."""
    folder = storage.require(project.tokens_dir, made_by="tokens")
    by_split: Counter[str] = Counter()
    truncated = 0
    for file in sorted(folder.glob("*.parquet")):
        # Only two narrow columns: the token ids of a large archive are gigabytes.
        table = storage.read_columns(file, ["split", "truncated"])
        by_split.update(table["split"].to_pylist())
        truncated += pc.sum(table["truncated"]).as_py() or 0
    return by_split, truncated


def _grouped(rejects: pa.Table) -> list[RejectCount]:
    columns = ["kind", "stage", "reason", "remedy"]
    rows = zip(*(rejects[name].to_pylist() for name in columns), strict=True)
    counts: Counter[tuple[str, str, str]] = Counter()
    remedies: dict[tuple[str, str, str], str] = {}
    for kind, stage, reason, remedy in rows:
        key = (kind, stage, reason)
        counts[key] += 1
        remedies[key] = min(remedy, remedies.get(key, remedy))
    return [RejectCount(*key, remedies[key], counts[key]) for key in sorted(counts)]


def _splits(images: pa.Table, studies: pa.Table, tokenised: Mapping[str, int]) -> list[SplitSize]:
    sizes = []
    for name in SPLITS:
        part = studies.filter(pc.equal(studies["split"], name))
        taken = pc.sum(pc.equal(images["split"], name)).as_py() or 0
        patients = len(pc.unique(part["patient_key"]))
        sizes.append(SplitSize(name, patients, part.num_rows, taken, tokenised.get(name, 0)))
    return sizes


def _encodings(images: pa.Table) -> dict[str, dict[str, int]]:
    from pydicom.uid import UID

    syntax = (UID(value).name for value in images["transfer_syntax"].to_pylist())
    return {
        "Transfer syntax": _counted(syntax),
        "Photometric interpretation": _counted(images["photometric"].to_pylist()),
        "Bits stored": _counted(str(bits) for bits in images["bits_stored"].to_pylist()),
        "Intensity chosen by": _counted(images["voi"].to_pylist()),
        "View": _counted(view or "not known" for view in images["view"].to_pylist()),
        "View told by": _counted(rule or "nothing" for rule in images["view_source"].to_pylist()),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    """Count values, most frequent first, ties by name."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def read_images(project: Project) -> pa.Table:
    """Read images.parquet."""
    return storage.read_table(project.images, IMAGES, made_by="ingest")
