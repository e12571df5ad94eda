"""The NIH reader on the published layout: broken header, labels, lists, folders; the real table."""

from __future__ import annotations

import gzip
import shutil

import pytest

from lapvqa.datasets.nih14 import LABELS, read_nih14
from lapvqa.datasets.pictures import read_or_none
from lapvqa.errors import SourceError, SplitLeakError

NAMES = [f"{patient:08d}_{follow:03d}.png" for patient in range(1, 11) for follow in range(2)]
TRAIN, TEST = NAMES[:16], NAMES[16:]
FILES = [f"images_{1 + i % 12:03d}/images/{name}" for i, name in enumerate(NAMES)]


def entries(**changes: str) -> dict[str, str]:
    return dict.fromkeys(NAMES, "No Finding") | changes


def targets_of(dataset, file: str) -> set[str]:
    for rows in dataset.splits.values():
        if file in rows.images:
            row = rows.targets[rows.images.index(file)]
            return {label for label, value in zip(LABELS, row, strict=True) if value == 1}
    raise AssertionError(f"{file} is in no split")


def test_images_are_found_by_name_below_any_folder(write_nih):
    dataset = read_nih14(write_nih(entries(), TRAIN, TEST), FILES)
    assert set(dataset.images) == set(FILES)
    assert set(dataset.test.images) == set(FILES[16:])


def test_flat_folder_too(write_nih):
    dataset = read_nih14(write_nih(entries(), TRAIN, TEST), [f"images/{n}" for n in NAMES])
    assert set(dataset.test.images) == {f"images/{n}" for n in TEST}


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".dcm"])
def test_copies_in_another_form_are_found_and_the_original_goes_first(write_nih, suffix):
    folder = write_nih(entries(), TRAIN, TEST)
    copies = [f"a_copy/{name.removesuffix('.png')}{suffix}" for name in NAMES]
    converted = read_nih14(folder, copies)
    assert set(converted.images) == set(copies)
    original = read_nih14(folder, [*copies, *FILES])
    assert set(original.images) == set(FILES)
    assert original.test.samples == converted.test.samples


def test_labels_are_split_exactly_at_the_bar(write_nih):
    changed = entries(**{NAMES[0]: "Mass|Pleural_Thickening", NAMES[18]: "Hernia"})
    dataset = read_nih14(write_nih(changed, TRAIN, TEST), FILES)
    assert targets_of(dataset, FILES[0]) == {"Mass", "Pleural_Thickening"}
    assert targets_of(dataset, FILES[18]) == {"Hernia"}
    assert targets_of(dataset, FILES[1]) == set()
    assert len(LABELS) == 14


def test_first_release_with_its_trailing_comma(write_nih):
    folder = write_nih(entries(), TRAIN, TEST, end=",", file="Data_Entry_2017.csv")
    assert len(read_nih14(folder, FILES).images) == 20


def test_an_image_in_neither_list_is_not_used(write_nih):
    dataset = read_nih14(write_nih(entries(), TRAIN, TEST[:2]), FILES)
    assert len(dataset.images) == 18
    assert dict(dataset.left_out) == {"image in neither list": 2}


def test_validation_is_an_eighth_of_the_patients(write_nih):
    dataset = read_nih14(write_nih(entries(), TRAIN, TEST), FILES)
    assert len(set(dataset.validate.patients)) == 1
    assert len(set(dataset.train.patients)) == 7


def test_a_file_that_is_not_there_stays_listed_and_is_counted_later(write_nih):
    dataset = read_nih14(write_nih(entries(), TRAIN, TEST), FILES[1:])
    assert NAMES[0] in dataset.images  # unresolved: the bare name, which no folder holds


def test_a_patient_in_both_lists_is_a_leak(write_nih):
    with pytest.raises(SplitLeakError, match="1 patients stand in both"):
        read_nih14(write_nih(entries(), [*TRAIN, TEST[0]], TEST[1:]), FILES)


def test_unknown_finding_names_line_and_nearest(write_nih):
    changed = entries(**{NAMES[2]: "Mass|Infiltrate"})
    with pytest.raises(SourceError, match=r"line 4: .*'Infiltrate'.*nearest known: Infiltration"):
        read_nih14(write_nih(changed, TRAIN, TEST), FILES)


def test_no_finding_beside_a_finding_is_refused(write_nih):
    changed = entries(**{NAMES[2]: "No Finding|Mass"})
    with pytest.raises(SourceError, match="No Finding beside a finding"):
        read_nih14(write_nih(changed, TRAIN, TEST), FILES)


def test_renamed_column_is_named(write_nih):
    header = "Image,Finding Labels,Follow-up #,Patient ID,a,b,c,d,e,f,g"
    with pytest.raises(SourceError, match=r"Data_Entry.*expected the column 'Image Index'"):
        read_nih14(write_nih(entries(), TRAIN, TEST, header=header), FILES)


@pytest.mark.parametrize(
    "file", ["Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"]
)
def test_missing_file_is_named(write_nih, file):
    folder = write_nih(entries(), TRAIN, TEST)
    (folder / file).unlink()
    with pytest.raises(SourceError, match=f"expected {file}"):
        read_nih14(folder, FILES)


def test_a_listed_image_without_entry_is_an_error(write_nih):
    folder = write_nih(entries(), TRAIN, [*TEST, "00099999_000.png"])
    with pytest.raises(SourceError, match=r"test_list.txt: 1 images are not in.*entry 5"):
        read_nih14(folder, FILES)


def test_empty_list_is_an_error(write_nih):
    with pytest.raises(SourceError, match=r"test_list.txt: expected one name per line"):
        read_nih14(write_nih(entries(), TRAIN, []), FILES)


@pytest.mark.corpus
def test_the_real_table_and_images_through_the_reader(corpus, tmp_path):
    """Lists of its own: the corpus brings none. Every patient but the last hundred trains."""
    shutil.copy(corpus / "nih" / "Data_Entry_2017_v2020.csv.gz", tmp_path)
    with gzip.open(tmp_path / "Data_Entry_2017_v2020.csv.gz", "rt") as handle:
        names = [line.split(",", 1)[0] for line in handle][1:]
    train = [name for name in names if name < "00030705"]
    (tmp_path / "train_val_list.txt").write_text("\n".join(train))
    (tmp_path / "test_list.txt").write_text("\n".join(names[len(train) :]))
    pictures = sorted(path.name for path in (corpus / "nih").glob("*.png"))
    dataset = read_nih14(tmp_path, pictures)
    assert len(dataset.images) == 112_120
    totals = sum(rows.targets.sum(axis=0, dtype=int) for rows in dataset.splits.values())
    counts = dict(zip(LABELS, totals.tolist(), strict=True))
    assert counts == {
        "Atelectasis": 11559, "Cardiomegaly": 2776, "Effusion": 13317, "Infiltration": 19894,
        "Mass": 5782, "Nodule": 6331, "Pneumonia": 1431, "Pneumothorax": 5302,
        "Consolidation": 4667, "Edema": 2303, "Emphysema": 2516, "Fibrosis": 1686,
        "Pleural_Thickening": 3385, "Hernia": 227,
    }  # fmt: skip
    assert all(read_or_none(corpus / "nih" / name) is not None for name in pictures)
