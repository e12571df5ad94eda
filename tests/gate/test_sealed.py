"""Sealed patients: who they are follows from a rule, and no number is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.evaluation import contract, sealed
from lapvqa.evaluation.results import METRICS, PREDICTIONS
from lapvqa.params import BootstrapParams
from lapvqa.probe.on_chexpert import TASK
from lapvqa.project import Project
from lapvqa.schemas import IMAGES, PROBE_PREDICTIONS

COMMON = BootstrapParams(bootstrap_draws=20)
DEFAULTS = {
    "string": "", "int32": 0, "int16": 0, "double": 0.0,
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def write_images(project: Project, splits: dict[str, str]) -> None:
    """Write data/images.parquet with an image per patient, patient -> split."""
    rows = [
        {field.name: DEFAULTS[str(field.type)] for field in IMAGES}
        | {"image_key": f"i{key}", "study_key": f"s{key}", "patient_key": key, "split": split}
        for key, split in splits.items()
    ]
    storage.write_table(project.images, pa.Table.from_pylist(rows, schema=IMAGES), IMAGES)


def arrived(number: int, *, start: int = 0) -> dict[str, str]:
    return {f"p{k:05d}": "test" if k % 2 else "train" for k in range(start, start + number)}


def test_nobody_is_sealed_without_a_rule(project: Project) -> None:
    write_images(project, arrived(20))
    assert sealed.sealed_patients(project) == frozenset()


def test_only_test_patients_are_sealed_and_those_shown_before_never(project: Project) -> None:
    before = arrived(400)
    write_images(project, before)
    sealed.write_rule(project, share=0.5, round_name="r", opened="", shown=list(before))
    assert sealed.sealed_patients(project) == frozenset()

    write_images(project, before | arrived(400, start=400))
    later = sealed.sealed_patients(project)
    assert 70 < len(later) < 130, "half of 200 test patients who came after"
    assert all(key >= "p00400" and int(key[1:]) % 2 for key in later)

    write_images(project, before | arrived(4000, start=400))
    assert later < sealed.sealed_patients(project), "who is sealed stays so"
    assert not any(key in project.sealed.read_text() for key in before)


def test_numbers_are_those_of_the_shown_share_alone(project: Project) -> None:
    rows = [
        {"sample": f"s{k}", "patient": f"p{k}", "system": system, "label": "Edema",
         "target": k % 2, "score": (k % 2 if k < 20 else 1 - k % 2) * 0.5 + k / 100}
        for k in range(40) for system in ("trained", "untrained")
    ]  # fmt: skip
    both = pa.Table.from_pylist(rows, schema=PROBE_PREDICTIONS)
    shown = both.slice(0, 40)
    hidden = frozenset(f"p{k}" for k in range(20, 40))
    folder, alone = project.root / "sealed", project.root / "alone"
    contract.publish(TASK, both, protocol={}, folder=folder, common=COMMON, sealed=hidden)
    contract.publish(TASK, shown, protocol={}, folder=alone, common=COMMON)
    assert (folder / METRICS).read_bytes() == (alone / METRICS).read_bytes()
    assert (folder / PREDICTIONS).read_bytes() == (alone / PREDICTIONS).read_bytes()
    kept = storage.read_table(folder / sealed.SEALED, PROBE_PREDICTIONS, made_by="")
    assert set(kept["patient"].to_pylist()) == hidden
    assert kept.num_rows + shown.num_rows == both.num_rows


def test_all_sealed_is_not_computed_and_says_why(project: Project) -> None:
    row = {"sample": "s", "patient": "p", "system": "trained", "label": "Edema", "target": 1,
           "score": 0.5}  # fmt: skip
    table = pa.Table.from_pylist([row], schema=PROBE_PREDICTIONS)
    contract.publish(
        TASK, table, protocol={}, folder=project.root, common=COMMON, sealed=frozenset("p")
    )
    metrics = json.loads((project.root / METRICS).read_text())
    assert metrics["status"] == "not computed"
    assert "sealed.json" in metrics["reason"]


def test_a_damaged_rule_stops_what_would_show_everybody(project: Project) -> None:
    project.sealed.write_text("{")
    with pytest.raises(ConfigError, match=r"sealed\.json"):
        sealed.sealed_patients(project)
