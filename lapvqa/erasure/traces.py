"""By what a patient is found again: keys, digests, paths, sentences of reports, lines of pixels.

Traces name the patient. They are kept in one private file while an erasure is open, and nowhere
else; receipts hold their number and marks (``lapvqa.ingest.tombstones``).
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lapvqa import storage
from lapvqa.erasure.copies import Copy
from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.images.shards import map_shard
from lapvqa.ingest.columns import is_one_of
from lapvqa.ingest.tombstones import KINDS, Tombstones
from lapvqa.schemas import STORED_SIZE

KEY, DIGEST, PATH, RAW_ID, TEXT, PIXELS = "key", "digest", "path", "id", "text", "pixels"
NAMED_BY_ARCHIVE = frozenset({PATH, RAW_ID})
"""What the listing of an archive says as long as the archive holds the files."""

_KEYS = ("patient_key", "study_key", "image_key", "instance_key")
_DIGESTS = ("file_sha256", "pixels_sha256", "decoded_sha256")
_SHORTEST_ID, _SHORTEST_TEXT = 8, 24
"""Characters: six digits may stand by chance in a run's id (1e-6 each), eight hardly (6e-9)."""
_MIDDLE = slice(STORED_SIZE // 2 * STORED_SIZE, (STORED_SIZE // 2 + 1) * STORED_SIZE)
_FEWEST_GREYS = 8
"""A line of pixels with fewer shades may stand in many images."""


@dataclass
class Traces:
    """What is looked for, by kind; ``patient`` is the key in the tables."""

    patient: str
    found: dict[str, set[str]] = field(default_factory=dict)
    marks: set[str] = field(default_factory=set)
    """What tombstones.json gets."""
    report_digests: set[str] = field(default_factory=set)
    """Of the patient's reports; others may have the same template, so they are no trace."""
    shared_films: int = 0
    """Films that stand under another patient's id too."""
    copies: list[Copy] = field(default_factory=list)
    """Edited copies of the patient's films under other ids."""
    also_in: set[str] = field(default_factory=set)
    """Keys of the studies of others that such films stand in: no traces, they stay."""

    def add(self, kind: str, values: Iterable[str | None]) -> None:
        """Add what is no placeholder and not empty."""
        new = {value for value in values if value and not value.startswith("erased-")}
        self.found.setdefault(kind, set()).update(new)

    @property
    def number(self) -> int:
        """How many there are of all kinds."""
        return sum(map(len, self.found.values()))

    def needles(self) -> list[tuple[str, bytes]]:
        """Return kind and bytes of each trace, of a text as each format may write it."""
        lines = [(PIXELS, bytes.fromhex(line)) for line in sorted(self.found.get(PIXELS, ()))]
        return [(kind, text.encode()) for kind, text in self.texts()] + lines

    def texts(self) -> list[tuple[str, str]]:
        """Return kind and text of each trace but pixels, plain and escaped."""
        return [
            (kind, form)
            for kind, values in sorted(self.found.items())
            if kind != PIXELS
            for value in sorted(values)
            for form in sorted(_written_forms(value))
        ]

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "patient": self.patient,
            "found": {kind: sorted(values) for kind, values in self.found.items()},
            "marks": sorted(self.marks),
            "report_digests": sorted(self.report_digests),
            "shared_films": self.shared_films,
            "copies": [asdict(copy) for copy in self.copies],
            "also_in": sorted(self.also_in),
        }

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Traces:
        """Return what ``to_json`` gave, an earlier version's too."""
        found = {kind: set(own) for kind, own in values["found"].items()}
        copies = [Copy(**copy) for copy in values.get("copies", [])]
        return cls(
            str(values["patient"]), found, set(values["marks"]), set(values["report_digests"]),
            int(values["shared_films"]), copies, set(values.get("also_in", [])),
        )  # fmt: skip


