"""The published classes at their published sizes; the cards' snippets: tests/snippets."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lapvqa.ad.heads import DetectionHead
from lapvqa.diffvqa.model import DiffVQAHead
from lapvqa.heads.teaching import teach
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.pg.heads import VisualGroundingHead, grounding_loss
from lapvqa.rrg.heads import ReportGenerationHead
from lapvqa.text.bpe import encoding
from lapvqa.vqa.model import VQAHead

V = 50257
QUESTION = "is there a pleural effusion?"


def decoder_shapes(layers: int, width: int) -> dict[str, list[int]]:
    """Name the weights of torch's decoder layers with both attentions and three norms."""
    shapes: dict[str, list[int]] = {}
    for layer in range(layers):
        at = f"decoder.layers.{layer}."
        for attention in ("self_attn", "multihead_attn"):
            shapes |= attention_shapes(at + attention, width)
        shapes |= mlp_shapes(at, width, norms=3)
    return shapes


def encoder_shapes(layers: int, width: int) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for layer in range(layers):
        at = f"encoder.layers.{layer}."
        shapes |= attention_shapes(at + "self_attn", width) | mlp_shapes(at, width, norms=2)
    return shapes


def attention_shapes(name: str, width: int) -> dict[str, list[int]]:
    return {
        f"{name}.in_proj_weight": [3 * width, width],
        f"{name}.in_proj_bias": [3 * width],
        **linear(f"{name}.out_proj", width, width),
    }


def mlp_shapes(at: str, width: int, *, norms: int) -> dict[str, list[int]]:
    shapes = linear(f"{at}linear1", width, 2048) | linear(f"{at}linear2", 2048, width)
    for norm in range(1, norms + 1):
        shapes |= {f"{at}norm{norm}.weight": [width], f"{at}norm{norm}.bias": [width]}
    return shapes


def linear(name: str, inputs: int, outputs: int) -> dict[str, list[int]]:
    return {f"{name}.weight": [outputs, inputs], f"{name}.bias": [outputs]}


def box_mlp() -> dict[str, list[int]]:
    return linear("box_head.0", 256, 256) | linear("box_head.2", 256, 4)


def text_shapes(vis_dim: int, positions: int) -> dict[str, list[int]]:
    return {
        **linear("vis_proj", vis_dim, 512),
        "tok_emb.weight": [V, 512],
        "pos_emb.weight": [positions, 512],
        "lm_head.weight": [V, 512],
        **decoder_shapes(6, 512),
    }


PUBLISHED: list[tuple[type[nn.Module], dict[str, int], dict[str, list[int]]]] = [
    (VQAHead, {"vis_dim": 1024}, text_shapes(1024, 150)),
    (VQAHead, {"vis_dim": 768}, text_shapes(768, 150)),
    (
        DiffVQAHead,
        {"vis_dim": 1152},
        {**text_shapes(1152, 200), "frame_emb.weight": [2, 512]},
    ),
    (
        ReportGenerationHead,
        {"vis_dim": 1024, "d_model": 512, "num_layers": 6, "nhead": 8},
        text_shapes(1024, 512),
    ),
    (
        DetectionHead,
        {"vis_dim": 768, "d_model": 256, "num_queries": 20, "num_enc_layers": 2,
         "num_dec_layers": 3},
        {
            **linear("vis_proj", 768, 256),
            "object_queries": [1, 20, 256],
            **linear("class_head", 256, 15),
            **encoder_shapes(2, 256),
            **decoder_shapes(3, 256),
            **box_mlp(),
        },
    ),
    (
        VisualGroundingHead,
        {"vis_dim": 1152, "txt_dim": 1152, "d_model": 256, "num_layers": 3},
        {
            **linear("vis_proj", 1152, 256),
            **linear("txt_proj", 1152, 256),
            "reg_token": [1, 1, 256],
            **encoder_shapes(3, 256),
            **box_mlp(),
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "arguments", "expected"), PUBLISHED)
def test_weights_have_the_published_names_and_shapes(
    kind: type[nn.Module], arguments: dict[str, int], expected: dict[str, list[int]]
) -> None:
    with torch.device("meta"):
        head = kind(**arguments)
    found = {name: list(tensor.shape) for name, tensor in head.state_dict().items()}
    assert found == expected
    assert {name: getattr(head, name) for name in arguments} == arguments


def test_norms_come_first_where_the_cards_say_so() -> None:
    with torch.device("meta"):
        vqa, detection = VQAHead(vis_dim=8), DetectionHead(vis_dim=8)
        grounding = VisualGroundingHead(vis_dim=8, txt_dim=8)
    first = [*vqa.decoder.layers, *detection.encoder.layers, *grounding.encoder.layers]
    assert all(layer.norm_first for layer in first)
    assert vqa.lm_head.weight is vqa.tok_emb.weight
    assert (detection.num_queries, detection.class_head.out_features) == (20, 15)


def features(seed: int, batch: int, width: int, count: int = 256) -> Tensor:
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(seed))


def test_the_published_vqa_head_starts_without_a_preference_and_learns() -> None:
    """At full size: the first loss is near that of guessing, ln 50257, and a few steps lower it.

    Tables of N(0, 1), torch's default, would start at a loss of hundreds.
    """
    torch.manual_seed(5)
    enc = encoding()
    head = VQAHead(vis_dim=64)
    prompts = [enc.encode(QUESTION)] * 2
    answers = [enc.encode("yes"), enc.encode("no, there is none")]
    lesson = teach(prompts, answers, bos_id=V - 1, eos_id=V - 1, max_length=150)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-4)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = head.loss(features(6, 2, 64, count=4), lesson)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(V), abs=2)
    assert losses[-1] < losses[0] - 1


# Frozen and native


def make_encoder() -> VisionEncoder:
    torch.manual_seed(6)
    return VisionEncoder(image_size=32, patch_size=8, width=32, depth=1, heads=2, pooled_grid=2)


@pytest.mark.parametrize("native", [False, True])
def test_gradients_reach_the_encoder_only_if_it_is_trained_too(native: bool) -> None:
    encoder, head = make_encoder(), VisualGroundingHead(32, 8, 32, 1)
    encoder.requires_grad_(native)
    tokens = encoder(torch.randn(2, 1, 32, 32))
    grounding_loss(head(tokens, torch.randn(2, 8)), torch.full((2, 4), 0.4)).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    reached = [parameter.grad is not None for parameter in encoder.parameters()]
    assert any(reached) if native else not any(reached)
