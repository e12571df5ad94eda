"""The public datasets' own layouts, traps included."""

import csv
import gzip
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lapvqa.schemas import CHEXPERT_LABELS
from lapvqa.synth.diff_vqa_copy import Entity, difference

CHEXPERT_HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,"
    "Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,"
    "Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


@pytest.fixture(scope="module")
def mimic(demo: Path) -> Path:
    return demo / "mimic-cxr"


def header(path: Path) -> str:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return text.decode().split("\n")[0]


def test_mimic_tables_have_the_released_columns(mimic):
    labels = ",".join(CHEXPERT_LABELS)
    assert header(mimic / "cxr-record-list.csv.gz") == "subject_id,study_id,dicom_id,path"
    assert header(mimic / "cxr-study-list.csv.gz") == "subject_id,study_id,path"
    assert header(mimic / "mimic-cxr-2.0.0-split.csv.gz") == "dicom_id,study_id,subject_id,split"
    for labeler in ("chexpert", "negbio"):
        found = header(mimic / f"mimic-cxr-2.0.0-{labeler}.csv.gz")
        assert found == f"subject_id,study_id,{labels}"
    assert header(mimic / "mimic-cxr-2.0.0-metadata.csv.gz") == (
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
        "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
        "PatientOrientationCodeSequence_CodeMeaning"
    )


def test_mimic_paths_and_identifiers(mimic):
    records = pd.read_csv(mimic / "cxr-record-list.csv.gz")
    on_disk = {str(path.relative_to(mimic)) for path in mimic.glob("files/**/*.dcm")}
    assert set(records["path"]) == on_disk
    pattern = r"files/p1\d/p1\d{7}/s5\d{7}/(?:[0-9a-f]{8}-){4}[0-9a-f]{8}\.dcm"
    assert all(re.fullmatch(pattern, path) for path in records["path"])
    assert records["dicom_id"].is_unique
    for row in records.itertuples():
        expected = f"files/p{str(row.subject_id)[:2]}/p{row.subject_id}/s{row.study_id}"
        assert row.path == f"{expected}/{row.dicom_id}.dcm"


def test_reports_are_siblings_of_the_study_folder_and_a_few_are_missing(mimic):
    studies = pd.read_csv(mimic / "cxr-study-list.csv.gz")
    present = [(mimic / path).is_file() for path in studies["path"]]
    assert 0.85 <= np.mean(present) < 1.0
    assert all((mimic / path).with_suffix("").is_dir() for path in studies["path"])


def test_mimic_patients_stand_in_one_split_in_the_released_words(mimic):
    split = pd.read_csv(mimic / "mimic-cxr-2.0.0-split.csv.gz")
    assert set(split["split"]) == {"train", "validate", "test"}
    assert (split.groupby("subject_id")["split"].nunique() == 1).all()
    by_patient = split.drop_duplicates("subject_id")["split"].value_counts(normalize=True)
    assert by_patient["train"] == pytest.approx(0.7, abs=0.05)
    assert by_patient["test"] == pytest.approx(0.2, abs=0.05)


def test_study_times_lose_leading_zeros_and_studies_go_forward(mimic):
    meta = pd.read_csv(mimic / "mimic-cxr-2.0.0-metadata.csv.gz", dtype={"StudyTime": str})
    assert meta["StudyTime"].str.fullmatch(r"(0|[1-9]\d{0,5})\.\d{3}").all()
    assert (meta["StudyTime"].astype(float) < 240_000).all()
    assert meta["StudyDate"].between(21000101, 22050101).all()
    studies = meta.drop_duplicates("study_id")
    days = studies.groupby("subject_id")["StudyDate"]
    assert days.apply(lambda dates: dates.is_monotonic_increasing).all()
    ids = studies.groupby("subject_id")["study_id"]
    assert not ids.apply(lambda numbers: numbers.is_monotonic_increasing).all()


def test_label_values_are_those_of_the_labelers(mimic):
    labels = pd.read_csv(mimic / "mimic-cxr-2.0.0-chexpert.csv.gz")
    values = labels[list(CHEXPERT_LABELS)]
    assert set(np.unique(values.to_numpy()[~values.isna().to_numpy()])) <= {1.0, 0.0, -1.0}
    normal = labels["No Finding"] == 1.0
    assert set(labels["No Finding"].dropna()) == {1.0}
    ill = values.drop(columns=["No Finding", "Support Devices"]).isin([1.0, -1.0]).any(axis=1)
    assert (normal == ~ill).all()


