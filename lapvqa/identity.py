"""Keyed hashes in place of identifiers: HMAC-SHA256(key, kind and id), 64 bits shown.

Whoever holds the key can join other tables of the same archive by hashing their ids; without it
nobody can go back, although the ids themselves are few enough to try them all.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.job import Job
from lapvqa.machine import Machine
from lapvqa.project import DEMO_MARK, Project

DEMO_KEY = b"published key of the synthetic demo archive: it hides nobody"
_MIN_BYTES = 16
_MAX_SHIFT = 3650


class Ids(NamedTuple):
    """Identifiers that a file's path carries; None where the DICOM header has to tell."""

    image: str | None = None
    study: str | None = None
    patient: str | None = None


@dataclass(frozen=True)
class Keyring:
    """Turns identifiers into keys; with ``keep_ids`` they stay as they are."""

    key: bytes = field(repr=False)  # a traceback must not show it
    keep_ids: bool = False

    def image(self, image_id: str) -> str:
        """Key of an image: of its SOP Instance UID, or of MIMIC-CXR's dicom_id."""
        return self._hash("image", image_id)

    def study(self, study_id: str) -> str:
        """Key of a study: of its Study Instance UID, or of MIMIC-CXR's study_id (digits only)."""
        return self._hash("study", study_id)

    def patient(self, patient_id: str) -> str:
        """Key of a patient: of the Patient ID, or of MIMIC-CXR's subject_id (digits only)."""
        return self._hash("patient", patient_id)

    def accession(self, number: str) -> str:
        """Key of an Accession Number, by which hospitals name reports."""
        return self._hash("accession", number)

    def digest(self, *facts: object) -> str:
        """Keyed digest of anything that may hold an identifier, to tell whether it has changed."""
        return hmac.digest(self.key, repr(facts).encode(), "sha256").hex()[:16]

    def days_earlier(self, patient_key: str) -> int:
        """Return by how many days, 1 to 3650, all dates of a patient are moved back."""
        digest = hmac.digest(self.key, f"days:{patient_key}".encode(), "sha256")
        return 1 + int.from_bytes(digest[:8], "big") % _MAX_SHIFT

    def _hash(self, kind: str, identifier: str) -> str:
        if self.keep_ids:
            return identifier
        return hmac.digest(self.key, f"{kind}:{identifier}".encode(), "sha256").hex()[:16]


def load_key(source: Path, job: Job) -> bytes:
    """Return the key: the machine's key file, the demo's published one, or the project's own.

    The project's own key is made at random on first use, in .lapvqa/deid.key, mode 0600.
    Raises ConfigError if a key file is absent or too short.
    """
    known = find_key(source, job.project, job.machine)
    if known is not None:
        return known
    path = _own_key(job.project)
    _create(path)
    job.recorder.say(
        f"made a new key in {path.relative_to(job.project.root)}: it turns identifiers into "
        "hashes; keep it safe and apart from the data, losing it means new keys for everything"
    )
    return _read(path, name="the project's key")


def find_key(source: Path, project: Project, machine: Machine) -> bytes | None:
    """Return the key that ``load_key`` would, or None where it would make one: for looks."""
    if machine.deid_key_file is not None:
        return _read(project.root / Path(machine.deid_key_file).expanduser(), name="deid_key_file")
    if (source / DEMO_MARK).is_file():
        return DEMO_KEY
    path = _own_key(project)
    return _read(path, name="the project's key") if path.exists() else None


def known_keys(project: Project, machine: Machine) -> list[bytes]:
    """Return all keys found here, whichever archive is chosen: file's, project's, demo's.

    What was recorded while another archive was chosen is held against that archive's key.
    """
    named = machine.deid_key_file
    paths = [_own_key(project)]
    if named is not None:
        paths.insert(0, project.root / Path(named).expanduser())
    return [*(_read(path, name="a key") for path in paths if path.is_file()), DEMO_KEY]


def _own_key(project: Project) -> Path:
    return project.state / "deid.key"


def key_id(key: bytes) -> str:
    """Return 8 hex digits that name the key without showing it."""
    return hashlib.sha256(key).hexdigest()[:8]


def _create(path: Path) -> None:
    with storage.atomic_path(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(secrets.token_hex(32))


def _read(path: Path, *, name: str) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"{name}: expected a readable file at {path}, found none ({error.strerror})",
            hint="correct deid_key_file in local.yaml, or restore the key from its backup",
        ) from None
    if len(key) < _MIN_BYTES:
        raise ConfigError(
            f"{name}: expected at least {_MIN_BYTES} bytes in {path}, found {len(key)}",
            hint="write a long random text into it, e.g. from `openssl rand -hex 32`",
        )
    return key
