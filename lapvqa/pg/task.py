"""Phrase grounding: the box that a phrase of a report speaks of, on MS-CXR."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapvqa.datasets.boxes import Boxes, to_centred
from lapvqa.datasets.ms_cxr import MsCxrDataset, Phrase, read_ms_cxr
from lapvqa.datasets.stored import StoredImages, open_stored
from lapvqa.evaluation import contract, features
from lapvqa.evaluation.encoders.phrases import PhraseEncoder, open_phrases
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.evaluation.image_folder import open_folder
from lapvqa.evaluation.subject import Subject, pipeline
from lapvqa.evaluation.visual_tokens import Vision, open_vision, seeded, stored_images
from lapvqa.heads import checkpoint
from lapvqa.heads.boxes import to_xyxy
from lapvqa.heads.recipe import Fitted, fit
from lapvqa.job import Counts, Job
from lapvqa.metrics.bootstrap import Measures
from lapvqa.metrics.boxes.overlap import areas, as_boxes
from lapvqa.metrics.boxes.phrase_grounding import NAMES, Several, grounding_panel
from lapvqa.params import EvaluateParams, PgParams
from lapvqa.pg import scoring
from lapvqa.pg.heads import VisualGroundingHead, grounding_loss
from lapvqa.schemas import GROUNDING_PREDICTIONS, STORED_SIZE

ABSENT = (
    "no MS-CXR here: set inventory.ms_cxr in params.yaml, or paths.ms_cxr in local.yaml, to the "
    "folder that holds MS_CXR_Local_Alignment_v1.1.0.csv or .json (or those of v1.0.0)"
)
HEAD = "head.pt"
SPLITS = ("train", "validate", "test")
TARGETS = {
    "union": "the box that encloses all of the phrase's boxes",
    "best": "the largest of the phrase's boxes",
}
"""What the one box of the head is trained towards, by ``several_boxes``."""

_RULE = "scored_several_boxes"


def measure(predictions: pa.Table) -> Measures:
    """Score one system's rows; of several true boxes by the rule that their protocol names."""
    return scoring.measure(predictions, several=_rule(predictions))


def curves(predictions: pa.Table) -> contract.Table:
    """Return the curves of all systems, by the same rule."""
    return scoring.curves(predictions, several=_rule(predictions))


def _rule(predictions: pa.Table) -> Several:
    """Return the rule of the protocol in the table's metadata; union where it has none."""
    rule: Several = contract.protocol_of(predictions).get(_RULE, "union")
    return rule


EVALUATION = contract.Evaluation(
    task="pg",
    schema=GROUNDING_PREDICTIONS,
    primary=scoring.PRIMARY,
    measure=measure,
    curves=curves,
    curve_columns=scoring.CURVE_COLUMNS,
)


@dataclass(frozen=True)
class Sample:
    """A phrase, the number of its image, its vector float32 [W], and the box to learn [4].

    ``target``: xyxy in stored pixels.
    """

    phrase: Phrase
    number: int
    vector: NDArray[np.float32]
    target: Boxes


Splits = dict[str, list[Sample]]


def run(params: EvaluateParams, job: Job) -> Counts:
    """Judge the pipeline's encoder: write results/pg; raises SourceError, SplitLeakError."""
    return evaluate(pipeline(job), params, job)


def evaluate(subject: Subject, params: EvaluateParams, job: Job) -> Counts:
    """Judge a subject's encoders; raises SourceError, SplitLeakError, ConfigError."""
    chosen, folder = params.pg, subject.folder(EVALUATION.task)
    source = open_folder("ms_cxr", job)
    if source is None:
        return contract.not_computed(EVALUATION, ABSENT, folder=folder, common=params.common)
    stored = open_stored(job)
    dataset = read_ms_cxr(
        source.folder,
        stored,
        split=chosen.split,
        shared_patients=chosen.shared_patients,
        pretrained_patients=chosen.pretrained_patients,
    )
    missing = [split for split in ("train", "test") if not dataset.of_split(split)]
    if missing:
        reason = f"MS-CXR has no {missing[0]} phrase about the images stored here"
        return contract.not_computed(EVALUATION, reason, folder=folder, common=params.common)
    extra = contract.empty_extra(folder)
    phrases = open_phrases(chosen.phrase_encoder, subject.model)
    encoders = subject.load()
    parts, facts = [], _protocol(dataset, phrases, chosen) | features.describe(encoders)
    for name, encoder, recipe in seeded(encoders, chosen.recipe):
        now = chosen.model_copy(update={"recipe": recipe})
        learnt = _learn(name, encoder, dataset, phrases, stored, now, job)
        parts.append(learnt.predict(name))
        facts |= learnt.fitted.describe(name)
        if len(parts) == 1:
            learnt.save(extra / HEAD, encoder.about)
            learnt.vision.save_trained(extra)
    return contract.publish(
        EVALUATION, pa.concat_tables(parts), protocol=facts, folder=folder, common=params.common
    )


def target_box(boxes: Boxes, several: Several) -> Boxes:
    """Return the one box [4] that stands for a phrase's boxes [n, 4], n >= 1; see ``TARGETS``."""
    if several == "best":
        largest: Boxes = boxes[int(areas(boxes).argmax())]
        return largest
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


