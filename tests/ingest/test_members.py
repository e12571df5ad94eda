"""Members of zips and gzipped files: the bytes that were packed, or the fault by its name."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import random
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lapvqa.errors import DicomError
from lapvqa.ingest.archives import members
from lapvqa.ingest.archives.names import place, shown

LIMIT = 1 << 20
TIMES = itertools.count(1)


def zipped(folder: Path, content: dict[str, bytes], name: str = "a.zip") -> Path:
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in content.items():
            archive.writestr(member, data)
    return folder / name


def entries(folder: Path, name: str = "a.zip") -> members.Expanded:
    return members.expand(folder, [(name, 0, 0)])


def fault(folder: Path, path: str, limit: int = LIMIT) -> tuple[str, str]:
    with pytest.raises(DicomError) as caught:
        members.read_bytes(folder, path, limit)
    return caught.value.reason, caught.value.message


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="/\\\0:"), min_size=1).filter(
            lambda name: name not in (".", "..")
        ),
        st.binary(max_size=300).filter(lambda data: not data.startswith(b"\x1f\x8b\x08")),
        max_size=5,
    ),
    st.sampled_from(["", "DIR/", "DIR/deep/"]),
)
def test_members_are_listed_and_read_as_they_were_packed(
    tmp_path: Path, content: dict[str, bytes], above: str
) -> None:
    file = zipped(tmp_path, {above + name: data for name, data in content.items()})
    os.utime(file, ns=(1, next(TIMES)))  # all examples may be written within one tick of the clock
    listed = entries(tmp_path)
    assert not listed.faults
    found = {
        path: members.read_bytes(tmp_path, path, LIMIT, stamp=(size, crc))
        for path, size, crc in listed.entries
    }
    assert found == {f"a.zip/{above}{name}": data for name, data in content.items()}
    for path, size, crc in listed.entries:
        assert members.stamp_at(place(tmp_path, path)) == (size, crc)


def test_a_member_that_changed_or_is_gone_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    zipped(tmp_path, {"x": b"one", "y": b"other"})
    stamp = members.stamp_at(tmp_path / "a.zip/x")
    zipped(tmp_path, {"x": b"two"})
    with pytest.raises(DicomError) as caught:
        members.read_bytes(tmp_path, "a.zip/x", LIMIT, stamp=stamp)
    assert caught.value.reason == "changed"
    assert fault(tmp_path, "a.zip/y")[0] == "unreadable"
    with pytest.raises(FileNotFoundError):
        members.stamp_at(tmp_path / "a.zip/y")


def test_the_directory_of_a_zip_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(tmp_path, {f"{number}": b"x" for number in range(20)})
    opened = []
    real = zipfile.ZipFile

    def counting(file: Path) -> zipfile.ZipFile:
        opened.append(file)
        return real(file)

    monkeypatch.setattr(zipfile, "ZipFile", counting)
    for number in range(20):
        assert members.read_bytes(tmp_path, f"a.zip/{number}", LIMIT) == b"x"
    assert len(opened) == 1


def encrypted(folder: Path) -> None:
    zipped(folder, {"x": b"secret" * 9})
    data = bytearray((folder / "a.zip").read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (folder / "a.zip").write_bytes(data)


def damaged_member(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("x", b"A" * 99)
    data = bytearray((folder / "a.zip").read_bytes())
    data[data.index(b"A" * 99) + 50] ^= 1
    (folder / "a.zip").write_bytes(data)


def another_method(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x", bytes(1 << 20))


def cut_header(folder: Path) -> None:
    zipped(folder, {"x": b"A" * 99})
    data = bytearray((folder / "a.zip").read_bytes())
    data[:4] = b"\0\0\0\0"
    (folder / "a.zip").write_bytes(data)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (encrypted, "encrypted"),
        (damaged_member, "BadZipFile"),
        (another_method, "method 12"),
        (cut_header, "BadZipFile"),
    ],
)
def test_a_member_that_cannot_be_read_says_why(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path)
    reason, message = fault(tmp_path, "a.zip/x")
    assert reason == "bad_packing"
    assert words in message


def test_a_zip_whose_directory_is_damaged_is_one_fault(tmp_path: Path) -> None:
    whole = zipped(tmp_path, {"x": b"1" * 500}).read_bytes()
    for broken in (
        b"",
        b"PK",
        whole[:-10],
        whole[: len(whole) // 2],
        whole.replace(b"PK\1\2", b""),
    ):
        (tmp_path / "a.zip").write_bytes(broken)
        listed = entries(tmp_path)
        assert (list(listed.entries), list(listed.faults)) == ([], ["a.zip"])
    (tmp_path / "a.zip").unlink()
    assert list(entries(tmp_path).faults) == ["a.zip"]


def test_names_that_lead_out_of_the_zip_and_names_twice_are_faults(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("/etc/abs", "../up", "a/../../up", "C:/win", "twice", "./ok", "d/"):
            archive.writestr(name, name)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("twice", "twice")
        archive.writestr(zipfile.ZipInfo("DIR\\IM1"), b"of Windows")
    listed = entries(tmp_path)
    assert sorted({path for path, _, _ in listed.entries} - set(listed.faults)) == [
        "a.zip/DIR/IM1", "a.zip/ok", "a.zip/twice",
    ]  # fmt: skip
    assert len(listed.faults) == 5
    assert len({path for path, _, _ in listed.entries}) == len(listed.entries) == 8
    assert members.read_bytes(tmp_path, "a.zip/DIR/IM1", LIMIT) == b"of Windows"
    assert members.read_bytes(tmp_path, "a.zip/twice", LIMIT) == b"twice"
    assert not any(".." in path for path in listed.faults)


def test_a_bomb_costs_no_more_than_its_limit(tmp_path: Path) -> None:
    zipped(tmp_path, {"bomb": bytes(64 << 20)})
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(64 << 20)))
    zipped(tmp_path, {"x.gz": gzip.compress(bytes(64 << 20))}, "b.zip")
    for path in ("a.zip/bomb", "bomb.gz", "b.zip/x.gz"):
        assert fault(tmp_path, path)[0] == "too_large"
    code = f"""
