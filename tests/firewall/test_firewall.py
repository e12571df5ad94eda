"""Planted leaks of each kind are found, counted by reason, and not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from demo_project import ingested
from planting import Archive, Outcome, raise_firewall

from lapvqa.datasets.nih14 import read_nih14
from lapvqa.datasets.pictures import read_image
from lapvqa.errors import MissingArtifactError
from lapvqa.images.report_pairs import read_pairs
from lapvqa.images.shards import ShardStore
from lapvqa.project import Project


@dataclass(frozen=True)
class Leaky:
    """A project with leaks, what its archive holds now, and what became of it."""

    archive: Archive
    outcome: Outcome
    moved: str
    """A patient of MS-CXR's test, who was put into training."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return ingested(tmp_path_factory, tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Leaky:
    project = ingested(tmp_path_factory, tmp_path_factory.mktemp("leaky"))
    archive = Archive(project)
    test, validate = archive.of_split("test"), archive.of_split("validate")
    asked = raise_firewall(project).tested("ms_cxr")
    moved = next(row for row in archive.images if row["image_key"] in asked)["patient_key"]
    other = next(row for row in test if row["patient_key"] != moved)
    archive.add("same film", archive.pixels(other))
    archive.add("his other film", archive.pixels(archive.of_split("train")[0]) // 2,
                patient="patient of same film")  # fmt: skip
    archive.add("film of validate", archive.pixels(validate[0]))
    archive.add("validated on", archive.pixels(other), split="validate")
    folder = project.root / "demo/nih-cxr14"
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*.png")]
    nih = read_nih14(folder, files).test
    archive.add("film of nih", read_image(folder / nih.images[0]).pixels)
    archive.move(moved, "train")
    archive.write()
    return Leaky(archive, raise_firewall(project), moved)


def test_where_nothing_is_planted_nothing_is_excluded(sound: Project) -> None:
    outcome = raise_firewall(sound)
    assert (outcome.excluded, outcome.counts["shared_images"]) == ({}, 0)
    assert all(not row["found"] for name in outcome.account["data_sets"]
               for row in outcome.tested(name).values())  # fmt: skip


def test_a_film_of_the_test_split_is_found_under_another_patient(leaky: Leaky) -> None:
    assert leaky.outcome.reasons("same film", "film of validate") == [("film", "archive")] * 2


def test_the_other_films_of_that_patient_go_with_it(leaky: Leaky) -> None:
    assert leaky.outcome.reasons("his other film") == [("patient", "archive")]


def test_what_validation_must_not_know_leaves_validation(leaky: Leaky) -> None:
    assert leaky.outcome.excluded["validated on"]["split"] == "validate"


def test_a_film_of_another_data_set_is_found(leaky: Leaky) -> None:
    assert leaky.outcome.reasons("film of nih") == [("film", "nih14")]


def test_a_patient_of_a_set_that_refers_to_the_archive_is_found(leaky: Leaky) -> None:
    own = [row for row in leaky.archive.of_split("train") if row["patient_key"] == leaky.moved]
    found = leaky.outcome.reasons(*(row["image_key"] for row in own))
    assert {data_set for _, data_set in found} <= {"ms_cxr", "ext_vqa", "diff_vqa"}
    shared = leaky.outcome.account["data_sets"]["ms_cxr"]["training_images_shared"]
    assert sum(shared.values()) == len(own)


def test_nothing_else_is_lost(leaky: Leaky) -> None:
    planted = {"same film", "his other film", "film of validate", "film of nih", "validated on"}
    moved = {r["image_key"] for r in leaky.archive.images if r["patient_key"] == leaky.moved}
    assert set(leaky.outcome.excluded) <= planted | moved


def test_the_account_counts_by_reason_and_by_set(leaky: Leaky) -> None:
    account, excluded = leaky.outcome.account, leaky.outcome.excluded.values()
    assert sum(account["excluded_by_reason"].values()) == len(excluded)
    assert sum(account["excluded_images"].values()) == len(excluded)
    assert account["data_sets"]["nih14"]["training_images_shared"] == {"film": 1}
    assert account["data_sets"]["nih14"]["test_images_known_to_training"] == {"film": 1}


def test_what_is_excluded_is_not_trained_on(leaky: Leaky) -> None:
    project = leaky.archive.project
    store = ShardStore(project.images_dir)
    gone = {
        leaky.archive.pixels(row).tobytes()
        for row in leaky.archive.images
        if row["image_key"] in leaky.outcome.excluded
    }
    for split in ("train", "validate"):
        pairs, _ = read_pairs(project, split)
        seen = {store.read([pair.shard], [pair.row]).tobytes() for pair in pairs}
        if split == "train":
            assert pairs
            assert not seen & gone
        assert leaky.moved not in {
            row["patient_key"]
            for row in leaky.archive.images
            if row["study_key"] in {pair.study_key for pair in pairs}
        }


def test_training_without_a_firewall_is_refused(sound: Project) -> None:
    content = sound.excluded.read_bytes()
    sound.excluded.unlink()
    with pytest.raises(MissingArtifactError, match=r"excluded\.parquet.*firewall"):
        read_pairs(sound, "train")
    sound.excluded.write_bytes(content)
