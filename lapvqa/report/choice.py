"""Which samples the page shows: by rule, never by how well an answer came out.

In the order of the SHA-256 of their name, which means nothing; one of each group in turn, so that
every kind of question, phrase or study is seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.report.names import SYSTEMS

Row = dict[str, Any]


def choose(samples: Iterable[tuple[str, str]], count: int) -> list[str]:
    """Return ``count`` of (name, group): groups in their order, one name of each in turn."""
    groups: dict[str, list[str]] = {}
    for name, group in sorted(set(samples), key=lambda one: _digest(one[0])):
        groups.setdefault(group, []).append(name)
    turns = chain.from_iterable(zip_longest(*(groups[one] for one in sorted(groups))))
    return [name for name in turns if name is not None][:count]


def rows_by_sample(predictions: pa.Table, samples: list[str]) -> dict[str, dict[str, Row]]:
    """Return sample -> system -> row, samples as given, systems in the order shown."""
    rows = predictions.filter(pc.is_in(predictions["sample"], pa.array(samples, pa.string())))
    found = {(row["sample"], row["system"]): row for row in rows.to_pylist()}
    return {
        sample: {name: found[sample, name] for name in systems_of(rows) if (sample, name) in found}
        for sample in samples
    }


def systems_of(predictions: pa.Table) -> list[str]:
    """Return the systems present, in the order shown."""
    present = set(pc.unique(predictions["system"]).to_pylist())
    return [*(name for name in SYSTEMS if name in present), *sorted(present - set(SYSTEMS))]


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
