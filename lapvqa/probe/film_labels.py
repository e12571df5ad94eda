"""Where labels of the archive's own films come from: a table, the archive, the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lapvqa import storage
from lapvqa.datasets.image_folder import open_folder
from lapvqa.datasets.stored import open_keyring
from lapvqa.evaluation.report_studies import read_targets
from lapvqa.job import Job
from lapvqa.probe.own_labels import (
    UNCERTAIN,
    FilmLabels,
    Value,
    find_table,
    read_own_table,
    target,
)
from lapvqa.project import Project
from lapvqa.schemas import CHEXPERT_LABELS, LABELS, REPORT_LANGUAGES
from lapvqa.text import labeler
from lapvqa.text.labeler import Assertion
from lapvqa.text.languages import ENGLISH

FOLDER = "labels"
"""Name of the input folder in ``inventory`` of params.yaml."""

_VALUES = {Assertion.POSITIVE: 1, Assertion.UNCERTAIN: UNCERTAIN, Assertion.NEGATIVE: 0}
Films = Sequence[Mapping[str, Any]]


def find_labels(films: Films, job: Job, *, uncertain: str) -> FilmLabels | None:
    """Return labels of ``films`` (rows of IMAGES); None if nobody labels any.

    A table of one's own is taken as it is; else the first source that labels films of every split.
    """
    own = _of_own_table(films, job, uncertain)
    if own is not None:
        return own
    sources = [source(films, job, uncertain) for source in (_of_archive, _of_reports)]
    some = [labels for labels in sources if labels.rows]
    splits = {film["split"] for film in films}
    for labels in some:
        if {film["split"] for film in films if film["image_key"] in labels.rows} == splits:
            return labels
    return some[0] if some else None


def _of_own_table(films: Films, job: Job, uncertain: str) -> FilmLabels | None:
    folder = open_folder(FOLDER, job)
    path = find_table(folder.folder, folder.files) if folder else None
    if path is None:
        return None
    table = read_own_table(path, open_keyring(job))
    column = "image_key" if table.of_images else "study_key"
    facts: dict[str, str | int] = {
        "label_rows": len(table.values),
        "label_rows_not_stored": len(table.values.keys() - {film[column] for film in films}),
        "columns_left_out": ", ".join(table.ignored),
    }
    named = _by_film(films, table.names, table.values, column=column, uncertain=uncertain)
    return FilmLabels(table.names, named, "the table in labels/", facts)


def _of_archive(films: Films, job: Job, uncertain: str) -> FilmLabels:
    """Take the archive's own CheXpert labels; what they do not mention is 0, as in CheXpert."""
    rows = storage.read_table(job.project.labels, LABELS, made_by="ingest").to_pylist()
    values = {row["study_key"]: [row[name] or 0 for name in CHEXPERT_LABELS] for row in rows}
    named = _by_film(films, CHEXPERT_LABELS, values, column="study_key", uncertain=uncertain)
    return FilmLabels(CHEXPERT_LABELS, named, "the archive's labels", {"blank": "0"})


def _of_reports(films: Films, job: Job, uncertain: str) -> FilmLabels:
    """Take what English reports assert; what they do not mention is 0."""
    english = _english_studies(job.project)
    values = {
        study: _asserted(report.text)
        for study, report in read_targets(job.project).items()
        if study in english
    }
    named = _by_film(films, labeler.FINDINGS, values, column="study_key", uncertain=uncertain)
    source = "what the rules of the labeler read in English reports"
    return FilmLabels(labeler.FINDINGS, named, source, {"blank": "0"})


def _asserted(text: str) -> list[Value]:
    said = labeler.assess(text)
    return [_VALUES[said.get(name, Assertion.NEGATIVE)] for name in labeler.FINDINGS]


def _english_studies(project: Project) -> frozenset[str]:
    rows = storage.read_table(project.report_languages, REPORT_LANGUAGES, made_by="tokens")
    columns = (rows[name].to_pylist() for name in ("study_key", "language"))
    return frozenset(key for key, language in zip(*columns, strict=True) if language == ENGLISH)


def _by_film(
    films: Films,
    names: Sequence[str],
    values: Mapping[str, Sequence[Value]],
    *,
    column: str,
    uncertain: str,
) -> dict[str, list[int]]:
    return {
        film["image_key"]: [target(value, uncertain) for value in values[film[column]]]
        for film in films
        if film[column] in values
    }
