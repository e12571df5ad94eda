"""The studies that reports are written of: an image each, the target text, what is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lapvqa import storage
from lapvqa.images.report_pairs import read_pairs
from lapvqa.project import Project
from lapvqa.schemas import CHEXPERT_LABELS, LABELS, REPORT_LANGUAGES, STUDIES, TOKENS
from lapvqa.text.sections import normalise


@dataclass(frozen=True)
class TargetReport:
    """A study's target text, whole (not cut at tokens.max_length)."""

    patient_key: str
    split: str
    text: str


@dataclass(frozen=True)
class ReportStudy:
    """A study and one image of it: where its pixels lie, what is to be written, what is known."""

    study_key: str
    shard: str
    row: int
    pixels_sha256: str
    target: TargetReport
    truth: list[str] | None = None

    @property
    def place(self) -> tuple[str, str, int]:
        """Return the pixels' sha256, shard and row of the image."""
        return self.pixels_sha256, self.shard, self.row


def read_targets(project: Project, sections: str = "both") -> dict[str, TargetReport]:
    """Return the target text of every tokenised study that has the chosen ``sections``.

    "both": all that was tokenised, whatever the report calls it.
    """
    studies = storage.read_table(project.studies, STUDIES, made_by="ingest")
    tokens = storage.read_table(project.tokens_dir, TOKENS, made_by="tokens")
    keys = studies["study_key"].to_pylist()
    reports = dict(zip(keys, studies["report"].to_pylist(), strict=True))
    columns = ("study_key", "patient_key", "split", "spans")
    rows = zip(*(tokens[name].to_pylist() for name in columns), strict=True)
    targets = {
        key: TargetReport(patient, split, _text(reports[key], _chosen(spans, sections)))
        for key, patient, split, spans in rows
    }
    return {key: target for key, target in targets.items() if target.text}


def read_studies(
    project: Project, targets: dict[str, TargetReport], *, split: str
) -> tuple[list[ReportStudy], int]:
    """Return the studies of ``split`` by key, and how many reports there have no frontal image."""
    pairs, without_image = read_pairs(project, split)
    truth = read_truth(project)
    first = {pair.study_key: pair for pair in reversed(pairs)}
    studies = [
        ReportStudy(key, pair.shard, pair.row, pair.pixels_sha256, targets[key], truth.get(key))
        for key, pair in sorted(first.items())
        if key in targets
    ]
    return studies, without_image


def read_truth(project: Project) -> dict[str, list[str]]:
    """Return the positive labels of every study that the archive labels."""
    rows = storage.read_table(project.labels, LABELS, made_by="ingest").to_pylist()
    return {
        row["study_key"]: [label for label in CHEXPERT_LABELS if row[label] == 1] for row in rows
    }


def count_languages(project: Project, studies: Sequence[ReportStudy]) -> dict[str, int]:
    """Return how many reports of ``studies`` each language has, by its code."""
    path = project.report_languages
    rows = storage.read_table(path, REPORT_LANGUAGES, made_by="tokens")
    keys = {study.study_key for study in studies}
    columns = (rows[name].to_pylist() for name in ("study_key", "language"))
    return dict(
        sorted(Counter(code for key, code in zip(*columns, strict=True) if key in keys).items())
    )


def most_common(targets: dict[str, TargetReport]) -> tuple[str, int]:
    """Return the most frequent training text (of equals the first in order) and its count."""
    counts = Counter(target.text for target in targets.values() if target.split == "train")
    return min(counts.items(), key=lambda item: (-item[1], item[0]))


def read_samples(
    project: Project, targets: dict[str, TargetReport], split: str
) -> list[ReportStudy]:
    """Return every frontal image of the split's studies, with what is to be written."""
    pairs, _ = read_pairs(project, split)
    return [
        ReportStudy(
            pair.study_key, pair.shard, pair.row, pair.pixels_sha256, targets[pair.study_key]
        )
        for pair in pairs
        if pair.study_key in targets
    ]


def _chosen(spans: Sequence[dict[str, Any]], sections: str) -> list[dict[str, Any]]:
    return [span for span in spans if sections in ("both", span["name"])]


def _text(report: str, spans: Sequence[dict[str, Any]]) -> str:
    return " ".join(normalise(report[span["start"] : span["end"]]) for span in spans)
