"""A PACS on loopback: C-MOVE and WADO bring every transfer syntax with its pixels, once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import date

import orthanc
import pytest
from intake_parts import (
    CALLED,
    Desk,
    dcmtk,
    needs_dcmtk,
    open_desk,
    pixels_of,
    receiving,
    send,
)
from orthanc import Orthanc

from lapvqa.intake.dicomweb import Server
from lapvqa.intake.pull import Puller
from lapvqa.machine import Pacs

pytestmark = pytest.mark.skipif(not orthanc.is_here(), reason=orthanc.MISSING)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory, films) -> Iterator[Orthanc]:
    """A PACS that has the films."""
    with orthanc.running(tmp_path_factory.mktemp("orthanc")) as running:
        assert set(send([film.path for film in films], running.dicom, called="ORTHANC")) == {0}
        yield running


def _same_pixels(desk: Desk, films) -> None:
    found = pixels_of(desk.filed)
    assert set(found) == {film.instance_uid for film in films}
    assert found == pixels_of([film.path for film in films])


@needs_dcmtk
def test_c_move_brings_every_syntax_with_its_pixels(pacs, films, desk) -> None:
    studies = sorted({film.study_uid for film in films})
    with receiving(desk, port=pacs.sends_to):
        who = ["-aet", "MOVESCU", "-aec", "ORTHANC", "-aem", CALLED]
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=" + "\\".join(studies)]
        done = subprocess.run(
            [str(dcmtk("movescu")), "-S", *who, *keys, "127.0.0.1", str(pacs.dicom)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        desk.filing.settle()
    _same_pixels(desk, films)
    assert len(desk.events) == len(studies)


def _pull(desk: Desk, pacs: Orthanc, *, may_go_on=lambda: True):

    server = Server("VNA", Pacs(url=pacs.url, per_second=1000), desk.project.root)
    return Puller(server, desk.filing, may_go_on)


def test_wado_brings_every_syntax_as_kept_and_again_nothing(tmp_path, pacs, films) -> None:
    days = _days(films)
    with open_desk(tmp_path, "pull-VNA") as desk:
        puller = _pull(desk, pacs)
        for day in days:
            puller.pull(day, day)
        _same_pixels(desk, films)
        events = desk.events
        assert len(events) == len({film.study_uid for film in films})
        again = [puller.pull(day, day) for day in days]
        assert sum(one.files for one in again) == 0
        assert sum(one.known for one in again) == len(events)
        assert desk.events == events


def _days(films) -> list[date]:
    from pydicom import dcmread

    dates = {
        str(dcmread(film.path, specific_tags=["StudyDate"]).get("StudyDate")) for film in films
    }
    return sorted(date(int(d[:4]), int(d[4:6]), int(d[6:])) for d in dates if d)
