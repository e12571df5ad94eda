"""Questions about one image: the released layout, and answers that other tables bear out."""

import json
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from lapvqa.datasets.ext_vqa import CONTENT_TYPES, SEMANTIC_TYPES
from lapvqa.synth import diff_vqa_copy, ext_vqa_copy, mimic_copy
from lapvqa.synth.ext_vqa_copy import TEMPLATES, Scene, places, scene_of

DATASET = "mimic-ext-mimic-cxr-vqa/MIMIC-Ext-MIMIC-CXR-VQA/dataset"
KEYS = [
    "split", "idx", "image_id", "question", "content_type", "semantic_type", "template",
    "template_program", "template_arguments", "answer", "subject_id", "study_id", "image_path",
]  # fmt: skip
LABELS = {
    "atelectasis": "Atelectasis",
    "cardiomegaly": "Cardiomegaly",
    "consolidation": "Consolidation",
    "edema": "Edema",
    "lung nodule": "Lung Lesion",
    "pleural effusion": "Pleural Effusion",
    "pneumothorax": "Pneumothorax",
}


@pytest.fixture(scope="module")
def plan() -> list[mimic_copy.MimicStudy]:
    return mimic_copy.plan(5, patients=150, studies=400)


@pytest.fixture(scope="module")
def tables(plan, tmp_path_factory) -> Path:
    """The copies of two question sets about one archive, which needs no images for them."""
    root = tmp_path_factory.mktemp("tables")
    ext_vqa_copy.write_tables(root, plan)
    diff_vqa_copy.write_tables(root, plan)
    return root


def read(root: Path) -> dict[str, list[dict]]:
    return {
        split: json.loads((root / DATASET / f"{split}.json").read_text())
        for split in ("train", "valid", "test")
    }


@pytest.fixture(scope="module")
def entries(tables: Path) -> dict[str, list[dict]]:
    return read(tables)


@pytest.fixture(scope="module")
def every(entries) -> list[dict]:
    return [one for listed in entries.values() for one in listed]


def of_template(every: list[dict], pattern: str) -> list[tuple[dict, re.Match]]:
    return [(one, found) for one in every if (found := re.fullmatch(pattern, one["question"]))]


def test_layout(entries, every, tables):
    for split, listed in entries.items():
        assert [one["idx"] for one in listed] == list(range(len(listed)))
        assert {one["split"] for one in listed} == {split}
    for one in every:
        assert list(one) == KEYS
        assert one["content_type"] in CONTENT_TYPES
        assert one["semantic_type"] in SEMANTIC_TYPES
        assert list(one["template_arguments"]) == [
            "object", "attribute", "category", "viewpos", "gender",
        ]  # fmt: skip
        assert len(set(one["answer"])) == len(one["answer"])
        assert all(word == word.lower() for word in one["answer"])
    words = {word for one in every for word in one["answer"]}
    assert json.loads((tables / DATASET / "ans2idx.json").read_text()) == {
        word: place for place, word in enumerate(sorted(words))
    }


def test_a_question_is_its_template_filled(every):
    for one in every:
        text = one["template"]
        for blank, values in one["template_arguments"].items():
            for place, value in values.items():
                name = blank if len(values) == 1 else f"{blank}_{int(place) + 1}"
                assert f"${{{name}}}" in text
                text = text.replace(f"${{{name}}}", value)
        assert text == one["question"]
    programs = {(one["template"], one["template_program"]) for one in every}
    assert len(programs) == len(dict(programs)) == len({program for _, program in programs})


def test_images_are_the_frontal_ones_and_patients_keep_their_split(demo):
    entries = read(demo)
    folder = demo / "mimic-cxr"
    images = pd.read_csv(folder / "mimic-cxr-2.0.0-metadata.csv.gz").set_index("dicom_id")
    splits = pd.read_csv(folder / "mimic-cxr-2.0.0-split.csv.gz").set_index("dicom_id")["split"]
    for split, listed in entries.items():
        for one in listed:
            image = images.loc[one["image_id"]]
            assert image["ViewPosition"] in ("AP", "PA")
            assert one["subject_id"] == str(image["subject_id"])
            assert one["study_id"] == str(image["study_id"])
            file = folder / "files" / one["image_path"]
            assert file.with_suffix(".dcm").is_file()
            assert splits[one["image_id"]] == {"valid": "validate"}.get(split, split)
    asked = {one["study_id"] for listed in entries.values() for one in listed}
    assert asked == set(images["study_id"].astype(str))


def test_presence_and_size_follow_the_labels(plan, every):
    """The labels know no question; doubt is of the report alone, so -1 is there as well."""
    present = {
        str(study.number): {
            name
            for name, label in LABELS.items()
            if mimic_copy.labels_of(study)[label] in (1.0, -1.0)
        }
        for study in plan
    }
    checked: Counter[str] = Counter()
    for one, found in of_template(every, r"Is there (.*)\?"):
        if found[1] in LABELS:
            assert one["answer"] == ["yes" if found[1] in present[one["study_id"]] else "no"]
            checked[one["answer"][0]] += 1
    for one, _ in of_template(every, "Is the heart wider than half of the chest\\?"):
        assert one["answer"] == ["yes" if "cardiomegaly" in present[one["study_id"]] else "no"]
        checked[one["answer"][0]] += 1
    for one, found in of_template(every, r"Which is present, (.*) or (.*)\?"):
        if {found[1], found[2]} <= set(LABELS):
            assert set(one["answer"]) == {found[1], found[2]} & present[one["study_id"]]
            checked["choice"] += 1
    assert min(checked.values()) > 20
    assert len(checked) == 3


