"""Whole columns at once: to look values up, to map them, to find the first of each.

Everything that ingest knows of its files is columns of a table in order of path. A rule that holds
for 377,110 files is then a few passes over arrays, not a call for each file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Column: TypeAlias = pa.Array | pa.ChunkedArray


def whole(column: Column) -> pa.Array:
    """Return a column in one piece."""
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def positions(values: Column, within: Column) -> Rows:
    """Return where each value first stands in ``within``; -1: nowhere, as null does."""
    found = pc.index_in(whole(values), value_set=whole(within), skip_nulls=True)
    rows: Rows = found.fill_null(-1).to_numpy().astype(np.int64)
    return rows


def picked(column: Column, rows: Rows) -> pa.Array:
    """Return the values in ``rows``; null for -1."""
    return whole(column).take(pa.array(rows, mask=rows < 0))


def taken(table: pa.Table, rows: Rows) -> pa.Table:
    """Return ``rows`` of a table, without a copy if they are all of them in their order."""
    if len(rows) == len(table) and np.array_equal(rows, np.arange(len(rows))):
        return table
    return table.take(pa.array(rows))


def kept(table: pa.Table, where: Mask) -> pa.Table:
    """Return the rows in ``where``, without a copy if they are all of them."""
    return table if where.all() else table.filter(pa.array(where))


def in_order(table: pa.Table, name: str = "path") -> pa.Table:
    """Return a table in the order of one of its columns, without a copy if it is in order."""
    column = whole(table[name])
    if pc.all(pc.less_equal(column[:-1], column[1:])).as_py() is not False:
        return table
    return table.take(pc.sort_indices(column))


def is_set(column: Column) -> Mask:
    """Return where a column of texts is neither null nor empty."""
    mask: Mask = whole(pc.fill_null(pc.not_equal(column, ""), False)).to_numpy(zero_copy_only=False)
    return mask


def is_valid(column: Column) -> Mask:
    """Return where a column is not null."""
    mask: Mask = whole(pc.is_valid(column)).to_numpy(zero_copy_only=False)
    return mask


def is_one_of(column: Column, values: Column | Collection[str | None]) -> Mask:
    """Return where a column has one of ``values``; None among them stands for null."""
    wanted = whole(values) if isinstance(values, Column) else pa.array(list(values), pa.string())
    mask: Mask = pc.is_in(whole(column), value_set=wanted).to_numpy(zero_copy_only=False)
    return mask


def mapped(column: Column, function: Callable[[str], str | None]) -> pa.Array:
    """Return ``function`` of each text, which is asked once for equal ones; null stays null."""
    encoded = whole(column).dictionary_encode()
    values = [function(value) for value in encoded.dictionary.to_pylist()]
    return pa.array(values, pa.string()).take(encoded.indices)


def matching(column: Column, pattern: re.Pattern[str]) -> pa.Array:
    """Return the texts in which a pattern finds something.

    Arrow's engine is asked first, which is ten times as fast; of texts beyond ASCII, in which it
    knows neither digits nor letters, and of several lines Python's.
    """
    texts = whole(column)
    flags = "(?i)" if pattern.flags & re.IGNORECASE else ""
    try:
        asked = pc.match_substring_regex(texts, flags + pattern.pattern)
    except pa.ArrowInvalid:  # it knows no assertions either
        asked = pa.array(np.zeros(len(texts), bool))
        odd = np.arange(len(texts))
    else:
        is_plain = pc.and_not(pc.string_is_ascii(texts), pc.match_substring(texts, "\n"))
        is_plain = is_plain.to_numpy(zero_copy_only=False)
        odd = np.flatnonzero(~is_plain.astype(bool))
    found = asked.to_numpy(zero_copy_only=False).astype(bool)
    for row in odd:
        found[row] = pattern.search(texts[row].as_py()) is not None
    return texts.filter(pa.array(found))


def replaced(table: pa.Table, columns: Mapping[str, object]) -> pa.Table:
    """Return a table with other values in some of its columns, or with more columns."""
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        if place < 0:
            table = table.append_column(name, values)
        elif isinstance(values, Column):
            table = table.set_column(place, name, values)
        else:
            table = table.set_column(place, name, pa.array(values, table.schema.types[place]))
    return table


def unordered(column: Column) -> Rows:
    """Return a number for each value, in no order that means anything; null is -1."""
    codes: Rows = whole(column).dictionary_encode().indices.fill_null(-1).to_numpy()
    return codes.astype(np.int64)


def numbered(column: Column) -> Rows:
    """Return a number for each value, by their order; null is the value -1."""
    encoded = whole(column).dictionary_encode()
    rank = np.empty(len(encoded.dictionary), np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    codes = encoded.indices.fill_null(-1).to_numpy()
    return np.where(codes < 0, -1, rank[codes]) if len(rank) else codes.astype(np.int64)


def counted(column: Column) -> dict[str, int]:
    """Return how often each text occurs, most frequent first; null counts as None by name."""
    counts = pc.value_counts(whole(column)).to_pylist()
    found = [(str(pair["values"]), pair["counts"]) for pair in counts]
    return dict(sorted(found, key=lambda pair: -pair[1]))


def first_of(numbers: Rows) -> Rows:
    """Return for each element the place of the first one that has its number (from -1 up)."""
    first = np.zeros(numbers.max(initial=-1) + 2, np.int64)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]  # of several writes the last one stays
    return first[numbers]


def digest(table: pa.Table) -> str:
    """Return 16 hex digits of a sha256 of a table's values, column by column."""
    state = hashlib.sha256()
    for name in table.column_names:
        state.update(f"{name}:{len(table)}\n".encode())
        _add(state, whole(table[name]))
    return state.hexdigest()[:16]


def _add(state: hashlib._Hash, column: pa.Array) -> None:
    """Add what is null, and the values: of texts and lists the lengths and all of them joined."""
    state.update(column.is_valid().to_numpy(zero_copy_only=False).tobytes())
    if pa.types.is_list(column.type):
        state.update(column.value_lengths().fill_null(0).to_numpy().astype("<i4").tobytes())
        _add(state, column.flatten())
    elif pa.types.is_string(column.type):
        texts = column.fill_null("")
        state.update(pc.binary_length(texts).to_numpy().astype("<i4").tobytes())
        _, offsets, data = texts.buffers()
        first, end = np.frombuffer(offsets, np.int32)[[texts.offset, texts.offset + len(texts)]]
        state.update(memoryview(data)[first:end] if data else b"")
    else:
        numbers = column.fill_null(pa.scalar(0).cast(column.type)).to_numpy(zero_copy_only=False)
        state.update(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())
