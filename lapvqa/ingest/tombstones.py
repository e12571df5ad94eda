"""Who was erased and must not come back: tombstones.json, in the project's folder, meant for git.

It holds keyed digests of the patient's, studies', images' and files' keys, and of the pixels, never
these themselves. So a file that is delivered again stays out, under other bytes, another name or
another patient's id too. Without the key nobody can read the list; whoever has it can ask it for a
patient, so a tombstone is itself personal data: the little that must be kept in order to forget.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import partial

import numpy as np
import pyarrow as pa
from pydantic import Field

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.identity import DEMO_KEY, Keyring, key_id
from lapvqa.ingest.columns import Mask, is_one_of, mapped
from lapvqa.params import Section, read_json
from lapvqa.project import Project

DETAIL = "expected nothing of a patient who was erased"
KINDS: Mapping[str, str] = {
    "patient_key": "patient", "study_key": "study", "image_key": "image", "instance_key": "image",
    "file_sha256": "file", "pixels_sha256": "pixels", "decoded_sha256": "film",
}  # fmt: skip
"""Column of a table of files or images -> kind of mark."""


class Tombstone(Section):
    """One erasure: its request, its day, and the marks of all that was the patient's."""

    request: str
    date: str
    marks: list[str]
    key: str = ""
    """``key_id`` of the key that made the marks; another key finds nobody by them."""


class TombstoneFile(Section):
    """All of tombstones.json."""

    tombstones: list[Tombstone] = Field(default_factory=list)


@dataclass(frozen=True)
class Tombstones:
    """The marks of all who were erased, and the key that makes marks of what is delivered."""

    keyring: Keyring = field(repr=False)
    marks: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """Return what changes when a mark is added."""
        return hashlib.sha256("\n".join(sorted(self.marks)).encode()).hexdigest()[:16]

    def mark(self, kind: str, value: str) -> str:
        """Return the keyed digest of a value; of a key the same one whatever ``keep_ids`` says."""
        if self.keyring.keep_ids and kind in ("patient", "study", "image"):
            value = getattr(Keyring(self.keyring.key), kind)(value)
        message = f"erased:{kind}:{value}".encode()
        return hmac.digest(self.keyring.key, message, "sha256").hex()[:32]

    def hits(self, table: pa.Table) -> Mask:
        """Return which rows have a value that is marked, in one of the columns of ``KINDS``."""
        found = np.zeros(len(table), bool)
        for name in KINDS.keys() & set(table.column_names) if self.marks else ():
            kind = KINDS[name]
            marks = mapped(table[name], partial(self.mark, kind))
            found |= is_one_of(marks, self.marks)
        return found

    def names(self, ids: pa.Table) -> Mask:
        """Return which rows of raw ``IDS`` (image, study, patient) are of somebody erased."""
        if not self.marks:
            return np.zeros(len(ids), bool)
        hashed = {f"{kind}_key": mapped(ids[kind], getattr(self.keyring, kind)) for kind in
                  ("image", "study", "patient")}  # fmt: skip
        return self.hits(pa.table(hashed))

    def hides(self, result: object) -> bool:
        """Tell whether a result, with attributes called as the columns, is of somebody erased."""
        values = ((kind, getattr(result, name, None)) for name, kind in KINDS.items())
        return bool(self.marks) and any(
            self.mark(kind, value) in self.marks for kind, value in values if value
        )

    def key_or_placeholder(self, kind: str, identifier: str) -> str:
        """Return the key of a study, image or patient, or what stands for that of one erased."""
        key: str = getattr(self.keyring, kind)(identifier)
        if self.marks and self.mark(kind, key) in self.marks:
            return str(self.placeholder(kind, key))
        return key

    def placeholder(self, kind: str, value: str | None) -> str | None:
        """Return what stands for a key of somebody erased: equal for equal keys, no key itself."""
        return f"erased-{self.mark(f'{kind} of a file', value)[:16]}" if value else None


def load_tombstones(project: Project, keyring: Keyring) -> Tombstones:
    """Read tombstones.json; without the file nobody was erased. ConfigError lists every fault.

    Raises ConfigError too if the archive's key is not the one that made the marks: those who were
    erased would come back unseen. The demo's key and an archive's own go beside each other.
    """
    entries, own, demo = read_file(project).tombstones, key_id(keyring.key), key_id(DEMO_KEY)
    foreign = {entry.key for entry in entries} - {"", own, demo}
    if foreign and own != demo:
        raise ConfigError(
            f"expected the key {', '.join(sorted(foreign))} that made tombstones.json, found "
            f"{own}: whoever was erased would come back unseen",
            hint="restore .lapvqa/deid.key (or deid_key_file of local.yaml) from its backup",
        )
    return Tombstones(keyring, frozenset(mark for entry in entries for mark in entry.marks))


def add_tombstone(project: Project, *, request: str, marks: Iterable[str], key: str = "") -> None:
    """Add a tombstone to the file; marks that it has already are not added again."""
    known = read_file(project)
    have = {mark for entry in known.tombstones for mark in entry.marks}
    new = sorted(set(marks) - have)
    if new:
        today = date.today().isoformat()
        entries = [*known.tombstones, Tombstone(request=request, date=today, marks=new, key=key)]
        content = TombstoneFile(tombstones=entries).model_dump()
        storage.write_json(project.tombstones, content)


def read_file(project: Project) -> TombstoneFile:
    """Read tombstones.json as it stands; ConfigError if it is no such file."""
    hint = "restore the file from git; without it erased patients come back"
    return read_json(TombstoneFile, project.tombstones, hint=hint)
