"""VinDr-CXR in both forms, with the traps of the published files."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lapvqa.datasets.pictures import read_image
from lapvqa.datasets.vindr import MAX_BEYOND_SHARE, count_beyond, read_vindr
from lapvqa.datasets.vindr_tables import CLASSES
from lapvqa.errors import DicomError, SourceError, SplitLeakError
from lapvqa.images.geometry import fit_of
from lapvqa.inventory import scan
from lapvqa.metrics.boxes.overlap import as_boxes, iou

TRAIN = ("image_id", "rad_id", "class_name", "x_min", "y_min", "x_max", "y_max")
TEST = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
KAGGLE = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")
IDS = [f"{number:032x}" for number in range(12)]
BLANK = ("", "", "", "")
FILES = [f"train/{one}.dicom" for one in IDS[:10]] + [f"test/{one}.dicom" for one in IDS[10:]]


def three(image: str, name: str = "No finding", box: tuple = BLANK) -> list[tuple]:
    return [(image, f"R{reader}", name, *box) for reader in (8, 9, 10)]


@pytest.fixture
def write(write_table):
    """PhysioNet's form: ten training images, two test images; ``more`` rows of the training."""

    def make(more: list[tuple] = (), test: list[tuple] = (), columns: tuple = TRAIN) -> Path:
        named = {row[0] for row in more}
        rows = [row for one in IDS[:10] if one not in named for row in three(one)]
        write_table("annotations/annotations_train.csv", columns, [*rows, *more])
        named = {row[0] for row in test}
        rows = [(one, "No finding", *BLANK) for one in IDS[10:] if one not in named]
        return write_table("annotations/annotations_test.csv", TEST, [*rows, *test])

    return make


def find(dataset, image: str):
    images = [one for split in dataset.splits.values() for one in split]
    return next(one for one in images if Path(one.path).stem == image)