def _written_forms(text: str) -> set[str]:
    """Return a text as it is, as JSON has it (Erg\\u00fcsse), and as pages do (d&#39;air)."""
    lines = (json.dumps(text, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
    page, plain = html.escape(text), html.escape(text, quote=False)
    return {text, *lines, plain, page, page.replace("&#x27;", "&#39;")}


def begin(patient: str, given: str, erased: Tombstones) -> Traces:
    """Return the traces of a patient of whom only the key is known, and the id that was given."""
    traces = Traces(patient)
    traces.add(KEY, [patient])
    if given != patient:
        names = {given, given.lstrip("pP")}
        traces.add(RAW_ID, (name for name in names if len(name) >= _SHORTEST_ID))
    traces.marks.add(erased.mark("patient", patient))
    return traces


def learn(traces: Traces, tables: Iterable[Path], erased: Tombstones) -> None:
    """Add what the tables say of the patient: of rows with the key, and of the same films."""
    paths = list(tables)
    for _ in range(2):  # films that the first look found may stand under other ids
        for path in paths:
            _learn_from(traces, path, erased)


def _learn_from(traces: Traces, path: Path, erased: Tombstones) -> None:
    try:
        schema = pq.read_schema(path)
        names = [n for n in (*_KEYS, *_DIGESTS, "path", "report", "report_sha256")
                 if n in schema.names]  # fmt: skip
        if not {"patient_key", *_DIGESTS} & set(names):
            return
        table = storage.read_columns(path, names)
    except (pa.ArrowInvalid, OSError):
        return
    own = np.zeros(len(table), bool)
    if "patient_key" in names:
        own = is_one_of(table["patient_key"], [traces.patient])
        _add_rows(traces, table.filter(pa.array(own)), erased)
    known = traces.found.get(DIGEST, set())
    same = np.zeros(len(table), bool)
    for name in set(_DIGESTS) & set(names) if known else ():
        same |= is_one_of(table[name], known)
    others = table.filter(pa.array(same & ~own))
    if len(others):
        _add_films(traces, others, erased)
        traces.shared_films = max(traces.shared_films, len(others))


def learn_copies(
    traces: Traces, images: pa.Table, copies: Sequence[Copy], erased: Tombstones
) -> None:
    """Add edited copies under other ids: the films go with the patient's, the others stay."""
    traces.copies = list(copies)
    own = is_one_of(images["image_key"], [copy.image for copy in copies])
    _add_films(traces, images.filter(pa.array(own)), erased)


def _add_films(traces: Traces, rows: pa.Table, erased: Tombstones) -> None:
    """Add films that stand under another id: of their rows what names the film alone."""
    names = [name for name in ("image_key", "instance_key", *_DIGESTS) if name in rows.column_names]
    _add_rows(traces, rows.select(names), erased)
    if "study_key" in rows.column_names:
        traces.also_in.update(filter(None, rows["study_key"].to_pylist()))


def _add_rows(traces: Traces, rows: pa.Table, erased: Tombstones) -> None:
    for name in rows.column_names:
        values = pc.unique(rows[name]).to_pylist()
        if name in _KEYS:
            traces.add(KEY, values)
        elif name in _DIGESTS:
            traces.add(DIGEST, values)
        elif name == "path":
            traces.add(PATH, values)
        elif name == "report_sha256":
            traces.report_digests.update(filter(None, values))
        if name in KINDS and name != "patient_key":
            own = (value for value in values if value and not value.startswith("erased-"))
            traces.marks.update(erased.mark(KINDS[name], value) for value in own)


def learn_texts(traces: Traces, studies: pa.Table) -> None:
    """Add the sentences of the patient's reports that no other patient's report has."""
    own = is_one_of(studies["patient_key"], [traces.patient])
    sides = (studies["report"].filter(pa.array(rows)).drop_null() for rows in (own, ~own))
    mine, others = ("\n".join(texts.to_pylist()) for texts in sides)
    flat = _flattened(others)
    for sentence in re.split(r"[.\n:;<>&\"\\]+", mine):
        text = sentence.strip()
        if len(text) >= _SHORTEST_TEXT and _flattened(text) not in flat:
            traces.add(TEXT, {text, _flattened(text)})


def _flattened(text: str) -> str:
    """Return a text as normalised reports have it: small letters, single spaces."""
    return " ".join(text.lower().split())


def learn_pixels(traces: Traces, images: pa.Table, folder: Path) -> None:
    """Add the middle line of each of the patient's stored images, if it tells them apart."""
    films = is_one_of(images["patient_key"], [traces.patient])
    films |= is_one_of(images["image_key"], [copy.image for copy in traces.copies])
    own = images.filter(pa.array(films))
    places = zip(own["shard"].to_pylist(), own["row"].to_pylist(), strict=True)
    for shard, row in places:
        try:
            line = map_shard(folder / shard)[row].reshape(-1)[_MIDDLE]
        except (MissingArtifactError, SchemaError, IndexError):
            continue
        if len(np.unique(line)) >= _FEWEST_GREYS:
            traces.add(PIXELS, [line.tobytes().hex()])
