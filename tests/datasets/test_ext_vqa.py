"""MIMIC-Ext-MIMIC-CXR-VQA: lists of answers to text, types, splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stored_by_hand import KEYRING, dicom, study, subject

from lapvqa.datasets.ext_vqa import SCHEMA, read_ext_vqa
from lapvqa.errors import SourceError, SplitLeakError

OF = {"train": 1, "valid": 2, "test": 3}
KEYS = (
    "split", "image_id", "question", "content_type", "semantic_type", "answer", "subject_id",
)  # fmt: skip


def entry(split: str, number: int | None = None, **changes: object) -> dict:
    number = number or OF[split]
    one = study(number, 0)
    return {
        "split": split,
        "idx": 0,
        "image_id": dicom(one),
        "question": "Is there edema?",
        "content_type": "presence",
        "semantic_type": "verify",
        "template": "Is there ${attribute}?",
        "template_arguments": {"attribute": {"0": "edema"}},
        "answer": ["yes"],
        "subject_id": str(subject(number)),
        "study_id": str(one),
        "image_path": f"p10/p{subject(number)}/s{one}/{dicom(one)}.jpg",
    } | changes


def write(folder: Path, **more: list[dict]) -> Path:
    place = folder / "MIMIC-Ext-MIMIC-CXR-VQA" / "dataset"
    place.mkdir(parents=True, exist_ok=True)
    for split in OF:
        (place / f"{split}.json").write_text(json.dumps([entry(split), *more.get(split, [])]))
    return folder


def by_question(dataset) -> dict[str, dict]:
    return {row["question"]: row for row in dataset.table.to_pylist()}


@pytest.mark.parametrize(
    "below", ["", "MIMIC-Ext-MIMIC-CXR-VQA", "MIMIC-Ext-MIMIC-CXR-VQA/dataset"]
)
def test_the_three_files_are_read_wherever_the_path_points(tmp_path, stored, below):
    dataset = read_ext_vqa(write(tmp_path) / below, stored, pretrained_patients="raise")
    assert dataset.table.schema.equals(SCHEMA)
    assert dataset.account.kept == 3
    found = {row["split"]: row for row in dataset.table.to_pylist()}
    assert set(found) == {"train", "validate", "test"}
    row = found["validate"]
    assert row["image_key"] == KEYRING.image(dicom(study(2, 0)))
    assert row["patient_key"] == KEYRING.patient(str(subject(2)))
    assert (row["semantic_type"], row["content_type"]) == ("verify", "presence")
    assert row["closed"] is True
    assert str(subject(2)) not in str(dataset.table.to_pydict())


@pytest.mark.parametrize(
    ("answer", "text", "closed"),
    [
        (["no"], "no", True),
        (["right lung", "Left  Lung", "right lung"], "left lung, right lung", False),
        (list("hgfedcba"), "a, b, c, d, e, f, g, h", False),
        ("Yes", "yes", True),
        ([], "none", False),
        ([""], "none", False),
    ],
)
def test_answers_become_text(tmp_path, stored, answer, text, closed):
    folder = write(tmp_path, test=[entry("test", question="what?", answer=answer)])
    row = by_question(read_ext_vqa(folder, stored))["what?"]
    assert (row["answer"], row["closed"]) == (text, closed)
    assert row["answers"] == ([] if text == "none" else text.split(", "))


def test_empty_answers_are_counted_or_left_out(tmp_path, stored):
    folder = write(tmp_path, test=[entry("test", question="what?", answer=[])])
    kept = read_ext_vqa(folder, stored)
    assert kept.facts == {"questions_with_empty_answer_kept": 1}
    assert kept.protocol["empty_answers"] == '"none"'
    left = read_ext_vqa(folder, stored, empty_answers="exclude")
    assert left.account.left_out["empty answer"] == 1
    assert left.account.kept == 3


def test_what_is_left_out_is_counted(tmp_path, stored):
    more = [
        entry("test"),
        entry("test", image_id=dicom(50009999)),
        entry("test", subject_id=subject(4)),
        entry("test", question=" "),
    ]
    account = read_ext_vqa(write(tmp_path, test=more), stored).account
    assert account.read == 7
    assert dict(account.left_out) == {
        "repeats another row": 1,
        "image is not stored": 1,
        "image belongs to another patient in the archive": 1,
        "empty question": 1,
    }


def test_leaks_are_found(tmp_path, stored):
    folder = write(tmp_path, test=[entry("test", 1, question="what?")])
    with pytest.raises(SplitLeakError, match="train and test: 1"):
        read_ext_vqa(folder, stored)
    with pytest.raises(SplitLeakError, match="1 in test"):
        read_ext_vqa(folder, stored, shared_patients="report", pretrained_patients="raise")
    assert read_ext_vqa(folder, stored, shared_patients="exclude").account.kept == 3
    archive = read_ext_vqa(folder, stored, split="archive", pretrained_patients="raise")
    assert by_question(archive)["what?"]["split"] == "train"


@pytest.mark.parametrize("missing", KEYS)
def test_a_missing_key_is_named(tmp_path, stored, missing):
    broken = entry("valid")
    del broken[missing]
    with pytest.raises(SourceError, match=rf"valid.json, entry 1: expected the key '{missing}'"):
        read_ext_vqa(write(tmp_path, valid=[broken]), stored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"semantic_type": "verified"}, "semantic_type is 'verified'; nearest known: verify"),
        ({"content_type": "planes"}, "content_type is 'planes'; nearest known: plane"),
        ({"split": "train"}, "key split is 'train', expected that of its file"),
        ({"answer": 5}, "key answer is of type int, expected list or str"),
        ({"answer": [5]}, "key answer is not a list of texts"),
        ({"question": None}, "key question is of type NoneType, expected str"),
    ],
)
def test_unknown_values_are_named(tmp_path, stored, change, message):
    folder = write(tmp_path, test=[entry("test") | change])
    with pytest.raises(SourceError, match=rf"test.json, entry 1: .*{message}"):
        read_ext_vqa(folder, stored)


def test_the_release_without_answers_is_known(tmp_path, stored):
    place = tmp_path / "dataset"
    place.mkdir()
    (place / "_train_part1.json").write_text("[]")
    with pytest.raises(SourceError, match=r"expected train.json, found _train.json.*\n.*PhysioNet"):
        read_ext_vqa(tmp_path, stored)


def test_a_missing_file_is_named(tmp_path, stored):
    folder = write(tmp_path)
    next(folder.rglob("valid.json")).unlink()
    with pytest.raises(SourceError, match=r"expected valid\.json"):
        read_ext_vqa(folder, stored)
