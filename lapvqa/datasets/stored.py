"""The project's stored images, found by the identifiers of MIMIC-CXR.

Question and phrase sets name images by dicom_id, studies by study_id, patients by subject_id. The
project knows them by keys (docs/decisions/0004), so each goes through the same Keyring that ingest
used: the key's id stands in the inventory, and another key is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.identity import Keyring, key_id, load_key
from lapvqa.images.geometry import Fit
from lapvqa.job import Job
from lapvqa.project import DEMO_MARK
from lapvqa.schemas import FRONTAL_VIEWS, IMAGES, STUDIES

_COLUMNS = (
    "image_key", "study_key", "patient_key", "split", "view", "shard", "row", "native_rows",
    "native_cols", "scale", "offset_x", "offset_y",
)  # fmt: skip
_KEY_FACT = b"deid_key"

_StoredRow = tuple[str, str, str, str, str, str, int, int, int, float, float, float]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image of data/images.parquet; ``shard`` and ``row`` say where its pixels are."""

    image_key: str
    study_key: str
    patient_key: str
    split: str
    view: str
    shard: str
    row: int
    fit: Fit


@dataclass(frozen=True)
class StoredImages:
    """All stored images; identifiers in, ``StoredImage`` out.

    ``split_of``: patient key -> split of the archive, also of patients without an image;
    ``order_of``: study key -> place in the patient's studies by date, from 0; ``frontal_of``:
    study key -> key of its AP or PA image, of several the first; ``digest_of``: image key ->
    sha256 of the stored pixels; ``excluded``: keys of images that training loses.
    """

    keyring: Keyring = field(repr=False)
    rows: Mapping[str, _StoredRow] = field(repr=False)
    split_of: Mapping[str, str] = field(repr=False)
    order_of: Mapping[str, int] = field(repr=False)
    frontal_of: Mapping[str, str] = field(repr=False)
    digest_of: Mapping[str, str] = field(repr=False)
    excluded: frozenset[str] = field(default=frozenset(), repr=False)

    def image(self, dicom_id: str) -> StoredImage | None:
        """Return the image that MIMIC-CXR calls so; None if it is not stored."""
        return self.by_key(self.keyring.image(dicom_id))

    def by_key(self, image_key: str) -> StoredImage | None:
        """Return the image of a key; None if it is not stored."""
        row = self.rows.get(image_key)
        return None if row is None else StoredImage(*row[:7], Fit(*row[7:]))

    def frontal(self, study_key: str) -> StoredImage | None:
        """Return a study's AP or PA image, of several the first by key; None if it has none."""
        image_key = self.frontal_of.get(study_key)
        return None if image_key is None else self.by_key(image_key)

    @property
    def pretrained(self) -> frozenset[str]:
        """Keys of the patients in the archive's training split of whom training keeps anything."""
        frontal = [row for row in self.rows.values() if row[4] in FRONTAL_VIEWS]
        lost = {row[2] for row in frontal if row[0] in self.excluded}
        left = {row[2] for row in frontal if row[0] not in self.excluded}
        trained = {key for key, split in self.split_of.items() if split == "train"}
        return frozenset(trained - (lost - left))


def open_stored(job: Job, excluded: frozenset[str] = frozenset()) -> StoredImages:
    """Read what ingest wrote, with ingest's key; raises MissingArtifactError, ConfigError.

    ``excluded``: keys of the images that the firewall takes out of training.
    """
    images = storage.read_table(job.project.images, IMAGES, made_by="ingest")
    studies = storage.read_table(job.project.studies, STUDIES, made_by="ingest")
    return replace(index(images, studies, open_keyring(job)), excluded=excluded)


def index(images: pa.Table, studies: pa.Table, keyring: Keyring) -> StoredImages:
    """Index the rows of images.parquet and studies.parquet."""
    columns = [images[name].to_pylist() for name in _COLUMNS]
    rows: dict[str, _StoredRow] = {row[0]: row for row in zip(*columns, strict=True)}
    split_of = dict(
        zip(studies["patient_key"].to_pylist(), studies["split"].to_pylist(), strict=True)
    )
    split_of |= {row[2]: row[3] for row in rows.values()}
    order_of = dict(
        zip(studies["study_key"].to_pylist(), studies["study_order"].to_pylist(), strict=True)
    )
    frontal: dict[str, str] = {}
    for image_key in sorted(rows):
        if rows[image_key][4] in FRONTAL_VIEWS:
            frontal.setdefault(rows[image_key][1], image_key)
    digest_of = dict(
        zip(images["image_key"].to_pylist(), images["pixels_sha256"].to_pylist(), strict=True)
    )
    return StoredImages(keyring, rows, split_of, order_of, frontal, digest_of)


def open_keyring(job: Job) -> Keyring:
    """Return the keyring that ingest used; ConfigError if its key is not here, or is another."""
    source = job.folders["source"]
    own = job.project.state / "deid.key"
    if (
        job.machine.deid_key_file is None
        and not (source / DEMO_MARK).is_file()
        and not own.is_file()
    ):
        raise ConfigError(
            "expected the key that turned the archive's identifiers into keys, found none",
            hint="restore .lapvqa/deid.key from its backup, or name the file in local.yaml as "
            "deid_key_file",
        )
    key = load_key(source, job)
    inventory = storage.require(job.project.inventory("source"), made_by="inventory")
    used = (pq.read_schema(inventory).metadata or {}).get(_KEY_FACT, b"").decode()
    if used != key_id(key):
        raise ConfigError(
            f"expected the key {used or 'of the inventory'} that ingest used, found "
            f"{key_id(key)}: no image would be found",
            hint="set deid_key_file in local.yaml to the key that ingest used, or run ingest again",
        )
    return Keyring(key, keep_ids=job.keep_ids)