import resource, sys
from pathlib import Path
from lapvqa.errors import DicomError
from lapvqa.ingest.archives import members
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20),) * 2)
for path in ("a.zip/bomb", "bomb.gz", "b.zip/x.gz"):
    try:
        members.read_bytes(Path({str(tmp_path)!r}), path, {LIMIT})
    except DicomError as error:
        assert error.reason == "too_large", error.reason
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_a_size_that_a_zip_understates_is_not_believed(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path, {"x": bytes(5000)}).read_bytes())
    place_of_size = data.index(b"PK\x01\x02") + 24
    data[place_of_size : place_of_size + 4] = (10).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data)
    assert fault(tmp_path, "a.zip/x")[0] == "bad_packing"


@pytest.mark.parametrize("tail", [b"", b"\0" * 512])
def test_gzip_gives_what_is_in_it(tmp_path: Path, tail: bytes) -> None:
    data = random.Random(1).randbytes(70_000)
    packed = gzip.compress(data[:40_000]) + gzip.compress(data[40_000:]) + tail
    (tmp_path / "x.dcm.gz").write_bytes(packed)
    status = (tmp_path / "x.dcm.gz").stat()
    stamp = status.st_size, status.st_mtime_ns
    assert members.read_bytes(tmp_path, "x.dcm.gz", LIMIT, stamp=stamp) == data
    zipped(tmp_path, {"x.dcm.gz": packed})
    assert members.read_bytes(tmp_path, "a.zip/x.dcm.gz", LIMIT) == data


def test_a_damaged_gzip_says_so(tmp_path: Path) -> None:
    whole = gzip.compress(random.Random(2).randbytes(5000))
    flipped = bytearray(whole)
    flipped[3000] ^= 0xFF
    for broken in (whole[:-4], whole[:-2000], whole[:10], bytes(flipped), whole + b"rubbish"):
        (tmp_path / "x.gz").write_bytes(broken)
        assert fault(tmp_path, "x.gz")[0] == "bad_packing"


def test_a_preamble_that_looks_like_gzip_is_a_preamble(tmp_path: Path) -> None:
    data = b"\x1f\x8b" + bytes(126) + b"DICM" + bytes(50)
    (tmp_path / "x.dcm").write_bytes(data)
    assert members.read_bytes(tmp_path, "x.dcm", LIMIT) == data


def test_what_cannot_be_opened_has_its_cause(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "failing").symlink_to("/proc/self/mem")  # its first page is not there: EIO
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"x")
    causes = {
        "loop": "Too many levels of symbolic links", "broken": "No such file",
        "failing": "Input/output error", "folder": "regular file", "pipe": "regular file",
        "file/in it": "a whole zip", "none": "No such file",
    }  # fmt: skip
    for path, words in causes.items():
        reason, message = fault(tmp_path, path)
        assert words in message, path
        assert reason in {"unreadable", "bad_packing"}


@given(st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 47} & set(name)))
def test_every_name_is_found_again_by_its_text(name: bytes) -> None:
    text = shown(os.fsdecode(name))
    text.encode()
    assert os.fsencode(place(Path("/"), text).name) == name or name in (b".", b"..")


@given(st.sets(st.binary(min_size=1, max_size=3).filter(lambda name: 0 not in name), max_size=20))
def test_two_names_never_have_one_text(names: set[bytes]) -> None:
    assert len({shown(os.fsdecode(name)) for name in names}) == len(names)
    literal = {rb"caf\xe9", b"caf\xe9", rb"caf\x5cxe9", rb"caf\\xe9"}
    assert len({shown(os.fsdecode(name)) for name in literal}) == 4


def test_an_archive_of_a_thousand_members_is_read_member_by_member_quickly(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{number}", b"x")
    (tmp_path / "a.zip").write_bytes(stream.getvalue())
    listed = entries(tmp_path)
    assert len(listed.entries) == 20_000
    for path, size, crc in listed.entries[::20]:
        assert members.read_bytes(tmp_path, path, LIMIT, stamp=(size, crc)) == b"x"
