"""C-STORE: every transfer syntax as it was sent, nothing twice, nothing lost, nobody unknown."""

from __future__ import annotations

from pathlib import Path

from intake_parts import receiving, send
from pydicom import dcmread

from lapvqa.dicom.render import read_image


def _pixels(path: Path) -> bytes:
    return read_image(path.read_bytes()).pixels.tobytes()


def test_every_syntax_arrives_with_its_pixels_and_again_changes_nothing(desk, films) -> None:
    with receiving(desk) as (server, port):
        assert set(send([film.path for film in films], port)) == {0}
        desk.filing.settle()
    found = {dcmread(p, stop_before_pixels=True).SOPInstanceUID: p for p in desk.filed}
    assert len({film.syntax for film in films}) >= 8
    assert set(found) == {film.instance_uid for film in films}
    for film in films:
        assert _pixels(found[film.instance_uid]) == _pixels(film.path)
    events = desk.events
    assert len(events) == len({film.study_uid for film in films})
