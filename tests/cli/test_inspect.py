"""lapvqa inspect: what a person reads of a file before anything is run."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
from cli_answer import Lapvqa

from lapvqa.project import Project

sys.path.insert(0, str(Path(__file__).parents[1] / "dicom"))
from made_dicom import dicom_bytes, small_image


def test_an_image_and_its_report(toy: Project, lapvqa: Lapvqa, tmp_path: Path) -> None:
    image, report = tmp_path / "IM1", tmp_path / "report.txt"
    image.write_bytes(dicom_bytes(small_image(1), bits=8, PatientName="Kanarienvogel"))
    report.write_text("FINDINGS: Small left effusion.\nIMPRESSION: Effusion.\n")
    answer = lapvqa("inspect", str(image), str(report), "--png", str(tmp_path / "png"), "--text")
    assert answer.code == 0
    assert "IM1: taken" in answer.out
    assert "findings+impression" in answer.out
    assert "names a side of the body: yes" in answer.out
    assert "text: Small left effusion. Effusion." in answer.out
    assert "Kanarienvogel" not in answer.out + answer.err
    assert cv2.imread(str(tmp_path / "png" / "IM1.png"), cv2.IMREAD_UNCHANGED).shape == (384, 384)


def test_a_folder_is_counted_and_rejects_have_a_remedy(
    toy: Project, lapvqa: Lapvqa, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    for number in range(14):
        data = dicom_bytes(small_image(number), bits=8, SOPInstanceUID=f"1.2.{number}")
        (folder / f"IM{number}").write_bytes(data[:-500] if number == 3 else data)
    answer = lapvqa("inspect", str(folder))
    assert answer.code == 0
    assert "files: 13 of 14 would be taken" in answer.out
    assert "rejected 1: truncated" in answer.out
    assert "what to do: fetch the file again" in answer.out


def test_nothing_there_is_an_error(toy: Project, lapvqa: Lapvqa) -> None:
    answer = lapvqa("inspect", "nowhere")
    assert answer.code == 2
    assert "expected a file or folder" in answer.err
