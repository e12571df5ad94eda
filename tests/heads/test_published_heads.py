"""The published classes at their published sizes, used as the published cards use them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lapvqa.ad.heads import DetectionHead, predict
from lapvqa.diffvqa.model import DiffVQAHead
from lapvqa.heads.checkpoint import load, save
from lapvqa.heads.teaching import teach
from lapvqa.pg.heads import VisualGroundingHead, grounding_loss
from lapvqa.pretrain.encoder import VisionEncoder
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


# The cards' snippets. Weights are random: nobody can publish ours before they are trained.


def features(seed: int, batch: int, width: int, count: int = 256) -> Tensor:
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(seed))


def check_texts(texts: Any, batch: int, limit: int) -> None:
    enc = encoding()
    assert len(texts) == batch
    for ids in texts:
        assert isinstance(ids, list)
        assert len(ids) <= limit
        assert enc.eot_token not in ids
        assert isinstance(enc.decode(ids), str)


def test_vqa_card(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(VQAHead(vis_dim=1024), tmp_path / "pretrain-captioning_best.pt")

    enc = encoding()
    head = VQAHead(vis_dim=1024)
    head.load_state_dict(
        torch.load(tmp_path / "pretrain-captioning_best.pt", map_location="cpu", weights_only=True)
    )
    head.eval()
    prompt_ids = torch.tensor([enc.encode(QUESTION)] * 2)
    texts = head.generate(
        vis_tokens=features(0, 2, 1024),
        prompt_ids=prompt_ids,
        bos_id=enc.eot_token,
        eos_id=enc.eot_token,
        max_new_tokens=8,
    )
    check_texts(texts, 2, 8)
    assert head.generate(
        vis_tokens=features(0, 2, 1024), prompt_ids=prompt_ids, bos_id=enc.eot_token,
        eos_id=enc.eot_token,
    )[0][:8] == texts[0]  # fmt: skip


def test_diffvqa_card(tmp_path: Path) -> None:
    torch.manual_seed(1)
    save(DiffVQAHead(vis_dim=768), tmp_path / "coca_best.pt")

    enc = encoding()
    head = DiffVQAHead(vis_dim=768)
    head.load_state_dict(torch.load(tmp_path / "coca_best.pt", weights_only=True))
    head.eval()
    texts = head.generate(
        curr_vis=features(1, 1, 768),
        ref_vis=features(2, 1, 768),
        prompt_ids=torch.tensor([enc.encode("what has changed?")]),
        bos_id=enc.eot_token,
        eos_id=enc.eot_token,
        max_new_tokens=8,
    )
    check_texts(texts, 1, 8)


def test_rrg_card(tmp_path: Path) -> None:
    torch.manual_seed(2)
    made = ReportGenerationHead(vis_dim=1024, d_model=128, num_layers=2, nhead=4)
    save(made, tmp_path / "mae-vit-l16.pt", encoder="mae-vit-l16", epoch=4, val_bleu4=0.032)

    enc = encoding()
    ckpt = torch.load(tmp_path / "mae-vit-l16.pt", map_location="cpu", weights_only=True)
    head = ReportGenerationHead(
        vis_dim=ckpt["vis_dim"],
        d_model=ckpt["d_model"],
        num_layers=ckpt["num_layers"],
        nhead=ckpt["nhead"],
    )
    head.load_state_dict(ckpt["state_dict"])
    head.eval()
    texts = head.generate(
        vis_tokens=features(3, 2, 1024), bos_id=enc.eot_token, eos_id=enc.eot_token,
        max_new_tokens=12,
    )  # fmt: skip
    check_texts(texts, 2, 12)


def test_ad_card(tmp_path: Path) -> None:
    torch.manual_seed(3)
    made = DetectionHead(
        vis_dim=768, d_model=256, num_queries=20, num_enc_layers=2, num_dec_layers=3
    )
    facts = {"encoder": "coca", "epoch": 9, "val_map40": 0.04, "val_map50": 0.03}
    save(made, tmp_path / "coca.pt", **facts)

    ckpt = torch.load(tmp_path / "coca.pt", map_location="cpu", weights_only=True)
    head = DetectionHead(
        vis_dim=ckpt["vis_dim"],
        d_model=ckpt["d_model"],
        num_queries=ckpt["num_queries"],
        num_enc_layers=ckpt["num_enc"],
        num_dec_layers=ckpt["num_dec"],
    )
    head.load_state_dict(ckpt["state_dict"])
    head.eval()
    results = predict(head, features(4, 2, 768, count=729))
    assert len(results) == 2
    for found in results:
        assert {name: list(tensor.shape) for name, tensor in found.items()} == {
            "boxes": [20, 4], "labels": [20], "scores": [20],
        }  # fmt: skip
        assert found["labels"].max() < 14
        assert (found["scores"].diff() <= 0).all()
        assert ((found["boxes"] >= 0) & (found["boxes"] <= 1)).all()
        assert (found["boxes"][:, 2:] >= found["boxes"][:, :2]).all()


def test_pg_card(tmp_path: Path) -> None:
    torch.manual_seed(4)
    made = VisualGroundingHead(vis_dim=1152, txt_dim=1152, d_model=256, num_layers=3)
    facts = {"encoder": "siglip", "epoch": 2, "val_miou": 0.3, "val_acc50": 0.2}
    save(made, tmp_path / "siglip.pt", **facts)

    ckpt = torch.load(tmp_path / "siglip.pt", map_location="cpu", weights_only=True)
    head = VisualGroundingHead(
        vis_dim=ckpt["vis_dim"],
        txt_dim=ckpt["txt_dim"],
        d_model=ckpt["d_model"],
        num_layers=ckpt["num_layers"],
    )
    head.load_state_dict(ckpt["state_dict"])
    head.eval()
    boxes = head(features(5, 2, 1152, count=729), torch.randn(2, 1152))
    assert boxes.shape == (2, 4)
    assert ((boxes > 0) & (boxes < 1)).all()
    assert load(VisualGroundingHead, tmp_path / "siglip.pt").facts == facts


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
