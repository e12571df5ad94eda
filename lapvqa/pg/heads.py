"""The grounding head: visual tokens and one phrase in, one box out.

Shapes: B phrases with their images, N visual tokens, D = d_model.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lapvqa.heads.boxes import giou, to_xyxy
from lapvqa.heads.head import Form, Head, box_mlp, check_features, check_heads, init_layers
from lapvqa.networks.encoder import INIT_STD

_L1_WEIGHT, _GIOU_WEIGHT = 5.0, 2.0
# Coordinates are at most 1: with torch's beta of 1 the loss would be a square everywhere.
_BETA = 0.1


class VisualGroundingHead(Head):
    """Pre-norm encoder layers over [REG | visual tokens | text token]; REG becomes the box.

    Source: card lapvqa-pg. Its file is a dict with the arguments beside the weights.
    """

    form: ClassVar[Form] = Form(
        keys={name: name for name in ("vis_dim", "txt_dim", "d_model", "num_layers")},
        scores=("val_miou", "val_acc50"),
    )
    nhead: ClassVar[int] = 8

    def __init__(self, vis_dim: int, txt_dim: int, d_model: int = 256, num_layers: int = 3) -> None:
        super().__init__()
        check_heads(d_model, self.nhead)
        self.vis_dim, self.txt_dim = vis_dim, txt_dim
        self.d_model, self.num_layers = d_model, num_layers
        self.vis_proj = nn.Linear(vis_dim, d_model)
        self.txt_proj = nn.Linear(txt_dim, d_model)
        self.reg_token = nn.Parameter(torch.empty(1, 1, d_model))
        layer = nn.TransformerEncoderLayer(d_model, self.nhead, norm_first=True, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.box_head = box_mlp(d_model)
        init_layers(self.encoder)
        nn.init.normal_(self.reg_token, std=INIT_STD)

    def forward(self, vis_tokens: Tensor, txt_tokens: Tensor) -> Tensor:
        """Map tokens [B, N, vis_dim] and phrases [B, txt_dim] or [B, 1, txt_dim] to boxes [B, 4].

        Boxes are (cx, cy, w, h) in [0, 1].
        """
        check_features(vis_tokens, name="vis_tokens", width=self.vis_dim)
        if txt_tokens.ndim == 3 and txt_tokens.shape[1] == 1:
            txt_tokens = txt_tokens[:, 0]
        check_features(txt_tokens, name="txt_tokens", width=self.txt_dim, dim=2)
        regression = self.reg_token.expand(len(vis_tokens), -1, -1)
        phrase = self.txt_proj(txt_tokens)[:, None]
        sequence = torch.cat([regression, self.vis_proj(vis_tokens), phrase], dim=1)
        box: Tensor = self.box_head(self.encoder(sequence)[:, 0]).sigmoid()
        return box


def grounding_loss(boxes: Tensor, truth: Tensor) -> Tensor:
    """Return 5 smooth-L1 + 2 (1 - GIoU) of boxes [B, 4] (cx, cy, w, h), mean over the phrases.

    Smooth-L1 is summed over the four coordinates and turns linear at 0.1; weights of DETR and
    TransVG.
    """
    boxes, truth = boxes.float(), truth.float()
    distance = F.smooth_l1_loss(boxes, truth, beta=_BETA, reduction="none").sum(dim=-1)
    overlap = giou(to_xyxy(boxes), to_xyxy(truth))
    return (_L1_WEIGHT * distance + _GIOU_WEIGHT * (1 - overlap)).mean()
