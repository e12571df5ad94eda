"""Which studies remembered reports name, all at once.

What is plain is decided by columns: a report that gives a Study Instance UID, an accession number,
or both of one study, and no other patient. Whatever is odd (several names, a number of several
studies or in another case, a path, a refusal) is left to be asked one by one, by the same rules.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.ingest.archives.protocol import MATCHES, KnownStudies
from lapvqa.ingest.archives.report_index import BETWEEN, WITHIN
from lapvqa.ingest.columns import Mask, is_set, is_valid, mapped, picked, positions, whole

SOURCES = {"table": (10, "in a table"), "fhir": (20, "in FHIR"), "hl7": (30, "in HL7")}
"""Rank of a source's reports, and its name for the account."""


def plain_claims(rows: pa.Table, known: KnownStudies) -> tuple[pa.Table, pa.Table]:
    """Return the ``MATCHES`` of rows of the index, and the rows that have to be asked."""
    studies, owned = pa.array([*known.images], pa.string()), dict(known.by_accession)
    numbers, owners = pa.array([*owned], pa.string()), pa.array([*owned.values()], pa.string())
    first = pc.replace_substring_regex(rows["accessions"], f"(?s){WITHIN}.*$", "")
    uid, number = positions(rows["studies"], studies), positions(first, numbers)
    named, owner = picked(studies, uid), picked(owners, number)
    study = pc.coalesce(named, owner)
    is_odd = is_valid(rows["reason"]) | is_set(rows["instances"]) | is_set(rows["image_paths"])
    for name in ("studies", "accessions"):
        is_odd |= _has(rows[name], BETWEEN)
    is_odd |= (number < 0) & _has(rows["accessions"], WITHIN)
    is_odd |= (number >= 0) & ~is_valid(owner)
    is_odd |= _true(pc.not_equal(named, owner))
    is_odd |= is_valid(study) & ~_is_patient(rows["patients"], study, known)
    plain = pa.array(~is_odd & is_valid(study))
    by = pa.array(np.where(uid >= 0, "study UID ", "accession number "), pa.string())
    source = whole(rows["source"])
    columns = [
        study,
        mapped(source, lambda name: str(SOURCES[name][0])).cast(pa.int32()),
        whole(rows["path"]),
        pc.binary_join_element_wise(by, mapped(source, lambda name: SOURCES[name][1]), ""),
    ]
    return pa.table(columns, schema=MATCHES).filter(plain), rows.filter(pa.array(is_odd))


def _is_patient(patients: pa.ChunkedArray, study: pa.Array, known: KnownStudies) -> Mask:
    """Return where none of the patients is given, the study's is unknown, or it is among them."""
    given = np.flatnonzero(is_set(patients) & is_valid(study))
    fits = np.ones(len(study), bool)
    if not len(given):
        return fits
    stated = dict(known.patients)
    keys, values = pa.array([*stated], pa.string()), pa.array([*stated.values()], pa.string())
    own = picked(values, positions(study.take(pa.array(given)), keys))
    spellings = pc.split_pattern(whole(patients).take(pa.array(given)), BETWEEN)
    of = pc.list_parent_indices(spellings)
    same = _true(pc.equal(spellings.flatten(), own.take(of)))
    hits = np.bincount(of.to_numpy()[same], minlength=len(given)) > 0
    fits[given] = hits | ~is_valid(own)
    return fits


def _has(column: pa.ChunkedArray, sign: str) -> Mask:
    return _true(pc.match_substring(column, sign))


def _true(column: pa.Array | pa.ChunkedArray) -> Mask:
    mask: Mask = whole(column).fill_null(False).to_numpy(zero_copy_only=False)
    return mask