@dataclass(frozen=True)
class Learnt:
    """A head trained on one encoder's tokens."""

    head: VisualGroundingHead
    vision: Vision
    fitted: Fitted
    splits: Splits
    batch_size: int
    several: Several

    def predict(self, system: str) -> pa.Table:
        """Return a row for each test phrase, ordered by sample."""
        samples = self.splits["test"]
        found = ground(self.head, self.vision, samples, self.batch_size)
        rows = [_row(system, *pair) for pair in zip(samples, found, strict=True)]
        return pa.Table.from_pylist(rows, schema=GROUNDING_PREDICTIONS)

    def save(self, path: Path, encoder: str) -> None:
        """Write the head as published, with its mIoU and Acc@0.5 on the validation phrases."""
        samples = self.splits["validate"]
        found = ground(self.head, self.vision, samples, self.batch_size)
        scores = judge(samples, found, self.several)
        checkpoint.save(
            self.head, path, encoder=encoder, epoch=self.fitted.epoch, val_miou=scores["miou"],
            val_acc50=scores["acc50"],
        )  # fmt: skip


def _learn(
    name: str,
    encoder: ImageEncoder,
    dataset: MsCxrDataset,
    phrases: PhraseEncoder,
    stored: StoredImages,
    chosen: PgParams,
    job: Job,
) -> Learnt:
    recipe, several = chosen.recipe, chosen.several_boxes
    keys = [phrase.image_key for phrase in dataset.phrases]
    images, numbers = stored_images(keys, stored, job.project)
    vision = open_vision(
        encoder, images, chosen.tokens, recipe, job=job,
        progress=partial(job.recorder.progress, unit="images", note=name),
    )  # fmt: skip
    splits = _samples(dataset, phrases, numbers, several)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        head = VisualGroundingHead(vision.width, phrases.width, **chosen.head.model_dump())
    head.to(vision.device)
    train, validate = splits["train"], splits["validate"]

    def score() -> float:
        found = ground(head, vision, validate, recipe.batch_size)
        return judge(validate, found, several)["miou"]

    fitted = fit(
        head,
        lambda numbers: _loss(head, vision, [train[one] for one in numbers]),
        len(train),
        recipe=recipe,
        score=score if validate else None,
        encoder=vision.trained,
        progress=partial(job.recorder.progress, unit="steps", note=name),
    )
    return Learnt(head, vision, fitted, splits, recipe.batch_size, several)


def _samples(
    dataset: MsCxrDataset, encode: PhraseEncoder, numbers: dict[str, int], several: Several
) -> Splits:
    """Return the samples of each split, ordered by key; every text is encoded once."""
    texts = sorted({phrase.text for phrase in dataset.phrases})
    vectors = dict(zip(texts, encode(texts), strict=True))
    return {
        split: [
            Sample(
                phrase,
                numbers[phrase.image_key],
                vectors[phrase.text],
                target_box(phrase.stored_boxes, several),
            )
            for phrase in dataset.of_split(split)
        ]
        for split in SPLITS
    }


def _boxes(head: VisualGroundingHead, vision: Vision, samples: Sequence[Sample]) -> Tensor:
    """Return the head's boxes [k, 4] (cx, cy, w, h) of phrases."""
    vectors = torch.from_numpy(np.stack([one.vector for one in samples])).to(vision.device)
    boxes: Tensor = head(vision.tokens([one.number for one in samples]), vectors)
    return boxes


def _loss(head: VisualGroundingHead, vision: Vision, samples: Sequence[Sample]) -> Tensor:
    truth = torch.from_numpy(to_centred([one.target for one in samples])).float()
    return grounding_loss(_boxes(head, vision, samples), truth.to(vision.device))


@torch.no_grad()
def ground(
    head: VisualGroundingHead, vision: Vision, samples: Sequence[Sample], size: int
) -> Boxes:
    """Return the boxes [n, 4] that the head finds: xyxy in stored pixels, cut at the edges."""
    found = [as_boxes([])]
    for part in _parts(samples, size):
        corners = to_xyxy(_boxes(head, vision, part).double()).clamp(0, 1)
        found.append(corners.cpu().numpy() * STORED_SIZE)
    return np.concatenate(found)


def _parts(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


def judge(samples: Sequence[Sample], found: Boxes, several: Several) -> dict[str, float]:
    """Return miou, acc25, acc50 and pointing over the phrases; NaN without any."""
    if not samples:
        return dict.fromkeys(NAMES, math.nan)
    panel = grounding_panel([one.phrase.stored_boxes for one in samples], found, several=several)
    values = panel.statistic(np.ones((1, len(samples))))[0]
    return dict(zip(panel.names, values.tolist(), strict=True))


def _row(system: str, sample: Sample, found: Boxes) -> dict[str, Any]:
    phrase = sample.phrase
    return {
        "sample": phrase.sample,
        "patient": phrase.patient_key,
        "system": system,
        "image": phrase.image_key,
        "category": phrase.category,
        "phrase": phrase.text,
        "true_boxes": phrase.stored_boxes.tolist(),
        "found_box": found.tolist(),
    }


def _protocol(dataset: MsCxrDataset, phrases: PhraseEncoder, chosen: PgParams) -> dict[str, Any]:
    return {
        **dataset.describe(),
        **{f"phrases_{split}": len(dataset.of_split(split)) for split in SPLITS},
        "phrase_encoder": phrases.about,
        "tokens": chosen.tokens,
        **{f"head_{key}": value for key, value in chosen.head.model_dump().items()},
        **{f"recipe_{key}": value for key, value in chosen.recipe.model_dump().items()},
        "trained_on_several_boxes": TARGETS[chosen.several_boxes],
        _RULE: chosen.several_boxes,
        "loss": "5 smooth-L1 (turns linear at 0.1) + 2 (1 - GIoU)",
        "validated_on": "mIoU of the validation phrases",
    }
