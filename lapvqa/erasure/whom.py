"""Whose erasure is asked for: a raw or hashed id to the key in the tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.identity import Keyring
from lapvqa.ingest.columns import is_one_of
from lapvqa.ingest.tombstones import Tombstones

_KEY = re.compile(r"[0-9a-f]{16}")


def patient_key(given: str, keyring: Keyring, tables: Iterable[Path], erased: Tombstones) -> str:
    """Return the patient's key in the tables.

    ``given`` is a Patient ID as the headers have it, MIMIC-CXR's subject_id (with or without p),
    or the key itself. Raises ConfigError, which does not repeat the id, if nobody is called so.
    """
    asked = given.strip()
    candidates = [asked, keyring.patient(asked), keyring.patient(asked.lstrip("pP"))]
    known = _known(candidates, tables)
    for candidate in candidates:
        if candidate in known or erased.mark("patient", candidate) in erased.marks:
            return candidate
    kind = "a key" if _KEY.fullmatch(asked) else "an id"
    raise ConfigError(
        f"expected the id of a patient of this project, or its key in the tables; found {kind} "
        "that no table and no tombstone has",
        hint="write it as PatientID in the DICOM header (in MIMIC-CXR: subject_id); the key that "
        "hides ids must be the one of ingest (docs/erasure.md)",
    )


def _known(keys: list[str], tables: Iterable[Path]) -> set[str]:
    found: set[str] = set()
    for path in tables:
        try:
            if "patient_key" not in pq.read_schema(path).names:
                continue
            column = storage.read_columns(path, ["patient_key"])["patient_key"]
        except (pa.ArrowInvalid, OSError):
            continue
        found |= set(column.filter(pa.array(is_one_of(column, keys))).to_pylist())
    return found
