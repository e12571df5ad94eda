"""What the firewall writes: the images that training loses, each set's images, and the counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lapvqa import storage
from lapvqa.firewall.held_out import NAMES, HeldOut
from lapvqa.firewall.leaks import REASONS, Leak, Training, first_by
from lapvqa.project import Project
from lapvqa.schemas import EXCLUDED, TESTED


@dataclass(frozen=True)
class Found:
    """One held-out set and all that training shares with it."""

    held: HeldOut
    leaks: Sequence[Leak]


def excluded_table(training: Training, found: Iterable[Found]) -> pa.Table:
    """Return a row for each image that must leave training, by key; of several sets the first.

    First by the directness of the reason, then in the order of the sets.
    """
    told: dict[int, tuple[Leak, HeldOut]] = {}
    for one in found:
        for row, leak in first_by(one.leaks, "training").items():
            if row not in told or _directness(leak) < _directness(told[row][0]):
                told[row] = leak, one.held
    columns = ("image_key", "study_key", "patient_key", "split")
    images = training.table.select(columns).to_pylist()
    rows = [
        {
            **images[row], "reason": leak.reason, "data_set": held.data_set,
            "test_image": held.names[leak.held_out], "score": _rounded(leak.score),
        }
        for row, (leak, held) in told.items()
    ]  # fmt: skip
    return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["image_key"])), EXCLUDED)


def write_tested(found: Sequence[Found], project: Project, *, left: bool) -> None:
    """Write tested/<data_set>.parquet of every set, empty where it is not here.

    ``left``: what was found is still trained on.
    """
    for name in NAMES:
        rows: list[dict[str, Any]] = []
        for one in found:
            if one.held.data_set == name:
                rows += _tested_rows(one, left=left)
        rows.sort(key=lambda row: str(row["name"]))
        storage.write_table(project.tested(name), pa.Table.from_pylist(rows, TESTED), TESTED)


def account(
    training: Training,
    found: Sequence[Found],
    excluded: pa.Table,
    not_checked: Mapping[str, str],
    *,
    on_leak: str,
) -> dict[str, Any]:
    """Return account.json: counts per data set and reason, and what was not checked, and why."""
    sets = {}
    for name in NAMES:
        of_set = [one for one in found if one.held.data_set == name]
        if not of_set:
            continue
        sets[name] = {
            "test_images": sum(len(one.held) for one in of_set),
            "unreadable_test_images": sum(one.held.unreadable for one in of_set),
            "test_images_known_to_training": _by_reason(of_set, "held_out"),
            "training_images_shared": _by_reason(of_set, "training"),
        }
    lost = Counter(excluded["reason"].to_pylist())
    splits = Counter(excluded["split"].to_pylist())
    before = Counter(training.table["split"].to_pylist())
    return {
        "on_leak": on_leak,
        "training_images": dict(sorted(before.items())),
        "excluded_images": {split: splits[split] for split in sorted(before)},
        "excluded_by_reason": {reason: lost[reason] for reason in REASONS if lost[reason]},
        "excluded_studies": len(set(excluded["study_key"].to_pylist())),
        "excluded_patients": len(set(excluded["patient_key"].to_pylist())),
        "data_sets": sets,
        "not_checked": dict(not_checked),
    }


def _by_reason(found: Sequence[Found], side: Any) -> dict[str, int]:
    counts = Counter(leak.reason for one in found for leak in first_by(one.leaks, side).values())
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def _tested_rows(found: Found, *, left: bool) -> list[dict[str, Any]]:
    held, told = found.held, first_by(found.leaks, "held_out")
    rows = []
    for place, (name, study) in enumerate(zip(held.names, held.studies, strict=True)):
        leak = told.get(place)
        rows.append(
            {
                "name": name, "study_key": study, "held_from": ", ".join(held.held_from),
                "found": leak.reason if leak else None,
                "score": _rounded(leak.score) if leak else None,
                "left": left and leak is not None,
            }
        )  # fmt: skip
    return rows


def _directness(leak: Leak) -> tuple[int, float]:
    return leak.rank[:2]


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 6)
