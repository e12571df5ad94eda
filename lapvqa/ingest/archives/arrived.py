"""Where a report that has arrived lies in a tree (``lapvqa.intake``), and when it came.

    <source>/reports/<ab>/<digest of the file>-<yyyymmddhhmmss>.hl7
    <source>/reports/<ab>/<digest of the file>-<yyyymmddhhmmss>/A100.txt

The time is in the name, not in the file's own times, which a copy of the archive changes.
"""

from __future__ import annotations

import re

FOLDER = "reports"
_PLACE = re.compile(r"(?:^|/)reports/[0-9a-f]{2}/[0-9a-f]{16}-(\d{14})(?=[./#])")


def place_of(digest: str, time: str) -> str:
    """Return the place below a source's folder, without a suffix, of 16 hex and 14 decimal digits.

    ``time`` is UTC.
    """
    return f"{FOLDER}/{digest[:2]}/{digest}-{time}"


def arrival_of(path: str) -> str:
    """Return when a report came, yyyymmddhhmmss; empty if its path does not say."""
    match = _PLACE.search(path)
    return match[1] if match else ""
