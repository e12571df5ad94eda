from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.images.shards import ShardStore, write_shard


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 384, 384)).astype(np.uint8)


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    first, second = images(5, 1), images(3, 2)
    write_shard(tmp_path / "images-00000.arrow", list("abcde"), first)
    write_shard(tmp_path / "images-00001.arrow", list("fgh"), second)
    store = ShardStore(tmp_path)
    names = ["images-00001.arrow", "images-00000.arrow", "images-00001.arrow"]
    found = store.read(names, [2, 4, 0])
    assert np.array_equal(found, np.stack([second[2], first[4], second[0]]))
    found[:] = 0  # a copy: the mapped file stays as it was
    assert np.array_equal(store.read(names[:1], [2])[0], second[2])
    assert np.array_equal(pickle.loads(pickle.dumps(store)).read(names[:1], [2])[0], second[2])
    assert store.read([], []).shape == (0, 384, 384)


def test_a_shard_is_a_plain_arrow_file_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one.arrow", "two.arrow"):
        write_shard(tmp_path / name, ["a", "b"], images(2))
    assert (tmp_path / "one.arrow").read_bytes() == (tmp_path / "two.arrow").read_bytes()
    with pa.memory_map(str(tmp_path / "one.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table.column("image_key").to_pylist() == ["a", "b"]
    assert table.column("pixels")[1].as_py() == images(2)[1].tobytes()


def test_mapping_keeps_no_file_open(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for index in range(20):
        write_shard(tmp_path / f"{index}.arrow", ["a"], images(1, index))
        store.read([f"{index}.arrow"], [0])
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_missing_and_damaged_shards_are_named(tmp_path: Path) -> None:
    path = tmp_path / "images-00007.arrow"
    with pytest.raises(MissingArtifactError, match="images-00007"):
        ShardStore(tmp_path).read([path.name], [0])
    write_shard(path, ["a", "b"], images(2))
    with pytest.raises(SchemaError, match="images-00007.*2 rows"):
        ShardStore(tmp_path).read([path.name], [2])
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[1000:], b"", whole[:-10]):
        path.write_bytes(damaged)
        with pytest.raises(SchemaError, match="images-00007"):
            ShardStore(tmp_path).read([path.name], [0])


def test_mismatched_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 keys"):
        write_shard(tmp_path / "a.arrow", ["a", "b", "c"], images(2))
    assert not list(tmp_path.iterdir())
