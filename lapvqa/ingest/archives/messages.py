"""What files with several reports in them have in common: one report of a message or resource."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from lapvqa.ingest.archives.protocol import Refusal, ReportText


@dataclass(frozen=True, slots=True)
class Names:
    """By what a report says which study it belongs to; each may be several."""

    study_uids: tuple[str, ...] = ()
    accessions: tuple[str, ...] = ()
    instance_uids: tuple[str, ...] = ()
    image_paths: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    """Patient IDs, which find no study but speak against one."""


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
