"""Archives of pictures go through inventory and ingest like those of DICOM files."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from made_dicom import dicom_bytes, small_image, write_project
from PIL import Image
from test_ingest import reasons, run, table, write_tree
from test_layouts import CHEXPERT
from test_layouts_mimic import ZIP, zipped
from test_openi import TEXT, TGZ, packed, report

from lapvqa.errors import SourceError
from lapvqa.images.shards import ShardStore
from lapvqa.uptodate import input_folders

STUDY = "files/p10/p10000032/s50414267"


def picture(seed: int, kind: str) -> bytes:
    stream = BytesIO()
    Image.fromarray(small_image(seed)).save(stream, kind)
    return stream.getvalue()


def test_mimic_cxr_jpg_with_its_reports_next_to_it(tmp_path: Path) -> None:
    table_name = "mimic-cxr-2.0.0-chexpert.csv"
    reports = {STUDY + ".txt": " FINDINGS: clear", "files/p10/p10000032/s59999999.txt": "other"}
    data = picture(1, "JPEG")
    files: dict[str, bytes | str] = {
        f"{STUDY}/a-1.jpg": data,
        f"{STUDY}/a-2.jpg": picture(2, "JPEG"),
        f"{STUDY}/a-3.jpg": data[:-5],
        "files/cover.jpg": picture(4, "JPEG"),
        table_name: CHEXPERT,
        f"../{ZIP}": zipped(reports),
    }
    budget = {"overall": 0.9, "per_folder": 1.0, "folder_min_files": 20}
    source = write_tree(tmp_path / "jpg" / "2.1.0", files)
    project = write_project(tmp_path / "project", source, workers=1, reject_budget=budget)
    counts = run(project)
    assert (counts["files"], counts["images"], counts["studies"], counts["reports"]) == (6, 2, 1, 1)
    assert reasons(project) == {
        f"{STUDY}/a-3.jpg": "truncated",
        "files/cover.jpg": "outside_layout",
        f"../{ZIP}/files/p10/p10000032/s59999999.txt": "report_without_study",
    }
    images = table(project.images)
    assert {row["transfer_syntax"] for row in images} == {"image/jpeg"}
    assert {row["voi"] for row in images} == {"rendered"}
    assert hashlib.sha256(data).hexdigest() in {row["file_sha256"] for row in images}
    (study,) = table(project.studies)
    assert (study["report"], study["num_images"]) == (" FINDINGS: clear", 2)
    (labels,) = table(project.labels)
    assert labels["Cardiomegaly"] == 1
    places = input_folders.places(project)
    assert input_folders.change(project, "source", places=places, known=None) == ""
    (source.parent / ZIP).write_bytes(zipped({**reports, STUDY + ".txt": "corrected"}))
    assert input_folders.change(project, "source", places=places, known=None) == "1 file changed"
    run(project)
    assert table(project.studies)[0]["report"] == "corrected"


def test_open_i_as_pictures_and_as_dicom(tmp_path: Path) -> None:
    reports = packed({f"ecgen-radiology/{n}.xml": report(n) for n in (1, 2, 3)})
    pictures: dict[str, bytes | str] = {
        "NLMCXR_png/CXR1_1_IM-0001-3001.png": picture(1, "PNG"),
        "NLMCXR_png/CXR1_1_IM-0001-4001.png": picture(2, "PNG"),
        "NLMCXR_png/CXR2_IM-0652-1001.png": picture(3, "PNG"),
        TGZ: reports,
    }
    shown = {"bits": 8, "WindowCenter": 128, "WindowWidth": 256}
    dicom: dict[str, bytes | str] = {
        path: dicom_bytes(small_image(seed), SOPInstanceUID=f"1.2.{seed}", PatientID="x", **shown)
        for seed, path in enumerate(
            ("1/1_IM-0001-3001.dcm", "1/1_IM-0001-4001.dcm", "2/2_IM-0652-1001.dcm"), start=1
        )
    }
    found = {}
    for name, files in (("png", pictures), ("dcm", {**dicom, TGZ: reports})):
        source = write_tree(tmp_path / name, files)
        project = write_project(
            tmp_path / f"project-{name}", source, workers=1,
            deid={"keep_ids": True, "dates": "drop", "identity_removed": "accept",
                  "reports": "flag"},
        )  # fmt: skip
        counts = run(project)
        assert (counts["images"], counts["studies"], counts["patients"]) == (3, 2, 2)
        assert reasons(project) == {f"{TGZ}/ecgen-radiology/3.xml": "report_without_study"}
        studies = table(project.studies)
        assert [row["report"] for row in studies] == [TEXT, TEXT]
        xml = report(1).encode()
        assert studies[0]["report_sha256"] == hashlib.sha256(xml).hexdigest()
        images = table(project.images)
        pixels = ShardStore(project.images_dir).read(
            [row["shard"] for row in images], [row["row"] for row in images]
        )
        found[name] = ([row["image_key"] for row in images], pixels)
    assert found["png"][0] == found["dcm"][0]
    assert np.array_equal(found["png"][1], found["dcm"][1])


def test_an_archive_without_reports_says_which_file_to_add(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "jpg", {f"{STUDY}/a-1.jpg": picture(1, "JPEG")})
    with pytest.raises(SourceError) as caught:
        run(write_project(tmp_path / "project", source))
    assert "mimic-cxr-reports.zip (a file of MIMIC-CXR)" in caught.value.hint
