"""Whether the training of the encoders that are judged knew the images they are tested on.

The stage firewall has compared every test image with training and written what is left. Here the
predictions are held against it: each image must have been compared, none may be left in training,
and the encoder must have been trained on the very pairs that the firewall leaves. What fails
stands in metrics.json under ``contaminated``, in words and counts. An encoder of which nobody knows
what it was trained on, or only that it was on other pairs, is in a state of its own
(``Contamination.state``): nothing was found, since its images were not searched; nothing speaks
against it, and nothing for it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import pyarrow as pa

from lapvqa import storage
from lapvqa.evaluation.results import TRAINING_OTHER, TRAINING_UNKNOWN, Contamination
from lapvqa.images.report_pairs import digest_pairs, read_pairs
from lapvqa.pretrain.files import ADAPTATION_FILE, CARD_FILE, ENCODER_FILE
from lapvqa.project import Project
from lapvqa.schemas import TESTED

ARCHIVE = "archive"
"""The data set of tasks without an input folder: the archive's own splits."""

NOT_COMPARED, OTHER = "not_compared", TRAINING_OTHER
_DESCRIBED = (
    (CARD_FILE, "training", ENCODER_FILE),
    (ADAPTATION_FILE, "pretraining", "model.safetensors"),
)
"""What says whom weights have seen: the file, its section, the weights that it lies beside."""
_WHY = {
    NOT_COMPARED: "{} of {} test images were not compared with training by the firewall",
    TRAINING_UNKNOWN: "it is not known what the encoder was trained on: {} of {} test images "
    "may be in it",
    OTHER: "the encoder was trained on other images than the firewall leaves now, which nobody has "
    "searched: {} of {} test images may be among them",
}
_LEFT = "{} of {} test images are in training too, by {} (firewall.on_leak: stamp)"


def examine(
    predictions: pa.Table, data_set: str, training: str | None, project: Project
) -> Contamination | Literal[False]:
    """Return what is wrong with the test images of ``predictions``; False if nothing is.

    ``training``: digest of the pairs that the encoder was trained on, None if not known.
    """
    names = tested_names(predictions)
    counts: Counter[str] = Counter()
    if training is None:
        counts[TRAINING_UNKNOWN] = len(names)
    elif not project.excluded.exists():
        counts[NOT_COMPARED] = len(names)
    else:
        if training != _left_to_training(project):
            counts[OTHER] = len(names)
        counts.update(_of_images(names, project.tested(data_set)))
    why = [
        _WHY.get(code, _LEFT).format(number, len(names), code)
        for code, number in sorted(counts.items())
    ]
    return Contamination(tuple(why), dict(sorted(counts.items()))) if why else False


def training_of(encoder: Path) -> str | None:
    """Return the digest of the pairs that an encoder's file or folder was trained on.

    As its card or its adaptation plan says, if that is of these very weights; None if nobody says,
    as of an encoder that began with weights from elsewhere (``pretrain.init``).
    """
    for file, section, name in _DESCRIBED:
        weights = encoder / name if encoder.is_dir() else encoder
        for folder in (weights.parent, weights.parent.parent):  # timm's lie in a folder below
            if not (weights.is_file() and (folder / file).is_file()):
                continue
            said = storage.read_json(folder / file, made_by="export")
            known = said.get("sha256", {}).get(weights.relative_to(folder).as_posix())
            if known == storage.sha256_file(weights):
                training = said.get(section, {})
                digest: str | None = training.get("data_digest")
                return None if "began_with" in training else digest
    return None


def tested_names(predictions: pa.Table) -> set[str]:
    """Return what an evaluation's test images are called: by image, else by sample."""
    columns = [name for name in ("image", "reference_image") if name in predictions.column_names]
    names = {name for column in columns or ["sample"] for name in predictions[column].to_pylist()}
    return names - {None}


def _left_to_training(project: Project) -> str:
    pairs = [pair for split in ("train", "validate") for pair in read_pairs(project, split)[0]]
    return digest_pairs(pairs)


def _of_images(names: set[str], tested: Path) -> Counter[str]:
    rows = (
        storage.read_table(tested, TESTED, made_by="firewall").to_pylist()
        if tested.exists() else []
    )  # fmt: skip
    found: dict[str, str | None] = {}
    for row in rows:
        for name in (row["name"], row["study_key"]):  # a report's sample is its study
            if name is not None:
                found[name] = (row["found"] if row["left"] else None) or found.get(name)
    reasons = [found[name] for name in names if name in found]
    counts = Counter(reason for reason in reasons if reason is not None)
    counts[NOT_COMPARED] = len(names - found.keys())
    return +counts
