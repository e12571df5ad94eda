from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path

import pyarrow as pa
import pytest
from jobs import make_job

from lapvqa.errors import ConfigError
from lapvqa.identity import DEMO_KEY, Keyring, key_id, load_key
from lapvqa.ingest.one_file import split_point
from lapvqa.ingest.verdicts import splits_of
from lapvqa.machine import Machine
from lapvqa.params import SplitParams
from lapvqa.project import Project
from lapvqa.recorder import Recorder


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path / "record.jsonl", stage="inventory")


def test_keys_are_keyed_hashes_by_kind() -> None:
    ring = Keyring(b"a key of some length")
    digest = hmac.new(b"a key of some length", b"image:abc", hashlib.sha256).hexdigest()
    assert ring.image("abc") == digest[:16]
    assert len({ring.image("abc"), ring.study("abc"), ring.patient("abc")}) == 3
    assert Keyring(b"another key, as long").image("abc") != ring.image("abc")
    assert Keyring(b"a key of some length", keep_ids=True).patient("abc") == "abc"


def test_a_project_makes_its_key_once_and_shows_it_to_nobody(
    tmp_path: Path, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path / "project")
    key = load_key(tmp_path, make_job(project, Machine(), recorder))
    path = project.state / "deid.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(tmp_path, make_job(project, Machine(), recorder)) == key
    assert load_key(tmp_path, make_job(Project(tmp_path / "other"), Machine(), recorder)) != key
    said = capsys.readouterr().out
    assert "deid.key" in said
    assert key.decode() not in said
    assert len(key_id(key)) == 8


def test_the_demo_has_a_published_key_and_a_named_file_goes_first(
    tmp_path: Path, recorder: Recorder
) -> None:
    (tmp_path / "DEMO.json").write_text("{}")
    project = Project(tmp_path)
    assert load_key(tmp_path, make_job(project, Machine(), recorder)) == DEMO_KEY
    assert not (project.state / "deid.key").exists()
    (tmp_path / "my.key").write_text("0123456789abcdef\n")
    machine = Machine(deid_key_file="my.key")
    assert load_key(tmp_path, make_job(project, machine, recorder)) == b"0123456789abcdef"


@pytest.mark.parametrize("content", [None, "short"])
def test_an_unusable_key_file_is_named(
    tmp_path: Path, recorder: Recorder, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "my.key").write_text(content)
    with pytest.raises(ConfigError, match="my.key"):
        load_key(tmp_path, make_job(Project(tmp_path), Machine(deid_key_file="my.key"), recorder))


def test_split_points_are_spread_evenly_and_stay_with_the_patient() -> None:
    params = SplitParams(validate=0.1, test=0.2, seed=0)
    points = pa.array([split_point(0, str(number)) for number in range(20_000)])
    splits = splits_of(points, params).to_pylist()
    assert abs(splits.count("validate") / 20_000 - 0.1) < 0.01
    assert abs(splits.count("test") / 20_000 - 0.2) < 0.01
    assert split_point(0, "7") == split_point(0, "7")
    assert split_point(0, "7") != split_point(1, "7")
    larger = SplitParams(validate=0.1, test=0.3, seed=0)
    moved = zip(splits, splits_of(points, larger).to_pylist(), strict=True)
    assert {pair for pair in moved if pair[0] != pair[1]} == {("train", "test")}
    assert splits_of(pa.array([None, 0.5]), params).to_pylist() == ["", "train"]
