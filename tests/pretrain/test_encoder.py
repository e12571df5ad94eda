"""The encoder is timm's ViT by name and shape, and computes what an independent ViT computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel
from transformers_vit import to_transformers

from lapvqa.errors import CheckpointError
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.networks.weights import from_torch_layers

DEPTH, WIDTH = 24, 1024


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
    theirs.load_state_dict(to_transformers(ours.state_dict()), strict=True)
    images = torch.randn(3, 3, image_size, image_size)
    with torch.no_grad():
        expected = theirs(pixel_values=images).last_hidden_state
        torch.testing.assert_close(ours.forward_features(images), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.patch_tokens(images), expected[:, 1:], rtol=1e-5, atol=1e-5)


def small_encoder() -> VisionEncoder:
    encoder = VisionEncoder(image_size=70, width=64, depth=3, heads=4, pooled_grid=2).eval()
    for parameter in encoder.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return encoder


@pytest.fixture(scope="module")
def timm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Ours and images, and timm's answer: tokens of its own weights, and of ours in its ViT."""
    folder = tmp_path_factory.mktemp("timm")
    ours, images = small_encoder(), torch.randn(3, 3, 70, 70)
    sizes = {"img_size": 70, "patch_size": 14, "embed_dim": 64, "depth": 3, "num_heads": 4}
    job = {"sizes": sizes, "weights": ours.state_dict(), "images": images}
    torch.save(job, folder / "job.pt")
    script = Path(__file__).with_name("timm_vit.py")
    subprocess.run(
        [sys.executable, script, folder / "job.pt", folder / "answer.pt"],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    answer = torch.load(folder / "answer.pt", weights_only=True)
    return {**answer, "ours": ours, "images": images}


@torch.no_grad()
def test_timms_weights_load_unchanged_and_compute_the_same(timm: dict[str, Any]) -> None:
    ours = small_encoder()
    ours.load_state_dict(timm["own"], strict=True)
    tokens = ours.forward_features(timm["images"])
    torch.testing.assert_close(tokens, timm["own_tokens"], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_our_weights_load_into_timm_and_compute_the_same(timm: dict[str, Any]) -> None:
    ours, images = timm["ours"], timm["images"]
    tokens = ours.forward_features(images)
    torch.testing.assert_close(tokens, timm["tokens"], rtol=1e-5, atol=1e-5)
    ours.blocks[1].norm2.bias.data[3] += 0.01
    changed = ours.forward_features(images)
    assert not torch.allclose(changed, timm["tokens"], rtol=1e-5, atol=1e-5)


def test_the_published_encoder_has_timms_names_and_shapes(timm: dict[str, Any]) -> None:
    with torch.device("meta"):
        published = VisionEncoder().state_dict()
    assert {name: list(t.shape) for name, t in published.items()} == timm["published"]
    assert len(published) == 294


def test_the_published_encoder_has_the_names_of_transformers() -> None:
    config = ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=16,
        intermediate_size=4 * WIDTH, image_size=384, patch_size=14,
    )  # fmt: skip
    with torch.device("meta"):
        theirs = ViTModel(config, add_pooling_layer=False).state_dict()
        ours = to_transformers(VisionEncoder().state_dict())
    assert {name: t.shape for name, t in ours.items()} == {n: t.shape for n, t in theirs.items()}


class TorchViT(nn.Module):
    """A ViT as one writes it around torch's own layers; 294 tensors at 24 of them, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, kernel_size=14, stride=14)
        self.cls = nn.Parameter(torch.randn(1, 1, 64))
        self.positions = nn.Parameter(torch.randn(1, 26, 64))
        layer = nn.TransformerEncoderLayer(
            64, 4, 256, dropout=0, activation="gelu", layer_norm_eps=1e-6, batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.transformer = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.ln_post = nn.LayerNorm(64, eps=1e-6)
        for parameter in self.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(images), -1, -1), patches], dim=1)
        normed: Tensor = self.ln_post(self.transformer(tokens + self.positions))
        return normed


@torch.no_grad()
def test_weights_of_torchs_own_layers_compute_the_same() -> None:
    theirs = TorchViT().eval()
    ours = small_encoder()
    ours.load_state_dict(from_torch_layers(theirs.state_dict()), strict=True)
    images = torch.randn(3, 3, 70, 70)
    torch.testing.assert_close(ours.forward_features(images), theirs(images), rtol=1e-5, atol=1e-5)


def test_what_has_no_place_beside_torchs_layers_is_named() -> None:
    weights = {**TorchViT().state_dict(), "head.weight": torch.zeros(2, 64)}
    with pytest.raises(CheckpointError, match=r"head\.weight \[2, 64\] has no place"):
        from_torch_layers(weights)
    weights = {**TorchViT().state_dict(), "second.weight": torch.zeros(64)}
    with pytest.raises(CheckpointError, match=r"second\.weight \[64\] has no place"):
        from_torch_layers(weights)


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
