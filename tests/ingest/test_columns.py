"""What is done to whole columns, beside the same done value by value."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from lapvqa.ingest import columns
from lapvqa.ingest.archives.kinds import by_name, by_names
from lapvqa.ingest.archives.mimic import MimicArchive, MimicJpgArchive
from lapvqa.ingest.archives.names import NO_FILE
from lapvqa.ingest.archives.openi import OpenIArchive
from lapvqa.ingest.archives.protocol import one_by_one
from lapvqa.ingest.archives.tree import TreeArchive
from lapvqa.schemas import INVENTORY

LOOKBEHIND = re.compile(r"(?<=s50414267/)\d?")
TEXTS = st.lists(st.none() | st.text("ab\u00e9", max_size=3), max_size=30)


def array(values: list[str | None]) -> pa.Array:
    return pa.array(values, pa.string())


@given(TEXTS, TEXTS)
def test_positions_are_those_of_the_first(
    values: list[str | None], within: list[str | None]
) -> None:
    expected = [within.index(v) if v is not None and v in within else -1 for v in values]
    rows = columns.positions(array(values), array(within))
    assert rows.tolist() == expected
    found = [None if row < 0 else within[row] for row in expected]
    assert columns.picked(array(within), rows).to_pylist() == found


@given(TEXTS)
def test_numbers_stand_for_values(values: list[str | None]) -> None:
    known = sorted({value for value in values if value is not None})
    expected = [-1 if value is None else known.index(value) for value in values]
    assert columns.numbered(array(values)).tolist() == expected
    for numbers in (columns.numbered(array(values)), columns.unordered(array(values))):
        assert columns.first_of(numbers).tolist() == [values.index(value) for value in values]
    assert columns.mapped(array(values), str.upper).to_pylist() == [
        None if value is None else value.upper() for value in values
    ]
    assert columns.is_set(array(values)).tolist() == [bool(value) for value in values]
    assert columns.is_one_of(array(values), ["a", None]).tolist() == [
        value in ("a", None) for value in values
    ]


@given(TEXTS)
def test_a_table_in_order_is_the_sorted_one(values: list[str | None]) -> None:
    known = [value for value in values if value is not None]
    table = pa.table({"path": array(known), "row": range(len(known))})
    assert columns.in_order(table)["path"].to_pylist() == sorted(known)
    assert columns.in_order(table)["row"].to_pylist() == sorted(
        range(len(known)), key=lambda row: (known[row], row)
    )


SCHEMA = pa.schema(
    [("a", pa.string()), ("b", pa.float64()), ("c", pa.list_(pa.string())), ("d", pa.bool_())]
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a": st.none() | st.text("ab", max_size=2),
            "b": st.none() | st.sampled_from([0.0, 0.5]),
            "c": st.none() | st.lists(st.none() | st.text("ab", max_size=2), max_size=2),
            "d": st.none() | st.booleans(),
        }
    ),
    max_size=4,
)


@given(ROWS, ROWS)
def test_a_digest_tells_tables_apart_and_not_how_they_lie_in_memory(one: list, two: list) -> None:
    first, second = (pa.Table.from_pylist(rows, schema=SCHEMA) for rows in (one, two))
    same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    assert (columns.digest(first) == columns.digest(second)) == same
    both = pa.concat_tables([first, second])
    assert columns.digest(both.slice(len(first))) == columns.digest(second)
    assert columns.digest(both) == columns.digest(both.combine_chunks())
    assert columns.digest(both) == columns.digest(both.take(pa.array(np.arange(len(both)))))


PARTS = st.sampled_from([".", "..", "/", "../", "a", ".hidden", "b.dcm", ".DCM", ";1", "\\x2e"])
SUFFIXES = st.sampled_from(["", ".dcm", ".txt", ".gz", ".dcm.gz", ".jpg", ".zip", ".x", ".\u00e9"])


@given(
    st.lists(
        st.tuples(
            st.tuples(st.lists(PARTS, max_size=4).map("".join), SUFFIXES).map("".join),
            st.sampled_from([0, 1]),
            st.sampled_from([NO_FILE, 0, 1]),
        ),
        max_size=20,
    )
)
def test_kinds_of_many_names_are_those_of_each(entries: list[tuple[str, int, int]]) -> None:
    paths, sizes, times = zip(*entries, strict=True) if entries else ((), (), ())
    listed = pa.table([paths, sizes, times], schema=INVENTORY)
    assert by_names(listed).tolist() == [by_name(*entry) for entry in entries]


PIECES = st.sampled_from(
    [
        "files/", "p10/", "/", "p10000032/", "s50414267/", "s50414267", "0a-1b", ".dcm", ".DCM",
        ".dicom", ".gz", ".jpg", ".png", ".txt", "é", "\n", "x.zip/", "p١٠/", "s٥٠٤١٤٢٦٧/", ".",
    ]
)  # fmt: skip
WHOLE = st.tuples(st.sampled_from(["", "a/", "é/", "\n/"]), PIECES).map(
    lambda parts: f"{parts[0]}p10/p10000032/s50414267/x.dcm{parts[1]}"
)
NAMES = st.lists(st.lists(PIECES, max_size=7).map("".join) | WHOLE, max_size=12)


@given(NAMES)
def test_ids_of_many_paths_are_those_of_each(paths: list[str]) -> None:
    for kind in (MimicArchive, MimicJpgArchive, TreeArchive):
        archive = object.__new__(kind)
        named, is_known = archive.all_ids(array(list(paths)))
        expected, among = one_by_one(archive.ids, array(list(paths)))
        assert named.to_pylist() == expected.to_pylist()
        assert is_known.tolist() == among.tolist()


@given(NAMES, st.sampled_from([MimicArchive.pattern, OpenIArchive.pattern, LOOKBEHIND]))
def test_what_a_pattern_finds_in_many_texts_it_finds_in_each(
    paths: list[str], pattern: re.Pattern[str]
) -> None:
    expected = [path for path in paths if pattern.search(path)]
    assert columns.matching(array(list(paths)), pattern).to_pylist() == expected
