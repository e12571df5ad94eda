"""Splits by patient, for archives that bring no official split."""

from __future__ import annotations

import hashlib

from lapvqa.params import SplitParams


def split_point(seed: int, patient_id: str) -> float:
    """Return the patient's place in [0, 1): fixed by seed and id, whoever else is there."""
    digest = hashlib.sha256(f"{seed}:{patient_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(point: float, params: SplitParams) -> str:
    """Return the split at ``point``; a patient keeps it when patients are added."""
    if point < params.validate_share:
        return "validate"
    return "test" if point < params.validate_share + params.test else "train"