def test_demo_is_read_whole(demo):
    folder = demo / "vindr-cxr"
    dataset = read_vindr(folder, [path for path, _, _ in scan(folder)])
    assert dataset.form == "physionet"
    assert dataset.images.left_out == {"image file is missing": 0}
    images = [one for split in dataset.splits.values() for one in split]
    with (folder / "annotations" / "annotations_test.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if row["class_name"] != "No finding"]
    assert sum(len(one.boxes) for one in dataset.test) == len(rows)
    assert {int(one.votes.max(initial=0)) for one in dataset.test} == {0}
    assert max(one.votes.max(initial=0) for one in (*dataset.train, *dataset.validate)) == 3
    for one in images:
        picture = read_image(folder / one.path)
        placed = one.stored_boxes(picture.fit)
        np.testing.assert_allclose(picture.fit.to_native(placed), one.boxes, atol=1e-6)
        assert picture.pixels.shape == (384, 384)


def test_classes_are_in_kaggles_order():
    assert len(CLASSES) == 14
    assert (CLASSES[0], CLASSES[7], CLASSES[13]) == (
        "Aortic enlargement", "Lung Opacity", "Pulmonary fibrosis",
    )  # fmt: skip


def test_readers_are_fused_in_training_only(write):
    boxes = [(100.5, 100, 300, 300), (104.5, 100, 304, 300), (102.5, 100, 302, 300)]
    more = [(IDS[0], f"R{i + 1}", "Cardiomegaly", *box) for i, box in enumerate(boxes)]
    test = [(IDS[10], "Cardiomegaly", *box) for box in boxes]
    dataset = read_vindr(write(more, test), FILES)
    fused = find(dataset, IDS[0])
    assert fused.boxes.tolist() == [[102.5, 100, 302, 300]]
    assert fused.votes.tolist() == [3]
    assert CLASSES[fused.classes[0]] == "Cardiomegaly"
    assert len(find(dataset, IDS[10]).boxes) == 3
    assert dataset.facts["fused_boxes"] == 1


def test_classes_are_fused_apart(write):
    box = (100, 100, 300, 300)
    more = [(IDS[0], "R1", "Cardiomegaly", *box), (IDS[0], "R2", "ILD", *box)]
    dataset = read_vindr(write(more), FILES)
    assert find(dataset, IDS[0]).classes.tolist() == [3, 5]
    assert dataset.facts["fused_boxes_of_one_reader"] == 2
    assert dataset.facts["images_not_read_by_three"] == 1


def test_boxes_of_too_few_readers_are_left_out_and_counted(write):
    more = [*three(IDS[0], "ILD", (1, 1, 50, 50)), (IDS[0], "R8", "ILD", 200, 200, 300, 300)]
    dataset = read_vindr(write(more), FILES, min_readers=2)
    assert find(dataset, IDS[0]).boxes.tolist() == [[1, 1, 50, 50]]
    assert dataset.facts["fused_boxes_of_too_few_readers_left_out"] == 1


def test_the_threshold_of_fusion_is_a_parameter(write):
    more = [(IDS[0], "R1", "ILD", 0, 0, 100, 100), (IDS[0], "R2", "ILD", 0, 0, 100, 30)]
    folder = write(more)
    assert len(find(read_vindr(folder, FILES, min_iou=0.4), IDS[0]).boxes) == 2
    assert len(find(read_vindr(folder, FILES, min_iou=0.1), IDS[0]).boxes) == 1


@pytest.mark.parametrize(("others", "expected"), [("fold", [9]), ("ignore", [])])
def test_the_eight_other_findings_are_folded_or_ignored(write, others, expected):
    dataset = read_vindr(write(three(IDS[0], "Lung cavity", (1, 1, 50, 50))), FILES, others=others)
    assert find(dataset, IDS[0]).classes.tolist() == expected
    ignored = dataset.rows.left_out.get("local finding outside the 14 classes", 0)
    assert ignored == (0 if others == "fold" else 3)
    assert dataset.protocol["other_local_findings"] == others


def test_names_are_compared_without_case_and_global_ones_have_no_box(write):
    more = [
        (IDS[0], "R1", "lung opacity", 1, 1, 50, 50),
        (IDS[0], "R2", "Other diseases", *BLANK),
        (IDS[0], "R3", "Other disease", *BLANK),
        (IDS[1], "R3", "COPD", 1, 1, 9, 9),
    ]
    dataset = read_vindr(write(more), FILES)
    assert find(dataset, IDS[0]).classes.tolist() == [CLASSES.index("Lung Opacity")]
    assert dataset.rows.left_out["global finding, no box"] == 2
    assert dataset.rows.left_out["global finding with a box"] == 1


def test_every_row_is_accounted_for(write):
    more = [
        (IDS[0], "R1", "ILD", 1, 1, 50, 50),
        (IDS[0], "R2", "ILD", 60, 1, 50, 50),
        (IDS[0], "R3", "ILD", *BLANK),
    ]
    rows = read_vindr(write(more), FILES).rows
    assert rows.read == 27 + 2 + 3
    assert rows.kept == 1
    assert dict(rows.left_out) == {
        "No finding, no box": 29, "box without area": 1, "local finding without a box": 1,
    }  # fmt: skip


def test_images_with_more_boxes_than_queries_are_counted_not_cut(write):
    more = [(IDS[10], "ILD", 30 * i, 0, 30 * i + 20, 20) for i in range(5)]
    dataset = read_vindr(write(test=more), FILES, num_queries=4)
    assert dataset.facts["images_with_over_4_boxes_test"] == 1
    assert dataset.facts["images_with_over_4_boxes_train"] == 0
    assert len(find(dataset, IDS[10]).boxes) == 5


def test_an_image_that_only_the_image_labels_list_is_read(write, write_table):
    write()
    folder = write_table("annotations/image_labels_test.csv", ("image_id", "Other disease"), [
        (IDS[11], 0), ("f" * 32, 1),
    ])  # fmt: skip
    dataset = read_vindr(folder, [*FILES, f"test/{'f' * 32}.dcm"])
    assert find(dataset, "f" * 32).boxes.shape == (0, 4)
    assert dataset.images.read == 13


def test_kaggles_form(write_table):
    rows = [(IDS[i], "No finding", 14, f"R{r}", *BLANK) for i in range(9) for r in range(1, 4)]
    rows += [(IDS[9], "Nodule/Mass", 8, f"R{r}", 10, 10, 90, 90) for r in range(1, 4)]
    rows[0] = (IDS[0], "No finding", 14, "R1", 0, 0, 1, 1)
    folder = write_table("train.csv", KAGGLE, rows)
    dataset = read_vindr(folder, FILES)
    assert dataset.form == "kaggle"
    assert [len(one) for one in dataset.splits.values()] == [7, 1, 2]
    assert find(dataset, IDS[9]).classes.tolist() == [8]
    assert dataset.facts["files_not_listed_test"] == 2
    assert "hash" in dataset.protocol["test"]
    shuffled = read_vindr(write_table("train.csv", KAGGLE, rows[::-1]), FILES[::-1])
    assert [one.path for one in shuffled.test] == [one.path for one in dataset.test]


def test_kaggles_class_id_must_be_that_of_the_name(write_table):
    folder = write_table("train.csv", KAGGLE, [(IDS[0], "ILD", 4, "R1", 1, 1, 9, 9)])
    with pytest.raises(SourceError, match=r"train.csv, line 2: column class_id is '4', expected 5"):
        read_vindr(folder, FILES)


def test_another_train_csv_is_not_taken_for_kaggles(write_table):
    folder = write_table("train.csv", TRAIN, [])
    with pytest.raises(SourceError, match="expected the column 'class_id'"):
        read_vindr(folder, FILES)


def test_missing_files_are_named_and_a_deeper_folder_is_found(write, tmp_path):
    folder = write()
    with pytest.raises(SourceError, match=r"annotations_train.csv or train.csv.*\n.*dataset"):
        read_vindr(tmp_path, FILES)
    (folder / "annotations" / "annotations_test.csv").unlink()
    with pytest.raises(SourceError, match=r"expected annotations_test.csv"):
        read_vindr(folder, FILES)


@pytest.mark.parametrize("missing", TRAIN)
def test_a_missing_column_is_named(write, missing):
    columns = tuple("other" if name == missing else name for name in TRAIN)
    with pytest.raises(SourceError, match=f"annotations_train.csv: expected the column '{missing}"):
        read_vindr(write(columns=columns), FILES)


def test_an_unknown_class_is_named_with_the_nearest(write):
    with pytest.raises(SourceError, match=r"column class_name is 'nodule'; nearest known: nodule/"):
        read_vindr(write(three(IDS[0], "Nodule", (1, 1, 9, 9))), FILES)


@pytest.mark.parametrize(
    ("name", "box", "message"),
    [
        ("ILD", ("a", 1, 9, 9), "column x_min is 'a', expected a number"),
        ("ILD", (1, 1, 9, "nan"), "column y_max is 'nan', expected a number"),
        ("ILD", (1, 1, "", 9), "column x_max is '', expected a number"),
        ("No finding", (1, 1, 9, 9), "class_name is No finding, expected no box"),
    ],
)
def test_bad_boxes_are_named(write, name, box, message):
    with pytest.raises(SourceError, match=rf"annotations_train.csv, line \d+: {message}"):
        read_vindr(write(three(IDS[0], name, box)), FILES)


def test_missing_images_are_refused_above_one_percent(write):
    with pytest.raises(SourceError, match=r"1 of 12 listed images are missing.*line 2"):
        read_vindr(write(), FILES[1:])


def test_one_missing_image_in_many_is_counted(write_table):
    ids = [f"{number:032x}" for number in range(200)]
    rows = [(one, "No finding", 14, "R1", *BLANK) for one in ids]
    dataset = read_vindr(
        write_table("train.csv", KAGGLE, rows), [f"train/{i}.png" for i in ids[1:]]
    )
    assert dataset.images.left_out == {"image file is missing": 1}
    assert sum(map(len, dataset.splits.values())) == 199


def test_an_image_in_train_and_test_is_a_leak(write):
    with pytest.raises(SplitLeakError, match="1 in both"):
        read_vindr(write(test=[(IDS[0], "No finding", *BLANK)]), FILES)


def test_renamed_and_converted_images_are_found_and_dicom_goes_first(write):
    files = [*FILES[1:], f"png/train/{IDS[0]}.PNG", f"train/{IDS[1]}.jpg", "train/notes.txt"]
    dataset = read_vindr(write(), files)
    assert find(dataset, IDS[0]).path == f"png/train/{IDS[0]}.PNG"
    assert find(dataset, IDS[1]).path == f"train/{IDS[1]}.dicom"


def test_boxes_beyond_many_images_reveal_a_resized_copy(write):
    more = [row for one in IDS[:2] for row in three(one, "ILD", (1, 1, 1500, 1500))]
    dataset = read_vindr(write(more), FILES)
    images = [find(dataset, one) for one in IDS[:10]]
    small, original = fit_of(1024, 1024), fit_of(1500, 1500)
    assert count_beyond(images, [original] * 10) == 0
    with pytest.raises(SourceError, match=r"2 of 2 images.*1024 x 1024.*line \d+\n.*train_meta.c"):
        count_beyond(images, [small] * 10)


@pytest.mark.parametrize("number", [5, 10, 11])
def test_a_few_boxes_over_the_edge_are_cut_there_and_counted(write, number):
    """10 % over, as readers draw: in 1 % of the images with boxes, and in one in any case."""
    fit = fit_of(1000, 800)
    drawn = [(IDS[0], (400, 500, 880, 1100)), (IDS[1], (1, 1, 9, 9))]
    more = [row for one, box in drawn for row in three(one, "ILD", box)]
    dataset = read_vindr(write(more), FILES)
    over, inside = (find(dataset, one) for one in IDS[:2])
    cut = fit.to_native(over.stored_boxes(fit))
    np.testing.assert_allclose(cut, [[400, 500, 800, 1000]], atol=1e-9)
    assert count_beyond([over, inside], [fit] * 2) == 1
    images = [over] * number + [inside] * (1000 - number)
    if number > 1000 * MAX_BEYOND_SHARE:
        with pytest.raises(SourceError, match=f"{number} of 1000 images"):
            count_beyond(images, [fit] * 1000)
    else:
        assert count_beyond(images, [fit] * 1000) == number


def test_a_resized_copy_with_the_originals_sizes(write, write_table):
    folder = write(three(IDS[0], "ILD", (1000, 1500, 2000, 3000)))
    full = find(read_vindr(folder, FILES), IDS[0]).stored_boxes(fit_of(3000, 2000))
    write_table("train_meta.csv", ("image_id", "dim0", "dim1"), [(i, 3000, 2000) for i in IDS[:10]])
    image = find(read_vindr(folder, FILES), IDS[0])
    np.testing.assert_allclose(image.stored_boxes(fit_of(600, 400)), full)
    with pytest.raises(SourceError, match="expected an image of the shape 3000 x 2000"):
        image.stored_boxes(fit_of(512, 512))
    write_table("train_meta.csv", ("image_id", "dim0", "dim1"), [(IDS[0], 3000, 2000)])
    with pytest.raises(SourceError, match=r"train_meta.csv: expected the original size of every"):
        read_vindr(folder, FILES)


def test_an_image_reads_alike_as_dicom_renamed_and_as_png(demo, tmp_path):
    source = next((demo / "vindr-cxr" / "train").glob("*.dicom"))
    shutil.copy(source, tmp_path / "a.dcm")
    original = read_image(source)
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm").pixels, original.pixels)
    Image.fromarray(original.pixels).save(tmp_path / "a.png")
    converted = read_image(tmp_path / "a.png")
    assert converted.fit == fit_of(384, 384)
    assert original.fit.native_rows > 384
    with pytest.raises(DicomError, match="expected a readable file"):
        read_image(tmp_path / "none.dcm")


def test_fused_boxes_of_the_demo_lie_near_every_readers(demo):
    folder = demo / "vindr-cxr"
    dataset = read_vindr(folder, [path for path, _, _ in scan(folder)], others="fold")
    raw: Counter[str] = Counter()
    with (folder / "annotations" / "annotations_train.csv").open() as handle:
        for row in csv.DictReader(handle):
            if row["class_name"] in CLASSES:
                box = [float(row[name]) for name in TRAIN[3:]]
                image = find(dataset, row["image_id"])
                same = image.boxes[image.classes == CLASSES.index(row["class_name"])]
                assert iou(as_boxes(box), same).max() > 0.4
                raw[row["image_id"]] += 1
    assert raw
