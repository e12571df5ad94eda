"""What a look compares: films by view and source, tags, rejects, texts, findings.

A stream has rows (films, studies, files) of patients who are new or of the reference. Films of one
study share its weight, so that no study counts more for being repeated.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa import storage
from lapvqa.drift.permutation import Array
from lapvqa.drift.window import Window
from lapvqa.project import Project
from lapvqa.schemas import (
    CHEXPERT_LABELS,
    COMPANIONS,
    IMAGES,
    INVENTORY,
    LABELS,
    REJECTS,
    REPORT_LANGUAGES,
    STUDIES,
)
from lapvqa.text import labeler

FEATURES, GREYS, TAGS, REJECTED, TEXTS, FINDINGS = (
    "features", "greys", "tags", "rejects", "texts", "findings",
)  # fmt: skip
OF_FILMS = (FEATURES, GREYS)
"""Streams of numbers of each film, not of answers."""
_TAGS = ("view", "photometric", "bits_stored", "transfer_syntax", "voi")
_SIDES = (1024, 2048, 3072)
"""Pixels of the longer side that divide small, medium, large and very large detectors."""
_LENGTHS = 8
_WORDS = {1: "positive", 0: "negative", -1: "uncertain", None: "no word"}


@dataclass(frozen=True)
class Rows:
    """Rows of a stream; ``patients`` numbers each row's, ``in_window`` is by patient."""

    patients: NDArray[np.intp]
    in_window: NDArray[np.bool_]
    weights: Array
    keys: Sequence[str]
    """Of the patients, in order of number."""

    @property
    def new(self) -> NDArray[np.bool_]:
        """Of each row, whether it is new."""
        return np.asarray(self.in_window[self.patients])

    def count(self, *, new: bool) -> int:
        """Return the number of patients on one side."""
        return int((self.in_window == new).sum())


@dataclass(frozen=True)
class Stream:
    """Rows with what is compared: ``films`` (numbers in images.parquet), or ``answers``."""

    name: str
    kind: str
    rows: Rows
    films: Sequence[int] = ()
    answers: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)


@dataclass(frozen=True)
class Streams:
    """What can be compared, and why the rest cannot."""

    compared: tuple[Stream, ...]
    left_out: Mapping[str, str]


