"""Abnormality detection: boxes of 14 findings in VinDr-CXR, by a small DETR over the tokens."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapvqa import storage
from lapvqa.ad import scoring
from lapvqa.ad.heads import DetectionHead, Detections, predict
from lapvqa.ad.loss import DETR, Target, detection_loss
from lapvqa.datasets.boxes import Boxes, to_centred
from lapvqa.datasets.pictures import read_or_none
from lapvqa.datasets.vindr import VindrDataset, read_vindr
from lapvqa.datasets.vindr_tables import CLASSES
from lapvqa.errors import SourceError
from lapvqa.evaluation import contract, features
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.evaluation.image_folder import ImageFolder, decode, open_folder
from lapvqa.evaluation.subject import Subject, pipeline
from lapvqa.evaluation.visual_tokens import Images, Vision, open_vision, seeded
from lapvqa.heads import checkpoint
from lapvqa.heads.recipe import Fitted, fit
from lapvqa.job import Counts, Job
from lapvqa.metrics.boxes.overlap import areas, as_boxes
from lapvqa.metrics.boxes.voc import FoundBoxes, TrueBoxes, detection_panel
from lapvqa.params import AdParams, EvaluateParams
from lapvqa.schemas import DETECTION_PREDICTIONS, STORED_SIZE

EVALUATION = contract.Evaluation(
    task="ad",
    schema=DETECTION_PREDICTIONS,
    primary=scoring.PRIMARY,
    measure=scoring.measure,
    curves=scoring.curves,
    curve_columns=scoring.CURVE_COLUMNS,
)

ABSENT = (
    "no VinDr-CXR images here: set inventory.vindr in params.yaml, or paths.vindr in local.yaml, "
    "to the folder that holds train/, test/ and annotations/ (Kaggle's: train/ and train.csv)"
)
HEAD, EXAMPLES = "head.pt", "examples.npz"
NUM_EXAMPLES = 12
"""Test images whose pixels the report page gets: VinDr-CXR's are stored nowhere else."""

MAX_UNREADABLE_SHARE = 0.01


@dataclass(frozen=True)
class Sample:
    """An image: its number among those that could be read, and its true boxes.

    ``boxes`` float64 [n, 4]: xyxy in stored pixels; ``labels`` int64 [n]: 0..13.
    """

    key: str
    number: int
    labels: NDArray[np.int64]
    boxes: Boxes


@dataclass(frozen=True)
class Data:
    """The samples of each split, ordered by key; their images; counts for the protocol."""

    splits: Mapping[str, Sequence[Sample]]
    images: Images
    counts: Mapping[str, int]


def run(params: EvaluateParams, job: Job) -> Counts:
    """Judge the pipeline's encoder: write results/ad; raises SourceError, SplitLeakError."""
    return evaluate(pipeline(job), params, job)


def evaluate(subject: Subject, params: EvaluateParams, job: Job) -> Counts:
    """Judge a subject's encoders; raises SourceError, SplitLeakError."""
    chosen, folder = params.ad, subject.folder(EVALUATION.task)
    source = open_folder("vindr", job)
    if source is None:
        return contract.not_computed(EVALUATION, ABSENT, folder=folder, common=params.common)
    dataset = read_vindr(
        source.folder,
        source.files,
        min_iou=chosen.min_iou,
        min_readers=chosen.min_readers,
        others=chosen.others,
        num_queries=chosen.head.num_queries,
    )
    data = open_data(dataset, source, job)
    missing = [split for split in ("train", "test") if not data.splits[split]]
    if missing:
        reason = f"VinDr-CXR has no {missing[0]} image here"
        return contract.not_computed(EVALUATION, reason, folder=folder, common=params.common)
    extra = contract.empty_extra(folder)
    encoders = subject.load()
    parts, facts = [], _protocol(dataset, data, chosen) | features.describe(encoders)
    for name, encoder, recipe in seeded(encoders, chosen.recipe):
        now = chosen.model_copy(update={"recipe": recipe})
        learnt = _learn(name, encoder, data, now, job)
        parts.append(learnt.predict(name))
        facts |= learnt.fitted.describe(name)
        if len(parts) == 1:
            learnt.save(extra / HEAD, encoder.about)
            learnt.vision.save_trained(extra)
    write_examples(extra / EXAMPLES, data)
    return contract.publish(
        EVALUATION, pa.concat_tables(parts), protocol=facts, folder=folder, common=params.common
    )


