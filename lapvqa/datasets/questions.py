"""Questions in one table: normalised texts, splits, leaks, and the columns both sets share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from lapvqa.datasets.splits import LeakPolicy, Leaks, check_leaks, count_reasons
from lapvqa.datasets.stored import StoredImages
from lapvqa.datasets.tables import Account

SPLIT_WORDS = {
    "train": "train",
    "val": "validate",
    "valid": "validate",
    "validate": "validate",
    "test": "test",
}

SplitSource = Literal["released", "archive"]
"""The dataset's own split, or the one that the encoder was pretrained on."""

COMMON = [
    pa.field("sample", pa.string(), False, {"doc": "key of image or pair, question and answer"}),
    pa.field("patient_key", pa.string(), False, {"doc": "keyed hash of the patient"}),
    pa.field("split", pa.string(), False, {"doc": "train | validate | test"}),
    pa.field("pretrain_split", pa.string(), False, {"doc": "the archive's split of the patient"}),
    pa.field("image_key", pa.string(), False, {"doc": "the image asked about"}),
    pa.field("question", pa.string(), False, {"doc": "small letters, white space collapsed"}),
    pa.field("answer", pa.string(), False, {"doc": "small letters, white space collapsed"}),
    pa.field("closed", pa.bool_(), False, {"doc": "the answer is yes or no"}),
]


@dataclass(frozen=True)
class QuestionSet:
    """Questions as an Arrow table ordered by sample, and what became of every row."""

    name: str
    table: pa.Table
    account: Account
    leaks: Leaks
    facts: Mapping[str, int]
    protocol: Mapping[str, str]

    def describe(self) -> dict[str, str | int]:
        """Return how the table was made and every count, for an evaluation's protocol."""
        return {
            "dataset": self.name,
            **self.protocol,
            **self.account.describe(),
            **self.leaks.describe(),
            **self.facts,
        }


def normalise(text: str) -> str:
    """Return ``text`` in small letters with white space collapsed."""
    return " ".join(text.lower().split())


def is_closed(answer: str) -> bool:
    """Return whether the answer is yes or no."""
    return answer in ("yes", "no")


def finish(
    name: str,
    rows: list[dict[str, Any]],
    schema: pa.Schema,
    left_out: Counter[str],
    stored: StoredImages,
    *,
    file: str,
    split: SplitSource,
    shared_patients: LeakPolicy,
    pretrained_patients: LeakPolicy,
    facts: Mapping[str, int],
    protocol: Mapping[str, str],
) -> QuestionSet:
    """Add splits, leave out repeated rows and leaks, and count. Raises as the readers say."""
    read = len(rows) + sum(left_out.values())
    unique = _without_repeats(rows, left_out)
    for row in unique:
        row["pretrain_split"] = stored.split_of[row["patient_key"]]
        if split == "archive":
            row["split"] = row["pretrain_split"]
    reasons, leaks = check_leaks(
        name,
        [row["patient_key"] for row in unique],
        [row["split"] for row in unique],
        stored.pretrained,
        between=shared_patients,
        seen=pretrained_patients,
    )
    left_out.update(count_reasons(reasons))
    kept = [row for row, why in zip(unique, reasons, strict=True) if why is None]
    account = Account("questions", read, len(kept), dict(left_out))
    account.require_some(
        file, hint="ingest the MIMIC-CXR images that the questions refer to, in MIMIC-CXR's layout"
    )
    kept.sort(key=lambda row: str(row["sample"]))
    table = pa.Table.from_pylist(kept, schema=schema)
    return QuestionSet(name, table, account, leaks, facts, {**protocol, "split": split})


def _without_repeats(
    rows: Sequence[dict[str, Any]], left_out: Counter[str]
) -> list[dict[str, Any]]:
    """Return the first row of each sample; a repeat has the same question and answer."""
    unique: dict[str, dict[str, Any]] = {}
    for row in rows:
        unique.setdefault(row["sample"], row)
    left_out["repeats another row"] += len(rows) - len(unique)
    return list(unique.values())
