"""A DICOMweb server that fails, lies, is slow or is cut off: what is missing is fetched, once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from intake_parts import Desk, film, open_desk
from ruamel.yaml import YAML

from flows.commands.pull import execute as ask
from lapvqa.errors import ConfigError, SourceError
from lapvqa.ingest.tombstones import add_tombstone, load_tombstones
from lapvqa.intake import dicomweb
from lapvqa.intake.pull import Pulled, Puller, is_within
from lapvqa.machine import Pacs

DAY = date(2026, 11, 29)


class Pretended(ThreadingHTTPServer):
    """A server with studies of two instances each; ``statuses`` come before an answer, by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.studies = {
            f"1.2.{number}": {
                f"1.2.3.{2 * number + one}": film(2 * number + one, study=f"1.2.{number}")
                for one in range(2)
            }
            for number in range(1, 4)
        }
        self.statuses: dict[str, list[int]] = {}
        self.fetched: list[str] = []
        self.token = ""
        self.knows_pages = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/web"


class _Handler(BaseHTTPRequestHandler):
    server: Pretended

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        parts = split.path.removeprefix("/web/").split("/")
        page = {key: int(v[0]) for key, v in parse_qs(split.query).items() if v[0].isdigit()}
        waiting = self.server.statuses.get(parts[-1], [])
        if self.server.token and self.headers.get("Authorization") != self.server.token:
            self._send(401, b"")
        elif waiting:
            self._send(waiting.pop(0), b"")
        elif parts == ["studies"]:
            self._list(self.server.studies, "0020000D", page)
        elif parts[-1] == "series":
            self._list([parts[1] + ".1"], "0020000E", page)
        elif parts[-1] == "instances":
            self._list(self.server.studies[parts[1]], "00080018", page)
        else:
            assert self.headers["Accept"].endswith("transfer-syntax=*")
            self.server.fetched.append(parts[-1])
            body = self.server.studies[parts[1]][parts[-1]]
            part = b"--xyz\r\nContent-Type: application/dicom\r\n\r\n" + body + b"\r\n--xyz--\r\n"
            self._send(200, part, 'multipart/related; type="application/dicom"; boundary=xyz')

    def _list(self, uids, tag: str, page: dict[str, int]) -> None:
        number = {uid: len(own) for uid, own in self.server.studies.items()}
        found = [
            {
                tag: {"vr": "UI", "Value": [uid]},
                "00080060": {"vr": "CS", "Value": ["DX"]},
                "00201208": {"vr": "IS", "Value": [number.get(uid, 0)]},
            }
            for uid in uids
        ]
        if self.server.knows_pages:
            found = found[page["offset"] :][: page["limit"]]
        self._send(200 if found else 204, json.dumps(found).encode(), "application/dicom+json")

    def _send(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch) -> Iterator[Pretended]:
    monkeypatch.setattr(dicomweb, "_TRIES", 1)
    with Pretended() as pretended:
        threading.Thread(target=pretended.serve_forever, daemon=True).start()
        yield pretended
        pretended.shutdown()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path, "pull-VNA", patience_seconds=3600.0) as opened:
        yield opened


def _pull(desk: Desk, server: Pretended, *, steps: int = 1000, **settings) -> Pulled:
    left = iter(range(steps))
    pacs = Pacs(url=server.url, per_second=1e6, modalities=["DX"], **settings)
    asked = dicomweb.Server("VNA", pacs, desk.project.root)
    return Puller(asked, desk.filing, lambda: next(left, None) is not None).pull(DAY, DAY)


@pytest.mark.parametrize("knows_pages", [True, False])
def test_a_pull_that_is_cut_off_goes_on_where_it_ended(desk, server, knows_pages, monkeypatch):
    server.knows_pages = knows_pages
    monkeypatch.setattr(dicomweb, "_PAGE", 2)
    for steps in range(1, 20):
        if not _pull(desk, server, steps=steps).left:
            break
    assert steps > 5
    assert sorted(server.fetched) == sorted(one for own in server.studies.values() for one in own)
    assert [event["files"] for event in desk.events] == [2, 2, 2]
    assert _pull(desk, server).known == 3
    assert len(server.fetched) == 6


def test_what_a_server_does_not_give_is_asked_for_again(desk, server) -> None:
    server.statuses = {"1.2.3.2": [503], "1.2.3.4": [500, 500]}
    first = _pull(desk, server)
    assert (first.studies, first.files, first.failed) == (2, 5, 1)
    assert len(list(desk.inbox.studies.rglob("*.dcm"))) == 1
    second = _pull(desk, server)
    assert (second.studies, second.files, second.failed, second.known) == (1, 1, 0, 2)
    assert len(server.fetched) == 6


def test_a_study_that_grew_there_grows_here(desk, server) -> None:
    _pull(desk, server)
    server.studies["1.2.1"]["1.2.3.99"] = film(99, study="1.2.1")
    assert _pull(desk, server).studies == 1
    assert [event["event"] for event in desk.events] == ["study"] * 3 + ["amended"]


def test_another_file_than_the_one_asked_for_is_not_kept(desk, server) -> None:
    server.studies["1.2.1"]["1.2.3.2"] = film(77, study="1.2.1")
    assert _pull(desk, server).failed == 1
    assert "is not the one that was asked for" in desk.said[0]


def test_names_that_are_no_uids_are_never_asked_for(desk, server) -> None:
    server.studies = {"../../secret": {}}
    with pytest.raises(SourceError, match="expected UIDs") as error:
        _pull(desk, server)
    assert "secret" not in str(error.value)


def test_a_token_opens_and_without_one_the_error_says_so(desk, server) -> None:
    server.token = "Bearer s3cret"
    with pytest.raises(ConfigError, match="does not let us in"):
        _pull(desk, server)
    (desk.project.root / "token").write_text("s3cret\n")
    assert _pull(desk, server, token_file="token").studies == 3
    with pytest.raises(ConfigError, match="token_file"):
        _pull(desk, server, token_file="absent")


def test_a_server_that_is_not_there_is_named_without_its_address(desk, server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(SourceError, match="VNA: no answer") as error:
        _pull(desk, server)
    assert "127.0.0.1" not in str(error.value)


def test_whoever_was_erased_is_not_asked_for(desk, server) -> None:
    erased = load_tombstones(desk.project, desk.inbox.keyring)
    mark = erased.mark("study", desk.inbox.keyring.study("1.2.2"))
    add_tombstone(desk.project, request="R", marks=[mark])
    done = _pull(desk, server)
    assert (done.studies, done.erased) == (2, 1)
    assert not {"1.2.3.4", "1.2.3.5"} & set(server.fetched)


def test_a_last_day_before_the_first_is_refused(desk, server) -> None:
    values = YAML(typ="safe").load(desk.project.local)
    values["intake"]["pull"] = {"VNA": {"url": server.url}}
    with desk.project.local.open("w") as file:
        YAML(typ="safe").dump(values, file)
    with pytest.raises(ConfigError, match="2026-11-05 to 2026-11-01"):
        ask(desk.project, "VNA", since="2026-11-05", until="2026-11-01", days=7, now=True)
    assert server.fetched == []


@pytest.mark.parametrize(
    ("hours", "time", "within"),
    [
        (None, "12:00", True), ("22:00-06:00", "23:10", True), ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False), ("01:00-05:30", "05:29", True),
        ("01:00-05:30", "00:59", False),
    ],
)  # fmt: skip
def test_hours(hours, time, within) -> None:
    assert is_within(hours, datetime.fromisoformat(f"2026-11-29T{time}")) is within
