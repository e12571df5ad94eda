"""Files by column name: what does not fit is named with file, line and column."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lapvqa.datasets import tables
from lapvqa.errors import SourceError


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def rows(path: Path, *columns: str, **options) -> list[tuple[int, dict[str, str]]]:
    return list(tables.read_rows(path, columns, **options))


def test_columns_by_name_with_line_numbers(tmp_path):
    path = write(tmp_path / "a.csv", '\ufeffb, a ,c\n1,"x, y",3\n\n4, 5 ,6\n')
    assert rows(path, "a", "b") == [(2, {"a": "x, y", "b": "1"}), (4, {"a": "5", "b": "4"})]


def test_a_gzipped_copy_reads_alike(tmp_path):
    plain = write(tmp_path / "a.csv", "a\n1\n")
    packed = write(tmp_path / "b.csv.gz", gzip.compress(b"a\n1\n"))
    assert rows(plain, "a") == rows(packed, "a")
    assert tables.find(tmp_path, ["b.csv"]) == packed


def test_a_damaged_gzip_file_is_named(tmp_path):
    whole = gzip.compress(b"a\n" + bytes(range(97, 123)) * 500)
    for name, content in (("cut", whole[:-20]), ("text", b"a\n1\n")):
        path = write(tmp_path / f"{name}.csv.gz", content)
        with pytest.raises(SourceError, match=rf"{name}.csv.gz: expected a whole gzip file"):
            rows(path, "a")


def test_optional_columns_are_absent_not_empty(tmp_path):
    path = write(tmp_path / "a.csv", "a,b\n1,\n")
    assert rows(path, "a", optional=("b", "c")) == [(2, {"a": "1", "b": ""})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b,c\n1,2\n", r"a.csv: expected the column 'a', found 'b', 'c'"),
        ("", r"a.csv: expected the column 'a', found"),
        ("b,a\n1,2\n1\n", r"a.csv, line 3: expected a value for each of a; the line ends too"),
        ("a,b\n1,x, y\n", r"a.csv, line 2: expected 2 fields as in the header, found 3"),
        ("a,a\n1,2\n", r"expected the column 'a' once, found it twice"),
        (b"a\n\xff\xfe\n", r"a.csv: expected text in UTF-8"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, text, message):
    with pytest.raises(SourceError, match=message) as found:
        rows(write(tmp_path / "a.csv", text), "a")
    assert found.value.hint


def test_more_names_than_fields_is_no_fault(tmp_path):
    assert rows(write(tmp_path / "a.csv", "a,b,,,\n1,2\n"), "b") == [(2, {"b": "2"})]


def test_a_file_that_lies_deeper_is_named_in_the_hint(tmp_path):
    deep = tmp_path / "physionet.org" / "files" / "x" / "1.0.0"
    deep.mkdir(parents=True)
    write(deep / "a.csv.gz", gzip.compress(b"a\n"))
    with pytest.raises(SourceError, match=r"expected a.csv in.*\n.*physionet.org/files/x/1.0.0"):
        tables.find(tmp_path, ["a.csv"])
    with pytest.raises(SourceError, match=r"expected b.csv or c.csv in.*\n.*or download it"):
        tables.find(tmp_path, ["b.csv", "c.csv"])
    with pytest.raises(SourceError, match="expected a.csv"):
        tables.find(tmp_path / "nowhere", ["a.csv"])


def test_numbers_and_words(tmp_path):
    assert tables.whole("7.0", "c", "p") == 7
    assert tables.number("-1e2", "c", "p") == -100
    for call in (tables.number, tables.whole):
        for text in ("", "x", "nan", "inf"):
            with pytest.raises(SourceError, match=f"p: column c is {text!r}, expected a number"):
                call(text, "c", "p")
    with pytest.raises(SourceError, match=r"'7\.5', expected a whole number"):
        tables.whole("7.5", "c", "p")
    with pytest.raises(SourceError, match="'tests'; nearest known: test"):
        tables.choice("tests", {"train": 1, "test": 2}, "split", "p")
    with pytest.raises(SourceError, match="'qqq'; known: train, test"):
        tables.choice("qqq", {"train": 1, "test": 2}, "split", "p")


def test_json_members(tmp_path):
    path = write(tmp_path / "a.json", json.dumps([{"a": 1, "b": True, "c": "x"}]))
    (entry,) = tables.read_json(path, list)
    assert tables.member(entry, "a", int, "p") == 1
    assert tables.member_of(entry, "c", (str, int), "p") == "x"
    for name, kind, message in (
        ("z", int, "p: expected the key 'z', found a, b, c"),
        ("c", int, "p: key c is of type str, expected int"),
        ("b", int, "p: key b is of type bool, expected int"),
    ):
        with pytest.raises(SourceError, match=message):
            tables.member(entry, name, kind, "p")
    with pytest.raises(SourceError, match="p: expected the key 'z', found int"):
        tables.member(5, "z", int, "p")
    with pytest.raises(SourceError, match=r"a.json: expected a JSON dict, found a list"):
        tables.read_json(path, dict)
    with pytest.raises(SourceError, match=r"b.json: expected JSON, found other text"):
        tables.read_json(write(tmp_path / "b.json", "[1, 2"), list)


def test_the_room_needs_no_torch():
    code = (
        "import sys, lapvqa.datasets.vindr, lapvqa.datasets.ms_cxr, lapvqa.datasets.diff_vqa, "
        "lapvqa.datasets.ext_vqa, lapvqa.datasets.pictures; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
