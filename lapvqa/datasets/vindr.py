"""Read VinDr-CXR (Nguyen et al., Scientific Data 2022), as PhysioNet or as Kaggle gives it.

    PhysioNet 1.0.0  train/ID.dicom  test/ID.dicom  annotations/annotations_{train,test}.csv
                     annotations/image_labels_{train,test}.csv
    Kaggle           train/ID.dicom  train.csv          (its test images have no labels)

Images may have been renamed .dcm or converted to PNG or JPEG. A resized copy needs train_meta.csv
(and test_meta.csv) with the original sizes: image_id, dim0 (rows), dim1 (columns). It shows by
boxes beyond many images; a box or two over the edge are the readers', and are cut there.

Three readers drew on each training image: their boxes are fused, class by class (``boxes.fuse``).
The test set's boxes are a consensus already and are not fused. Where there is no official test
(Kaggle), a share of the images is set apart by the hash of their ids, fused like the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lapvqa.datasets import tables
from lapvqa.datasets.boxes import Boxes, fuse, same_shape, to_stored_square
from lapvqa.datasets.image_paths import image_files
from lapvqa.datasets.splits import key, lowest
from lapvqa.datasets.tables import Account
from lapvqa.datasets.vindr_tables import (
    CLASSES,
    KAGGLE,
    PHYSIONET,
    Form,
    Mark,
    Marks,
    Others,
    read_image_ids,
    read_marks,
    recognise,
)
from lapvqa.errors import SourceError, SplitLeakError
from lapvqa.images.geometry import Fit
from lapvqa.metrics.boxes.overlap import as_boxes

NAME = "VinDr-CXR"
QUERIES = 20
"""Object queries of the published detection head: it cannot find more boxes in one image."""

MAX_MISSING_SHARE = 0.01
VALIDATE_SHARE = 0.1
TEST_SHARE = 0.2
_OVERSHOOT = 0.01
MAX_BEYOND_SHARE = 0.01
"""Of the images with boxes: where more have one beyond their edge, the images are resized copies.

A few are what readers draw: such a box is cut at the edge.
"""
_OFFICIAL_TEST = "official consensus, not fused"
_KAGGLE_TEST = "{} of Kaggle's training images by hash, readers fused"

Split = Literal["train", "test"]


@dataclass(frozen=True)
class VindrImage:
    """One image: ``boxes`` float64 [n, 4] xyxy in original pixels, ``classes`` int64 [n].

    ``votes`` int64 [n]: how many readers drew the box; 0 if it is a consensus. ``size``: rows and
    columns of the original if the file is a resized copy, else None. ``path`` is relative to the
    dataset's folder; ``sample`` is a key, and the patient's too: VinDr-CXR names no patients.
    """

    path: str
    sample: str
    place: str
    boxes: Boxes
    classes: NDArray[np.int64]
    votes: NDArray[np.int64]
    size: tuple[int, int] | None

    def reaches_beyond(self, fit: Fit) -> bool:
        """Return whether a box ends outside the image, by more than rounding does."""
        rows, cols = self.size or (fit.native_rows, fit.native_cols)
        return len(self.boxes) > 0 and bool(
            (self.boxes / [cols, rows, cols, rows]).max() > 1 + _OVERSHOOT
        )

    def stored_boxes(self, fit: Fit) -> Boxes:
        """Return the boxes in stored pixels, where ``fit`` says how the image lies in them.

        They are cut at the image's edges. Raises SourceError if the image has another shape than
        the original.
        """
        if self.size is not None and not same_shape(self.size, fit):
            raise SourceError(
                f"{self.place}: expected an image of the shape {self.size[0]} x {self.size[1]}, "
                f"found {fit.native_rows} x {fit.native_cols}",
                hint="resize images with their aspect ratio kept, without padding or cropping",
            )
        return to_stored_square(self.boxes, fit, size=self.size)


def count_beyond(images: Sequence[VindrImage], fits: Sequence[Fit]) -> int:
    """Return how many images have a box beyond their edge; ``fits``: how each image is stored.

    Raises SourceError if there are so many that the images must be resized copies.
    """
    beyond = [
        (image, fit) for image, fit in zip(images, fits, strict=True) if image.reaches_beyond(fit)
    ]
    with_boxes = sum(len(image.boxes) > 0 for image in images)
    if len(beyond) > max(1, MAX_BEYOND_SHARE * with_boxes):
        image, fit = beyond[0]
        raise SourceError(
            f"{NAME}: {len(beyond)} of {with_boxes} images with boxes have one that reaches beyond "
            f"the image, more than {MAX_BEYOND_SHARE:.0%}: the images are resized copies; one of "
            f"{fit.native_rows} x {fit.native_cols} pixels is listed at {image.place}",
            hint="write train_meta.csv and test_meta.csv (image_id, dim0, dim1: rows and "
            "columns of the originals) beside them, or use the original images",
        )
    return len(beyond)


@dataclass(frozen=True)
class VindrDataset:
    """The images in three splits, and what became of every row, image and box.

    ``facts``: counts for the protocol: images with more boxes than queries, boxes that only one
    reader drew, images that not exactly three readers read, files that no table lists.
    """

    form: Form
    train: tuple[VindrImage, ...]
    validate: tuple[VindrImage, ...]
    test: tuple[VindrImage, ...]
    rows: Account
    images: Account
    facts: Mapping[str, int]
    protocol: Mapping[str, str | float]

    @property
    def splits(self) -> dict[str, tuple[VindrImage, ...]]:
        """The splits by name, in order."""
        return {"train": self.train, "validate": self.validate, "test": self.test}

    def describe(self) -> dict[str, str | float]:
        """Return how the dataset was made and every count, for an evaluation's protocol."""
        return {
            "dataset": NAME,
            **self.protocol,
            **self.rows.describe(),
            **self.images.describe(),
            **self.facts,
        }


