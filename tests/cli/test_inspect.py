"""lapvqa inspect: what a person reads of a file before anything is run."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_answer import Lapvqa

from flows.cli import main
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
    assert "1 picture as it would be stored" in answer.out
    assert "findings+impression" in answer.out
    assert "names a side of the body: yes" in answer.out
    assert "text: Small left effusion. Effusion." in answer.out
    assert "Kanarienvogel" not in answer.out + answer.err
    assert cv2.imread(str(tmp_path / "png" / "IM1.png"), cv2.IMREAD_UNCHANGED).shape == (384, 384)


def _archive(tmp_path: Path) -> Path:
    """Make a folder of more films than are described one by one."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for number in range(14):
        data = dicom_bytes(small_image(number), bits=8, SOPInstanceUID=f"1.2.{number}")
        (folder / f"{number:02}.dcm").write_bytes(data)
    return folder


def test_a_folder_is_counted_and_rejects_have_a_remedy(
    toy: Project, lapvqa: Lapvqa, tmp_path: Path
) -> None:
    folder = _archive(tmp_path)
    cut = folder / "03.dcm"
    cut.write_bytes(cut.read_bytes()[:-500])
    answer = lapvqa("inspect", str(folder))
    assert answer.code == 0
    assert "files: 13 of 14 would be taken" in answer.out
    assert "rejected 1: truncated" in answer.out
    assert "what to do: fetch the file again" in answer.out


def test_nothing_there_is_an_error(toy: Project, lapvqa: Lapvqa) -> None:
    answer = lapvqa("inspect", "nowhere")
    assert answer.code == 2
    assert "expected a file or folder" in answer.err


def test_a_file_that_may_not_be_read_is_no_wrong_use(
    toy: Project, lapvqa: Lapvqa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.png"
    secret.touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read whatever its mode
    for command in (("inspect", str(secret)), ("embed", str(secret))):
        answer = lapvqa(*command)
        assert answer.code == 2
        assert "is not readable" in answer.err
        assert "grant access" in answer.err


def test_a_broken_link_is_named_as_given_and_the_others_are_looked_at(
    toy: Project, lapvqa: Lapvqa, tmp_path: Path
) -> None:
    link, image = tmp_path / "link", tmp_path / "IM1"
    link.symlink_to(tmp_path / "target-that-is-gone")
    image.write_bytes(dicom_bytes(small_image(1), bits=8))
    (tmp_path / "empty").mkdir()
    answer = lapvqa("inspect", str(link), str(tmp_path / "empty"), str(image))
    assert answer.code == 2
    assert f"expected a file or folder at {link}, found a link to nothing" in answer.err
    assert "target-that-is-gone" not in answer.err
    assert f"expected chest radiographs in {tmp_path / 'empty'}" in answer.err
    assert f"{image}: taken" in answer.out


def test_paths_begin_as_they_were_given(toy: Project, lapvqa: Lapvqa, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("DIR/IM1", dicom_bytes(small_image(1), bits=8))
    assert f"{tmp_path}/a.zip/DIR/IM1: taken" in lapvqa("inspect", str(tmp_path / "a.zip")).out
    assert f"{tmp_path}/a.zip/DIR/IM1: taken" in lapvqa("inspect", str(tmp_path)).out


def test_a_damaged_picture_or_a_stranger_by_itself_is_told_by_what_it_is(
    toy: Project, lapvqa: Lapvqa, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.png"
    cv2.imwrite(str(whole), small_image(1))
    data = whole.read_bytes()
    found = {
        "cut.png": (data[:200], "rejected, truncated; expected a whole PNG"),
        "spoilt.png": (b"????????" + data[8:], "found a PNG whose first 8 bytes"),
        "empty.jpg": (b"", "rejected, truncated; expected a PNG or JPEG, found an empty file"),
        "login.dcm": (b"<html>log in</html>", "not_dicom; expected a DICOM file (DICM at byte 128)"
                      ", found a web page"),
        "film.tif": (b"II*\0" + data, "not read (other picture); it is a TIFF: convert it to PNG"),
        "head.bin": (data[:100], "not read (unknown); it is a PNG"),
    }  # fmt: skip
    for name, (content, said) in found.items():
        (tmp_path / name).write_bytes(content)
        answer = lapvqa("inspect", str(tmp_path / name))
        assert f"{tmp_path / name}: " in answer.out, answer.err
        assert said in answer.out


def test_a_picture_by_itself_is_shown_as_embed_would_read_it(
    toy: Project, lapvqa: Lapvqa, tmp_path: Path
) -> None:
    film, flat = tmp_path / "my film.png", tmp_path / "flat.png"
    cv2.imwrite(str(film), small_image(1))
    cv2.imwrite(str(flat), np.full((300, 300), 9, np.uint8))
    answer = lapvqa("inspect", str(film), str(flat), "--png", str(tmp_path / "png"))
    assert answer.code == 0, answer.err
    assert f"{film}: a picture by itself, which names no study" in answer.out
    assert "`lapvqa embed`, `caption` and `ask` take it" in answer.out
    rows, cols = small_image(1).shape
    assert f"image: {rows} x {cols}, times" in answer.out
    assert f"{flat}: rejected, constant_image" in answer.out
    assert (tmp_path / "png" / "my film.png.png").is_file()


def test_a_detail_is_told_of_all_only_where_all_agree(
    toy: Project, lapvqa: Lapvqa, tmp_path: Path
) -> None:
    folder = _archive(tmp_path)
    (folder / "20.dcm").touch()
    (folder / "21.dcm").touch()
    found = "expected a DICOM file (DICM at byte 128), found an empty file"
    assert f"rejected 2: not_dicom; {found}\n" in lapvqa("inspect", str(folder)).out
    (folder / "22.dcm").write_text("a letter, no film")
    out = lapvqa("inspect", str(folder)).out
    assert "rejected 3: not_dicom\n" in out
    assert f"such as {folder}/20.dcm: {found}; what to do: remove the file" in out


def test_what_a_terminal_cannot_show_is_escaped(
    toy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Müller").write_bytes(dicom_bytes(small_image(1), bits=8))
    (tmp_path / os.fsdecode(b"\xff.bin")).write_bytes(b"\x00\x01")
    screen = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(screen, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    absent = os.fsdecode(b"\xfe")
    assert main(["inspect", str(tmp_path / "Müller"), str(tmp_path / absent)]) == 2
    assert main(["inspect", str(tmp_path / os.fsdecode(b"\xff.bin"))]) == 0
    sys.stdout.flush()
    printed = screen.getvalue()
    assert rb"/M\xfcller: taken" in printed
    assert rb"/\xfe, found nothing" in printed
    assert rb"/\xff.bin: not read (unknown)" in printed
