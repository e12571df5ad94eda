"""The test sets of the evaluations, as the evaluations read them: images, patients, pixels.

A set that refers to the archive (questions, phrases) is known by the archive's own keys; one that
stands for itself (CheXpert, NIH, VinDr-CXR) by the pixels of its images alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lapvqa import storage
from lapvqa.datasets.chexpert import read_chexpert
from lapvqa.datasets.diff_vqa import read_diff_vqa
from lapvqa.datasets.ext_vqa import read_ext_vqa
from lapvqa.datasets.image_folder import ImageFolder, Pixels, decode, open_folder
from lapvqa.datasets.ms_cxr import read_ms_cxr
from lapvqa.datasets.nih14 import read_nih14
from lapvqa.datasets.pictures import read_or_none
from lapvqa.datasets.splits import LeakPolicy
from lapvqa.datasets.stored import StoredImages, open_stored
from lapvqa.datasets.vindr import read_vindr
from lapvqa.errors import OtherArchiveError
from lapvqa.images.shards import ShardStore
from lapvqa.job import Job
from lapvqa.params import EvaluateParams
from lapvqa.schemas import IMAGES

ARCHIVE = "archive"
"""The archive's own splits validate and test, under one name."""

TRAIN, VALIDATE, TEST = "train", "validate", "test"
LEARNT_FROM = (TRAIN, VALIDATE)
"""Validation chooses the weights, so it must not know a test set either."""


@dataclass(frozen=True)
class HeldOut:
    """Test images of one data set, as columns.

    ``names``: image keys, or keys within the data set; ``studies``, ``patients``: the archive's
    keys, None where the set stands for itself; ``digests``: sha256 of the stored pixels;
    ``decoded``: of the decoded ones; ``read``: positions to stored pixels uint8 [k, 384, 384].
    ``held_from``: the archive's splits that must not know these images.
    """

    data_set: str
    held_from: tuple[str, ...]
    names: Sequence[str]
    studies: Sequence[str | None]
    patients: Sequence[str | None]
    digests: Sequence[str]
    decoded: Sequence[str]
    read: Callable[[Sequence[int]], Pixels]
    unreadable: int = 0

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Archive:
    """The archive's images as columns of images.parquet, and how to read the rows' pixels."""

    table: pa.Table
    read: Callable[[Sequence[int]], Pixels]


def open_archive(job: Job) -> Archive:
    """Read data/images.parquet; MissingArtifactError without it."""
    table = storage.read_table(job.project.images, IMAGES, made_by="ingest")
    shards, rows = table["shard"].to_pylist(), table["row"].to_pylist()
    store = ShardStore(job.project.images_dir)

    def read(places: Sequence[int]) -> Pixels:
        return store.read([shards[place] for place in places], [rows[place] for place in places])

    return Archive(table, read)


def of_archive(archive: Archive) -> Iterator[HeldOut]:
    """Yield the archive's own validate, held from train, and test, held from both."""
    splits = np.array(archive.table["split"].to_pylist(), object)
    for split, held_from in ((VALIDATE, (TRAIN,)), (TEST, LEARNT_FROM)):
        yield _stored_set(ARCHIVE, archive, np.flatnonzero(splits == split), held_from)


def of_folders(
    archive: Archive, params: EvaluateParams, job: Job
) -> Iterator[tuple[str, HeldOut | str]]:
    """Yield each input folder's name with its test set, or the reason why there is none.

    Raises what the readers raise, before anything was trained.
    """
    stored: StoredImages | None = None
    place = {key: row for row, key in enumerate(archive.table["image_key"].to_pylist())}
    for name in (*_BY_PIXELS, *_BY_KEY):
        source = open_folder(name, job)
        if source is None:
            yield name, "no file of it here"
            continue
        try:
            if name in _BY_PIXELS:
                yield name, _BY_PIXELS[name](name, source, params, job)
                continue
            stored = stored or open_stored(job)
            keys = _BY_KEY[name](source, stored, params)
            rows = np.array(sorted(place[key] for key in keys), np.int64)
            yield name, _stored_set(name, archive, rows, LEARNT_FROM)
        except OtherArchiveError as error:
            yield name, error.message


def _stored_set(
    name: str, archive: Archive, rows: NDArray[np.int64], held_from: tuple[str, ...]
) -> HeldOut:
    table = archive.table.take(pa.array(rows))
    return HeldOut(
        name,
        held_from,
        names=table["image_key"].to_pylist(),
        studies=table["study_key"].to_pylist(),
        patients=table["patient_key"].to_pylist(),
        digests=table["pixels_sha256"].to_pylist(),
        decoded=table["decoded_sha256"].to_pylist(),
        read=lambda places: archive.read([int(rows[place]) for place in places]),
    )