def open_data(dataset: VindrDataset, source: ImageFolder, job: Job) -> Data:
    """Decode all images and map their boxes; raises SourceError if more than 1 % are unreadable."""
    listed = [(split, image) for split, images in dataset.splits.items() for image in images]
    paths = [image.path for _, image in listed]
    decoded = decode(source, paths, read_or_none, job=job)
    broken = [one for one, good in zip(listed, decoded.readable, strict=True) if not good]
    if len(broken) > MAX_UNREADABLE_SHARE * len(listed):
        raise SourceError(
            f"VinDr-CXR: {len(broken)} of {len(listed)} images cannot be read, more than "
            f"{MAX_UNREADABLE_SHARE:.0%}; one is listed at {broken[0][1].place}",
            hint="download them again, and compare them with the release's SHA256SUMS.txt",
        )
    splits: dict[str, list[Sample]] = {split: [] for split in dataset.splits}
    flat = 0
    readable = [one for one, good in zip(listed, decoded.readable, strict=True) if good]
    for number, ((split, image), fit_) in enumerate(zip(readable, decoded.fits, strict=True)):
        boxes = image.stored_boxes(fit_)
        solid = areas(boxes) > 0
        flat += int((~solid).sum())
        splits[split].append(Sample(image.sample, number, image.classes[solid], boxes[solid]))
    counts = {f"images_{split}": len(samples) for split, samples in splits.items()}
    for split in splits:
        counts[f"unreadable_images_{split}"] = sum(one == split for one, _ in broken)
    ordered = {split: sorted(one, key=lambda sample: sample.key) for split, one in splits.items()}
    return Data(
        ordered,
        Images(decoded.digests, decoded.pixels),
        {**counts, "boxes_outside_the_image_left_out": flat},
    )


@dataclass(frozen=True)
class Learnt:
    """A head trained on one encoder's tokens."""

    head: DetectionHead
    vision: Vision
    fitted: Fitted
    data: Data
    batch_size: int

    def predict(self, system: str) -> pa.Table:
        """Return a row for each test image, ordered by sample."""
        samples = self.data.splits["test"]
        found = find(self.head, self.vision, samples, self.batch_size)
        rows = [_row(system, *pair) for pair in zip(samples, found, strict=True)]
        return pa.Table.from_pylist(rows, schema=DETECTION_PREDICTIONS)

    def save(self, path: Path, encoder: str) -> None:
        """Write the head as published, with its mAP on the validation images."""
        samples = self.data.splits["validate"]
        found = find(self.head, self.vision, samples, self.batch_size)
        map40, map50 = average_precision(samples, found)
        checkpoint.save(
            self.head, path, encoder=encoder, epoch=self.fitted.epoch, val_map40=map40,
            val_map50=map50,
        )  # fmt: skip


