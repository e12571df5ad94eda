"""NIH ChestX-ray14 beside the findings: the broken box header, ages; and the real label table."""

from __future__ import annotations

import gzip
import shutil
from collections import Counter
from pathlib import Path

import pytest

from lapvqa.datasets.labelled import key
from lapvqa.datasets.nih14 import LABELS, NAME, read_nih14
from lapvqa.datasets.nih14_extras import read_boxes, read_entries
from lapvqa.datasets.probe_images import read_image
from lapvqa.errors import SourceError

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
ENTRIES = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
NAMES = ["00000001_000.png", "00000002_000.png"]
SAMPLES = {key(NAME, name): None for name in NAMES}


def write_boxes(folder: Path, *lines: str, header: str = HEADER) -> Path:
    (folder / "BBox_List_2017.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


def test_nine_names_over_six_fields(tmp_path):
    folder = write_boxes(
        tmp_path,
        "00000001_000.png,Atelectasis,225.08,547.01,86.7,79.1",
        "00000002_000.png,Infiltrate,1,2,3,4,,,",
    )
    boxes, account = read_boxes(folder, SAMPLES)
    assert [box.label for box in boxes] == ["Atelectasis", "Infiltration"]
    assert boxes[0].xyxy == pytest.approx((225.08, 547.01, 311.78, 626.11))
    assert boxes[1].xyxy == (1, 2, 4, 6)
    assert boxes[0].sample == key(NAME, NAMES[0])
    assert (account.read, account.kept) == (2, 2)


def test_boxes_left_out_are_counted(tmp_path):
    folder = write_boxes(
        tmp_path,
        f"{NAMES[0]},Mass,1,2,0,4",
        "00000003_000.png,Mass,1,2,3,4",
        f"{NAMES[1]},Mass,1,2,3,4",
    )
    boxes, account = read_boxes(folder, SAMPLES)
    assert len(boxes) == 1
    assert dict(account.left_out) == {
        "box without area": 1, "image is not in the Data_Entry csv": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{NAMES[0]},Infiltrates,1,2,3,4", "column Finding Label is .Infiltrates.; nearest"),
        (f"{NAMES[0]},Mass,1,2,3,wide", r"column h\] is .wide., expected a number"),
        (f"{NAMES[0]},Mass,1,2,3", "expected a value for each of .*ends too early"),
    ],
)
def test_bad_boxes_are_named(tmp_path, line, message):
    with pytest.raises(SourceError, match=f"BBox_List_2017.csv, line 2: {message}"):
        read_boxes(write_boxes(tmp_path, line), SAMPLES)


def test_another_header_is_named(tmp_path):
    folder = write_boxes(tmp_path, header="Image Index,Finding Label,x,y,w,h")
    with pytest.raises(SourceError, match=r"BBox_List_2017.csv: expected the column 'Bbox \[x'"):
        read_boxes(folder, SAMPLES)


def test_first_release_has_trailing_commas_and_ages_to_clip(tmp_path):
    lines = [
        f"{ENTRIES},",
        "00000001_000.png,No Finding,0,1,414,M,PA,2682,2749,0.143,0.143,",
        "00000002_000.png,No Finding,0,2,058Y,F,AP,2682,2749,0.143,0.143,",
    ]
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")
    entries = read_entries(tmp_path)
    old, young = (entries[key(NAME, name)] for name in NAMES)
    assert (old.age, old.age_clipped, old.sex, old.view) == (95, True, "M", "PA")
    assert (young.age, young.age_clipped, young.sex, young.view) == (58, False, "F", "AP")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png,No Finding,0,1,old,M,PA,1,1,1,1", "column Patient Age is 'old'"),
        ("a.png,No Finding,0,1,50,X,PA,1,1,1,1", "column Patient Gender is 'X'; known: F, M"),
        ("a.png,No Finding,0,1,50,M,LL,1,1,1,1", "column View Position is 'LL'; known: PA, AP"),
    ],
)
def test_bad_entries_are_named(tmp_path, line, message):
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text(f"{ENTRIES}\n{line}\n")
    with pytest.raises(SourceError, match=f"Data_Entry_2017_v2020.csv, line 2: {message}"):
        read_entries(tmp_path)


@pytest.mark.corpus
def test_the_real_table_has_its_known_counts(corpus, tmp_path):
    shutil.copy(corpus / "nih" / "Data_Entry_2017_v2020.csv.gz", tmp_path)
    entries = read_entries(tmp_path)
    assert len(entries) == 112_120
    assert Counter(entry.view for entry in entries.values()) == {"PA": 67_310, "AP": 44_810}
    assert max(entry.age for entry in entries.values()) == 95
    assert not any(entry.age_clipped for entry in entries.values())


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
    assert all(read_image(corpus / "nih" / name) is not None for name in pictures)
