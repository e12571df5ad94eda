"""Where a captioning model looks while it writes: cross-attention of its last layer."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapvqa.images.transforms import to_input
from lapvqa.networks.decoder import DecoderBlock, split_heads
from lapvqa.networks.device import Computer
from lapvqa.networks.generation import BEGIN
from lapvqa.pretrain.model import CaptioningModel
from lapvqa.text.bpe import encoding


def attention(
    model: CaptioningModel, pixels: NDArray[np.uint8], report: str, computer: Computer
) -> NDArray[np.float32]:
    """Return [g, g], which sums to 1: the share of each pooled token, over the stored square.

    The mean over heads and over the words of ``report``, as if ``model`` wrote them of the stored
    image uint8 [384, 384].
    """
    decoder, encoder = model.decoder, model.vision_encoder
    words = [BEGIN, *encoding().encode_ordinary(report)][: decoder.max_length]
    block = cast("DecoderBlock", decoder.blocks[-1])
    seen: list[Tensor] = []
    with computer.inference():
        visual = encoder(to_input(computer.put(pixels[None]), encoder.image_size))
        hook = block.norm_cross.register_forward_hook(lambda _, __, normed: seen.append(normed))
        try:
            decoder(computer.put(torch.tensor([words])), visual)
        finally:
            hook.remove()
        (queries,) = split_heads(block.cross.q(seen[0]), 1, block.cross.heads)
        keys, _ = block.cross.memory(decoder.visual_proj(visual))
        scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
        shares = scores.float().softmax(dim=-1).mean(dim=(0, 1, 2))
    side = encoder.pooled_grid
    result: Any = shares.view(side, side).cpu().numpy()
    return cast("NDArray[np.float32]", result)
