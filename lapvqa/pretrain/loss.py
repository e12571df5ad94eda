"""The captioning loss: cross-entropy of each next token."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lapvqa.data.dataset import IGNORED
from lapvqa.pretrain.model import CaptioningModel


def caption_loss(
    model: CaptioningModel, images: Tensor, inputs: Tensor, targets: Tensor, log_count: Tensor
) -> tuple[Tensor, int]:
    """Return the mean loss in nats per token, and the number of tokens.

    ``images`` [B, 1, S, S] on the model's device; ``inputs``, ``targets`` [B, T] on the CPU, of a
    vocabulary whose row v stands for exp(log_count[v]) tokens (see ``vocabulary``).
    """
    flat = targets.flatten()
    # Padding is dropped before the head, which costs a product with the whole vocabulary per
    # position. Found on the CPU: no wait for the device.
    places = (flat != IGNORED).nonzero().squeeze(1)
    flat, device = flat[places].to(images.device), images.device
    hidden = model.hidden_states(images, inputs.to(device)).flatten(0, 1)
    logits = model.decoder.logits(hidden.index_select(0, places.to(device)))
    # Added in log_count's float32, also where autocast made the logits bfloat16.
    loss = F.cross_entropy(logits + log_count, flat)
    # A token among those that share a row has its share of that row's probability.
    return loss + log_count[flat].mean(), len(places)