def read_vindr(
    folder: Path,
    files: Iterable[str],
    *,
    min_iou: float = 0.4,
    min_readers: int = 1,
    others: Others = "fold",
    num_queries: int = QUERIES,
    validate_share: float = VALIDATE_SHARE,
    test_share: float = TEST_SHARE,
) -> VindrDataset:
    """Read the tables of ``folder``; ``files`` are the paths below it.

    ``min_iou``: same-class boxes that overlap by more are one. ``min_readers``: fused boxes of
    fewer readers are left out. ``others``: the eight local findings of PhysioNet that Kaggle's 14
    classes lack become "Other lesion" (fold) or are left out (ignore). ``num_queries``: images
    with more boxes are counted, not cut. Raises SourceError; SplitLeakError if an image stands in
    both tables.
    """
    form = recognise(folder)
    parts: tuple[Split, ...] = ("train", "test") if form == PHYSIONET else ("train",)
    marks = {part: read_marks(folder, form, part, others=others) for part in parts}
    listed = {part: read_image_ids(folder, form, part) | marks[part].places for part in parts}
    _refuse_shared(listed)
    paths = _find_images(files)
    facts: Counter[str] = Counter()
    for part, path_of in paths.items():
        facts[f"files_not_listed_{part}"] = len(path_of.keys() - listed.get(part, {}).keys())
    images: dict[Split, list[VindrImage]] = {}
    for part in parts:
        sizes = _read_sizes(folder, part)
        images[part] = [
            VindrImage(
                paths[part][image_id],
                key(NAME, image_id),
                listed[part][image_id],
                *_merge(marks[part].of(image_id), part, min_iou, min_readers, facts),
                _size(sizes, image_id, part),
            )
            for image_id in sorted(listed[part].keys() & paths[part].keys())
        ]
    rest, validate = _carve(images["train"], validate_share, "VinDr validate")
    test = images.get("test", [])
    if form == KAGGLE:
        rest, test = _carve(rest, test_share, "VinDr test")
    dataset_images = _account_images(listed, images)
    dataset_images.require_some(NAME, hint="set the path to the folder that holds train/")
    return VindrDataset(
        form=form,
        train=tuple(rest),
        validate=tuple(validate),
        test=tuple(test),
        rows=_account_rows(list(marks.values())),
        images=dataset_images,
        facts={
            **dict(sorted(facts.items())),
            "images_not_read_by_three": sum(len(n) != 3 for n in marks["train"].readers.values()),
            **_over(num_queries, train=rest, validate=validate, test=test),
        },
        protocol={
            "form": form,
            "classes": ", ".join(CLASSES),
            "other_local_findings": others,
            "reader_fusion": "weighted box fusion per class, uniform weights, training readers",
            "reader_fusion_iou": min_iou,
            "reader_fusion_min_readers": min_readers,
            "test": _OFFICIAL_TEST if form == PHYSIONET else _KAGGLE_TEST.format(test_share),
        },
    )


