"""Files are whole or absent; full disks and second runs get a clear answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from lapvqa import schemas, storage
from lapvqa.errors import BusyError, MissingArtifactError, SchemaError

SMALL = pa.schema([pa.field("a", pa.int32(), nullable=False)])


def test_failure_keeps_the_old_content_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "f"
    storage.write_bytes(target, b"old")

    def write_half() -> None:
        with storage.atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_two_threads_may_write_the_same_file(tmp_path: Path) -> None:
    """The run's and the work's both keep what MLflow is to be told of a stage that begins."""
    path = tmp_path / "record.json"
    with storage.atomic_path(path) as temporary:
        temporary.write_bytes(b"later")
        other = threading.Thread(target=storage.write_bytes, args=(path, b"earlier"))
        other.start()
        other.join()
        assert path.read_bytes() == b"earlier"
    assert path.read_bytes() == b"later"
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_a_hard_link_is_never_written_through(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "cache", b"old")
    os.link(tmp_path / "cache", tmp_path / "f")
    storage.write_bytes(tmp_path / "f", b"new")
    assert (tmp_path / "cache").read_bytes() == b"old"


def test_no_space_says_what_to_do_and_loses_nothing(tmp_path: Path) -> None:
    script = f"""
import resource, signal
from pathlib import Path
from lapvqa import storage
from lapvqa.errors import StorageFullError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
target = Path({str(tmp_path / "f")!r})
storage.write_bytes(target, b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    storage.write_bytes(target, bytes(5000))
except StorageFullError as error:
    print(error)
print(target.read_bytes())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "no space left while writing f" in done.stdout
    assert "free disk space" in done.stdout
    assert "b'old'" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_tables_are_checked_on_write_and_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(SchemaError, match=r"missing columns \['a'\], unexpected columns \['b'\]"):
        storage.write_table(path, pa.table({"b": [1]}), SMALL)
    with pytest.raises(SchemaError, match="column a is int64, expected int32"):
        storage.write_table(path, pa.table({"a": [1]}), SMALL)
    storage.write_table(path, pa.table({"a": pa.array([1], pa.int32())}), SMALL)
    assert storage.read_table(path, SMALL, made_by="x").to_pydict() == {"a": [1]}
    with pytest.raises(SchemaError):
        storage.read_table(path, schemas.INVENTORY, made_by="inventory")
    path.write_bytes(b"PAR1 broken")
    with pytest.raises(SchemaError, match="unreadable"):
        storage.read_table(path, SMALL, made_by="x")
    with pytest.raises(MissingArtifactError, match="lapvqa run --stage tokens"):
        storage.read_table(tmp_path / "none", SMALL, made_by="tokens")


def test_table_bytes_depend_on_the_values_alone(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([3, 1], pa.int32())})
    storage.write_table(tmp_path / "x", table, SMALL)
    storage.write_table(tmp_path / "y", table, SMALL)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        storage.write_json(tmp_path / "j", {"auc": float("nan")})


def test_the_second_holder_learns_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with (
        storage.lock(path, what="a run"),
        pytest.raises(BusyError, match=f"a run is already running: process {os.getpid()} on"),
        storage.lock(path, what="a run"),
    ):
        pass
    with storage.lock(path, what="a run"):
        pass


def test_a_killed_holder_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    script = (
        "import os, signal; from pathlib import Path; from lapvqa import storage\n"
        f"with storage.lock(Path({str(path)!r}), what='a run'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    with storage.lock(path, what="a run"):
        pass
