"""Hold a finished card against the ledger: every number has a place there, and says what it says.

Reads Markdown and HTML. Words of the page itself hold no digit, so a digit without a place is an
orphan, whoever put it there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lapvqa.lineage.card import html, markdown
from lapvqa.lineage.card.fact import ID_DIGITS, resolve
from lapvqa.lineage.ledger import Entry

_PLACE = re.compile(r"(?:<!--|  # )@(\S+?)(?:-->|$)", re.MULTILINE)
_TAG = re.compile(r"<style>.*?</style>|<[a-zA-Z/!][^>]*>", re.DOTALL)
_FORMS = (str, markdown.escaped, markdown.quoted, html.escaped)


def faults(page: str, entries: Sequence[Entry]) -> list[str]:
    """Return what a card says that the ledger does not, by line; nothing if all holds."""
    found: list[tuple[int, str]] = []
    end, without_places = 0, ""
    for match in _PLACE.finditer(page):
        before = page[end : match.start()]
        end = match.end()
        said, fault = _without(before, match[1], entries)
        if fault:
            found.append((page.count("\n", 0, match.start()) + 1, fault))
        without_places += said
    without_places += page[end:]
    plain = _TAG.sub(lambda tag: "\n" * tag[0].count("\n"), without_places)
    for number, text in enumerate(plain.split("\n"), start=1):
        for digits in re.findall(r"\S*\d\S*", text):
            found.append((number, f"{digits!r} names no place in the ledger"))
    return [f"line {number}: {fault}" for number, fault in sorted(found)]


def count(page: str) -> int:
    """Return how many values of a card name a place in the ledger."""
    return len(_PLACE.findall(page))


def cited(page: str, entries: Sequence[Entry]) -> set[str]:
    """Return the ids of the entries that a card names."""
    firsts = {place.partition("/")[0].partition("#")[0] for place in _PLACE.findall(page)}
    return {entry.id for entry in entries if entry.id[:ID_DIGITS] in firsts}


def _without(before: str, place: str, entries: Sequence[Entry]) -> tuple[str, str | None]:
    """Return a text without the fact that it ends with; and what is wrong with that fact."""
    try:
        expected = resolve(entries, place)
    except LookupError:
        return re.sub(r"\S+$", "", before), f"the ledger has no place {place}"
    for form in _FORMS:
        if before.endswith(form(expected)):
            return before[: -len(form(expected))], None
    before = before.rstrip(" ")
    said = re.split(r"[|>\n]", before)[-1].strip()
    return before[: len(before) - len(said)], (
        f"the card says {said!r}, the ledger {expected!r} at {place}"
    )
