"""Hold a finished card against the ledger: it is made anew and compared, byte for byte.

The same ledger gives the same bytes, so a card that differs was changed, or the ledger has grown.
What differs is said by value first: every number has a place in the ledger, and says what stands
there. Words of the page itself hold no digit, so a digit without a place is an orphan.

Reads Markdown and HTML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

from lapvqa.lineage.ancestry import Ancestry, Told
from lapvqa.lineage.card import document, html, markdown
from lapvqa.lineage.card.fact import ID_DIGITS, resolve
from lapvqa.lineage.ledger import Entry

_PLACE = re.compile(r"(?:<!--|  # )@(\S+?)(?:-->|$)", re.MULTILINE)
_TAG = re.compile(r"<style>.*?</style>|<[a-zA-Z/!][^>]*>", re.DOTALL)
_FORMS = (str, markdown.escaped, markdown.quoted, html.escaped)
_SHOWN = 100
"""Characters of a line that are shown."""


def differences(page: str, entries: Sequence[Entry], *, model: Told | None = None) -> list[str]:
    """Return in what a finished card is not the one that the ledger gives; nothing if it is.

    The card is that of ``model``, else of the one that it names first.
    """
    found = faults(page, entries)
    ancestry = Ancestry(list(entries))
    model = model or _named(page, ancestry)
    if model is None:
        return [*found, "it names no model of this ledger at its beginning"]
    if difference := _first_difference(page, _made(page, ancestry, model)):
        known = cited(page, entries)
        newest = max(entry.number for entry in entries if entry.id in known)
        then = Ancestry(list(entries[: newest + 1]))
        if not found and model.id in then.runs and page == _made(page, then, model):
            difference += (
                f"; as the ledger stood after entry {newest + 1} of {len(entries)} it was the card"
            )
        found.append(difference)
    return found


def _named(page: str, ancestry: Ancestry) -> Told | None:
    """Return the model whose weights a card names first."""
    first = _PLACE.search(page)
    id = first[1].partition("/")[0] if first else ""
    models = (told for told in ancestry.runs.values() if told.weights)
    return next((told for told in models if told.id[:ID_DIGITS] == id), None)


def _made(page: str, ancestry: Ancestry, model: Told) -> str:
    """Return the model's card in the form of ``page``."""
    is_html = page.lstrip().lower().startswith(("<!doctype", "<html"))
    return (html.render if is_html else markdown.render)(document.card(ancestry, model))


def _first_difference(page: str, made: str) -> str | None:
    pairs = zip_longest(page.split("\n"), made.split("\n"))
    for number, (said, expected) in enumerate(pairs, start=1):
        if said != expected:
            said, expected = (_shown(line, of) for line, of in ((said, expected), (expected, said)))
            return f"line {number}: the card says {said}, the ledger gives {expected}"
    return None


def _shown(line: str | None, other: str | None) -> str:
    """Return a line for people: without places if it differs without them, and not too long."""
    if line is None:
        return "no more"
    bare, bare_other = (_PLACE.sub("", text) for text in (line, other or ""))
    text = bare if bare != bare_other else line
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


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
