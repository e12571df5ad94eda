"""MS-CXR, both releases and both forms."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from stored_by_hand import KEYRING, dicom, stored_of, study, subject

from lapvqa.datasets.ms_cxr import read_ms_cxr
from lapvqa.errors import OtherArchiveError, SourceError, SplitLeakError

NEW, OLD = "MS_CXR_Local_Alignment_v1.1.0", "MS_CXR_Local_Alignment_v1.0.0"
HEADER = [
    "dicom_id", "category_name", "label_text", "path", "x", "y", "w", "h", "image_width",
    "image_height", "split",
]  # fmt: skip


def row(number: int, order: int = 0, *, split: str = "test", **changes: object) -> list[object]:
    one = study(number, order)
    path = f"files/p10/p{subject(number)}/s{one}/{dicom(one)}.jpg"
    values = {
        "dicom_id": dicom(one), "category_name": "Pneumonia", "label_text": "left  pneumonia",
        "path": path, "x": 100, "y": 200, "w": 300, "h": 400, "image_width": 1000,
        "image_height": 2000, "split": split,
    } | changes  # fmt: skip
    return [values[name] for name in HEADER]


def old(rows: list[list[object]]) -> tuple[list[str], list[list[object]]]:
    """Release 0.1: no split, and another order of the columns."""
    return HEADER[3::-1] + HEADER[4:10], [one[3::-1] + one[4:10] for one in rows]


def coco(rows: list[list[object]]) -> dict:
    """The same rows in the json form."""
    named = [dict(zip(HEADER, one, strict=True)) for one in rows]
    categories = sorted({one["category_name"] for one in named})
    images = {one["dicom_id"]: one for one in named}
    return {
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories, 1)],
        "images": [
            {
                "id": 10 + i, "file_name": f"{name}.jpg", "path": one["path"],
                "width": one["image_width"], "height": one["image_height"], "split": one["split"],
            }
            for i, (name, one) in enumerate(images.items())
        ],
        "annotations": [
            {
                "id": i, "image_id": 10 + list(images).index(one["dicom_id"]),
                "category_id": 1 + categories.index(one["category_name"]),
                "bbox": [one[name] for name in "xywh"], "label_text": one["label_text"],
            }
            for i, one in enumerate(named)
        ],
    }  # fmt: skip


SOME = [
    row(1, split="train"), row(2, split="val"), row(3), row(3, x=600), row(3, 1),
    row(3, category_name="Edema"), row(4, label_text="other"),
]  # fmt: skip


def as_facts(dataset):
    return [replace(one, boxes=one.boxes.tolist(), stored_boxes=one.stored_boxes.tolist())
            for one in dataset.phrases]  # fmt: skip


def test_demo_is_read_whole_in_both_forms(demo, demo_stored, tmp_path):
    folder = demo / "ms-cxr"
    dataset = read_ms_cxr(folder, demo_stored, pretrained_patients="raise")
    assert dataset.protocol["file"] == f"{NEW}.csv"
    with (folder / f"{NEW}.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    groups = defaultdict(list)
    for one in rows:
        groups[one["dicom_id"], one["category_name"], one["label_text"]].append(one)
    assert dataset.rows.read == dataset.rows.kept == len(rows)
    assert len(dataset.phrases) == len(groups)
    assert dataset.facts["patients_to_exclude_from_pretraining"] == 0
    by_image = {demo_stored.image(one["dicom_id"]).image_key: one for one in rows}
    for phrase in dataset.phrases:
        fit = demo_stored.by_key(phrase.image_key).fit
        np.testing.assert_allclose(fit.to_native(phrase.stored_boxes), phrase.boxes, atol=1e-6)
        assert phrase.split == by_image[phrase.image_key]["split"].replace("val", "validate")
        assert phrase.pretrain_split in (
            ("test",) if phrase.split == "test" else ("validate", "test")
        )
    (tmp_path / f"{NEW}.json").write_bytes((folder / f"{NEW}.json").read_bytes())
    assert as_facts(read_ms_cxr(tmp_path, demo_stored)) == as_facts(dataset)


def test_boxes_of_a_phrase_are_grouped_and_become_corners(write_table, stored):
    dataset = read_ms_cxr(write_table(f"{NEW}.csv", HEADER, SOME), stored)
    assert dataset.rows.kept == 7
    assert len(dataset.phrases) == 6
    image = KEYRING.image(dicom(study(3, 0)))
    phrase = next(p for p in dataset.phrases if p.image_key == image and p.category == "Pneumonia")
    assert phrase.boxes.tolist() == [[100, 200, 400, 600], [600, 200, 900, 600]]
    assert phrase.text == "left pneumonia"
    scale, left = 378 / 2000, (378 - 189) // 2
    np.testing.assert_allclose(
        phrase.stored_boxes[0],
        [left + 100 * scale, 200 * scale, left + 400 * scale, 600 * scale],
    )
    assert dataset.facts["phrases_with_several_boxes"] == 1
    assert {len(dataset.of_split(s)) for s in ("train", "validate")} == {1}
    assert len(dataset.of_split("test")) == 4


def test_json_form_equals_csv_form(write_table, stored, tmp_path):
    from_csv = read_ms_cxr(write_table(f"{NEW}.csv", HEADER, SOME), stored)
    (tmp_path / f"{NEW}.json").write_text(json.dumps(coco(SOME)))
    assert as_facts(read_ms_cxr(tmp_path, stored)) == as_facts(from_csv)


def test_release_without_split_is_split_by_patient(write_table):
    splits = dict.fromkeys(range(1, 9), "test")
    rows = [row(number, order) for number in splits for order in range(2)]
    dataset = read_ms_cxr(write_table(f"{OLD}.csv", *old(rows)), stored_of(splits))
    assert dataset.protocol["split"] == "patient"
    names = defaultdict(set)
    for phrase in dataset.phrases:
        names[phrase.patient_key].add(phrase.split)
    assert all(len(one) == 1 for one in names.values())
    assert {name for one in names.values() for name in one} == {"train", "validate", "test"}
    again = read_ms_cxr(write_table(f"{OLD}.csv", *old(rows[::-1])), stored_of(splits))
    assert as_facts(again) == as_facts(dataset)


def test_the_newer_release_is_preferred(write_table, stored):
    write_table(f"{OLD}.csv", *old(SOME))
    folder = write_table(f"{NEW}.csv", HEADER, SOME)
    assert read_ms_cxr(folder, stored).protocol["file"] == f"{NEW}.csv"


def test_what_is_left_out_is_counted(write_table, stored):
    away = dicom(50009999)
    rows = [
        *SOME, row(3), row(3, w=0), row(3, x=1000), row(4, image_width=2000),
        row(3, dicom_id=away, path=f"files/p10/p{subject(3)}/s{study(3, 0)}/{away}.jpg"),
        row(3, path=f"files/p10/p{subject(4)}/s{study(3, 0)}/{dicom(study(3, 0))}.jpg"),
    ]  # fmt: skip
    account = read_ms_cxr(write_table(f"{NEW}.csv", HEADER, rows), stored).rows
    assert dict(account.left_out) == {
        "box repeats another of its phrase": 1,
        "box without area in the image": 2,
        "stored image has another shape than image_width x image_height": 1,
        "image is not stored": 1,
        "image belongs to another patient in the archive": 1,
    }
    assert account.kept == 7


def test_boxes_land_alike_on_a_resized_archive(write_table):
    splits = {1: "train", 2: "validate", 3: "test", 4: "test"}
    folder = write_table(f"{NEW}.csv", HEADER, SOME)
    full = read_ms_cxr(folder, stored_of(splits))
    small = read_ms_cxr(folder, stored_of(splits, size=(500, 250)))
    for one, other in zip(full.phrases, small.phrases, strict=True):
        np.testing.assert_allclose(one.stored_boxes, other.stored_boxes)
    assert small.facts["phrases_on_resized_copies"] == 6
    assert full.facts["phrases_on_resized_copies"] == 0


def test_a_box_over_the_edge_is_cut(write_table, stored):
    folder = write_table(f"{NEW}.csv", HEADER, [row(3, x=900, w=500)])
    (phrase,) = read_ms_cxr(folder, stored).phrases
    assert phrase.boxes.tolist() == [[900, 200, 1400, 600]]
    assert phrase.stored_boxes[0, 2] == pytest.approx(94 + 189)


def test_patients_of_the_pretraining(write_table, stored):
    folder = write_table(f"{NEW}.csv", HEADER, [*SOME, row(1, 1, split="train")])
    dataset = read_ms_cxr(folder, stored, pretrained_patients="raise")  # in train only
    assert dataset.patients_to_exclude == {KEYRING.patient(str(subject(1)))}
    assert dataset.describe()["patients_to_exclude_from_pretraining"] == 1
    folder = write_table(f"{NEW}.csv", HEADER, [*SOME, row(1, split="test", label_text="b")])
    options = {"shared_patients": "report"}
    with pytest.raises(SplitLeakError, match="found 1 in test"):
        read_ms_cxr(folder, stored, pretrained_patients="raise", **options)
    assert len(read_ms_cxr(folder, stored, **options).phrases) == 7
    kept = read_ms_cxr(folder, stored, pretrained_patients="exclude", **options)
    assert len(kept.phrases) == 6
    assert kept.phrase_account.left_out == {
        "test row of a patient whom the pretraining has seen": 1
    }


def test_a_patient_in_two_splits_is_a_leak(write_table, stored):
    folder = write_table(f"{NEW}.csv", HEADER, [*SOME, row(3, 1, split="train", label_text="b")])
    with pytest.raises(SplitLeakError, match="train and test: 1"):
        read_ms_cxr(folder, stored)
    kept = read_ms_cxr(folder, stored, shared_patients="exclude")
    assert len(kept.of_split("test")) == 4
    by_archive = read_ms_cxr(folder, stored, split="archive", pretrained_patients="raise")
    assert all(one.split == one.pretrain_split for one in by_archive.phrases)


@pytest.mark.parametrize("missing", HEADER[:-1])
def test_a_missing_column_is_named(write_table, stored, missing):
    header = ["other" if name == missing else name for name in HEADER]
    with pytest.raises(SourceError, match=rf"{NEW}.csv: expected the column '{missing}'"):
        read_ms_cxr(write_table(f"{NEW}.csv", header, SOME), stored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_name": "Effusion"}, "category_name is 'Effusion'; nearest.*Pleural Effusion"),
        ({"split": "valid"}, "column split is 'valid'; nearest known: val"),
        ({"x": "left"}, "column x is 'left', expected a number"),
        ({"label_text": " "}, "expected a phrase in label_text, found none"),
        ({"image_width": 0}, "expected image_width and image_height above 0"),
        ({"path": "files/a.jpg"}, "expected column path of the form"),
        ({"dicom_id": dicom(study(4, 0))}, "with the row's own dicom_id"),
    ],
)
def test_unknown_values_name_file_line_and_column(write_table, stored, change, message):
    folder = write_table(f"{NEW}.csv", HEADER, [*SOME, row(3, **change)])
    with pytest.raises(SourceError, match=rf"{NEW}.csv, line 9: .*{message}") as found:
        read_ms_cxr(folder, stored)
    assert str(subject(3)) not in str(found.value)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("annotations", {"image_id": 99}, r"annotations\[0\]: key image_id names an entry"),
        ("annotations", {"category_id": 99}, r"annotations\[0\]: key category_id names"),
        ("annotations", {"bbox": [1, 2, 3]}, "key bbox is not a list of four numbers"),
        ("annotations", {"label_text": None}, "key label_text is of type NoneType"),
        ("images", {"path": 5}, r"images\[0\]: key path is of type int, expected str"),
        ("categories", {"name": "Mass"}, "category_name is 'Mass'"),
    ],
)
def test_a_changed_json_is_named(stored, tmp_path, part, change, message):
    content = coco([row(3)])
    content[part][0] |= change
    (tmp_path / f"{NEW}.json").write_text(json.dumps(content))
    with pytest.raises(SourceError, match=message):
        read_ms_cxr(tmp_path, stored)


def test_images_that_are_all_unknown_are_an_error(write_table):
    folder = write_table(f"{NEW}.csv", HEADER, SOME)
    message = r"expected box_rows to use, found none among 7 \(image is not stored: 7\)\n.*ingest"
    with pytest.raises(OtherArchiveError, match=message):
        read_ms_cxr(folder, stored_of({7: "test"}))


def test_no_release_in_the_folder(tmp_path, stored):
    with pytest.raises(SourceError, match=f"expected {NEW}.csv or {NEW}.json or {OLD}.csv"):
        read_ms_cxr(tmp_path, stored)
