"""Judge encoders by grounding: read MS-CXR, train a head on each encoder's tokens, predict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapvqa.datasets.boxes import Boxes, to_centred
from lapvqa.datasets.ms_cxr import MsCxrDataset, Phrase, read_ms_cxr
from lapvqa.datasets.stored import open_stored
from lapvqa.evaluation import features
from lapvqa.evaluation.encoders.phrases import PhraseEncoder, open_phrases
from lapvqa.evaluation.evaluate import Evaluation, encoder_folder
from lapvqa.evaluation.head_training import TaskHead, describe, train_heads
from lapvqa.evaluation.visual_tokens import NumberedImages, VisualTokens, stored_images
from lapvqa.heads.boxes import to_xyxy
from lapvqa.images.report_pairs import read_excluded
from lapvqa.job import Counts
from lapvqa.metrics.boxes.overlap import areas, as_boxes
from lapvqa.metrics.boxes.phrase_grounding import NAMES, Several, grounding_panel
from lapvqa.params import PgParams
from lapvqa.pg import scoring
from lapvqa.pg.heads import VisualGroundingHead, grounding_loss
from lapvqa.schemas import GROUNDING_PREDICTIONS, STORED_SIZE

SPLITS = ("train", "validate", "test")
TARGETS = {
    "union": "the box that encloses all of the phrase's boxes",
    "best": "the largest of the phrase's boxes",
}
"""The target of the head's one box, by ``several_boxes``."""


@dataclass(frozen=True)
class GroundingSample:
    """A phrase, the number of its image, its vector float32 [W], and the box to learn [4].

    ``target``: xyxy in stored pixels.
    """

    phrase: Phrase
    number: int
    vector: NDArray[np.float32]
    target: Boxes


def judge(run: Evaluation[PgParams]) -> Counts:
    """Judge a set of encoders; raises SourceError, SplitLeakError, ConfigError."""
    params = run.params
    source = run.open_input()
    if source is None:
        return run.without_input()
    stored = open_stored(run.job, read_excluded(run.job.project))
    dataset = read_ms_cxr(
        source.folder,
        stored,
        split=params.split,
        shared_patients=params.shared_patients,
        pretrained_patients=params.pretrained_patients,
    )
    missing = [split for split in ("train", "test") if not dataset.of_split(split)]
    if missing:
        return run.not_computed(f"MS-CXR has no {missing[0]} phrase about the images stored here")
    extra = run.empty_extra()
    # The pipeline's model lends its words to external encoders too; nothing else of it takes part.
    model = encoder_folder(run.job) if params.phrase_encoder == "own" else None
    phrases = open_phrases(params.phrase_encoder, model)
    encoders = run.encoders.load()
    keys = [phrase.image_key for phrase in dataset.phrases]
    images, numbers = stored_images(keys, stored, run.job.project)
    splits = _samples(dataset, phrases, numbers, params.several_boxes)
    heads = train_heads(
        GroundingTaskHead(splits, images, phrases.width, params),
        encoders,
        params.recipe,
        extra=extra,
        job=run.job,
    )
    rows = [
        _row(system, sample, box)
        for system, boxes in heads.predictions.items()
        for sample, box in zip(splits["test"], boxes, strict=True)
    ]
    protocol = {
        **_protocol(dataset, phrases, params), **features.describe(encoders), **heads.describe(),
    }  # fmt: skip
    return run.publish(pa.Table.from_pylist(rows, schema=GROUNDING_PREDICTIONS), protocol)


def target_box(boxes: Boxes, several: Several) -> Boxes:
    """Return the one box [4] that stands for a phrase's boxes [n, 4], n >= 1; see ``TARGETS``."""
    if several == "best":
        largest: Boxes = boxes[int(areas(boxes).argmax())]
        return largest
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def _samples(
    dataset: MsCxrDataset, encode: PhraseEncoder, numbers: dict[str, int], several: Several
) -> dict[str, list[GroundingSample]]:
    """Return the samples of each split, ordered by key; every text is encoded once."""
    texts = sorted({phrase.text for phrase in dataset.phrases})
    vectors = dict(zip(texts, encode(texts), strict=True))
    return {
        split: [
            GroundingSample(
                phrase,
                numbers[phrase.image_key],
                vectors[phrase.text],
                target_box(phrase.stored_boxes, several),
            )
            for phrase in dataset.of_split(split)
        ]
        for split in SPLITS
    }


