"""Set prediction loss of DETR: each true box has one query, chosen by the least total cost.

Shapes: B images, Q queries, G true boxes of one image or of all, C = 14 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from lapvqa.ad.heads import BACKGROUND
from lapvqa.errors import TrainingError
from lapvqa.heads.boxes import giou, to_xyxy

Pairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Target:
    """The truth of one image: ``labels`` int64 [G] in 0..13, ``boxes`` [G, 4] (cx, cy, w, h).

    On the device of the head's outputs. An image without findings has G = 0.
    """

    labels: Tensor
    boxes: Tensor

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.labels.shape != (count,) or self.boxes.shape != (count, 4):
            raise ValueError(
                "expected labels [G] and boxes [G, 4], found "
                f"{list(self.labels.shape)} and {list(self.boxes.shape)}"
            )
        if count and not bool(((self.labels >= 0) & (self.labels < BACKGROUND)).all()):
            raise ValueError(f"expected labels in 0..{BACKGROUND - 1}, found others")
        if count and not bool(((self.boxes >= 0) & (self.boxes <= 1)).all()):
            raise ValueError("expected boxes (cx, cy, w, h) in [0, 1], found others: pixels?")


@dataclass(frozen=True)
class Weights:
    """Weights of costs and losses, as DETR has them; ``background`` is that class's weight."""

    classes: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    background: float = 0.1


DETR = Weights()


@dataclass(frozen=True)
class DetectionLoss:
    """The weighted ``total`` and its unweighted parts, each a scalar; the latter detached.

    ``num_unmatched``: true boxes that found no query, because an image has more boxes than that.
    """

    total: Tensor
    classes: Tensor
    l1: Tensor
    giou: Tensor
    num_unmatched: int


@torch.no_grad()
def match(
    logits: Tensor, boxes: Tensor, targets: Sequence[Target], *, weights: Weights = DETR
) -> Pairs:
    """Return for each image which query [n] has which true box [n], n = min(Q, G).

    The cost of a pair is - p(class) + L1 - GIoU, weighted; logits [B, Q, 15], boxes [B, Q, 4].
    Raises TrainingError if a cost is not a number.
    """
    pairs = []
    probabilities = logits.float().softmax(dim=-1)
    for probability, box, target in zip(probabilities, boxes.float(), targets, strict=True):
        true = target.boxes.float()
        cost = (
            -weights.classes * probability[:, target.labels]
            + weights.l1 * torch.cdist(box, true, p=1)
            - weights.giou * giou(to_xyxy(box)[:, None], to_xyxy(true))
        )
        pairs.append(_assign(cost))
    return pairs


def _assign(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of the pairs of least total cost; cost [Q, G]."""
    on_cpu = cost.cpu()  # the one wait for the device
    if not bool(on_cpu.isfinite().all()):
        raise TrainingError(
            "detection: expected finite outputs of the head, found others",
            hint="lower the learning rate, or look for features that are not finite",
        )
    queries, trues = (torch.from_numpy(one) for one in linear_sum_assignment(on_cpu.numpy()))
    return queries.to(cost.device), trues.to(cost.device)


def detection_loss(
    logits: Tensor, boxes: Tensor, targets: Sequence[Target], *, weights: Weights = DETR
) -> DetectionLoss:
    """Return the loss of logits [B, Q, 15] and boxes [B, Q, 4] against one target per image.

    Class: cross-entropy over all queries, those without a box having the class background with a
    weight of its own, divided by the sum of weights. L1 (sum of four) and 1 - GIoU: over matched
    pairs, divided by their number in the batch (at least 1).
    """
    pairs = match(logits, boxes, targets, weights=weights)
    wanted = torch.full(logits.shape[:2], BACKGROUND, device=logits.device)
    for image, (queries, trues) in enumerate(pairs):
        wanted[image, queries] = targets[image].labels[trues]
    class_weights = logits.new_ones(BACKGROUND + 1, dtype=torch.float32)
    class_weights[BACKGROUND] = weights.background
    classes = F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), class_weights)
    found = torch.cat([boxes[image, queries] for image, (queries, _) in enumerate(pairs)]).float()
    true = torch.cat([targets[image].boxes[trues] for image, (_, trues) in enumerate(pairs)])
    true = true.to(found.dtype)
    count = max(1, len(found))
    l1 = (found - true).abs().sum() / count
    overlap = (1 - giou(to_xyxy(found), to_xyxy(true))).sum() / count
    return DetectionLoss(
        total=weights.classes * classes + weights.l1 * l1 + weights.giou * overlap,
        classes=classes.detach(),
        l1=l1.detach(),
        giou=overlap.detach(),
        num_unmatched=sum(len(target.labels) for target in targets) - len(found),
    )
