"""What a training may begin with: another ViT computes the same once it is the encoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lapvqa.errors import CheckpointError
from lapvqa.evaluation.encoders.packages import optional
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.pretrain.other_vits import load_other, resample_patches, resample_positions

OURS = (0.5, 0.25)
THEIRS = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}


def shaken(model: nn.Module) -> nn.Module:
    noise = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=noise) * 0.1)
    return model.eval()


def encoder(**changes: int) -> VisionEncoder:
    sizes = {"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2}
    return VisionEncoder(**{**sizes, "pooled_grid": 2, **changes}).eval()


@pytest.fixture(params=["vit", "dinov2", "timm"])
def other(request: pytest.FixtureRequest) -> nn.Module:
    """A ViT of each library, far from its first weights."""
    import transformers

    if request.param == "vit":
        config = transformers.ViTConfig(
            **SIZES, intermediate_size=128, image_size=32, layer_norm_eps=1e-6
        )
        return shaken(transformers.ViTModel(config))
    if request.param == "dinov2":
        return shaken(transformers.Dinov2Model(transformers.Dinov2Config(**SIZES, image_size=32)))
    timm = optional("timm", needed_for="a test")
    made = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5,
        init_values=0.5, global_pool="token",
    )  # fmt: skip
    return shaken(made)


@torch.no_grad()
def test_it_computes_of_our_input_what_the_other_does_of_its_own(other: nn.Module) -> None:
    pixels = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in THEIRS)
    seen = (pixels - mean) / std
    found = other.forward_features(seen) if hasattr(other, "forward_features") else other(seen)
    expected: Tensor = found if isinstance(found, Tensor) else found.last_hidden_state
    begun = encoder()
    # As files have them: save_pretrained reverts what a version's modules are called.
    weights = dict(other.state_dict())
    if hasattr(other, "config"):
        weights = saved(other)
    load_other(begun, weights, name="x", ours=OURS, theirs=THEIRS)
    tokens = begun.forward_features((pixels - OURS[0]) / OURS[1])
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-4)
    plain = encoder()
    load_other(plain, weights, name="x", ours=OURS, theirs=None)
    assert not torch.allclose(plain.forward_features(pixels), expected, atol=1e-2)


def saved(model: nn.Module) -> dict[str, Tensor]:
    import tempfile

    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # type: ignore[operator]
        return load_file(f"{folder}/model.safetensors")


@pytest.mark.parametrize("patch", [4, 14, 16])
def test_patches_are_resampled_as_timm_does(patch: int) -> None:
    optional("timm", needed_for="a test")
    from timm.layers import resample_patch_embed

    weight = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = resample_patch_embed(weight, [patch, patch])
    torch.testing.assert_close(resample_patches(weight, patch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grid", [3, 7])
def test_positions_are_resampled_as_timm_does(grid: int) -> None:
    optional("timm", needed_for="a test")
    from timm.layers import resample_abs_pos_embed

    positions = torch.randn(1, 26, 8, generator=torch.Generator().manual_seed(3))
    expected = resample_abs_pos_embed(positions, [grid, grid], num_prefix_tokens=1)
    torch.testing.assert_close(resample_positions(positions, grid), expected, rtol=0, atol=1e-6)


def test_another_image_and_patch_size_fit() -> None:
    begun = encoder(image_size=48, patch_size=16)
    load_other(begun, encoder().state_dict(), name="x", ours=OURS, theirs=None)
    assert begun.pos_embed.shape == (1, 10, 32)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": torch.zeros(1)}, "expected a ViT with learned positions"),
        (encoder(depth=3).state_dict(), "unexpected 12 of"),
        (encoder(width=64).state_dict(), "expected"),
        ({**encoder().state_dict(), "pos_embed": torch.zeros(1, 21, 32)}, "square grid, found 21"),
    ],
)
def test_what_does_not_fit_is_an_error(weights: dict[str, Tensor], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        load_other(encoder(), weights, name="x", ours=OURS, theirs=None)