class Tables:
    """The project's tables, each read when it is asked for."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.images = storage.read_table(project.images, IMAGES, made_by="ingest")
        self.studies = storage.read_table(project.studies, STUDIES, made_by="ingest")

    def labels(self) -> pa.Table:
        """Labels that came with the archive."""
        return storage.read_table(self._project.labels, LABELS, made_by="ingest")

    def languages(self) -> pa.Table:
        """Language and length of each report."""
        path = self._project.report_languages
        return storage.read_table(path, REPORT_LANGUAGES, made_by="tokens")

    def files(self) -> tuple[pa.Table, dict[str, str], set[str]]:
        """Return the inventory, the reason of each rejected file, and the companions."""
        project = self._project
        listed = storage.read_table(project.inventory("source"), INVENTORY, made_by="inventory")
        rejects = storage.read_table(project.rejects, REJECTS, made_by="ingest").to_pylist()
        reasons = {row["file"]: row["reason"] for row in rejects if row["kind"] == "file"}
        others = storage.read_table(project.companions, COMPANIONS, made_by="ingest")
        return listed, reasons, set(others["path"].to_pylist())


def find_streams(
    tables: Tables,
    window: Window,
    *,
    trained: frozenset[str],
    min_patients: int,
    most_patients: int,
) -> Streams:
    """Return the streams of a window; ``trained``: studies that the encoder was trained on.

    Of more than ``most_patients`` on a side a keyed draw is taken.
    """
    made = _Maker(window, min_patients, most_patients)
    images = tables.images
    study = images["study_key"].to_pylist()
    places = [place for place, key in enumerate(study) if key in window.is_new]
    unseen = [place for place in places if study[place] not in trained]
    for kind, films in ((FEATURES, unseen), (GREYS, places)):
        for name, numbers in _by_view_and_source(images, films, window, min_patients).items():
            made.add(f"{kind} {name}", kind, [study[n] for n in numbers], films=numbers)
    answers = _tags(images, places)
    made.add("tags", TAGS, [study[place] for place in places], answers=answers)
    made.add_files(*tables.files())
    made.add("texts", TEXTS, *_texts(tables, window))
    made.add("findings", FINDINGS, *_findings(tables, window))
    return Streams(tuple(made.streams), made.left_out)


class _Maker:
    """Makes streams, and says of which there are too few patients."""

    def __init__(self, window: Window, min_patients: int, most_patients: int) -> None:
        self._window, self._least, self._most = window, min_patients, most_patients
        self.streams: list[Stream] = []
        self.left_out: dict[str, str] = {}

    def add(
        self,
        name: str,
        kind: str,
        studies: Sequence[str],
        answers: Mapping[str, Sequence[str]] | None = None,
        films: Sequence[int] = (),
    ) -> None:
        """Add a stream of rows that belong to studies."""
        times = Counter(studies)
        weights = [1 / times[study] for study in studies]
        owners = [self._window.patient_of[study] for study in studies]
        new = {self._window.patient_of[s] for s in studies if self._window.is_new[s]}
        self._add(name, kind, owners, new, weights, answers or {}, films)

    def add_files(self, listed: pa.Table, reasons: Mapping[str, str], companions: set[str]) -> None:
        """Add the files of the archive by folder, the nearest to a patient that a path tells."""
        window, names, owners, fates, new = self._window, listed["path"].to_pylist(), [], [], set()
        for path, mtime in zip(names, listed["mtime_ns"].to_pylist(), strict=True):
            arrived = mtime / 1e9
            is_new = window.new_files_after < arrived
            if path in companions or not 0 < arrived <= window.end:
                continue
            folder = f"{PurePosixPath(path).parent}\0{is_new}"  # a folder may get files later
            owners.append(folder)
            fates.append(reasons.get(path, "taken"))
            if is_new:
                new.add(folder)
        self._add("rejects", REJECTED, owners, new, [1.0] * len(owners), {"reason": fates}, ())

    def _add(
        self,
        name: str,
        kind: str,
        owners: Sequence[str],
        new: set[str],
        weights: Sequence[float],
        answers: Mapping[str, Sequence[str]],
        films: Sequence[int],
    ) -> None:
        sides = {True: new, False: set(owners) - new}
        short = [
            f"{len(found)} {'new' if is_new else 'of the reference'}"
            for is_new, found in sides.items()
            if len(found) < self._least
        ]
        if short:
            unit = "folders" if kind == REJECTED else "patients"
            self.left_out[name] = f"too few {unit}: {' and '.join(short)}, at least {self._least}"
            return
        kept = sorted(key for found in sides.values() for key in _drawn(found, self._most))
        number = {key: place for place, key in enumerate(kept)}
        rows = [place for place, owner in enumerate(owners) if owner in number]
        self.streams.append(Stream(
            name, kind,
            Rows(
                np.array([number[owners[row]] for row in rows]),
                np.array([key in new for key in kept]),
                np.array([weights[row] for row in rows]),
                kept,
            ),
            [films[row] for row in rows] if len(films) else (),
            {block: np.array([values[row] for row in rows]) for block, values in answers.items()},
        ))  # fmt: skip


def _drawn(keys: set[str], most: int) -> list[str]:
    if len(keys) <= most:
        return sorted(keys)
    return sorted(keys, key=lambda key: hashlib.sha256(f"drift\0{key}".encode()).digest())[:most]


def _by_view_and_source(
    images: pa.Table, places: Iterable[int], window: Window, min_patients: int
) -> dict[str, list[int]]:
    """Return the films of each view and source.

    New films of a source that the reference hardly knows meet the reference of all sources.
    """
    study, view = images["study_key"].to_pylist(), images["view"].to_pylist()
    of: dict[str, dict[str, list[int]]] = {}
    for place in places:
        by_source = of.setdefault(view[place] or "unknown view", {})
        by_source.setdefault(window.source_of[study[place]], []).append(place)
    found: dict[str, list[int]] = {}
    for shown, by_source in sorted(of.items()):
        old = [n for films in by_source.values() for n in films if not window.is_new[study[n]]]
        for source, films in sorted(by_source.items()):
            known = {window.patient_of[study[n]] for n in films if not window.is_new[study[n]]}
            if len(known) >= min_patients or len(by_source) == 1:
                found[f"{shown}{f' from {source}' if source else ''}"] = films
                continue
            new = [n for n in films if window.is_new[study[n]]]
            if new:
                name = f"{shown} from sources that are new"
                found[name] = [*found.get(name, sorted(old)), *new]
    return found


def _tags(images: pa.Table, places: Sequence[int]) -> dict[str, list[str]]:
    rows = images.take(pa.array(places, pa.int64()))
    answers = {name: [str(value) for value in rows[name].to_pylist()] for name in _TAGS}
    sides = np.maximum(rows["native_rows"].to_numpy(), rows["native_cols"].to_numpy())
    names = np.array([f"up to {side} px" for side in _SIDES] + [f"over {_SIDES[-1]} px"])
    answers["size"] = names[np.searchsorted(_SIDES, sides)].tolist()
    return answers


def _texts(tables: Tables, window: Window) -> tuple[list[str], dict[str, list[str]]]:
    """Return studies with the language of the report, and its length by eighths of all."""
    known = {row["study_key"]: row for row in tables.languages().to_pylist()}
    studies = list(window.is_new)
    lengths = np.array([known[s]["num_characters"] for s in studies if s in known])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _LENGTHS + 1)[1:-1]).astype(int)) \
        if len(lengths) else np.array([], int)  # fmt: skip

    def length_of(study: str) -> str:
        if study not in known:
            return "no report"
        place = int(np.searchsorted(edges, known[study]["num_characters"], side="right"))
        low = edges[place - 1] if place else 0
        return f"from {low} characters" if place == len(edges) else f"{low} to {edges[place] - 1}"

    languages = [known[s]["language"] if s in known else "no report" for s in studies]
    return studies, {"length": [length_of(s) for s in studies], "language": languages}


def _findings(tables: Tables, window: Window) -> tuple[list[str], dict[str, list[str]]]:
    """Return the studies whose findings are known, by the archive's labels, else by its texts."""
    labels = tables.labels()
    rows = [row for row in labels.to_pylist() if row["study_key"] in window.is_new]
    known = [row for row in rows if any(row[name] is not None for name in CHEXPERT_LABELS)]
    if known:
        return [row["study_key"] for row in known], {
            name: [_WORDS[row[name]] for row in known] for name in CHEXPERT_LABELS
        }
    texts = {
        row["study_key"]: row["report"].lower()
        for row in tables.studies.select(["study_key", "report"]).to_pylist()
        if row["report"] and row["study_key"] in window.is_new
    }
    said = {study: labeler.assess(text) for study, text in texts.items()}
    if not any(said.values()):  # another language: nothing is understood
        return [], {}

    def word(found: Mapping[str, labeler.Assertion], name: str) -> str:
        return found[name].name.lower() if name in found else "no word"

    return list(said), {
        name: [word(found, name) for found in said.values()] for name in labeler.FINDINGS
    }
