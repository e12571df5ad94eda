"""What retraining costs: a state is free of a patient until they were sampled, or chose by it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from lapvqa import storage
from lapvqa.erasure.impact import ways_to_retrain
from lapvqa.project import Project
from lapvqa.schemas import MEMBERS, MEMBERS_FILE

STEPS, EPOCHS = 130, 10
PATIENT = "a" * 16


def ways(root: Path, *rows: tuple[str, str, int], **params: object) -> dict[str, dict[str, object]]:
    """The ways for PATIENT, whose rows are of a study, a role and a first step."""
    project = Project(root)
    (root / "dvc.yaml").write_text("stages: {}\n")
    folder = project.model_dir("captioning")
    columns = [
        {"study_key": study, "patient_key": PATIENT, "role": role, "times": 3 if first else 0,
         "times_best": 0, "first_step": first}
        for study, role, first in rows
    ]  # fmt: skip
    storage.write_table(folder / MEMBERS_FILE, pa.Table.from_pylist(columns, MEMBERS), MEMBERS)
    told = {"steps": STEPS, "params": {"epochs": EPOCHS, **params}}
    storage.write_json(folder / "training.json", told)
    for step in (7, 13, 26, 117, 130):
        storage.write_json(project.work_dir("pretrain") / "x" / f"state-{step}.json", {})
    return {str(way["way"]): way for way in ways_to_retrain(project, PATIENT, (), "captioning")}


def test_who_is_validated_takes_part_from_the_first_validation_on(tmp_path: Path) -> None:
    way = ways(tmp_path, ("s", "validate", 0))["checkpoint"]
    assert way["steps"] == STEPS - 12
    assert "first validation on, at step 13 of 130: saves 9.2%" in str(way["remark"])
    assert "the state of step 7 is kept" in str(way["remark"]), "that of step 13 was judged by them"


def test_of_a_training_that_went_on_the_epochs_are_its_own(tmp_path: Path) -> None:
    way = ways(tmp_path, ("s", "validate", 0), continue_from="a" * 64, continue_epochs=2)
    assert way["checkpoint"]["steps"] == STEPS - 64


@pytest.mark.parametrize(("first", "steps"), [(5, 126), (20, 118)])
def test_who_is_sampled_and_validated_counts_from_the_earlier(
    tmp_path: Path, first: int, steps: int
) -> None:
    way = ways(tmp_path, ("s", "validate", 0), ("t", "train", first))["checkpoint"]
    assert way["steps"] == steps


def test_who_is_sampled_counts_from_that_step(tmp_path: Path) -> None:
    way = ways(tmp_path, ("s", "train", 20))["checkpoint"]
    assert way["steps"] == STEPS - 19
    assert "first sampled at step 20 of 130, 3 times in all" in str(way["remark"])
    assert "the state of step 13 is kept" in str(way["remark"])


def test_whom_no_step_has_sampled_no_training_answers_for(tmp_path: Path) -> None:
    assert ways(tmp_path, ("s", "train", 0)) == {}
