"""The encoder is timm's ViT by name and shape, and computes what an independent ViT computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel

from lapvqa.pretrain.encoder import VisionEncoder

DEPTH, WIDTH = 24, 1024


def converted(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename timm's tensors to those of transformers' ViTModel."""
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    parts = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.o_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    renamed = {}
    for name, tensor in weights.items():
        if name in names:
            renamed[names[name]] = tensor
            continue
        _, layer, rest = name.split(".", 2)
        part, kind = rest.rsplit(".", 1)
        if part == "attn.qkv":
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"layers.{layer}.attention.{letter}_proj.{kind}"] = third
        else:
            renamed[f"layers.{layer}.{parts[part]}.{kind}"] = tensor
    return renamed


@pytest.mark.parametrize(
    ("image_size", "patch_size", "width", "depth", "heads"),
    [(32, 8, 32, 2, 4), (98, 14, 384, 6, 6)],
    ids=["tiny", "mid"],
)
def test_computes_what_transformers_computes(
    image_size: int, patch_size: int, width: int, depth: int, heads: int
) -> None:
    torch.manual_seed(0)
    ours = VisionEncoder(
        image_size=image_size, patch_size=patch_size, width=width, depth=depth, heads=heads,
        pooled_grid=2,
    ).eval()  # fmt: skip
    # Weights far from their start, or a wrong norm or bias would not show.
    for parameter in ours.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    config = ViTConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
        intermediate_size=4 * width, image_size=image_size, patch_size=patch_size,
        layer_norm_eps=1e-6, hidden_act="gelu",
    )  # fmt: skip
    theirs = ViTModel(config, add_pooling_layer=False).eval()
    theirs.load_state_dict(converted(ours.state_dict()), strict=True)
    images = torch.randn(3, 3, image_size, image_size)
    with torch.no_grad():
        expected = theirs(pixel_values=images).last_hidden_state
        torch.testing.assert_close(ours.forward_features(images), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.patch_tokens(images), expected[:, 1:], rtol=1e-5, atol=1e-5)


def test_published_encoder_has_timms_294_tensors() -> None:
    with torch.device("meta"):
        found = {name: tuple(t.shape) for name, t in VisionEncoder().state_dict().items()}
    expected: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + 27 * 27, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 14, 14),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for layer in range(DEPTH):
        block = f"blocks.{layer}"
        for norm in ("norm1", "norm2"):
            expected |= {f"{block}.{norm}.weight": (WIDTH,), f"{block}.{norm}.bias": (WIDTH,)}
        for name, outputs, inputs in (
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("mlp.fc1", 4 * WIDTH, WIDTH),
            ("mlp.fc2", WIDTH, 4 * WIDTH),
        ):
            expected[f"{block}.{name}.weight"] = (outputs, inputs)
            expected[f"{block}.{name}.bias"] = (outputs,)
    assert found == expected
    assert len(found) == 294


@pytest.mark.parametrize(("grid", "pooled"), [(27, 16), (5, 2), (4, 3), (4, 4), (7, 1)])
def test_pools_as_torch_does(grid: int, pooled: int) -> None:
    encoder = VisionEncoder(
        image_size=grid * 2, patch_size=2, width=6, depth=0, heads=1, pooled_grid=pooled
    )
    tokens = torch.randn(3, grid * grid, 6)
    square = tokens.transpose(1, 2).view(3, 6, grid, grid)
    expected = F.adaptive_avg_pool2d(square, pooled).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder.pool(tokens), expected, rtol=1e-5, atol=1e-6)


def test_one_channel_is_three_equal_ones() -> None:
    encoder = VisionEncoder(image_size=28, width=32, depth=2, heads=2, pooled_grid=2).eval()
    images = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(encoder(images), encoder(images.expand(-1, 3, -1, -1)))


def test_an_image_does_not_see_its_batch() -> None:
    encoder = VisionEncoder(image_size=28, width=32, depth=2, heads=2, pooled_grid=2).eval()
    images = torch.randn(5, 1, 28, 28)
    alone = torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(encoder(images), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 2, 28, 28), (1, 1, 28, 14), (1, 1, 384, 384)])
def test_another_shape_is_named(shape: tuple[int, ...]) -> None:
    encoder = VisionEncoder(image_size=28, width=8, depth=0, heads=1, pooled_grid=1)
    with pytest.raises(ValueError, match=r"expected images \[B, 1 or 3, 28, 28\], found \["):
        encoder(torch.zeros(shape))


@pytest.mark.parametrize("sizes", [{"heads": 5}, {"pooled_grid": 28}])
def test_sizes_that_do_not_fit_are_named(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(sizes))):
        VisionEncoder(**sizes)