def _folder_set(
    name: str, source: ImageFolder, paths: Sequence[str], tested: Mapping[str, str], job: Job
) -> HeldOut:
    """Return the set of the ``tested`` paths (path -> key), of which all ``paths`` are decoded.

    All of them, as the evaluation will ask: the same chunks then serve both.
    """
    decoded = decode(source, paths, read_or_none, job=job)
    readable = [path for path, good in zip(paths, decoded.readable, strict=True) if good]
    own = [place for place, path in enumerate(readable) if path in tested]
    return HeldOut(
        name,
        LEARNT_FROM,
        names=[tested[readable[place]] for place in own],
        studies=[None] * len(own),
        patients=[None] * len(own),
        digests=[decoded.digests[place] for place in own],
        decoded=[decoded.decoded[place] for place in own],
        read=lambda places: decoded.pixels([own[place] for place in places]),
        unreadable=len(tested) - len(own),
    )


def _chexpert(name: str, source: ImageFolder, params: EvaluateParams, job: Job) -> HeldOut:
    section = params.probe_chexpert
    data = read_chexpert(
        source.folder, source.files, uncertain=section.uncertain, test=section.test
    )
    tested = dict(zip(data.test.images, data.test.samples, strict=True))
    return _folder_set(name, source, data.images, tested, job)


def _nih14(name: str, source: ImageFolder, params: EvaluateParams, job: Job) -> HeldOut:
    data = read_nih14(source.folder, source.files)
    tested = dict(zip(data.test.images, data.test.samples, strict=True))
    return _folder_set(name, source, data.images, tested, job)


def _vindr(name: str, source: ImageFolder, params: EvaluateParams, job: Job) -> HeldOut:
    data = read_vindr(source.folder, source.files)
    paths = [image.path for images in data.splits.values() for image in images]
    tested = {image.path: image.sample for image in data.test}
    return _folder_set(name, source, paths, tested, job)


def _ext_vqa(source: ImageFolder, stored: StoredImages, params: EvaluateParams) -> set[str]:
    section = params.vqa
    questions = read_ext_vqa(
        source.folder,
        stored,
        empty_answers=section.empty_answers,
        split=section.split,
        shared_patients=section.shared_patients,
        pretrained_patients=_seen(section.pretrained_patients),
    )
    return _tested(questions.table, "image_key")


def _diff_vqa(source: ImageFolder, stored: StoredImages, params: EvaluateParams) -> set[str]:
    section = params.diffvqa
    questions = read_diff_vqa(
        source.folder,
        stored,
        split=section.split,
        shared_patients=section.shared_patients,
        pretrained_patients=_seen(section.pretrained_patients),
        reversed_pairs=section.reversed_pairs,
    )
    return _tested(questions.table, "image_key", "reference_key")


def _ms_cxr(source: ImageFolder, stored: StoredImages, params: EvaluateParams) -> set[str]:
    section = params.pg
    phrases = read_ms_cxr(
        source.folder,
        stored,
        split=section.split,
        shared_patients=section.shared_patients,
        pretrained_patients=_seen(section.pretrained_patients),
    )
    return {phrase.image_key for phrase in phrases.of_split(TEST)}


def _seen(policy: LeakPolicy) -> LeakPolicy:
    """Return what is done here about test patients in the archive's training split.

    "raise" is the evaluation's to do: it is here that they are taken out of training.
    """
    return "report" if policy == "raise" else policy


def _tested(questions: pa.Table, *columns: str) -> set[str]:
    rows = questions.filter(pc.equal(questions["split"], TEST))
    return {key for column in columns for key in rows[column].to_pylist()} - {None}


_BY_PIXELS: Mapping[str, Callable[[str, ImageFolder, EvaluateParams, Job], HeldOut]] = {
    "chexpert": _chexpert, "nih14": _nih14, "vindr": _vindr,
}  # fmt: skip
_BY_KEY: Mapping[str, Callable[[ImageFolder, StoredImages, EvaluateParams], set[str]]] = {
    "ext_vqa": _ext_vqa, "diff_vqa": _diff_vqa, "ms_cxr": _ms_cxr,
}  # fmt: skip
NAMES = (ARCHIVE, *_BY_PIXELS, *_BY_KEY)
"""The data sets whose test images are held from training."""
