"""The detection head: queries that read visual tokens, and what they found as boxes.

Shapes: B images, HW visual tokens, Q queries, D = d_model, C = 14 classes.
"""

from __future__ import annotations

from typing import ClassVar, TypedDict

import torch
from torch import Tensor, nn

from lapvqa.datasets.vindr_tables import CLASSES
from lapvqa.heads.boxes import to_xyxy
from lapvqa.heads.head import Form, Head, box_mlp, check_features, check_heads, init_layers

BACKGROUND = len(CLASSES)
"""Labels 0..13 are CLASSES in the order of the Kaggle release's class_id; this one is nothing."""


class Detections(TypedDict):
    """What was found in one image, highest score first.

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
        found = self.decoder(self.object_queries.expand(len(memory), -1, -1), memory)
        return self.class_head(found), self.box_head(found).sigmoid()


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
    found: list[Detections] = []
    for image, ranked in enumerate(order):
        kept = ranked[scores[image, ranked] >= min_score]
        found.append(
            {
                "boxes": corners[image, kept],
                "labels": labels[image, kept],
                "scores": scores[image, kept],
            }
        )
    return found
