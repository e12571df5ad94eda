"""What files with several reports in them have in common: one report of a message or resource.

``Names`` are as the file has them, ``Keys`` what is left of them once they are hashed: enough to
find the study, and nobody's number.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from lapvqa.ingest.archives.protocol import Refusal, ReportText

_EXCEL = re.compile(r"""(?:="|'|"=")?(.*?)"?""")
"""How a spreadsheet keeps the zeros of 0004: ="0004" or '0004."""
_MOST_DIGITS = 12
Hash = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Names:
    """By what a report says which study it belongs to; each may be several."""

    study_uids: tuple[str, ...] = ()
    accessions: tuple[str, ...] = ()
    instance_uids: tuple[str, ...] = ()
    image_paths: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    """Patient IDs, which find no study but speak against one."""


class Keys(NamedTuple):
    """Names as keyed hashes; paths stay as they are."""

    studies: tuple[str, ...] = ()
    accessions: tuple[tuple[str, ...], ...] = ()
    """Of each number the key as it is written, then those in another case."""
    instances: tuple[str, ...] = ()
    image_paths: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    """All spellings."""


class Hashes(NamedTuple):
    """The functions that make keys; without one there are no keys of its kind."""

    study: Hash | None
    accession: Hash | None
    instance: Hash | None
    patient: Hash | None

    def keys(self, names: Names) -> Keys:
        """Return the keys of names."""
        numbers = (self.accession_keys(number) for number in names.accessions)
        return Keys(
            tuple(map(self.study, names.study_uids)) if self.study else (),
            tuple(filter(None, numbers)),
            tuple(map(self.instance, names.instance_uids)) if self.instance else (),
            names.image_paths,
            tuple(self.patient(one) for number in names.patients for one in _spellings(number))
            if self.patient
            else (),
        )

    def accession_keys(self, number: str) -> tuple[str, ...]:
        """Return the keys of an accession number: as it is written, and in another case."""
        written = _unquoted(number)
        if self.accession is None or not written:
            return ()
        cases = dict.fromkeys((written, written.upper(), written.lower()))
        return tuple(map(self.accession, cases))


def _unquoted(number: str) -> str:
    match = _EXCEL.fullmatch(number.strip())
    return match[1].strip() if match else ""


def _spellings(number: str) -> Iterator[str]:
    """Yield a patient's number as images may have it: spreadsheets drop zeros before it."""
    plain = _unquoted(number)
    yield from dict.fromkeys((plain, plain.upper(), plain.lower()))
    if plain.isdecimal():
        yield from (plain.zfill(width) for width in range(len(plain) + 1, _MOST_DIGITS + 1))
        yield plain.lstrip("0")


@dataclass(frozen=True, slots=True)
class Found:
    """One report within a file: its names, and its text or the reason why it has none."""

    names: Names
    text: ReportText | None
    stamp: tuple[int, int]
    """Length and digest of its own bytes: neighbours in the file do not change it."""
    refusal: Refusal | None = field(default=None)


def stamp_of_bytes(data: bytes, seed: bytes = b"") -> tuple[int, int]:
    """Return length and 63 bits of a digest."""
    digest = hashlib.blake2b(data, digest_size=8, key=seed[:64]).digest()
    return len(data), int.from_bytes(digest, "big") >> 1
