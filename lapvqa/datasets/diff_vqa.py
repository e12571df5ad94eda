"""Read MIMIC-Diff-VQA (Hu et al., KDD 2023): questions about a study and one before it.

    mimic_pair_questions.csv  study_id, subject_id, ref_id, question_type, question, answer, split
    mimic_all.csv             study_id -> dicom_id, with study_date and study_order

Every row names a reference study; only a "difference" is asked about both, all other types are
about the main image, and what is wrong with their reference is no fault of theirs: they are kept
without it (the authors' model is shown it all the same: github.com/Holipori/EKAID, issue 1).
Without mimic_all.csv a study's image is its first AP or PA image by key, and its place in time the
archive's own.

Reversed pairs (the reference is later than the main image) are nearly half of all: 79,767 of
164,324. Their answers are right: they say what the image called main has beside the one called
reference (the authors: github.com/Holipori/MIMIC-Diff-VQA, issue 4). Only the order of the dates is
odd. They are found by date, not by number: study ids are random.
The released split is not known to be disjoint by patient and has nothing to do with MIMIC-CXR's:
see ``splits``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from lapvqa.datasets import tables
from lapvqa.datasets.questions import (
    COMMON,
    SPLIT_WORDS,
    QuestionSet,
    SplitSource,
    finish,
    is_closed,
    normalise,
)
from lapvqa.datasets.splits import LeakPolicy, key
from lapvqa.datasets.stored import StoredImage, StoredImages
from lapvqa.errors import SourceError

NAME = "MIMIC-Diff-VQA"
PAIRS, STUDIES = "mimic_pair_questions.csv", "mimic_all.csv"
DIFFERENCE = "difference"
TYPES = ("abnormality", "presence", "view", "location", "level", "type", DIFFERENCE)

SCHEMA = pa.schema(
    [
        *COMMON,
        pa.field("question_type", pa.string(), False, {"doc": "one of TYPES"}),
        pa.field(
            "reference_key",
            pa.string(),
            True,
            {"doc": "the reference study's image; null if it is not here and not needed"},
        ),
        pa.field(
            "reversed",
            pa.bool_(),
            True,
            {
                "doc": "the reference is later than the main image; null if dates do not tell, "
                "or if the question is of one image"
            },
        ),
    ]
)

_COLUMNS = (
    "study_id", "subject_id", "ref_id", "question_type", "question", "answer", "split",
)  # fmt: skip
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:\.0|[ T].*)?")

Moment = tuple[str, int | None]
"""Date as yyyymmdd (empty if not known) and place in the patient's studies."""


@dataclass(frozen=True)
class _Study:
    """One study of mimic_all.csv; ``moment`` says when."""

    dicom_id: str
    subject_id: str
    moment: Moment


def read_diff_vqa(
    folder: Path,
    stored: StoredImages,
    *,
    split: SplitSource = "released",
    shared_patients: LeakPolicy = "raise",
    pretrained_patients: LeakPolicy = "report",
    reversed_pairs: Literal["flag", "exclude"] = "flag",
) -> QuestionSet:
    """Read the pair questions; the table has the columns of ``SCHEMA``.

    ``shared_patients``, ``pretrained_patients``: see ``splits``. ``reversed_pairs``: a difference
    of a reversed pair is flagged in column reversed, or left out. Raises SourceError,
    SplitLeakError.
    """
    path = tables.find(folder, [PAIRS])
    dated = tables.find_optional(folder, [STUDIES])
    studies, repeated = (None, 0) if dated is None else _read_studies(dated)
    left_out: Counter[str] = Counter()
    rows = []
    found: dict[tuple[str, str, str, bool], _Images | str] = {}
    for place, row in _read_questions(path):
        of_two = row["question_type"] == DIFFERENCE
        ids = (row["study_id"], row["ref_id"], row["subject_id"], of_two)
        if ids not in found:
            found[ids] = (_pair if of_two else _main_alone)(*ids[:3], studies, stored)
        images = found[ids]
        why = images if isinstance(images, str) else _fault(row, images, reversed_pairs)
        if isinstance(images, str) or why is not None:
            left_out[why or ""] += 1
        else:
            rows.append(_question(row, images, place))
    pairs = [one for ids, one in found.items() if ids[3] and not isinstance(one, str)]
    return finish(
        NAME,
        rows,
        SCHEMA,
        left_out,
        stored,
        file=path.name,
        split=split,
        shared_patients=shared_patients,
        pretrained_patients=pretrained_patients,
        facts={
            "pairs": len(pairs),
            "pairs_reversed": sum(pair["reversed"] is True for pair in pairs),
            "pairs_of_unknown_order": sum(pair["reversed"] is None for pair in pairs),
            "questions_kept_without_reference": sum(row["reference_key"] is None for row in rows),
            "studies_listed_again": repeated,
        },
        protocol={
            "image_of_study": STUDIES if studies is not None else "first AP or PA image by key",
            "reversed_pairs": reversed_pairs,
            "reference_of_questions_about_one_image": "shown if stored, else the image itself",
            "reversed_by": f"study_date, then study_order of {STUDIES}"
            if studies is not None
            else "order of the archive's studies",
        },
    )


