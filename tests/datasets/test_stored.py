"""The datasets' identifiers find the project's stored images, through ingest's own key."""

from __future__ import annotations

import csv
import gzip
import shutil

import pytest
from jobs import make_job
from stored_by_hand import KEYRING, dicom, stored_of, study, subject

from lapvqa.datasets.stored import open_stored
from lapvqa.errors import ConfigError, MissingArtifactError
from lapvqa.identity import DEMO_MARK
from lapvqa.machine import Machine
from lapvqa.project import Project


def test_every_image_of_the_archive_is_found_by_its_dicom_id(demo, demo_stored):
    with gzip.open(demo / "mimic-cxr" / "mimic-cxr-2.0.0-metadata.csv.gz", "rt") as handle:
        rows = list(csv.DictReader(handle))
    keyring = demo_stored.keyring
    assert len(rows) == len(demo_stored.rows)
    for row in rows:
        image = demo_stored.image(row["dicom_id"])
        assert image.study_key == keyring.study(row["study_id"])
        assert image.patient_key == keyring.patient(row["subject_id"])
        assert image.view == row["ViewPosition"]
        assert (image.fit.native_rows, image.fit.native_cols) == (
            int(row["Rows"]), int(row["Columns"]),
        )  # fmt: skip
        assert image.shard.startswith("images-")
        assert demo_stored.by_key(image.image_key) == image


def test_splits_and_orders_are_the_archives(demo, demo_stored):
    with gzip.open(demo / "mimic-cxr" / "mimic-cxr-2.0.0-split.csv.gz", "rt") as handle:
        for row in csv.DictReader(handle):
            patient = demo_stored.keyring.patient(row["subject_id"])
            assert demo_stored.split_of[patient] == row["split"]
            assert (patient in demo_stored.pretrained) == (row["split"] == "train")
    assert min(demo_stored.order_of.values()) == 0


def test_unknown_identifiers_find_nothing(demo_stored):
    assert demo_stored.image("11111111-22222222-33333333-44444444-55555555") is None
    assert demo_stored.frontal("0" * 16) is None


def test_the_frontal_image_of_a_study():
    stored = stored_of({1: "train"})
    key = KEYRING.study(str(study(1, 0)))
    assert stored.frontal(key) == stored.image(dicom(study(1, 0)))
    assert stored_of({1: "train"}, view="LATERAL").frontal(key) is None
    assert stored_of({1: "train"}, view="AP").frontal(key).view == "AP"


def test_no_identifier_is_in_an_image(stored):
    image = str(stored.image(dicom(study(1, 0))))
    assert str(subject(1)) not in image
    assert str(study(1, 0)) not in image


def test_the_key_is_not_shown(stored):
    assert "long enough" not in repr(stored)


@pytest.fixture
def copy(project: Project, tmp_path) -> Project:
    """The project without its archive, of which the key's demo mark is left."""
    shutil.copytree(project.root / "data", tmp_path / "p" / "data")
    shutil.copy(project.params, tmp_path / "p")
    source = tmp_path / "p" / "demo" / "mimic-cxr"
    source.mkdir(parents=True)
    (source / DEMO_MARK).touch()
    return Project(tmp_path / "p")


def test_ingests_key_is_asked_for(copy, recorder):
    assert len(open_stored(make_job(copy, Machine(), recorder)).rows)


def test_another_key_is_refused(copy, recorder, tmp_path):
    (tmp_path / "key").write_text("another key, and long enough")
    machine = Machine(deid_key_file=str(tmp_path / "key"))
    with pytest.raises(ConfigError, match=r"expected the key [0-9a-f]{8} .*\n.*deid_key_file"):
        open_stored(make_job(copy, machine, recorder))


def test_a_lost_key_is_not_replaced_by_a_new_one(copy, recorder):
    (copy.root / "demo" / "mimic-cxr" / DEMO_MARK).unlink()
    with pytest.raises(ConfigError, match=r"found none\n.*deid\.key"):
        open_stored(make_job(copy, Machine(), recorder))
    assert not (copy.state / "deid.key").exists()


def test_without_ingest_its_stage_is_named(copy, recorder):
    copy.images.unlink()
    with pytest.raises(MissingArtifactError, match="--stage ingest"):
        open_stored(make_job(copy, Machine(), recorder))


def test_kept_identifiers_are_found_too(copy, recorder, demo_stored):
    text = copy.params.read_text()
    copy.params.write_text(text.replace("keep_ids: false", "keep_ids: true"))
    assert copy.params.read_text() != text
    stored = open_stored(make_job(copy, Machine(), recorder))
    assert stored.keyring.image("a-b-c") == "a-b-c"
    some = next(iter(demo_stored.rows))  # its key is taken for the identifier itself
    assert stored.image(some) is not None
