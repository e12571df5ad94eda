"""MIMIC-Diff-VQA: studies to images, time, reversed pairs, splits that leak."""

from __future__ import annotations

import csv

import pyarrow.compute as pc
import pytest
from stored_by_hand import KEYRING, dicom, stored_of, study, subject

from lapvqa.datasets.diff_vqa import SCHEMA, TYPES, read_diff_vqa
from lapvqa.errors import OtherArchiveError, SourceError, SplitLeakError

PAIRS = ["study_id", "subject_id", "ref_id", "question_type", "question", "answer", "split"]
ALL = ["subject_id", "study_id", "dicom_id", "view", "split", "study_date", "study_order"]
PATIENTS = {1: "train", 2: "validate", 3: "test", 4: "test"}


def pair(number: int, *, split: str = "test", **changes: object) -> list[object]:
    values = {
        "study_id": study(number, 1), "subject_id": subject(number), "ref_id": study(number, 0),
        "question_type": "difference", "question": "what has changed?",
        "answer": "nothing has changed.", "split": split,
    } | changes  # fmt: skip
    return [values[name] for name in PAIRS]


def listed(number: int, order: int, date: str | None = None, place: object = None) -> list[object]:
    one = study(number, order)
    date = f"2110030{order + 1}" if date is None else date
    place = order + 1 if place is None else place
    return [subject(number), one, dicom(one), "antero-posterior", "train", date, place]


SOME = [pair(1, split="train"), pair(2, split="val"), pair(3), pair(4)]
EVERY = [listed(number, order) for number in PATIENTS for order in range(2)]


@pytest.fixture
def write(write_table):
    def make(pairs=SOME, every=EVERY, header=PAIRS, all_header=ALL):
        if every is not None:
            write_table("mimic_all.csv", all_header, every)
        return write_table("mimic_pair_questions.csv", header, pairs)

    return make


def rows(dataset, **wanted: object) -> list[dict]:
    found = dataset.table.to_pylist()
    return [row for row in found if all(row[name] == value for name, value in wanted.items())]


def patient(number: int) -> str:
    return KEYRING.patient(str(subject(number)))


def test_demo_is_read_whole(demo, demo_stored):
    dataset = read_diff_vqa(demo / "mimic-diff-vqa", demo_stored, pretrained_patients="raise")
    with (demo / "mimic-diff-vqa" / "mimic_pair_questions.csv").open() as handle:
        lines = list(csv.DictReader(handle))
    assert dataset.table.schema.equals(SCHEMA)
    assert dataset.account.read == len(lines)
    assert dataset.account.kept == dataset.table.num_rows
    # The demo asks of some findings twice, in the same words and with the same answer.
    assert {k for k, n in dataset.account.left_out.items() if n} <= {"repeats another row"}
    assert dataset.facts["pairs"] == len({(row["study_id"], row["ref_id"]) for row in lines})
    assert dataset.facts["pairs_reversed"] == dataset.facts["pairs_of_unknown_order"] == 0
    assert set(pc.unique(dataset.table["question_type"]).to_pylist()) <= set(TYPES)
    assert dataset.table["sample"].to_pylist() == sorted(set(dataset.table["sample"].to_pylist()))
    for row in dataset.table.to_pylist():
        main = demo_stored.by_key(row["image_key"])
        before = demo_stored.by_key(row["reference_key"])
        assert main.patient_key == before.patient_key == row["patient_key"]
        assert row["split"] == row["pretrain_split"] == main.split
        order = demo_stored.order_of
        assert order[main.study_key] == order[before.study_key] + 1
        assert row["closed"] == (row["answer"] in ("yes", "no"))


def test_demo_without_the_study_table_finds_the_same_images(demo, demo_stored, tmp_path):
    source = demo / "mimic-diff-vqa"
    name = "mimic_pair_questions.csv"
    (tmp_path / name).write_bytes((source / name).read_bytes())
    whole, alone = (read_diff_vqa(folder, demo_stored) for folder in (source, tmp_path))
    assert alone.table.equals(whole.table)
    assert "first AP or PA" in alone.protocol["image_of_study"]


def test_rows_become_keys(write, stored):
    (row,) = rows(read_diff_vqa(write(), stored), patient_key=patient(3))
    assert row["image_key"] == KEYRING.image(dicom(study(3, 1)))
    assert row["reference_key"] == KEYRING.image(dicom(study(3, 0)))
    assert row["split"] == "test"
    assert row["reversed"] is False
    assert rows(read_diff_vqa(write(), stored), patient_key=patient(2))[0]["split"] == "validate"
    text = str(read_diff_vqa(write(), stored).table.to_pydict())
    assert str(subject(3)) not in text
    assert str(study(3, 1)) not in text