def _learn(name: str, encoder: ImageEncoder, data: Data, chosen: AdParams, job: Job) -> Learnt:
    recipe = chosen.recipe
    vision = open_vision(
        encoder, data.images, chosen.tokens, recipe, job=job,
        progress=partial(job.recorder.progress, unit="images", note=name),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        head = DetectionHead(vision.width, **chosen.head.model_dump())
    head.to(vision.device)
    train, validate = data.splits["train"], data.splits["validate"]
    size = recipe.batch_size
    fitted = fit(
        head,
        lambda numbers: _loss(head, vision, [train[one] for one in numbers]),
        len(train),
        recipe=recipe,
        score=(lambda: _score(head, vision, validate, size)) if validate else None,
        encoder=vision.trained,
        progress=partial(job.recorder.progress, unit="steps", note=name),
    )
    return Learnt(head, vision, fitted, data, size)


def _loss(head: DetectionHead, vision: Vision, samples: Sequence[Sample]) -> Tensor:
    tokens = vision.tokens([one.number for one in samples])
    logits, boxes = head(tokens)
    targets = [_target(one, vision.device) for one in samples]
    return detection_loss(logits, boxes, targets).total


def _target(sample: Sample, device: torch.device) -> Target:
    boxes = torch.from_numpy(to_centred(sample.boxes)).float()
    return Target(torch.from_numpy(sample.labels).to(device), boxes.to(device))


@torch.no_grad()
def _score(head: DetectionHead, vision: Vision, samples: Sequence[Sample], size: int) -> float:
    """Return mAP@0.4; without a true box, where it is undefined, minus the loss."""
    map40, _ = average_precision(samples, find(head, vision, samples, size))
    if np.isfinite(map40):
        return map40
    losses = [len(part) * float(_loss(head, vision, part)) for part in _parts(samples, size)]
    return -sum(losses) / len(samples)


@torch.no_grad()
def find(
    head: DetectionHead, vision: Vision, samples: Sequence[Sample], size: int
) -> list[Detections]:
    """Return what the head finds in each image; boxes float64 in stored pixels, on the CPU."""
    found: list[Detections] = []
    for part in _parts(samples, size):
        for one in predict(head, vision.tokens([sample.number for sample in part])):
            found.append(
                {
                    "boxes": one["boxes"].cpu().double() * STORED_SIZE,
                    "labels": one["labels"].cpu(),
                    "scores": one["scores"].cpu().double(),
                }
            )
    return found


def _parts(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


def average_precision(
    samples: Sequence[Sample], found: Sequence[Detections]
) -> tuple[float, float]:
    """Return mAP@0.4 and mAP@0.5; NaN where no image has a true box."""
    count = len(samples)
    truth = TrueBoxes(
        _repeat([len(one.boxes) for one in samples]),
        np.concatenate([np.zeros(0, dtype=np.int64), *(one.labels for one in samples)]),
        np.concatenate([as_boxes([]), *(one.boxes for one in samples)]),
    )
    seen = FoundBoxes(
        _repeat([len(one["boxes"]) for one in found]),
        np.concatenate([np.zeros(0, dtype=np.int64), *(one["labels"].numpy() for one in found)]),
        np.concatenate([as_boxes([]), *(one["boxes"].numpy() for one in found)]),
        np.concatenate([np.zeros(0), *(one["scores"].numpy() for one in found)]),
    )
    panel = detection_panel(truth, seen, num_images=count, labels=CLASSES)
    values = panel.statistic(np.ones((1, count)))[0]
    map40, map50 = (float(values[panel.names.index(f"mean_ap{one}")]) for one in (40, 50))
    return map40, map50


def _repeat(counts: Sequence[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(counts)), np.asarray(counts, dtype=np.int64))


def _row(system: str, sample: Sample, found: Detections) -> dict[str, Any]:
    return {
        "sample": sample.key,
        "patient": sample.key,
        "system": system,
        "true_labels": [CLASSES[one] for one in sample.labels],
        "true_boxes": sample.boxes.tolist(),
        "found_labels": [CLASSES[one] for one in found["labels"].tolist()],
        "found_boxes": found["boxes"].tolist(),
        "found_scores": found["scores"].tolist(),
    }


def write_examples(path: Path, data: Data) -> None:
    """Write ``samples`` and ``pixels`` uint8 [n, 384, 384] of test images, those with boxes first.

    NumPy dates the members of an archive 1980, so equal images give equal bytes.
    """
    ordered = sorted(data.splits["test"], key=lambda one: (not len(one.boxes), one.key))
    shown = ordered[:NUM_EXAMPLES]
    content = io.BytesIO()
    np.savez(
        content,
        samples=np.array([one.key for one in shown]),
        pixels=data.images.read([one.number for one in shown]),
    )
    storage.write_bytes(path, content.getvalue())


def _protocol(dataset: VindrDataset, data: Data, chosen: AdParams) -> dict[str, Any]:
    queries = chosen.head.num_queries
    spare = [max(0, len(one.boxes) - queries) for one in data.splits["train"]]
    return {
        **dataset.describe(),
        **data.counts,
        "tokens": chosen.tokens,
        **{f"head_{key}": value for key, value in chosen.head.model_dump().items()},
        **{f"recipe_{key}": value for key, value in chosen.recipe.model_dump().items()},
        "matching": f"Hungarian (DETR): class {DETR.classes:g}, L1 {DETR.l1:g}, "
        f"GIoU {DETR.giou:g}; weight of background {DETR.background:g}",
        "boxes_that_no_query_matches_train": sum(spare),
        "validated_on": "mAP@0.4 of the validation images; minus the loss if none has a box",
    }
