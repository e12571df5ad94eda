"""Which patients are kept for the sealed test set: a keyed share, fixed the day they arrive.

By the hash of the patient's key alone: a patient is reserved or not whatever else is known of them,
now and at every later delivery, on every machine that has the archive's key.
"""

from __future__ import annotations

import hashlib

_PURPOSE = "sealed test set"


def is_reserved(patient_key: str, *, share: float, round_name: str = "") -> bool:
    """Tell whether a patient belongs to the sealed share (0..1); ``round_name`` draws anew."""
    text = f"{_PURPOSE}\0{round_name}\0{patient_key}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return number < share * 2**64
