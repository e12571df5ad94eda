"""Judge encoders by detection: read VinDr-CXR, train a head on each encoder's tokens, predict."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapvqa import storage
from lapvqa.ad.heads import DETR, DetectionHead, Detections, TrueDetections, detection_loss, predict
from lapvqa.datasets.boxes import Boxes, to_centred
from lapvqa.datasets.image_folder import ImageFolder, copies_of_tested, decode
from lapvqa.datasets.pictures import read_or_none
from lapvqa.datasets.vindr import VindrDataset, count_beyond, read_vindr
from lapvqa.datasets.vindr_tables import CLASSES
from lapvqa.errors import SourceError
from lapvqa.evaluation import features
from lapvqa.evaluation.evaluate import Evaluation
from lapvqa.evaluation.head_training import TaskHead, describe, train_heads
from lapvqa.evaluation.visual_tokens import NumberedImages, VisualTokens
from lapvqa.job import Counts, Job
from lapvqa.metrics.boxes.overlap import areas, as_boxes
from lapvqa.metrics.boxes.voc import FoundBoxes, TrueBoxes, detection_panel
from lapvqa.networks.device import Computer
from lapvqa.params import AdParams
from lapvqa.schemas import DETECTION_PREDICTIONS, STORED_SIZE

EXAMPLES = "examples.npz"
NUM_EXAMPLES = 12
"""Test images whose pixels the report page gets: VinDr-CXR's are stored nowhere else."""

MAX_UNREADABLE_SHARE = 0.01


@dataclass(frozen=True)
class DetectionSample:
    """An image: its number among those that could be read, and its true boxes.

    ``boxes`` float64 [n, 4]: xyxy in stored pixels; ``labels`` int64 [n]: 0..13.
    """

    key: str
    number: int
    labels: NDArray[np.int64]
    boxes: Boxes


@dataclass(frozen=True)
class DetectionData:
    """The samples of each split, ordered by key; their images; counts for the protocol."""

    splits: Mapping[str, Sequence[DetectionSample]]
    images: NumberedImages
    counts: Mapping[str, int]


def judge(run: Evaluation[AdParams]) -> Counts:
    """Judge a set of encoders; raises SourceError, SplitLeakError."""
    params = run.params
    source = run.open_input()
    if source is None:
        return run.without_input()
    dataset = read_vindr(
        source.folder,
        source.files,
        min_iou=params.min_iou,
        min_readers=params.min_readers,
        others=params.others,
        num_queries=params.head.num_queries,
    )
    data = open_data(dataset, source, run.job)
    missing = [split for split in ("train", "test") if not data.splits[split]]
    if missing:
        return run.not_computed(f"VinDr-CXR has no {missing[0]} image here")
    extra = run.empty_extra()
    encoders = run.encoders.load()
    heads = train_heads(
        DetectionTaskHead(data, params), encoders, params.recipe, extra=extra, job=run.job
    )
    rows = [
        _row(system, sample, found)
        for system, detections in heads.predictions.items()
        for sample, found in zip(data.splits["test"], detections, strict=True)
    ]
    write_examples(extra / EXAMPLES, data)
    protocol = {
        **_protocol(dataset, data, params), **features.describe(encoders), **heads.describe(),
    }  # fmt: skip
    return run.publish(pa.Table.from_pylist(rows, schema=DETECTION_PREDICTIONS), protocol)


def open_data(dataset: VindrDataset, source: ImageFolder, job: Job) -> DetectionData:
    """Decode all images and map their boxes.

    Raises SourceError if more than 1 % are unreadable, or have a box beyond their edge.
    """
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
    readable = [one for one, good in zip(listed, decoded.readable, strict=True) if good]
    beyond = count_beyond([image for _, image in readable], decoded.fits)
    splits: dict[str, list[DetectionSample]] = {split: [] for split in dataset.splits}
    copied = copies_of_tested(decoded.digests, [split == "test" for split, _ in readable])
    flat = 0
    for number, ((split, image), fit_) in enumerate(zip(readable, decoded.fits, strict=True)):
        if copied[number]:
            continue
        boxes = image.stored_boxes(fit_)
        solid = areas(boxes) > 0
        flat += int((~solid).sum())
        splits[split].append(
            DetectionSample(image.sample, number, image.classes[solid], boxes[solid])
        )
    counts = {f"images_{split}": len(samples) for split, samples in splits.items()}
    for split in splits:
        counts[f"unreadable_images_{split}"] = sum(one == split for one, _ in broken)
    if copied.any():
        counts["left_out_film_of_test"] = int(copied.sum())
    ordered = {split: sorted(one, key=lambda sample: sample.key) for split, one in splits.items()}
    return DetectionData(
        ordered,
        NumberedImages(decoded.digests, decoded.pixels),
        {
            **counts,
            "images_with_a_box_beyond_the_edge": beyond,
            "boxes_outside_the_image_left_out": flat,
        },
    )