def test_chexpert_layout(demo):
    folder = demo / "CheXpert-v1.0-small"
    tables = {part: pd.read_csv(folder / f"{part}.csv") for part in ("train", "valid")}
    for part, table in tables.items():
        assert header(folder / f"{part}.csv") == CHEXPERT_HEADER
        pattern = (
            rf"CheXpert-v1.0-small/{part}/patient\d{{5}}/study\d+/view\d_(frontal|lateral).jpg"
        )
        assert table["Path"].str.fullmatch(pattern).all()
        assert all((demo / path).is_file() for path in table["Path"])
        assert table.loc[table["Frontal/Lateral"] == "Lateral", "AP/PA"].isna().all()
    patients = {part: set(t["Path"].str.extract(r"(patient\d+)")[0]) for part, t in tables.items()}
    assert not patients["train"] & patients["valid"]
    assert min(patients["valid"]) == "patient64541"
    valid = tables["valid"].iloc[:, 5:].to_numpy()
    assert set(np.unique(valid)) == {0.0, 1.0}
    train = tables["train"].iloc[:, 5:].to_numpy()
    assert np.isnan(train).any()
    assert set(tables["train"]["No Finding"].dropna()) == {1.0}


def test_chexpert_images_are_small_grey_jpegs(demo):
    for path in demo.glob("CheXpert-v1.0-small/**/*.jpg"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert image.dtype == np.uint8
        assert image.ndim == 2
        assert max(image.shape) == 390
        assert min(image.shape) >= 300


def test_nih_layout(demo):
    folder = demo / "nih-cxr14"
    assert header(folder / "Data_Entry_2017_v2020.csv") == NIH_HEADER
    entries = pd.read_csv(folder / "Data_Entry_2017_v2020.csv")
    assert list(entries.columns[7:]) == [
        "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]",
    ]  # fmt: skip
    paths = {path.name: path for path in folder.glob("images_*/images/*.png")}
    assert set(entries["Image Index"]) == set(paths)
    lists = {
        part: (folder / f"{part}_list.txt").read_text().split() for part in ("train_val", "test")
    }
    assert sorted(lists["train_val"] + lists["test"]) == sorted(paths)
    patients = {part: {name[:8] for name in names} for part, names in lists.items()}
    assert not patients["train_val"] & patients["test"]
    assert all(re.fullmatch(r"\d{8}_\d{3}\.png", name) for name in paths)
    shapes = {cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape[:2] for path in paths.values()}
    assert shapes == {(512, 512)}


def test_nih_labels_never_mix_no_finding_with_others(demo):
    entries = pd.read_csv(demo / "nih-cxr14" / "Data_Entry_2017_v2020.csv")
    known = {
        "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Infiltration",
        "Nodule", "Pneumothorax", "No Finding",
    }  # fmt: skip
    for labels in entries["Finding Labels"].str.split("|"):
        assert set(labels) <= known
        assert labels == ["No Finding"] or "No Finding" not in labels


def test_nih_boxes_have_nine_names_over_six_fields(demo):
    path = demo / "nih-cxr14" / "BBox_List_2017.csv"
    with path.open() as lines:
        rows = list(csv.reader(lines))
    assert header(path) == "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    assert len(rows) > 1
    tested = (demo / "nih-cxr14" / "test_list.txt").read_text().split()
    for name, label, *box in rows[1:]:
        x, y, w, h = map(float, box)
        assert name in tested
        assert label != "Infiltration"
        assert min(x, y) >= 0
        assert min(w, h) > 0
        assert max(x + w, y + h) <= 512


def test_vindr_layout(demo):
    folder = demo / "vindr-cxr"
    tables = {path.stem: pd.read_csv(path) for path in (folder / "annotations").glob("*.csv")}
    boxes = ["class_name", "x_min", "y_min", "x_max", "y_max"]
    assert list(tables["annotations_train"]) == ["image_id", "rad_id", *boxes]
    assert list(tables["annotations_test"]) == ["image_id", *boxes]
    train, test = tables["image_labels_train"], tables["image_labels_test"]
    assert train.shape[1] == 30
    assert test.shape[1] == 29
    assert "Other diseases" in train
    assert "Other disease" in test
    assert (train.groupby("image_id")["rad_id"].nunique() == 3).all()
    for part, table in (("train", train), ("test", test)):
        assert {path.stem for path in (folder / part).glob("*.dicom")} == set(table["image_id"])
    shares = {
        part: len(table["image_id"].unique()) for part, table in (("train", train), ("test", test))
    }
    assert shares == {"train": 9, "test": 3}  # of 48 studies: a fifth, and 3 in 40
    marks = tables["annotations_train"]
    assert marks["rad_id"].str.fullmatch(r"R([1-9]|1[0-7])").all()
    normal = marks["class_name"] == "No finding"
    assert marks.loc[normal, "x_min"].isna().all()
    assert marks.loc[~normal, "x_min"].notna().all()
    mixed = normal.groupby(marks["image_id"]).nunique()
    assert (mixed == 1).all()


def test_mscxr_phrases_come_from_reports_that_no_encoder_learns_from(demo):
    folder = demo / "ms-cxr"
    table = pd.read_csv(folder / "MS_CXR_Local_Alignment_v1.1.0.csv")
    split = pd.read_csv(demo / "mimic-cxr" / "mimic-cxr-2.0.0-split.csv.gz").set_index("dicom_id")
    pretrained = split.loc[table["dicom_id"], "split"].to_numpy()
    assert set(pretrained) == {"validate", "test"}
    assert set(pretrained[table["split"] == "test"]) == {"test"}
    assert set(table["split"]) == {"train", "val", "test"}
    patients = table["path"].str.extract(r"/(p\d{8})/")[0]
    assert (table["split"].groupby(patients).nunique() == 1).all()
    for row in table.itertuples():
        report = (demo / "mimic-cxr" / Path(row.path).parent).with_suffix(".txt").read_text()
        assert row.label_text in " ".join(report.split())
        assert row.x + row.w <= row.image_width
        assert row.y + row.h <= row.image_height
        assert min(row.w, row.h) > 0
    coco = json.loads((folder / "MS_CXR_Local_Alignment_v1.1.0.json").read_text())
    assert len(coco["categories"]) == 8
    assert len(coco["annotations"]) == len(table)
    names = {one["id"]: one["name"] for one in coco["categories"]}
    files = {one["id"]: one["file_name"] for one in coco["images"]}
    for note, row in zip(coco["annotations"], table.itertuples(), strict=True):
        assert names[note["category_id"]] == row.category_name
        assert files[note["image_id"]] == f"{row.dicom_id}.jpg"
        assert note["bbox"] == [row.x, row.y, row.w, row.h]


def test_diffvqa_pairs_are_consecutive_studies_of_one_patient(demo):
    folder = demo / "mimic-diff-vqa"
    pairs = pd.read_csv(folder / "mimic_pair_questions.csv")
    assert list(pairs) == [
        "study_id", "subject_id", "ref_id", "question_type", "question", "answer", "split",
    ]  # fmt: skip
    every = pd.read_csv(folder / "mimic_all.csv").set_index("study_id")
    assert set(pairs["split"]) <= {"train", "val", "test"}
    main, reference = every.loc[pairs["study_id"]], every.loc[pairs["ref_id"]]
    assert (main["subject_id"].to_numpy() == reference["subject_id"].to_numpy()).all()
    assert (main["study_order"].to_numpy() == reference["study_order"].to_numpy() + 1).all()
    assert set(every["view"]) == {"postero-anterior", "antero-posterior"}
    assert set(pairs["question_type"]) == {
        "abnormality", "presence", "view", "location", "level", "type", "difference",
    }  # fmt: skip
    diseases = json.loads((folder / "all_diseases.json").read_text())
    assert {int(one["study_id"]) for one in diseases} == set(every.index)


def test_diffvqa_answers_follow_the_labels(demo):
    """Cardiomegaly has no side, so the difference must follow from the two label rows alone."""
    folder = demo / "mimic-diff-vqa"
    pairs = pd.read_csv(folder / "mimic_pair_questions.csv")
    every = pd.read_csv(folder / "mimic_all.csv").set_index("study_id")
    checked = 0
    for row in pairs[pairs["question_type"] == "difference"].itertuples():
        before, now = (
            every.loc[study, "Cardiomegaly"] in (1.0, -1.0) for study in (row.ref_id, row.study_id)
        )
        gained = re.search(r"additional findings? of ([^.]*)", row.answer)
        lost = re.search(r"is missing the findings? of ([^.]*)", row.answer)
        assert bool(gained and "cardiomegaly" in gained[1]) == (now and not before)
        assert bool(lost and "cardiomegaly" in lost[1]) == (before and not now)
        checked += before != now
    assert checked


def test_difference_grammar():
    heart, wet = Entity("cardiomegaly", (), "mild"), Entity("edema", (), "severe")
    air = Entity("pneumothorax", ("left lung",), "small")
    assert difference({"edema": wet}, {"edema": wet}) == "nothing has changed."
    assert difference({"edema": wet}, {"cardiomegaly": heart, "pneumothorax": air}) == (
        "the main image has additional findings of cardiomegaly and pneumothorax than the "
        "reference image. the main image is missing the finding of edema than the reference image."
    )
    worse = Entity("cardiomegaly", (), "severe")
    assert difference({"cardiomegaly": heart}, {"cardiomegaly": worse}) == (
        "the level of cardiomegaly has changed from mild to severe."
    )
