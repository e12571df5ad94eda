"""Which studies a look compares: those that arrived since, and the reference's, by patient.

Nobody stands on both sides. A patient who comes back counts as new, with the new studies alone: if
it were the other way round, new windows would lack those who come often.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import pyarrow as pa

from lapvqa.drift.arrivals import Arrival
from lapvqa.drift.reference import Reference

_YEAR = 360
"""Days of reference from which there are the same months of another year."""


@dataclass(frozen=True)
class Window:
    """Study key -> whether it is new; studies in neither group are not here."""

    is_new: Mapping[str, bool]
    patient_of: Mapping[str, str]
    source_of: Mapping[str, str]
    start: float
    end: float
    new_files_after: float
    """Files of the archive that are younger are new."""
    months: tuple[int, ...] = ()
    """Months of the year that the reference was narrowed to; none: all of it."""
    remarks: tuple[str, ...] = ()
    returning: int = field(default=0)
    """Patients of the reference who came back: they count as new."""

    def count(self, *, new: bool) -> int:
        """Return the number of studies on one side."""
        return sum(is_new == new for is_new in self.is_new.values())


def choose(
    studies: pa.Table,
    arrivals: Mapping[str, Arrival],
    reference: Reference,
    *,
    start: float,
    end: float,
    divide: bool = False,
    min_patients: int,
    seasons: bool,
    dates_are_true: bool,
) -> Window:
    """Divide the studies (``STUDIES``); times are seconds since the epoch.

    ``divide``: studies of the reference that arrived after ``start`` are new, too.
    """
    keys, patients, dates = (
        studies[name].to_pylist() for name in ("study_key", "patient_key", "study_date")
    )
    patient_of = dict(zip(keys, patients, strict=True))
    day_of = {
        key: _day(arrivals[key].at, written if dates_are_true else None)
        for key, written in zip(keys, dates, strict=True)
    }
    arrived = {key for key in keys if start < arrivals[key].at <= end}
    new = arrived if divide else arrived - reference.studies
    came_back = {patient_of[key] for key in new}
    every = {key for key in keys if key in reference.studies and key not in new}
    old = {key for key in every if patient_of[key] not in came_back}
    returning = len({patient_of[key] for key in every - old})
    months: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()
    if seasons:
        old, months, remarks = _same_months(old, new, day_of, patient_of, min_patients)
    chosen = dict.fromkeys(sorted(old), False) | dict.fromkeys(sorted(new), True)
    return Window(
        chosen,
        {key: patient_of[key] for key in chosen},
        {key: arrivals[key].source for key in chosen},
        start, end, start if divide else max(start, reference.at), months, remarks, returning,
    )  # fmt: skip


def _same_months(
    old: set[str],
    new: set[str],
    day_of: Mapping[str, date],
    patient_of: Mapping[str, str],
    min_patients: int,
) -> tuple[set[str], tuple[int, ...], tuple[str, ...]]:
    """Narrow the reference to the months of the window, where it knows them from a whole year."""
    if not old or not new:
        return old, (), ()
    days = [day_of[key] for key in old]
    if (max(days) - min(days)).days < _YEAR:
        return old, (), ("no season: the reference is younger than a year",)
    months = tuple(sorted({day_of[key].month for key in new}))
    same = {key for key in old if day_of[key].month in months}
    if len({patient_of[key] for key in same}) < min_patients:
        return old, (), ("no season: the reference has too few patients of these months",)
    return same, months, ()


def _day(arrived: float, written: str | None) -> date:
    if written:
        return datetime.strptime(written, "%Y%m%d").date()
    return datetime.fromtimestamp(arrived, UTC).date()
