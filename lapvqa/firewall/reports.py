"""Reports of held-out studies that training has under another patient's name.

A report is its passages: five words in a row, in small letters, without punctuation. A passage that
many patients share is a template ("no focal consolidation pleural effusion") and says nothing; of
the others, a report's own, the share is taken that one training report has too. An exact copy has
all of them, an edited one most; a report of templates alone has too few to be compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa.firewall.held_out import HeldOut
from lapvqa.firewall.leaks import Leak, Training
from lapvqa.params import FirewallParams

WORDS = 5
"""Words of a passage."""

MIN_OWN = 10
"""Own passages, fewer than which a report is not compared: fourteen words that are no template."""

_WORD = re.compile(r"[^\W_]+")

Passages = NDArray[np.uint64]


@dataclass(frozen=True)
class Reports:
    """Each study's passages, sorted and each once, and its patient."""

    passages: Mapping[str, Passages]
    patients: Mapping[str, str]


def read_reports(studies: pa.Table) -> Reports:
    """Take the passages of every report of studies.parquet."""
    words: dict[str, int] = {}
    columns = (studies[name].to_pylist() for name in ("study_key", "patient_key", "report"))
    passages, patients = {}, {}
    for study, patient, text in zip(*columns, strict=True):
        patients[study] = patient
        passages[study] = _passages(text or "", words)
    return Reports(passages, patients)


def of_reports(
    reports: Reports, training: Training, held: HeldOut, params: FirewallParams
) -> Iterator[Leak]:
    """Yield the leaks of held-out studies whose report is one of training too."""
    tested = _first_places(held.studies)
    trained = _first_places(training.column("study_key", held.held_from))
    own = _own_passages(reports, tested, params.template_patients)
    index = _Index(reports, list(trained), own)
    for study, passages in own.items():
        for other, score in index.having(passages, params.report_overlap):
            if reports.patients[other] == reports.patients[study]:
                continue
            rows, places = trained[other], tested[study]
            yield from (Leak(row, places[0], "report", score) for row in rows)
            yield from (Leak(rows[0], place, "report", score) for place in places)


class _Index:
    """Which of some studies has which passage."""

    def __init__(
        self, reports: Reports, studies: Sequence[str], wanted: Mapping[str, Passages]
    ) -> None:
        self._studies = studies
        known = _united(wanted.values())
        parts = [_within(reports.passages.get(study, _NONE), known) for study in studies]
        passages = np.concatenate([_NONE, *parts])
        holders = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        order = np.argsort(passages, kind="stable")
        self._passages, self._holders = passages[order], holders[order]

    def having(self, passages: Passages, share: float) -> Iterator[tuple[str, float]]:
        """Yield the studies that have at least ``share`` of ``passages``, and how much."""
        first, last = (
            np.searchsorted(self._passages, passages, side) for side in ("left", "right")
        )
        spans = [self._holders[a:b] for a, b in zip(first, last, strict=True)]
        holders, counts = np.unique(np.concatenate(spans), return_counts=True)
        for holder, count in zip(holders.tolist(), counts.tolist(), strict=True):
            if count >= share * len(passages):
                yield self._studies[holder], count / len(passages)


_NONE: Passages = np.zeros(0, np.uint64)


def _own_passages(
    reports: Reports, studies: Mapping[str, object], template_patients: int
) -> dict[str, Passages]:
    """Return the passages of ``studies`` that are no template, of those with ``MIN_OWN`` of them.

    Patients are counted over the whole archive, each once.
    """
    known = _united(reports.passages.get(study, _NONE) for study in studies)
    of_patient: dict[str, list[Passages]] = {}
    for study, passages in reports.passages.items():
        of_patient.setdefault(reports.patients[study], []).append(_within(passages, known))
    patients = np.zeros(len(known), np.int64)
    for parts in of_patient.values():
        patients[np.searchsorted(known, _united(parts))] += 1
    rare = known[patients < template_patients]
    own = {study: _within(reports.passages.get(study, _NONE), rare) for study in studies}
    return {study: passages for study, passages in own.items() if len(passages) >= MIN_OWN}


def _united(parts: Iterable[Passages]) -> Passages:
    united: Passages = np.unique(np.concatenate([_NONE, *parts]))
    return united


def _within(passages: Passages, known: Passages) -> Passages:
    """Return the passages that stand in ``known``, which is sorted and may be far longer."""
    if not len(known):
        return _NONE
    places = np.searchsorted(known, passages).clip(max=len(known) - 1)
    shared: Passages = passages[known[places] == passages]
    return shared


def _passages(text: str, words: dict[str, int]) -> Passages:
    """Return the digests of a text's passages, sorted, each once; ``words`` numbers the words."""
    numbers = [words.setdefault(word, len(words)) for word in _WORD.findall(text.casefold())]
    if len(numbers) < WORDS:
        return _NONE
    spread = _spread(np.array(numbers, np.uint64))
    count = len(numbers) - WORDS + 1
    digests = np.zeros(count, np.uint64)
    for place in range(WORDS):
        digests = _spread(digests + spread[place : place + count])
    return np.unique(digests)


def _spread(numbers: Passages) -> Passages:
    """Mix the bits of 64-bit numbers (splitmix64, Steele et al. 2014), one to one."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _first_places(studies: Sequence[str | None]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, study in enumerate(studies):
        if study is not None:
            places.setdefault(study, []).append(place)
    return places