@pytest.mark.parametrize(
    ("main", "reference", "expected"),
    [
        (("21100302", 2), ("21100301", 1), False),
        (("21100301", 1), ("21100302", 2), True),
        (("21100301", 9), ("21100302", 2), True),  # the date goes before the order
        (("2110-03-01", 1), ("2110-03-02 08:05:56", 2), True),
        (("21100301.0", 2), ("21100301", 1), False),  # a day's two studies: by their order
        (("21100301", 1), ("21100301", 2), True),
        (("21100301", 1), ("21100301", 1), None),
        (("", 1), ("21100302", 2), True),
        (("", ""), ("21100302", 2), None),
    ],
)
def test_reversed_pairs_are_found_by_date(write, stored, main, reference, expected):
    every = [one for one in EVERY if one[0] != subject(3)]
    every += [listed(3, 1, *main), listed(3, 0, *reference)]
    dataset = read_diff_vqa(write(every=every), stored)
    assert rows(dataset, patient_key=patient(3))[0]["reversed"] is expected
    assert dataset.facts["pairs_reversed"] == (expected is True)
    assert dataset.facts["pairs_of_unknown_order"] == (expected is None)


def test_reversed_pairs_are_left_out_on_request(write, stored):
    pairs = [*SOME, pair(3, study_id=study(3, 0), ref_id=study(3, 1), question="and now?")]
    flagged = read_diff_vqa(write(pairs), stored)
    assert [row["reversed"] for row in rows(flagged, question="and now?")] == [True]
    kept = read_diff_vqa(write(pairs), stored, reversed_pairs="exclude")
    assert rows(kept, question="and now?") == []
    assert kept.account.left_out["pair is reversed"] == 1
    assert kept.account.kept == 4


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind != "difference"])
def test_rules_of_pairs_are_for_differences_alone(write, stored, kind):
    """Four faults of a reference, and a reversed pair: a question about one image has none."""
    away = [subject(3), 50000098, dicom(50000098), "", "test", "21100301", 1]
    references = [study(3, 1), 50000099, 50000098, study(4, 0), study(3, 0)]
    faulty = [
        pair(3, ref_id=one, question=f"question {number}?", question_type=kind)
        for number, one in enumerate(references)
    ]
    back = pair(3, study_id=study(3, 0), ref_id=study(3, 1), question="back?", question_type=kind)
    folder = write([*SOME, *faulty, back], [*EVERY, away])
    dataset = read_diff_vqa(folder, stored, reversed_pairs="exclude")
    assert sum(dataset.account.left_out.values()) == 0
    found = rows(dataset, question_type=kind)
    assert len(found) == 6
    assert {row["reversed"] for row in found} == {None}
    own = KEYRING.image(dicom(study(3, 1)))
    assert {row["image_key"] for row in found if row["question"] != "back?"} == {own}
    shown = {row["question"]: row["reference_key"] for row in found}
    assert [shown[f"question {number}?"] for number in range(4)] == [None] * 4
    assert shown["question 4?"] == KEYRING.image(dicom(study(3, 0)))
    assert dataset.facts["questions_kept_without_reference"] == 4
    assert (dataset.facts["pairs"], dataset.facts["pairs_reversed"]) == (4, 0)
    asked = [pair(3, question_type="difference", ref_id=one) for one in references[:4]]
    account = read_diff_vqa(write([*SOME, *asked], [*EVERY, away]), stored).account
    assert sum(account.left_out.values()) == 4


def test_a_question_about_another_patients_image_is_left_out_of_any_type(write, stored):
    one = pair(3, subject_id=subject(4), question_type="presence")
    gone = pair(3, study_id=50000099, question_type="presence")
    account = read_diff_vqa(write([*SOME, one, gone]), stored).account
    assert {k: n for k, n in account.left_out.items() if n} == {
        "images are not of the row's patient": 1,
        "main study is not in mimic_all.csv": 1,
    }


def test_without_dates_the_archive_tells_the_order(write, stored):
    pairs = [*SOME, pair(3, study_id=study(3, 0), ref_id=study(3, 1), question="and now?")]
    dataset = read_diff_vqa(write(pairs, every=None), stored)
    assert [row["reversed"] for row in rows(dataset, question="and now?")] == [True]
    assert dataset.protocol["reversed_by"] == "order of the archive's studies"


def test_what_is_left_out_is_counted(write, stored):
    pairs = [
        *SOME,
        pair(3),
        pair(3, answer=" "),
        pair(3, question=""),
        pair(3, ref_id=study(3, 1)),
        pair(3, ref_id=50000099),
        pair(3, study_id=50000099),
        pair(3, ref_id=study(4, 0)),
        pair(3, subject_id=subject(4)),
        pair(3, ref_id=50000098),
    ]
    away = [subject(3), 50000098, dicom(50000098), "", "test", "21100301", 1]
    account = read_diff_vqa(write(pairs, [*EVERY, away]), stored).account
    assert account.kept == 4
    assert dict(account.left_out) == {
        "repeats another row": 1,
        "empty answer": 1,
        "empty question": 1,
        "reference is the main study itself": 1,
        "reference study is not in mimic_all.csv": 1,
        "main study is not in mimic_all.csv": 1,
        "images are not of the row's patient": 2,
        "reference image is not stored": 1,
    }


