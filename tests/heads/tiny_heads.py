"""The published heads at sizes for tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lapvqa.ad.heads import DetectionHead
from lapvqa.diffvqa.model import DiffVQAHead
from lapvqa.heads.text import TextHead, of_size
from lapvqa.rrg.heads import ReportGenerationHead
from lapvqa.vqa.model import VQAHead

VIS_DIM, TOKENS = 12, 5
VOCABULARY, END = 23, 22
POSITIONS = 40
SIZES = {"d_model": 32, "num_layers": 2, "nhead": 4, "vocabulary": VOCABULARY}

TinyVQA = of_size(VQAHead, **SIZES)
TinyDiffVQA = of_size(DiffVQAHead, **SIZES)
TinyReport = of_size(ReportGenerationHead, **SIZES)


def make(kind: type[TextHead], seed: int = 0) -> TextHead:
    """Return a head in train mode, from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyReport(VIS_DIM, 32, 2, 4) if kind is TinyReport else kind(VIS_DIM)


def make_talkative(kind: type[TextHead], seed: int) -> TextHead:
    """Return a head in eval mode whose texts depend on the image and end at many lengths."""
    head = make(kind, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            scale = 0.3 if parameter.ndim > 1 else 0.1
            parameter += scale * torch.randn(parameter.shape, generator=generator)
        head.lm_head.weight[END] *= 3
        head.pos_emb.weight *= 4
    return head.eval()


def inputs_of(head: TextHead, seed: int, batch: int = 6) -> dict[str, Tensor]:
    """Return random features by the names that ``generate`` takes."""
    generator = torch.Generator().manual_seed(seed)
    names = ("curr_vis", "ref_vis") if isinstance(head, DiffVQAHead) else ("vis_tokens",)
    return {
        name: torch.randn(batch, 1, VIS_DIM, generator=generator)
        + torch.randn(batch, TOKENS, VIS_DIM, generator=generator)
        for name in names
    }


def make_detector(vis_dim: int = 16, num_queries: int = 6, seed: int = 0) -> DetectionHead:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DetectionHead(vis_dim, 32, num_queries, 1, 2)


def without_dropout(head: nn.Module) -> nn.Module:
    """Return the head in train mode but for dropout, which a loss of 0 has no use for."""
    head.train()
    for module in head.modules():
        if isinstance(module, nn.Dropout | nn.MultiheadAttention):
            module.eval()
    return head
