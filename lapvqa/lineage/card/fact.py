"""A value of the ledger, its place there, and how it is written.

A place is ``<first digits of the entry's id>/<JSON pointer into its payload>#<form>`` (RFC 6901,
percent-encoded where HTML would stumble).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from lapvqa.lineage.ledger import Entry

ID_DIGITS = 12
"""How much of an id a place names."""

FORMS: dict[str, Callable[[Any], str]] = {
    "value": lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True),
    "metric": lambda value: f"{value:.3f}",
    "exact": repr,
    "text": str,
    "short": lambda value: str(value)[:ID_DIGITS],
    "date": lambda value: datetime.fromtimestamp(value, UTC).date().isoformat(),
    "seconds": lambda value: f"{value:.1f}",
}
"""How a value is written; besides these ``key``, the last part of its place, ``dotted``, all parts
but the first, and ``id``, the entry's."""


@dataclass(frozen=True)
class Fact:
    """A text, and the place in the ledger that holds what it says."""

    text: str
    place: str


def fact(entry: Entry, *path: str, form: str = "value") -> Fact | None:
    """Return what stands at ``path`` of an entry's payload; None if nothing does."""
    place = f"{entry.id[:ID_DIGITS]}{_pointer(path)}#{form}"
    try:
        return Fact(resolve([entry], place), place)
    except LookupError:
        return None


def resolve(entries: Iterable[Entry], place: str) -> str:
    """Return the text that belongs to a place; LookupError if the ledger has no such place."""
    where, _, form = place.partition("#")
    id, _, pointer = where.partition("/")
    found = [entry for entry in entries if len(id) == ID_DIGITS and entry.id.startswith(id)]
    if len(found) != 1 or found[0].payload is None:
        raise LookupError(place)
    if form == "id":
        return found[0].id[:ID_DIGITS]
    value: Any = found[0].payload
    parts = [part.replace("~1", "/").replace("~0", "~") for part in unquote(pointer).split("/")]
    for part in parts:
        if not isinstance(value, dict) or part not in value:
            raise LookupError(place)
        value = value[part]
    if form in ("key", "dotted"):
        return parts[-1] if form == "key" else ".".join(parts[1:])
    try:
        return FORMS[form](value)
    except (KeyError, TypeError, ValueError) as error:
        raise LookupError(place) from error


def value_at(entry: Entry, *path: str) -> Any:
    """Return what stands at ``path`` of an entry's payload; None if nothing does."""
    value: Any = entry.payload
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def leaves(entry: Entry, *path: str) -> list[tuple[str, ...]]:
    """Return the paths of all values below ``path``, in order; lists are values."""
    value = value_at(entry, *path)
    if not isinstance(value, dict):
        return [] if value is None else [path]
    return [leaf for key in sorted(value) for leaf in leaves(entry, *path, key)]


def _pointer(path: Iterable[str]) -> str:
    parts = (part.replace("~", "~0").replace("/", "~1") for part in path)
    # "--" ends a comment of HTML.
    return "".join(f"/{quote(part, safe='~.@:')}" for part in parts).replace("--", "%2D%2D")
