"""Read MIMIC-Ext-MIMIC-CXR-VQA 1.0.0 (Bae et al., NeurIPS 2023): questions about one image.

    MIMIC-Ext-MIMIC-CXR-VQA/dataset/{train,valid,test}.json

Each file is a list; an answer is a list of words: [yes], [no], names, or nothing at all, where
none of what is asked about applies. The text of an answer is its words in alphabetical order,
each once, joined by ", "; that of an empty list is "none", or the question is left out.
The release on GitHub has no answers and cannot be used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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
from lapvqa.datasets.stored import StoredImages
from lapvqa.errors import SourceError

NAME = "MIMIC-Ext-MIMIC-CXR-VQA"
FILES = ("train.json", "valid.json", "test.json")
SEMANTIC_TYPES = ("verify", "choose", "query")
CONTENT_TYPES = ("anatomy", "attribute", "presence", "abnormality", "plane", "gender", "size")
NONE = "none"
"""The text of an empty list of answers."""

SCHEMA = pa.schema(
    [
        *COMMON,
        pa.field("semantic_type", pa.string(), False, {"doc": "one of SEMANTIC_TYPES"}),
        pa.field("content_type", pa.string(), False, {"doc": "one of CONTENT_TYPES"}),
        pa.field("answers", pa.list_(pa.string()), False, {"doc": "sorted, each once"}),
    ]
)

_PLACES = ("", "dataset", f"{NAME}/dataset")

EmptyAnswers = Literal["none", "exclude"]


def read_ext_vqa(
    folder: Path,
    stored: StoredImages,
    *,
    empty_answers: EmptyAnswers = "none",
    split: SplitSource = "released",
    shared_patients: LeakPolicy = "raise",
    pretrained_patients: LeakPolicy = "report",
) -> QuestionSet:
    """Read the three files; the table has the columns of ``SCHEMA``.

    ``shared_patients``, ``pretrained_patients``: see ``splits``.
    Raises SourceError, SplitLeakError.
    """
    left_out: Counter[str] = Counter()
    rows = []
    empty = 0
    for name in FILES:
        path = _find(folder, name)
        expected = SPLIT_WORDS[name.removesuffix(".json")]
        for number, entry in enumerate(tables.read_json(path, list)):
            place = f"{path.name}, entry {number}"
            row = _read_entry(entry, place, expected, stored, empty_answers)
            if isinstance(row, str):
                left_out[row] += 1
            else:
                rows.append(row)
                empty += not row["answers"]
    return finish(
        NAME,
        rows,
        SCHEMA,
        left_out,
        stored,
        file=", ".join(FILES),
        split=split,
        shared_patients=shared_patients,
        pretrained_patients=pretrained_patients,
        facts={"questions_with_empty_answer_kept": empty},
        protocol={
            "answer": 'words sorted, each once, joined by ", "',
            "empty_answers": f'"{NONE}"' if empty_answers == "none" else "left out",
        },
    )


def _find(folder: Path, name: str) -> Path:
    path = tables.find_optional(folder, [name], below=_PLACES)
    github = [f"_{name}", f"_{name.replace('.json', '_part1.json')}"]
    if path is None and tables.find_optional(folder, github, below=_PLACES):
        raise SourceError(
            f"expected {name}, found _{name}: the release without answers",
            hint=f"take {NAME} from PhysioNet, or make the answers with its authors' program",
        )
    return path or tables.find(folder, [name], below=_PLACES)


def _read_entry(
    entry: Any, place: str, expected: str, stored: StoredImages, empty_answers: EmptyAnswers
) -> dict[str, Any] | str:
    """Return the row of one question, or why it is left out."""
    texts = {
        name: tables.member(entry, name, str, place)
        for name in ("split", "image_id", "question", "content_type", "semantic_type")
    }
    if tables.choice(texts["split"], SPLIT_WORDS, "split", place) != expected:
        raise SourceError(
            f"{place}: key split is {texts['split']!r}, expected that of its file",
            hint="use the files as published; do not rename them",
        )
    tables.choice(texts["semantic_type"], dict.fromkeys(SEMANTIC_TYPES), "semantic_type", place)
    tables.choice(texts["content_type"], dict.fromkeys(CONTENT_TYPES), "content_type", place)
    answers = _answers(entry, place)
    subject = str(tables.member_of(entry, "subject_id", (str, int), place))
    if not answers and empty_answers == "exclude":
        return "empty answer"
    image = stored.image(Path(texts["image_id"]).stem)
    if image is None:
        return "image is not stored"
    if stored.keyring.patient(subject) != image.patient_key:
        return "image belongs to another patient in the archive"
    question, answer = normalise(texts["question"]), ", ".join(answers) or NONE
    if not question:
        return "empty question"
    return {
        "sample": key(NAME, f"{image.image_key}/{question}/{answer}"),
        "patient_key": image.patient_key,
        "split": expected,
        "image_key": image.image_key,
        "question": question,
        "answer": answer,
        "closed": is_closed(answer),
        "semantic_type": texts["semantic_type"],
        "content_type": texts["content_type"],
        "answers": answers,
    }


def _answers(entry: Mapping[str, Any], place: str) -> list[str]:
    """Return the words of the answer; the README's single text is taken for a list of one."""
    answer = tables.member_of(entry, "answer", (list, str), place)
    words = [answer] if isinstance(answer, str) else answer
    if not all(isinstance(word, str) for word in words):
        raise SourceError(
            f"{place}: key answer is not a list of texts",
            hint="use the file as published",
        )
    return sorted({normalise(word) for word in words} - {""})