def _read_questions(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (place, row) with checked type and split, the split in our words."""
    types = dict.fromkeys(TYPES)
    for line, row in tables.read_rows(path, _COLUMNS):
        place = f"{path.name}, line {line}"
        tables.choice(row["question_type"], types, "question_type", place)
        row["split"] = tables.choice(row["split"], SPLIT_WORDS, "split", place)
        for column in ("study_id", "subject_id", "ref_id"):
            row[column] = _digits(row[column], column, place)
        yield place, row


def _read_studies(path: Path) -> tuple[dict[str, _Study], int]:
    """Return study_id -> image and time, and how many rows name a study again.

    Of several rows of a study the first counts.
    """
    studies: dict[str, _Study] = {}
    repeated = 0
    columns = ("study_id", "subject_id", "dicom_id")
    times = ("study_date", "study_order")
    if not set(times) & set(tables.read_header(path)):
        raise SourceError(
            f"{path.name}: expected the column study_date or study_order, found neither",
            hint=f"use {path.name} as published, or remove it: the archive's dates are used then",
        )
    for line, row in tables.read_rows(path, columns, optional=times):
        place = f"{path.name}, line {line}"
        study = _digits(row["study_id"], "study_id", place)
        if study in studies:
            repeated += 1
            continue
        subject = _digits(row["subject_id"], "subject_id", place)
        studies[study] = _Study(row["dicom_id"], subject, _moment(row, place))
    return studies, repeated


def _digits(text: str, column: str, place: str) -> str:
    """Return a number's digits: pandas writes 50414267.0 where a column has gaps."""
    digits = text.removesuffix(".0")
    if not digits.isdigit():
        raise SourceError(
            f"{place}: expected a number in column {column}, found other text",
            hint="use the file as published",
        )
    return digits


def _moment(row: Mapping[str, str], place: str) -> Moment:
    day, order = row.get("study_date", ""), row.get("study_order", "")
    match = _DATE.fullmatch(day)
    if day and match is None:
        raise SourceError(
            f"{place}: column study_date is not of the form yyyymmdd or yyyy-mm-dd",
            hint="use the file as published",
        )
    number = tables.whole(order, "study_order", place) if order else None
    return "".join(match.groups()) if match else "", number


_Images = dict[str, str | bool | None]
"""The columns that a pair's questions share."""


def _pair(
    study: str,
    reference: str,
    subject: str,
    studies: Mapping[str, _Study] | None,
    stored: StoredImages,
) -> _Images | str:
    """Return a pair's columns, or why it cannot be used."""
    if study == reference:
        return "reference is the main study itself"
    main = _image_of(study, studies, stored)
    if isinstance(main, str):
        return f"main {main}"
    before = _image_of(reference, studies, stored)
    if isinstance(before, str):
        return f"reference {before}"
    patient = stored.keyring.patient(subject)
    if {main.patient_key, before.patient_key} != {patient}:
        return "images are not of the row's patient"
    return {
        "patient_key": patient,
        "image_key": main.image_key,
        "reference_key": before.image_key,
        "reversed": _is_reversed(study, reference, studies, stored),
    }


def _main_alone(
    study: str,
    reference: str,
    subject: str,
    studies: Mapping[str, _Study] | None,
    stored: StoredImages,
) -> _Images | str:
    """Do as ``_pair`` for questions about the main image: rules of pairs do not apply."""
    pair = _pair(study, reference, subject, studies, stored)
    if not isinstance(pair, str):
        return {**pair, "reversed": None}
    main = _image_of(study, studies, stored)
    if isinstance(main, str):
        return f"main {main}"
    patient = stored.keyring.patient(subject)
    if main.patient_key != patient:
        return "images are not of the row's patient"
    alone = {"reference_key": None, "reversed": None}
    return {"patient_key": patient, "image_key": main.image_key, **alone}


def _image_of(
    study: str, studies: Mapping[str, _Study] | None, stored: StoredImages
) -> StoredImage | str:
    if studies is None:
        return (
            stored.frontal(stored.keyring.study(study))
            or "frontal image of the study is not stored"
        )
    if study not in studies:
        return f"study is not in {STUDIES}"
    return stored.image(studies[study].dicom_id) or "image is not stored"


def _is_reversed(
    study: str, reference: str, studies: Mapping[str, _Study] | None, stored: StoredImages
) -> bool | None:
    """Return whether the reference is later; None if nothing tells the two apart."""
    if studies is None:
        orders = [stored.order_of.get(stored.keyring.study(name)) for name in (study, reference)]
        return _later("", "", *orders)
    (day, order), (before, place) = studies[study].moment, studies[reference].moment
    return _later(day, before, order, place)


def _later(day: str, before: str, order: int | None, place: int | None) -> bool | None:
    if day and before and day != before:
        return before > day
    if order is None or place is None or order == place:
        return None
    return place > order


def _fault(
    row: Mapping[str, str], pair: _Images, reversed_pairs: Literal["flag", "exclude"]
) -> str | None:
    if not row["answer"]:
        return "empty answer"
    if not row["question"]:
        return "empty question"
    if reversed_pairs == "exclude" and pair["reversed"]:
        return "pair is reversed"
    return None


def _question(row: Mapping[str, str], pair: _Images, place: str) -> dict[str, Any]:
    question, answer = normalise(row["question"]), normalise(row["answer"])
    about = f"{pair['image_key']}/{pair['reference_key']}/{row['question_type']}"
    return {
        **pair,
        "sample": key(NAME, f"{about}/{question}/{answer}"),
        "split": row["split"],
        "question": question,
        "answer": answer,
        "closed": is_closed(answer),
        "question_type": row["question_type"],
    }
