"""Keys in place of identifiers, splits as functions of the keys, and patients in two splits.

The splits of question and phrase sets are unrelated to the one that the encoder was pretrained on:
a patient may be tested here who was trained on there, with the very report that holds the answer.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lapvqa.errors import SplitLeakError

TRAIN, VALIDATE, TEST = SPLITS = ("train", "validate", "test")

LeakPolicy = Literal["raise", "report", "exclude"]
"""SplitLeakError; counted and used; counted and left out."""

_PAIRS = ((TRAIN, VALIDATE), (TRAIN, TEST), (VALIDATE, TEST))


def key(dataset: str, name: str) -> str:
    """Return a short key for a patient or image of a public dataset.

    Their numbers are pseudonyms given by the publisher, so the hash needs no secret; it keeps
    them out of results, and is the same on every machine.
    """
    return hashlib.sha256(f"{dataset}/{name}".encode()).hexdigest()[:16]


def lowest(keys: Iterable[str], share: float, purpose: str) -> set[str]:
    """Return the ``share`` of ``keys`` whose hashes for this purpose are lowest.

    A pure function of the set: order does not matter. Of two keys or more at least one is taken
    and at least one left.
    """
    ordered = sorted(set(keys), key=lambda name: key(purpose, name))
    return set(ordered[: min(max(1, round(share * len(ordered))), len(ordered) - 1)])


@dataclass(frozen=True)
class Leaks:
    """Counts of patients before anything is left out.

    ``between``: "train and test" -> patients in both; ``pretrained``: split -> its patients who
    are in the archive's training split.
    """

    between: dict[str, int]
    pretrained: dict[str, int]

    def describe(self) -> dict[str, int]:
        """Return the counts under names for an evaluation's protocol."""
        shared = {f"patients_in_{pair}": number for pair, number in self.between.items()}
        seen = {f"patients_pretrained_on_{name}": n for name, n in self.pretrained.items()}
        return {**shared, **seen}


def check_leaks(
    name: str,
    patients: Sequence[str],
    splits: Sequence[str],
    pretrained: Collection[str],
    *,
    between: LeakPolicy,
    seen: LeakPolicy,
) -> tuple[list[str | None], Leaks]:
    """Return for each row why it is left out (None: it stays), and the counts.

    ``pretrained``: patients of the archive's training split. ``between`` says what is done about
    patients in two splits: with "exclude" they leave the one that is further from the test, so
    the test stays as published. ``seen`` says what is done about validation and test patients who
    were pretrained on: with "exclude" they leave. Raises SplitLeakError as asked.
    """
    of_split: dict[str, set[str]] = defaultdict(set)
    for patient, split in zip(patients, splits, strict=True):
        of_split[split].add(patient)
    leaks = Leaks(
        {f"{a}_and_{b}": len(of_split[a] & of_split[b]) for a, b in _PAIRS},
        {split: len(of_split[split] & set(pretrained)) for split in SPLITS},
    )
    if between == "raise":
        _refuse_shared(name, leaks)
    if seen == "raise":
        _refuse_seen(name, leaks)
    reasons: list[str | None] = [None] * len(patients)
    for row, (patient, split) in enumerate(zip(patients, splits, strict=True)):
        if between == "exclude":
            later = next((b for a, b in _PAIRS[::-1] if a == split and patient in of_split[b]), "")
            if later:
                reasons[row] = f"{split} row of a patient who is also in {later}"
                continue
        if seen == "exclude" and split != TRAIN and patient in pretrained:
            reasons[row] = f"{split} row of a patient whom the pretraining has seen"
    return reasons, leaks


def count_reasons(reasons: Sequence[str | None]) -> Counter[str]:
    """Return how many rows each reason leaves out."""
    return Counter(reason for reason in reasons if reason is not None)


def _refuse_shared(name: str, leaks: Leaks) -> None:
    shared = [f"{pair.replace('_', ' ')}: {n}" for pair, n in leaks.between.items() if n]
    if shared:
        raise SplitLeakError(
            f"{name}: expected each patient in one split, found patients in both {shared[0]}"
            + "".join(f"; {more}" for more in shared[1:]),
            hint="choose the archive's split, or let such patients be excluded or reported",
        )


def _refuse_seen(name: str, leaks: Leaks) -> None:
    seen = {split: leaks.pretrained[split] for split in (VALIDATE, TEST)}
    if any(seen.values()):
        raise SplitLeakError(
            f"{name}: expected patients whom the pretraining has not seen, found "
            + " and ".join(f"{number} in {split}" for split, number in seen.items() if number),
            hint="choose the archive's split, or let such patients be excluded or reported",
        )
