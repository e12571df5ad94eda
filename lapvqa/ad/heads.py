"""The detection head: queries that read visual tokens, the boxes they find, and DETR's loss.

Set prediction: each true box has one query, chosen by the least total cost. Shapes: B images, HW
visual tokens, Q queries, G true boxes of one image or of all, D = d_model, C = 14 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypedDict

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from lapvqa.datasets.vindr_tables import CLASSES
from lapvqa.errors import TrainingError
from lapvqa.heads.boxes import giou, to_xyxy
from lapvqa.heads.head import Form, Head, box_mlp, check_features, check_heads, init_layers

BACKGROUND = len(CLASSES)
"""Labels 0..13 are CLASSES in the order of the Kaggle release's class_id; this one is nothing."""


class Detections(TypedDict):
    """The findings detected in one image, highest score first.

    ``boxes`` float32 [n, 4], xyxy in [0, 1]; ``labels`` int64 [n], 0..13; ``scores`` [n].
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor


class DetectionHead(Head):
    """Pre-norm encoder layers over the tokens, decoder layers over the object queries.

    Source: card lapvqa-ad. Its file is a dict with the arguments beside the weights.
    """

    form: ClassVar[Form] = Form(
        keys={
            "vis_dim": "vis_dim",
            "d_model": "d_model",
            "num_queries": "num_queries",
            "num_enc_layers": "num_enc",
            "num_dec_layers": "num_dec",
        },
        scores=("val_map40", "val_map50"),
    )
    nhead: ClassVar[int] = 8

    def __init__(
        self,
        vis_dim: int,
        d_model: int = 256,
        num_queries: int = 20,
        num_enc_layers: int = 2,
        num_dec_layers: int = 3,
    ) -> None:
        super().__init__()
        check_heads(d_model, self.nhead)
        self.vis_dim, self.d_model, self.num_queries = vis_dim, d_model, num_queries
        self.num_enc_layers, self.num_dec_layers = num_enc_layers, num_dec_layers
        self.vis_proj = nn.Linear(vis_dim, d_model)
        reader = nn.TransformerEncoderLayer(d_model, self.nhead, norm_first=True, batch_first=True)
        self.encoder = nn.TransformerEncoder(reader, num_enc_layers, enable_nested_tensor=False)
        self.object_queries = nn.Parameter(torch.randn(1, num_queries, d_model))
        finder = nn.TransformerDecoderLayer(d_model, self.nhead, batch_first=True)
        self.decoder = nn.TransformerDecoder(finder, num_dec_layers)
        self.class_head = nn.Linear(d_model, len(CLASSES) + 1)
        self.box_head = box_mlp(d_model)
        init_layers(self.encoder)
        init_layers(self.decoder)

    def forward(self, vis_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Map visual tokens [B, HW, vis_dim] to logits [B, Q, 15] and boxes [B, Q, 4].

        The last class is background; boxes are (cx, cy, w, h) in [0, 1].
        """
        check_features(vis_tokens, name="vis_tokens", width=self.vis_dim)
        memory = self.encoder(self.vis_proj(vis_tokens))
        queries = self.decoder(self.object_queries.expand(len(memory), -1, -1), memory)
        return self.class_head(queries), self.box_head(queries).sigmoid()


@torch.no_grad()
def predict(head: DetectionHead, vis_tokens: Tensor, *, min_score: float = 0.0) -> list[Detections]:
    """Return what each image [B, HW, vis_dim] shows: one detection per query, best first.

    A query's score is the highest probability of the 14 classes, in the softmax over all 15; its
    label is that class: background never is. Only scores of at least ``min_score`` are returned:
    0, the default, is right for average precision. Boxes reach at most to the image's edge.
    ``head`` should be in eval mode.
    """
    logits, boxes = head(vis_tokens)
    probabilities = logits.float().softmax(dim=-1)[..., :BACKGROUND]
    scores, labels = probabilities.max(dim=-1)
    order = scores.argsort(dim=-1, descending=True, stable=True)
    corners = to_xyxy(boxes.float()).clamp(0, 1)
    detections: list[Detections] = []
    for image, ranked in enumerate(order):
        kept = ranked[scores[image, ranked] >= min_score]
        detections.append(
            {
                "boxes": corners[image, kept],
                "labels": labels[image, kept],
                "scores": scores[image, kept],
            }
        )
    return detections


@dataclass(frozen=True)
class TrueDetections:
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
class LossWeights:
    """Weights of costs and losses, as DETR has them; ``background`` is that class's weight."""

    classes: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    background: float = 0.1


DETR = LossWeights()


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
    logits: Tensor, boxes: Tensor, targets: Sequence[TrueDetections], *, weights: LossWeights = DETR
) -> list[tuple[Tensor, Tensor]]:
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
    queries, trues = (
        torch.from_numpy(indices) for indices in linear_sum_assignment(on_cpu.numpy())
    )
    return queries.to(cost.device), trues.to(cost.device)


def detection_loss(
    logits: Tensor, boxes: Tensor, targets: Sequence[TrueDetections], *, weights: LossWeights = DETR
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
    matched = torch.cat([boxes[image, queries] for image, (queries, _) in enumerate(pairs)]).float()
    true = torch.cat([targets[image].boxes[trues] for image, (_, trues) in enumerate(pairs)])
    true = true.to(matched.dtype)
    count = max(1, len(matched))
    l1 = (matched - true).abs().sum() / count
    overlap = (1 - giou(to_xyxy(matched), to_xyxy(true))).sum() / count
    return DetectionLoss(
        total=weights.classes * classes + weights.l1 * l1 + weights.giou * overlap,
        classes=classes.detach(),
        l1=l1.detach(),
        giou=overlap.detach(),
        num_unmatched=sum(len(target.labels) for target in targets) - len(matched),
    )