class DetectionTaskHead(TaskHead[DetectionHead, list[Detections]]):
    """The small DETR: its loss, its mAP@0.4, its boxes."""

    def __init__(self, data: DetectionData, params: AdParams) -> None:
        self.images, self.token_kind = data.images, params.tokens
        self._splits, self._params = data.splits, params
        self.num_train, self.num_validate = (
            len(data.splits[split]) for split in ("train", "validate")
        )

    def make(self, width: int) -> DetectionHead:
        """Return a new head of the configured sizes."""
        return DetectionHead(width, **self._params.head.model_dump())

    def loss(self, head: DetectionHead, tokens: VisualTokens, numbers: Sequence[int]) -> Tensor:
        """Return the loss of DETR."""
        train = self._splits["train"]
        return self._loss(head, tokens, [train[number] for number in numbers])

    def reads(self, numbers: Sequence[int]) -> list[Sequence[int]]:
        """Return the samples' images."""
        train = self._splits["train"]
        return [[train[number].number for number in numbers]]

    def score(self, head: DetectionHead, tokens: VisualTokens) -> float:
        """Return mAP@0.4; without a true box, where it is undefined, minus the loss."""
        samples = self._splits["validate"]
        map40, _ = average_precision(samples, self.detect(head, tokens, samples))
        if np.isfinite(map40):
            return map40
        losses = [
            len(part) * float(self._loss(head, tokens, part)) for part in self._parts(samples)
        ]
        return -sum(losses) / len(samples)

    def file_scores(self, head: DetectionHead, tokens: VisualTokens) -> dict[str, float]:
        """Return mAP on the validation images."""
        samples = self._splits["validate"]
        map40, map50 = average_precision(samples, self.detect(head, tokens, samples))
        return {"val_map40": map40, "val_map50": map50}

    def predict(self, head: DetectionHead, tokens: VisualTokens) -> list[Detections]:
        """Return what the head finds in each test image, ordered by key."""
        return self.detect(head, tokens, self._splits["test"])

    def detect(
        self, head: DetectionHead, tokens: VisualTokens, samples: Sequence[DetectionSample]
    ) -> list[Detections]:
        """Return what the head finds; boxes float64 in stored pixels, on the CPU."""
        detections: list[Detections] = []
        for part in self._parts(samples):
            for image in predict(head, tokens.of([sample.number for sample in part])):
                detections.append(
                    {
                        "boxes": image["boxes"].cpu().double() * STORED_SIZE,
                        "labels": image["labels"].cpu(),
                        "scores": image["scores"].cpu().double(),
                    }
                )
        return detections

    def _loss(
        self, head: DetectionHead, tokens: VisualTokens, samples: Sequence[DetectionSample]
    ) -> Tensor:
        logits, boxes = head(tokens.of([sample.number for sample in samples]))
        truth = [_truth(sample, tokens.computer) for sample in samples]
        return detection_loss(logits, boxes, truth).total

    def _parts(self, samples: Sequence[DetectionSample]) -> Iterator[Sequence[DetectionSample]]:
        size = self._params.recipe.batch_size
        return (samples[start : start + size] for start in range(0, len(samples), size))


def _truth(sample: DetectionSample, computer: Computer) -> TrueDetections:
    boxes = torch.from_numpy(to_centred(sample.boxes)).float()
    return TrueDetections(computer.put(sample.labels), computer.put(boxes))


def average_precision(
    samples: Sequence[DetectionSample], found: Sequence[Detections]
) -> tuple[float, float]:
    """Return mAP@0.4 and mAP@0.5; NaN where no image has a true box."""
    count = len(samples)
    truth = TrueBoxes(
        _repeat([len(sample.boxes) for sample in samples]),
        np.concatenate([np.zeros(0, dtype=np.int64), *(sample.labels for sample in samples)]),
        np.concatenate([as_boxes([]), *(sample.boxes for sample in samples)]),
    )
    seen = FoundBoxes(
        _repeat([len(image["boxes"]) for image in found]),
        np.concatenate(
            [np.zeros(0, dtype=np.int64), *(image["labels"].numpy() for image in found)]
        ),
        np.concatenate([as_boxes([]), *(image["boxes"].numpy() for image in found)]),
        np.concatenate([np.zeros(0), *(image["scores"].numpy() for image in found)]),
    )
    panel = detection_panel(truth, seen, num_images=count, labels=CLASSES)
    values = panel.statistic(np.ones((1, count)))[0]
    map40, map50 = (float(values[panel.names.index(f"mean_ap{percent}")]) for percent in (40, 50))
    return map40, map50


def _repeat(counts: Sequence[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(counts)), np.asarray(counts, dtype=np.int64))


def _row(system: str, sample: DetectionSample, found: Detections) -> dict[str, Any]:
    return {
        "sample": sample.key,
        "patient": sample.key,
        "system": system,
        "true_labels": [CLASSES[label] for label in sample.labels],
        "true_boxes": sample.boxes.tolist(),
        "found_labels": [CLASSES[label] for label in found["labels"].tolist()],
        "found_boxes": found["boxes"].tolist(),
        "found_scores": found["scores"].tolist(),
    }


def write_examples(path: Path, data: DetectionData) -> None:
    """Write ``samples`` and ``pixels`` uint8 [n, 384, 384] of test images, those with boxes first.

    NumPy dates the members of an archive 1980, so equal images give equal bytes.
    """
    ordered = sorted(data.splits["test"], key=lambda one: (not len(one.boxes), one.key))
    shown = ordered[:NUM_EXAMPLES]
    content = io.BytesIO()
    np.savez(
        content,
        samples=np.array([sample.key for sample in shown]),
        pixels=data.images.read([sample.number for sample in shown]),
    )
    storage.write_bytes(path, content.getvalue())


def _protocol(dataset: VindrDataset, data: DetectionData, params: AdParams) -> dict[str, Any]:
    queries = params.head.num_queries
    spare = [max(0, len(sample.boxes) - queries) for sample in data.splits["train"]]
    return {
        **dataset.describe(),
        **data.counts,
        "tokens": params.tokens,
        **describe(params.head, params.recipe),
        "matching": f"Hungarian (DETR): class {DETR.classes:g}, L1 {DETR.l1:g}, "
        f"GIoU {DETR.giou:g}; weight of background {DETR.background:g}",
        "boxes_that_no_query_matches_train": sum(spare),
        "validated_on": "mAP@0.4 of the validation images; minus the loss if none has a box",
    }
