"""Planted leaks of each kind are found, counted by reason, and not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
from demo_project import ingested
from planting import Archive, Outcome, raise_firewall

from lapvqa.datasets.nih14 import read_nih14
from lapvqa.datasets.pictures import read_image
from lapvqa.errors import MissingArtifactError
from lapvqa.firewall import matching
from lapvqa.images.report_pairs import read_pairs
from lapvqa.images.shards import ShardStore
from lapvqa.project import Project

REPORT = (
    "Compared with Tuesday, the nasogastric tube coils twice below the left hemidiaphragm, its "
    "tip near the splenic flexure; unchanged shrapnel projects over the right scapula."
)
TEMPLATE = (
    "The lungs are clear, with no focal consolidation, pleural effusion or pneumothorax, and the "
    "cardiomediastinal silhouette is within normal limits for age and projection."
)


def noisy(pixels: np.ndarray, seed: int) -> np.ndarray:
    """The same patient's film as its own neighbour: other bytes, near in looks."""
    noise = np.random.default_rng(seed).integers(0, 9, pixels.shape)
    return np.clip(pixels.astype(np.int64) + noise, 0, 255).astype(np.uint8)


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
    archive.add("no report", archive.pixels(other), has_tokens=False)
    archive.add("his other film", archive.pixels(archive.of_split("train")[0]) // 2,
                patient="patient of same film")  # fmt: skip
    archive.add("film of validate", archive.pixels(validate[0]))
    archive.add("other window", archive.pixels(other) // 3 + 90, decoded=other["decoded_sha256"])
    cropped = archive.pixels(validate[0])[16:-16, 16:-16]
    archive.add("cropped", cv2.resize(cropped, (384, 384), interpolation=cv2.INTER_AREA))
    archive.add("mirrored", np.ascontiguousarray(archive.pixels(other)[:, ::-1]))
    told = next(row for row in archive.studies if row["study_key"] == other["study_key"])
    told["report"] = REPORT
    plain = archive.pixels(archive.of_split("train")[1])
    archive.add("same report", noisy(plain, 1), report=REPORT.upper().replace(",", ""))
    archive.add("edited report", noisy(plain, 2), report=f"{REPORT} Addendum: seen by two.")
    archive.add("template", noisy(plain, 3), report=TEMPLATE)
    for number in range(5):
        archive.add(f"as usual {number}", noisy(plain, 4 + number), report=TEMPLATE)
    also = next(row for row in archive.studies if row["study_key"] == validate[0]["study_key"])
    also["report"] = TEMPLATE
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


def test_a_film_without_a_report_is_found_too_since_a_probe_learns_from_it(leaky: Leaky) -> None:
    assert leaky.outcome.reasons("no report") == [("film", "archive")]


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


def test_a_film_in_another_window_is_found_by_its_decoded_values(leaky: Leaky) -> None:
    assert leaky.outcome.reasons("other window") == [("film", "archive")]


@pytest.mark.parametrize("key", ["cropped", "mirrored"])
def test_an_edited_film_is_found_by_its_looks(leaky: Leaky, key: str) -> None:
    (reason, data_set) = leaky.outcome.reasons(key)[0]
    assert (reason in ("film", "edited copy"), data_set) == (True, "archive")
    assert leaky.outcome.excluded[key]["score"] > 0.6


def test_a_report_under_another_name_is_found_and_a_template_is_not(leaky: Leaky) -> None:
    found = leaky.outcome.reasons("same report", "edited report")
    assert found == [("report", "archive")] * 2
    assert "template" not in leaky.outcome.excluded


def test_nothing_else_is_lost(leaky: Leaky) -> None:
    planted = {
        "same film", "no report", "his other film", "film of validate", "film of nih",
        "validated on", "other window", "cropped", "mirrored", "same report", "edited report",
    }  # fmt: skip
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


def test_a_second_run_looks_at_new_films_only(
    sound: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = raise_firewall(sound)
    looked: list[tuple[int, int]] = []
    search = matching.find

    def watched(queries: int, references: np.ndarray, *rest: Any, **options: Any) -> Any:
        looked.append((queries, len(references)))
        return search(queries, references, *rest, **options)

    monkeypatch.setattr(matching, "find", watched)
    assert raise_firewall(sound).counts == first.counts
    assert looked == []
    content = {path: path.read_bytes() for path in (sound.images, sound.studies)}
    archive = Archive(sound)
    archive.add("of today", archive.pixels(archive.of_split("test")[0])[:, ::-1].copy())
    archive.write()
    assert raise_firewall(sound).reasons("of today") == [("film", "archive")]
    assert [references for _, references in looked] == [1]
    for path, was in content.items():
        path.write_bytes(was)


def test_training_without_a_firewall_is_refused(sound: Project) -> None:
    content = sound.excluded.read_bytes()
    sound.excluded.unlink()
    with pytest.raises(MissingArtifactError, match=r"excluded\.parquet.*firewall"):
        read_pairs(sound, "train")
    sound.excluded.write_bytes(content)