def _merge(
    drawn: list[Mark],
    part: Split,
    min_iou: float,
    min_readers: int,
    facts: Counter[str],
) -> tuple[Boxes, NDArray[np.int64], NDArray[np.int64]]:
    """Return boxes, classes and votes of one image; readers fused unless it is the test."""
    if part == "test":
        ordered = sorted(drawn)
        classes = np.array([number for number, _, _ in ordered], dtype=np.int64)
        return as_boxes([box for _, _, box in ordered]), classes, np.zeros_like(classes)
    boxes, numbers, votes = [], [], []
    for number in sorted({number for number, _, _ in drawn}):
        own = [(reader, box) for label, reader, box in drawn if label == number]
        fused = fuse([box for _, box in own], [reader for reader, _ in own], min_iou=min_iou)
        keep = fused.votes >= min_readers
        facts["fused_boxes"] += len(keep)
        facts["fused_boxes_of_one_reader"] += int((fused.votes == 1).sum())
        facts["fused_boxes_of_too_few_readers_left_out"] += int((~keep).sum())
        boxes.append(fused.boxes[keep])
        votes.append(fused.votes[keep])
        numbers.append(np.full(int(keep.sum()), number, dtype=np.int64))
    if not boxes:
        return as_boxes([]), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate(boxes), np.concatenate(numbers), np.concatenate(votes)


def _find_images(files: Iterable[str]) -> dict[Split, dict[str, str]]:
    """Return image id -> path by split; of an image in two forms the DICOM file counts."""
    path_of: dict[Split, dict[str, str]] = {"train": {}, "test": {}}
    for path in image_files(files, published=".dicom"):
        part = next((part for part in path_of if part in path.parts[:-1]), None)
        if part is not None:
            path_of[part].setdefault(path.stem, str(path))
    return path_of


def _read_sizes(folder: Path, part: Split) -> dict[str, tuple[int, int]]:
    path = tables.find_optional(folder, [f"{part}_meta.csv"], below=("", "annotations", part))
    if path is None:
        return {}
    sizes = {}
    for line, row in tables.read_rows(path, ("image_id", "dim0", "dim1")):
        where = f"{path.name}, line {line}"
        sizes[row["image_id"]] = (
            tables.whole(row["dim0"], "dim0", where),
            tables.whole(row["dim1"], "dim1", where),
        )
    return sizes


def _size(
    sizes: Mapping[str, tuple[int, int]], image_id: str, part: Split
) -> tuple[int, int] | None:
    if sizes and image_id not in sizes:
        raise SourceError(
            f"{part}_meta.csv: expected the original size of every image, found none for one that "
            "the annotations list",
            hint=f"make {part}_meta.csv of all original images, or remove it if they are originals",
        )
    return sizes.get(image_id)


def _carve(
    images: list[VindrImage], share: float, purpose: str
) -> tuple[list[VindrImage], list[VindrImage]]:
    chosen = lowest((image.sample for image in images), share, purpose)
    rest = [image for image in images if image.sample not in chosen]
    return rest, [image for image in images if image.sample in chosen]


def _refuse_shared(listed: Mapping[Split, Mapping[str, str]]) -> None:
    if "test" not in listed:
        return
    shared = listed["train"].keys() & listed["test"].keys()
    if shared:
        raise SplitLeakError(
            f"{NAME}: expected each image in one split, found {len(shared)} in both; one is at "
            f"{listed['test'][min(shared)]}",
            hint="use the annotation files as published; do not mix releases",
        )


def _account_images(
    listed: Mapping[Split, Mapping[str, str]], images: Mapping[Split, Sequence[VindrImage]]
) -> Account:
    read = sum(map(len, listed.values()))
    kept = sum(map(len, images.values()))
    if read - kept > MAX_MISSING_SHARE * read:
        there = {image.place for part in images.values() for image in part}
        first = next(at for places in listed.values() for at in places.values() if at not in there)
        raise SourceError(
            f"{NAME}: {read - kept} of {read} listed images are missing, more than "
            f"{MAX_MISSING_SHARE:.0%}; one is listed at {first}",
            hint="put the images into train/ and test/ below the dataset's folder, named by their "
            "image_id, as .dicom, .dcm, .png or .jpg",
        )
    return Account("images", read, kept, {"image file is missing": read - kept})


def _account_rows(marked: Sequence[Marks]) -> Account:
    left_out: Counter[str] = Counter()
    for table in marked:
        left_out.update(table.left_out)
    return Account(
        "annotation_rows",
        sum(table.read for table in marked),
        sum(len(drawn) for table in marked for drawn in table.boxes.values()),
        dict(left_out),
    )


def _over(num_queries: int, **splits: Sequence[VindrImage]) -> dict[str, int]:
    return {
        f"images_with_over_{num_queries}_boxes_{name}": sum(
            len(image.boxes) > num_queries for image in images
        )
        for name, images in splits.items()
    }