def test_same_question_with_another_answer_stays(write, stored):
    dataset = read_diff_vqa(write([*SOME, pair(3, answer="Worse.")]), stored)
    assert dataset.account.kept == 5
    assert len(set(dataset.table["sample"].to_pylist())) == 5


def test_text_is_in_small_letters_and_closed_answers_are_known(write, stored):
    pairs = [
        pair(3, question_type="view", question="Which  view?", answer="PA View"),
        pair(3, question_type="presence", question="is there edema?", answer="Yes"),
    ]
    dataset = read_diff_vqa(write([*SOME, *pairs]), stored)
    assert rows(dataset, question_type="view")[0]["answer"] == "pa view"
    assert rows(dataset, question="which view?")[0]["closed"] is False
    assert rows(dataset, question_type="presence")[0]["closed"] is True


def test_a_patient_in_two_splits_is_a_leak_unless_asked_otherwise(write, stored):
    folder = write([*SOME, pair(3, split="train", question="and?")])
    with pytest.raises(SplitLeakError, match="MIMIC-Diff-VQA: .*train and test: 1") as found:
        read_diff_vqa(folder, stored)
    assert str(subject(3)) not in str(found.value)
    assert read_diff_vqa(folder, stored, shared_patients="report").account.kept == 5
    kept = read_diff_vqa(folder, stored, shared_patients="exclude")
    assert rows(kept, question="and?") == []
    assert len(rows(kept, split="test")) == 2
    assert kept.account.left_out["train row of a patient who is also in test"] == 1
    assert kept.describe()["patients_in_train_and_test"] == 1


def test_patients_whom_the_pretraining_has_seen(write, stored):
    folder = write([pair(1, split="test"), pair(2, split="train"), pair(3), pair(4)])
    with pytest.raises(SplitLeakError, match="found 1 in test"):
        read_diff_vqa(folder, stored, pretrained_patients="raise")
    reported = read_diff_vqa(folder, stored)
    assert reported.leaks.pretrained == {"train": 0, "validate": 0, "test": 1}
    assert reported.account.kept == 4
    assert read_diff_vqa(folder, stored, pretrained_patients="exclude").account.kept == 3
    archive = read_diff_vqa(folder, stored, split="archive", pretrained_patients="raise")
    assert {row["patient_key"]: row["split"] for row in rows(archive)} == {
        patient(number): split for number, split in PATIENTS.items()
    }


@pytest.mark.parametrize("missing", PAIRS)
def test_a_missing_column_is_named(write, stored, missing):
    header = ["other" if name == missing else name for name in PAIRS]
    with pytest.raises(SourceError, match=f"pair_questions.csv: expected the column '{missing}'"):
        read_diff_vqa(write(header=header), stored)


@pytest.mark.parametrize("missing", ["dicom_id", "study_id", "subject_id"])
def test_a_missing_column_of_the_study_table_is_named(write, stored, missing):
    header = ["other" if name == missing else name for name in ALL]
    with pytest.raises(SourceError, match=f"mimic_all.csv: expected the column '{missing}'"):
        read_diff_vqa(write(all_header=header), stored)


def test_a_study_table_without_time_is_refused(write, stored):
    header = [*ALL[:5], "a", "b"]
    with pytest.raises(SourceError, match="expected the column study_date or study_order"):
        read_diff_vqa(write(all_header=header), stored)


def test_of_a_study_listed_twice_the_first_row_counts(write, stored):
    again = [*EVERY[0][:2], dicom(study(4, 0)), *EVERY[0][3:]]
    dataset = read_diff_vqa(write(every=[*EVERY, again]), stored)
    assert dataset.table.equals(read_diff_vqa(write(), stored).table)
    assert dataset.facts["studies_listed_again"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_type": "differences"}, "question_type is 'differences'; nearest.* difference"),
        ({"split": "dev"}, "column split is 'dev'; known: train, val"),
        ({"study_id": "s5000"}, "expected a number in column study_id"),
        ({"ref_id": ""}, "expected a number in column ref_id"),
    ],
)
def test_unknown_values_name_file_line_and_column(write, stored, change, message):
    with pytest.raises(SourceError, match=rf"mimic_pair_questions.csv, line 6: .*{message}"):
        read_diff_vqa(write([*SOME, pair(3, **change)]), stored)


def test_a_strange_date_is_named(write, stored):
    every = [*EVERY, listed(5, 0, "01/02/2110")]
    with pytest.raises(SourceError, match=r"mimic_all.csv, line 10: column study_date"):
        read_diff_vqa(write(every=every), stored)


def test_questions_about_images_of_another_archive_are_an_error(write):
    with pytest.raises(
        OtherArchiveError, match=r"found none among 4 \(main image is not stored: 4\)"
    ):
        read_diff_vqa(write(), stored_of({9: "test"}))