class GroundingTaskHead(TaskHead[VisualGroundingHead, Boxes]):
    """The head that draws one box per phrase: its loss, its mIoU, its boxes."""

    def __init__(
        self,
        splits: dict[str, list[GroundingSample]],
        images: NumberedImages,
        phrase_width: int,
        params: PgParams,
    ) -> None:
        self.images, self.token_kind = images, params.tokens
        self._splits, self._phrase_width, self._params = splits, phrase_width, params
        self.num_train, self.num_validate = (len(splits[split]) for split in ("train", "validate"))

    def make(self, width: int) -> VisualGroundingHead:
        """Return a new head of the configured sizes."""
        return VisualGroundingHead(width, self._phrase_width, **self._params.head.model_dump())

    def loss(
        self, head: VisualGroundingHead, tokens: VisualTokens, numbers: Sequence[int]
    ) -> Tensor:
        """Return smooth-L1 and GIoU towards the targets."""
        samples = [self._splits["train"][number] for number in numbers]
        targets = torch.from_numpy(to_centred([sample.target for sample in samples])).float()
        return grounding_loss(_boxes(head, tokens, samples), tokens.computer.put(targets))

    def reads(self, numbers: Sequence[int]) -> list[Sequence[int]]:
        """Return the samples' images."""
        train = self._splits["train"]
        return [[train[number].number for number in numbers]]

    def score(self, head: VisualGroundingHead, tokens: VisualTokens) -> float:
        """Return the mIoU of the validation phrases."""
        return self._overlaps(head, tokens)["miou"]

    def file_scores(self, head: VisualGroundingHead, tokens: VisualTokens) -> dict[str, float]:
        """Return mIoU and Acc@0.5 of the validation phrases."""
        overlaps = self._overlaps(head, tokens)
        return {"val_miou": overlaps["miou"], "val_acc50": overlaps["acc50"]}

    def predict(self, head: VisualGroundingHead, tokens: VisualTokens) -> Boxes:
        """Return the box of each test phrase, ordered by sample."""
        return self.ground(head, tokens, self._splits["test"])

    def ground(
        self, head: VisualGroundingHead, tokens: VisualTokens, samples: Sequence[GroundingSample]
    ) -> Boxes:
        """Return the boxes [n, 4] that the head finds: xyxy in stored pixels, cut at the edges."""
        boxes = [as_boxes([])]
        for part in _parts(samples, self._params.recipe.batch_size):
            corners = to_xyxy(_boxes(head, tokens, part).double()).clamp(0, 1)
            boxes.append(corners.cpu().numpy() * STORED_SIZE)
        return np.concatenate(boxes)

    def _overlaps(self, head: VisualGroundingHead, tokens: VisualTokens) -> dict[str, float]:
        samples = self._splits["validate"]
        boxes = self.ground(head, tokens, samples)
        return mean_overlaps(samples, boxes, self._params.several_boxes)


def _boxes(
    head: VisualGroundingHead, tokens: VisualTokens, samples: Sequence[GroundingSample]
) -> Tensor:
    """Return the head's boxes [k, 4] (cx, cy, w, h) of phrases."""
    vectors = tokens.computer.put(np.stack([sample.vector for sample in samples]))
    boxes: Tensor = head(tokens.of([sample.number for sample in samples]), vectors)
    return boxes


def _parts(samples: Sequence[GroundingSample], size: int) -> Iterator[Sequence[GroundingSample]]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


def mean_overlaps(
    samples: Sequence[GroundingSample], found: Boxes, several: Several
) -> dict[str, float]:
    """Return miou, acc25, acc50 and pointing over the phrases; NaN without any."""
    if not samples:
        return dict.fromkeys(NAMES, math.nan)
    panel = grounding_panel(
        [sample.phrase.stored_boxes for sample in samples], found, several=several
    )
    values = panel.statistic(np.ones((1, len(samples))))[0]
    return dict(zip(panel.names, values.tolist(), strict=True))


def _row(system: str, sample: GroundingSample, found: Boxes) -> dict[str, Any]:
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


def _protocol(dataset: MsCxrDataset, phrases: PhraseEncoder, params: PgParams) -> dict[str, Any]:
    return {
        **dataset.describe(),
        **{f"phrases_{split}": len(dataset.of_split(split)) for split in SPLITS},
        "phrase_encoder": phrases.about,
        "tokens": params.tokens,
        **describe(params.head, params.recipe),
        "trained_on_several_boxes": TARGETS[params.several_boxes],
        scoring.RULE: params.several_boxes,
        "loss": "5 smooth-L1 (turns linear at 0.1) + 2 (1 - GIoU)",
        "validated_on": "mIoU of the validation phrases",
    }
