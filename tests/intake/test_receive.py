"""C-STORE: every transfer syntax as it was sent, nothing twice, nothing lost, nobody unknown."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from intake_parts import (
    CALLED,
    CALLING,
    Desk,
    dcmtk,
    film,
    make_project,
    needs_dcmtk,
    open_desk,
    pixels_of,
    receiving,
    send,
    send_bytes,
    until,
)
from jobs import make_job
from made_dicom import bytes_of, write_mimic
from others_at_work import files_below
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification

from lapvqa import storage
from lapvqa.errors import EXIT_BUSY, BusyError, ConfigError
from lapvqa.intake import filing
from lapvqa.intake.inbox import open_inbox
from lapvqa.intake.instance import read_names
from lapvqa.intake.receive import NOT_UNDERSTOOD, NOT_WHAT_IT_SAYS, OUT_OF_RESOURCES
from lapvqa.lineage import ledger
from lapvqa.machine import load_machine
from lapvqa.project import Project


def test_every_syntax_arrives_with_its_pixels_and_again_changes_nothing(desk, films) -> None:
    paths = [film.path for film in films]
    assert len({film.syntax for film in films}) >= 8
    with receiving(desk) as (server, port):
        assert send(paths, port) == [0] * len(films)
        desk.filing.settle()
        assert pixels_of(desk.filed) == pixels_of(paths)
        events, stamps = desk.events, [path.stat().st_mtime_ns for path in desk.filed]
        assert len(events) == len({film.study_uid for film in films})
        assert sum(event["files"] for event in events) == len(films)
        assert send(paths[:20], port) == [0] * 20
        desk.filing.settle()
    assert server.counts == {"received": len(films) + 20, "refused": 0}
    assert desk.events == events
    assert [path.stat().st_mtime_ns for path in desk.filed] == stamps


@needs_dcmtk
def test_dcmtk_sends_and_its_echo_is_answered(desk, films) -> None:
    paths = [str(film.path) for film in films[:16]]
    with receiving(desk) as (_, port):
        who = ["-aet", CALLING, "-aec", CALLED, "127.0.0.1", str(port)]
        subprocess.run([str(dcmtk("echoscu")), *who], check=True, timeout=20)
        subprocess.run([str(dcmtk("dcmsend")), *who, *paths], check=True, timeout=60)
        desk.filing.settle()
    assert pixels_of(desk.filed) == pixels_of([film.path for film in films[:16]])


def test_whoever_is_not_named_is_refused(desk) -> None:
    data = film(1)
    with receiving(desk) as (_, port):
        assert send_bytes([data], port, calling="STRANGER") is None
        assert send_bytes([data], port, called="ELSEWHERE") is None
    elsewhere = {"callers": [CALLING], "addresses": ["10.1.2.0/24", "::1/128"]}
    for others in ({}, {"OTHER": {"callers": [CALLING]}}):
        with receiving(desk, sources={CALLED: elsewhere, **others}) as (server, port):
            assert send_bytes([data], port) is None
            assert server.counts == {"received": 0, "refused": 1}
    assert not list(desk.inbox.studies.rglob("*.dcm"))
    assert [line.partition(": ")[2] for line in desk.said] == [
        "unknown calling AE title: STRANGER", "an unknown AE title was called: ELSEWHERE",
        "address not allowed", "address not allowed",
    ]  # fmt: skip


def test_nobody_may_send_until_somebody_is_named(tmp_path) -> None:
    with (
        open_desk(tmp_path, "receive") as desk,
        pytest.raises(ConfigError, match="who may send"),
        receiving(desk, sources={}),
    ):
        pass


def test_a_sender_that_falls_silent_is_let_go_and_others_are_served(desk) -> None:
    with receiving(desk, timeout_seconds=2, associations=2) as (server, port):
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        silent[1].sendall(b"\x01\x00\x00\x00\x10\x00" + b"half of a request")  # PS3.8 9.3.2
        until(lambda: len(server._server.active_associations) == 2)
        until(lambda: not server._server.active_associations)
        ae = AE(ae_title=CALLING)
        ae.add_requested_context(Verification)
        idle = ae.associate("127.0.0.1", port, ae_title=CALLED)
        assert idle.is_established
        until(lambda: not idle.is_established)
        assert send_bytes([film(1)], port) == [0]
        for one in silent:
            one.close()


def test_names_and_uids_of_all_kinds_stay_within_the_archive_and_out_of_sight(desk) -> None:
    odd = [
        film(1, study="../../../../etc/1.2", SOPInstanceUID="../../../x", PatientName="Doe^Jane"),
        film(2, study="/", SOPInstanceUID="..", PatientID="MRN-4711", AccessionNumber="A/../1"),
        film(3, study="1.2\\3", SOPInstanceUID="1.2;rm -rf"),
    ]  # fmt: skip
    with receiving(desk) as (server, port):
        assert send_bytes(odd, port) == [0, 0, 0]
        desk.filing.settle()
    assert server.counts["received"] == 3
    names = [path.relative_to(desk.archive.parent).as_posix() for path in _files(desk)]
    assert all(re.fullmatch(r"archive/WARD/[0-9a-f]{16}/[0-9a-f]{16}\.dcm", n) for n in names)
    assert len(names) == 3
    told = "\n".join([*desk.said, desk.project.arrivals.read_text()])
    assert not re.search(r"Doe|4711|etc|\.\.|A/|1\.2", told)


def test_what_is_no_study_is_not_acknowledged(desk) -> None:
    with receiving(desk) as (_, port):
        assert send_bytes([film(1, study="")], port) == [NOT_UNDERSTOOD]
        assert _send_announced(film(1), port, "1.2.9") == NOT_WHAT_IT_SAYS
    assert not list(desk.inbox.studies.rglob("*.dcm"))


def test_a_full_disk_is_told_to_the_sender_and_nothing_half_is_left(desk, monkeypatch) -> None:
    with receiving(desk) as (_, port):
        full = desk.inbox.settings.model_copy(update={"min_free_gb": 1e9})
        monkeypatch.setattr(desk.inbox, "settings", full)
        assert send_bytes([film(1)], port) == [OUT_OF_RESOURCES]
        monkeypatch.undo()
        limit = 1 << 12

        def full_disk(path: Path, data: bytes) -> None:
            with storage.atomic_path(path) as temporary:
                temporary.write_bytes(data[:limit])
                raise OSError(28, os.strerror(28))

        monkeypatch.setattr(storage, "write_bytes", full_disk)
        assert send_bytes([film(1)], port) == [OUT_OF_RESOURCES]
        assert not [path for path in desk.inbox.studies.rglob("*") if path.is_file()]
        monkeypatch.undo()
        assert send_bytes([film(1)], port) == [0]


def test_a_study_that_grows_after_it_was_complete_is_amended(desk) -> None:
    with receiving(desk) as (_, port):
        send_bytes([film(1)], port)
        desk.filing.settle()
        send_bytes([film(1), film(2)], port)
        desk.filing.settle()
    kinds = [(event["event"], event["files"]) for event in desk.events]
    assert kinds == [("study", 1), ("amended", 1)]
    assert len({event["study"] for event in desk.events}) == 1
    assert len(desk.filed) == 2


def test_a_corrected_header_takes_the_place_of_the_old_and_a_lossy_copy_does_not(desk) -> None:
    with receiving(desk) as (_, port):
        send_bytes([film(1)], port)
        desk.filing.settle()
        before = storage.sha256_file(desk.filed[0])
        send_bytes([film(1, PatientID="the right one")], port)
        desk.filing.settle()
    (path,) = desk.filed
    assert dcmread(path).PatientID == "the right one"
    edges = [e.payload for e in ledger.entries(desk.project) if e.kind == ledger.ARRIVAL]
    assert [edge["replaces"] for edge in edges] == [
        [{"before": before, "now": storage.sha256_file(path)}]
    ]
    lossy = dcmread(path)
    jpeg = BytesIO()
    Image.fromarray(lossy.pixel_array).save(jpeg, "JPEG")
    lossy.PixelData = encapsulate([jpeg.getvalue()])
    lossy.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    with receiving(desk) as (_, port):
        assert send_bytes([bytes_of(lossy)], port) == [0]
        desk.filing.settle()
    assert dcmread(path).file_meta.TransferSyntaxUID != JPEGBaseline8Bit
    assert [event["event"] for event in desk.events] == ["study", "amended"]


def test_a_study_that_says_how_many_it_is_waits_for_them_but_not_for_ever(tmp_path) -> None:
    def part(number: int) -> bytes:
        return film(number, NumberOfStudyRelatedInstances=3)

    with open_desk(tmp_path, "receive", patience_seconds=1000.0) as desk:
        _deposit(desk, part(1), part(2))
        assert desk.filing.settle() == 1
        _deposit(desk, part(3))
        assert desk.filing.settle() == 0
        assert [event["files"] for event in desk.events] == [3]
        _deposit(desk, film(9, study="1.9", NumberOfStudyRelatedInstances=2))
        assert desk.filing.settle() == 1
        _age(desk, 1001)
        assert desk.filing.settle() == 0


def test_nothing_is_filed_before_it_is_quiet(tmp_path) -> None:
    with open_desk(tmp_path, "receive", quiet_seconds=1000.0) as desk:
        _deposit(desk, film(1))
        assert desk.filing.settle() == 1
        _age(desk, 1001)
        assert desk.filing.settle() == 0


@pytest.mark.parametrize("grown", [False, True])
def test_filing_that_is_killed_at_any_step_ends_at_the_next_start(
    tmp_path, monkeypatch, grown: bool
) -> None:
    """Before each step that touches the disk it may end; the steps are counted as they come."""
    for number in range(100):
        root = tmp_path / str(number)
        with open_desk(root, "receive") as desk:
            if grown:
                _deposit(desk, film(1))
                desk.filing.settle()
            _deposit(desk, film(1), film(2), film(3))
            steps = iter(range(100))
            for owner, name in (
                (storage, "write_json"), (storage, "flush_folder"), (filing.arrivals, "append"),
                (Path, "rename"), (Path, "replace"), (Path, "unlink"), (Path, "rmdir"),
            ):  # fmt: skip
                monkeypatch.setattr(owner, name, _killed_at(number, steps, getattr(owner, name)))
            with contextlib.suppress(_Killed):
                desk.filing.settle()
            monkeypatch.undo()
        with open_desk(root, "receive") as desk:
            desk.filing.settle()
            assert [event["event"] for event in desk.events] == ["study", "amended"][: 1 + grown]
            assert sum(event["files"] for event in desk.events) == len(_files(desk)) == 3
            assert not desk.inbox.journal.exists()
            assert not [path for path in desk.inbox.studies.rglob("*") if path.is_file()]
        if next(steps) <= number:
            break
    assert number > 5


def _killed_at(number: int, steps: Iterator[int], what: Callable) -> Callable:
    def step(*args, **options):
        if next(steps) == number:
            raise _Killed
        return what(*args, **options)

    return step


class _Killed(BaseException):
    pass


def test_two_receivers_on_one_inbox_are_refused(tmp_path) -> None:
    with (
        open_desk(tmp_path, "receive"),
        pytest.raises(BusyError, match="already running"),
        open_desk(tmp_path, "receive"),
    ):
        pass
    with open_desk(tmp_path, "receive"), open_desk(tmp_path, "watch-RIS"):
        pass


def test_an_archive_of_another_layout_takes_no_studies(tmp_path) -> None:
    project = make_project(tmp_path)
    write_mimic(tmp_path / "archive", patients=1, studies=1)
    job = make_job(project, load_machine(project))
    with pytest.raises(ConfigError, match="of layout mimic"), open_inbox(job, "receive"):
        pass


def test_a_receiver_that_is_killed_has_all_that_it_acknowledged(tmp_path, films) -> None:
    """The command itself, ended by SIGKILL while files come in, then by SIGTERM."""
    project = make_project(tmp_path, quiet_seconds=3600.0)
    paths = [film.path for film in films[:20]]
    with _command(project) as (process, port, _):
        again = subprocess.run(_receive(), cwd=project.root, capture_output=True, text=True)
        assert again.returncode == EXIT_BUSY
        done: list[int] = []
        sending = threading.Thread(target=lambda: send(paths, port, done=done))
        sending.start()
        while len(done) < 5:
            time.sleep(0.005)
        process.kill()
        sending.join()
        assert 5 <= len(done) < len(paths)
    acknowledged = paths[: done.count(0)]
    archive = tmp_path / "archive"
    kept = [path for path in archive.rglob(".inbox/**/*.dcm") if not path.name.startswith(".")]
    assert pixels_of(acknowledged).items() <= pixels_of(kept).items()
    text = project.local.read_text().replace("3600.0", "0.0")
    project.local.write_text(text)
    with _command(project) as (process, port, lines):
        assert send(paths, port) == [0] * len(paths)
        until(lambda: not files_below(archive / ".inbox", "*.dcm"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert pixels_of(list(archive.glob("WARD/*/*.dcm"))) == pixels_of(paths)
    assert not list(archive.rglob(".*.tmp"))
    assert "20 files received, 0 refused; 0 studies left" in "".join(lines)
    assert not re.search(r"\d\.\d+\.\d+\.\d{6}|PatientName", "".join(lines))


def _send_announced(data: bytes, port: int, uid: str) -> int:
    """Send a file under another SOP Instance UID than it has."""
    dataset = dcmread(BytesIO(data))
    ae = AE(ae_title=CALLING)
    ae.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", port, ae_title=CALLED)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = dataset.SOPClassUID, uid
    request.DataSet = BytesIO(encode(dataset, False, True))
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    return response.Status


def _receive() -> list[str]:
    return [sys.executable, "-m", "flows.cli", "receive"]


@contextmanager
def _command(project: Project) -> Iterator[tuple[subprocess.Popen[str], int, list[str]]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        _receive(), cwd=project.root, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    port = re.search(r"port (\d+)", lines[0])
    assert port, lines[0] + process.stdout.read()
    try:
        yield process, int(port[1]), lines
    finally:
        process.kill()
        process.wait()
        lines += process.stdout.readlines()


def _deposit(desk: Desk, *files: bytes) -> None:
    for data in files:
        desk.inbox.deposit(CALLED, read_names(data), data)


def _age(desk: Desk, seconds: float) -> None:
    """Let what waits in the inbox have come so much earlier."""
    for path in desk.inbox.studies.rglob("*.dcm"):
        came = path.stat().st_mtime - seconds
        os.utime(path, (came, came))


def _files(desk: Desk) -> list[Path]:
    return [path for path in desk.archive.parent.rglob("*.dcm") if ".inbox" not in path.parts]