def test_places_follow_the_tables_of_diseases(tables, every):
    """The Diff-VQA copy names places in other words; the sides must be the same."""
    diseases = json.loads((tables / "mimic-diff-vqa" / "all_diseases.json").read_text())
    known = {
        (one["study_id"], name): {
            side for side in ("left", "right") if side in " ".join(entity["location"] or [])
        }
        for one in diseases
        for name, entity in one["entity"].items()
    }
    checked = 0
    for one, found in of_template(every, r"Where is (.*) located\?"):
        if found[1] not in LABELS or found[1] in ("edema", "cardiomegaly"):
            continue
        sides = {place.split()[0] for place in one["answer"]}
        assert sides == known.get((one["study_id"], found[1]), set())
        checked += bool(sides)
    assert checked > 20


def test_view_and_gender_are_those_of_the_patient(plan, every):
    views = {one.images[0].dicom_id: one.images[0].view.lower() for one in plan}
    genders = {one.images[0].dicom_id: one.anatomy.female for one in plan}
    asked = of_template(every, r"What is the view of this image\?|Is this view AP or PA\?")
    assert len(asked) > 20
    assert all(one["answer"] == [views[one["image_id"]]] for one, _ in asked)
    asked = of_template(every, r"Is this patient female\?")
    assert len(asked) > 10
    for one, _ in asked:
        assert one["answer"] == ["yes" if genders[one["image_id"]] else "no"]


def test_the_demo_has_some_two_thousand_questions_of_every_kind():
    studies = mimic_copy.plan(0, patients=300, studies=800)
    counts = {"train": 4, "validate": 3, "test": 3}
    drawn = {split: [] for split in counts}
    for study in studies:
        drawn[study.split] += ext_vqa_copy.ask(study, counts[study.split])
    assert 1900 <= len(drawn["train"]) <= 2400
    assert 200 <= len(drawn["validate"]) <= 300
    assert 380 <= len(drawn["test"]) <= 480
    for split, questions in drawn.items():
        contents = Counter(template.content for template, _, _ in questions)
        assert set(contents) == set(CONTENT_TYPES)
        assert min(contents.values()) > 0.03 * len(questions)
        assert {template.semantic for template, _, _ in questions} == set(SEMANTIC_TYPES)
        answers = Counter(tuple(sorted(answer)) for _, _, answer in questions)
        assert 0.03 < answers[()] / len(questions) < 0.12, split
        assert 0.4 < answers["yes",] / answers["no",] < 1.0, split
        assert max(len(answer) for answer in answers) >= 2
    assert {template.text for template, _, _ in drawn["train"]} == {one.text for one in TEMPLATES}


def test_a_study_is_asked_different_questions_and_always_the_same(plan):
    for study in plan[:60]:
        asked = ext_vqa_copy.ask(study, 4)
        texts = [(template.text, tuple(said.items())) for template, said, _ in asked]
        assert len(set(texts)) == 4
        assert [one[1:] for one in ext_vqa_copy.ask(study, 4)] == [one[1:] for one in asked]


def test_every_answer_is_among_what_was_asked(plan):
    for study in plan:
        for template, said, answer in ext_vqa_copy.ask(study, 4):
            if template.semantic == "verify":
                assert answer in (["yes"], ["no"])
            if template.semantic == "choose":
                assert set(answer) <= {value.lower() for value in said.values()}


def test_devices_are_no_abnormality(plan):
    """A pacemaker's leads lie in the heart, whose shape is normal."""
    only = [
        study for study in plan
        if study.findings and all(one.device == "pacemaker" for one in study.findings)
    ]  # fmt: skip
    assert only
    for study in only:
        assert scene_of(study).abnormal == set()
        assert scene_of(study).shown == {("pacemaker", "cardiac silhouette")}


def test_equal_kinds_on_both_sides_are_one_answer():
    scene = Scene(
        frozenset({("pleural effusion", "left lung"), ("pleural effusion", "right lung")}),
        "AP",
        "male",
    )
    by_text = {one.text: one for one in TEMPLATES}
    sides = {"attribute": "pleural effusion", "object_1": "right lung", "object_2": "left lung"}
    choice = by_text["Where is ${attribute}, in the ${object_1} or the ${object_2}?"]
    assert set(choice.answer(scene, sides)) == {"left lung", "right lung"}
    found = by_text["What is found in the ${object}?"]
    assert set(found.answer(scene, {"object": "left lung"})) == {"pleural effusion"}
    assert set(found.answer(scene, {"object": "cardiac silhouette"})) == set()


def test_every_finding_has_a_place_that_can_be_asked_about(plan):
    askable = {value for one in TEMPLATES for said in one.choices for value in said.values()}
    for study in plan:
        for finding in study.findings:
            assert places(finding)
            assert set(places(finding)) <= askable
