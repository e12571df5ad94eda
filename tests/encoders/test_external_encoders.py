"""Encoders of other libraries: their own outputs to 1e-5, their own preprocessing, clear errors."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch
from PIL import Image
from torch import Tensor, nn

from lapvqa import storage
from lapvqa.errors import CheckpointError, LapvqaError, MissingArtifactError, MissingPackageError
from lapvqa.evaluation.encoders.external import (
    FILTERS,
    ExternalEncoder,
    Preprocess,
    resize_as_owlv2,
    resize_with_pillow,
)
from lapvqa.evaluation.encoders.from_transformers import FAMILIES
from lapvqa.evaluation.encoders.open_encoder import open_encoder
from lapvqa.evaluation.encoders.packages import optional
from lapvqa.evaluation.features import encoder_digest
from lapvqa.networks.weights import serialise
from lapvqa.params import ModelParams
from lapvqa.pretrain.model import build_encoder, initial_model

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """Stored pictures with soft shapes and noise: [2, 384, 384]."""
    generator = np.random.default_rng(0)
    soft = generator.integers(0, 256, (2, 9, 9), dtype=np.uint8)
    shapes = [np.asarray(Image.fromarray(one).resize((384, 384))) for one in soft]
    noise = generator.integers(-20, 21, (2, 384, 384))
    return torch.from_numpy(np.clip(np.stack(shapes) + noise, 0, 255).astype(np.uint8))


def opened(folder: Path) -> ExternalEncoder:
    encoder = open_encoder(folder)
    assert isinstance(encoder, ExternalEncoder)
    assert not encoder.training
    return encoder


# What each library's own pooled feature is made of, by its own forward pass.


def clip_tokens(model: Any, images: Tensor) -> Tensor:
    hidden = model.vision_model(images)
    tokens = model.vision_model.post_layernorm(hidden.last_hidden_state)
    torch.testing.assert_close(hidden.pooler_output, tokens[:, 0])  # the norm is the right one
    return tokens[:, 1:]


def siglip_tokens(model: Any, images: Tensor) -> Tensor:
    hidden = model.vision_model(images)
    pooled = model.vision_model.head(hidden.last_hidden_state)
    torch.testing.assert_close(hidden.pooler_output, pooled)  # it reads these tokens
    return hidden.last_hidden_state


def vit_tokens(model: Any, images: Tensor) -> Tensor:
    tokens = model.vit(images).last_hidden_state
    torch.testing.assert_close(model(images).logits, model.classifier(tokens[:, 0]))
    return tokens[:, 1:]


def mae_tokens(model: Any, images: Tensor) -> Tensor:
    """Run MAE with random order and no mask, and put the tokens back to their places."""
    model.vit.config.mask_ratio = 0.0
    found = model.vit(images, noise=torch.rand(2, 16, generator=torch.Generator().manual_seed(1)))
    places = found.ids_restore.unsqueeze(-1).expand(-1, -1, 48)
    return found.last_hidden_state[:, 1:].gather(1, places)


def owlv2_tokens(model: Any, images: Tensor) -> Tensor:
    vision = model.owlv2.vision_model
    tokens = vision.post_layernorm(vision(images).last_hidden_state)
    merged = model.layer_norm(tokens[:, 1:] * tokens[:, :1]).view(2, 5, 5, 48)
    torch.testing.assert_close(model.image_embedder(images)[0], merged)
    return tokens[:, 1:]


def florence2_tokens(model: Any, images: Tensor) -> Tensor:
    hidden = model.model.vision_tower(images).last_hidden_state
    return hidden.flatten(2).transpose(1, 2)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], Any, int, int]] = {
    "clip": (tiny.clip, tiny.clip_processor, clip_tokens, 48, 16),
    "siglip": (tiny.siglip, tiny.siglip_processor, siglip_tokens, 48, 16),
    "vit": (tiny.vit, tiny.vit_processor, vit_tokens, 48, 16),
    "vit_mae": (tiny.mae, tiny.vit_processor, mae_tokens, 48, 16),
    "owlv2": (tiny.owlv2, tiny.owlv2_processor, owlv2_tokens, 48, 25),
    "florence2": (tiny.florence2, tiny.florence_processor, florence2_tokens, 32, 4),
}


@pytest.mark.parametrize("kind", CASES)
def test_transformers_tokens_are_the_librarys_own(
    kind: str, tmp_path: Path, pixels: Tensor
) -> None:
    make, processor, tokens_of, width, count = CASES[kind]
    model = make()
    encoder = opened(tiny.save(tmp_path / kind, model, processor()))
    with torch.no_grad():
        found = encoder(pixels)
        expected = tokens_of(model, encoder.preprocess(pixels))
        again = encoder.patches(pixels)
    assert encoder.width == width
    assert found.shape == (2, count, width)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert torch.equal(found, again)
    assert "no crop" in encoder.about


@pytest.mark.parametrize("kind", CASES)
def test_transformers_preprocessing_is_the_librarys_own(
    kind: str, tmp_path: Path, pixels: Tensor
) -> None:
    """Stored images are square, so that the library's centre crop cuts nothing here."""
    make, processor, *_ = CASES[kind]
    encoder = opened(tiny.save(tmp_path / kind, make(), processor()))
    expected = tiny.processed(processor(), pixels.numpy())
    found = encoder.preprocess(pixels)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("size", [32, 224, 336, 384, 448, 768])
def test_resizing_is_pillows(resample: str, size: int, pixels: Tensor) -> None:
    matrix = resize_with_pillow(size, resample, where="here")
    made = Preprocess(matrix, mean=[0.0], std=[1.0], factor=1.0)(pixels[:1])[0, 0]
    picture = Image.fromarray(pixels[0].numpy())
    expected = np.asarray(picture.resize((size, size), FILTERS.index(resample)), dtype=np.float32)
    np.testing.assert_array_equal(made.numpy(), expected)


@pytest.mark.parametrize("size", [32, 224, 384, 960])
def test_resizing_is_owlv2s(size: int, pixels: Tensor) -> None:
    made = Preprocess(resize_as_owlv2(size), mean=[0.0], std=[1.0], whole_levels=False)(pixels[:1])[
        0, 0
    ]
    processor = tiny.owlv2_processor()
    floats = pixels[:1].numpy() / 255
    expected = processor.resize(floats, {"height": size, "width": size})[0]
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-6)


def test_a_crop_of_the_configuration_is_left_out(tmp_path: Path, pixels: Tensor) -> None:
    """Resize to 80 and crop 64 would lose a tenth at every edge: the whole square is seen."""
    whole = opened(tiny.save(tmp_path / "whole", tiny.clip(), tiny.clip_processor()))
    processor = tiny.clip_processor()
    processor.size = {"shortest_edge": 80}
    cropped = opened(tiny.save(tmp_path / "cropped", tiny.clip(), processor))
    assert torch.equal(whole.preprocess(pixels), cropped.preprocess(pixels))
    edge = pixels.clone()
    edge[:, :12] = 255 - edge[:, :12]
    assert not torch.equal(cropped(edge), cropped(pixels))


def test_a_tower_saved_alone_is_the_same_tower(tmp_path: Path, pixels: Tensor) -> None:
    for name, make, processor in (
        ("clip", tiny.clip, tiny.clip_processor),
        ("siglip", tiny.siglip, tiny.siglip_processor),
    ):
        model: Any = make()
        whole = opened(tiny.save(tmp_path / name, model, processor()))
        alone = opened(tiny.save(tmp_path / f"{name}-vision", model.vision_model, processor()))
        assert torch.equal(whole(pixels), alone(pixels))
        assert encoder_digest(whole) == encoder_digest(alone)


def test_pickled_weights_and_nested_settings_are_read_too(tmp_path: Path, pixels: Tensor) -> None:
    model = tiny.clip()
    usual = tiny.save(tmp_path / "usual", model, tiny.clip_processor())
    other = shutil.copytree(usual, tmp_path / "other")
    (other / "model.safetensors").unlink()
    torch.save(model.state_dict(), other / "pytorch_model.bin")
    settings = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").unlink()
    (other / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert torch.equal(opened(usual)(pixels), opened(other)(pixels))


def test_the_digest_is_that_of_the_weights_alone(tmp_path: Path) -> None:
    model = tiny.mae()
    folder = tiny.save(tmp_path / "mae", model, tiny.vit_processor())
    first = encoder_digest(opened(folder))
    torch.manual_seed(99)  # nothing is left to chance
    assert encoder_digest(opened(folder)) == first
    with torch.no_grad():
        model.vit.layernorm.bias[0] += 1e-3
    changed = tiny.save(tmp_path / "changed", model, tiny.vit_processor())
    assert encoder_digest(opened(changed)) != first


def test_opening_leaves_torchs_generator_alone(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "clip", tiny.clip(), tiny.clip_processor())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    opened(folder)
    assert torch.equal(torch.rand(3), expected)


# timm


def timm_folder(folder: Path, name: str, **arguments: Any) -> tuple[Path, Any]:
    timm = optional("timm", needed_for="the tests")
    model = tiny.randomised(timm.create_model(name, **arguments))
    with torch.no_grad():
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    timm.models.save_for_hf(
        model, folder, safe_serialization=True, model_args=arguments,
        data_config={"interpolation": "bicubic", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)},
    )  # fmt: skip
    return folder, model


SMALL = {"img_size": 64, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5}


@pytest.mark.parametrize("pool", ["token", "avg", "map"])
def test_timm_vit_tokens_are_the_librarys_own(pool: str, tmp_path: Path, pixels: Tensor) -> None:
    arguments = {**SMALL, "global_pool": pool}
    folder, model = timm_folder(tmp_path / pool, "vit_tiny_patch16_224", **arguments)
    encoder = opened(folder)
    images = encoder.preprocess(pixels)
    assert images.shape == (2, 3, 64, 64)
    with torch.no_grad():
        found, tokens = encoder(pixels), model.forward_features(images)
        # The pooled feature, made from the tokens by what timm does after them.
        pooled = model.forward_head(tokens, pre_logits=True)
        expected = model.fc_norm(tokens[:, 1:])
    if pool == "token":
        torch.testing.assert_close(pooled, tokens[:, 0], **TOLERANCE)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert encoder.width == 48
    assert found.shape == (2, 16, 48)


def test_timm_maps_become_tokens_by_rows(tmp_path: Path, pixels: Tensor) -> None:
    folder, model = timm_folder(tmp_path / "resnet", "resnet10t", num_classes=5)
    encoder = opened(folder)
    with torch.no_grad():
        maps = model.forward_features(encoder.preprocess(pixels))
        found = encoder.patches(pixels)
    assert encoder.width == maps.shape[1]
    grid = maps.shape[-1]
    torch.testing.assert_close(found[:, grid + 2], maps[:, :, 1, 2], **TOLERANCE)


def test_timm_leaves_no_torchvision_behind() -> None:
    optional("timm", needed_for="the tests")
    assert not [name for name in sys.modules if name.split(".")[0] == "torchvision"]
    with pytest.raises(ModuleNotFoundError):
        __import__("torchvision")


def test_timm_errors_say_what_was_found(tmp_path: Path) -> None:
    folder, _ = timm_folder(tmp_path / "vit", "vit_tiny_patch16_224", **SMALL)
    config = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"architecture": "vit_of_tomorrow"}, "no model 'vit_of_tomorrow'"),
        ({"architecture": "hf-hub:somebody/model"}, "no model"),
        ({"model_args": {"checkpoint_path": "elsewhere"}}, "model_args has checkpoint_path"),
        ({"model_args": {**SMALL, "embed_dim": 96}}, "timm cannot load"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=message):
            open_encoder(folder)


# open_clip

VISION = {"image_size": 64, "layers": 2, "width": 48, "head_width": 16, "patch_size": 16}
VISION["mlp_ratio"] = 64 / 48


def test_open_clip_tokens_are_those_of_the_same_clip(tmp_path: Path, pixels: Tensor) -> None:
    """An independent CLIP: transformers', whose weights are written under open_clip's names."""
    model: Any = tiny.clip()
    weights = tiny.as_open_clip(model.vision_model)
    encoder = opened(tiny.open_clip_folder(tmp_path / "clip", weights, VISION))
    with torch.no_grad():
        expected = clip_tokens(model, encoder.preprocess(pixels))
        found = encoder(pixels)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert encoder.width == 48


def test_open_clip_obeys_its_options(tmp_path: Path, pixels: Tensor) -> None:
    """CoCa: its pooler reads tokens through a norm of its own; branches may be scaled."""
    model: Any = tiny.clip()
    weights = tiny.as_open_clip(model.vision_model)
    for kind in ("weight", "bias"):
        norm = weights.pop(f"visual.ln_post.{kind}")
        weights[f"visual.attn_pool.ln_k.{kind}"] = norm
        weights[f"visual.ln_post.{kind}"] = torch.ones(24)
    weights["visual.attn_pool.query"] = torch.ones(4, 24)
    for layer in range(2):
        for branch, last in (("1", "attn.out_proj"), ("2", "mlp.c_proj")):
            name = f"visual.transformer.resblocks.{layer}"
            weights[f"{name}.ls_{branch}.gamma"] = torch.full((48,), 2.0)
            for kind in ("weight", "bias"):
                weights[f"{name}.{last}.{kind}"] = weights[f"{name}.{last}.{kind}"] / 2
    vision = {**VISION, "attentional_pool": True, "attn_pooler_heads": 8, "ls_init_value": 1e-5}
    encoder = opened(tiny.open_clip_folder(tmp_path / "coca", weights, vision))
    with torch.no_grad():
        expected = clip_tokens(model, encoder.preprocess(pixels))
        found = encoder(pixels)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert "CoCa" in encoder.about


def test_open_clip_towers_of_timm(tmp_path: Path, pixels: Tensor) -> None:
    """SigLIP's form: all of the tower is timm's."""
    timm = optional("timm", needed_for="the tests")
    name = "vit_tiny_patch16_224"
    trunk = tiny.randomised(timm.create_model(name, num_classes=0, global_pool="avg"))
    weights = {f"visual.trunk.{one}": tensor for one, tensor in trunk.state_dict().items()}
    vision = {"timm_model_name": name, "timm_pool": "avg", "timm_proj": "none", "image_size": 224}
    encoder = opened(tiny.open_clip_folder(tmp_path / "siglip", weights, vision))
    with torch.no_grad():
        tokens = trunk.forward_features(encoder.preprocess(pixels))
        torch.testing.assert_close(encoder(pixels), trunk.fc_norm(tokens[:, 1:]), **TOLERANCE)
    assert encoder.width == 192


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [3, 4, 6, 3]}, "ResNet"),
        ({"qk_norm": True}, "qk_norm"),
        ({"attentional_pool": "parallel"}, "parallel"),
        ({"width": 96}, "does not fit"),
        ({"image_size": [64, 32]}, "side of a square"),
    ],
)
def test_open_clip_refuses_other_towers(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    weights = tiny.as_open_clip(tiny.clip().vision_model)  # type: ignore[arg-type]
    folder = tiny.open_clip_folder(tmp_path / "clip", weights, {**VISION, **change})
    with pytest.raises(CheckpointError, match=message):
        open_encoder(folder)


# ours


OWN = ModelParams(image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2)


def test_our_export_opens_as_folder_and_as_file(tmp_path: Path, pixels: Tensor) -> None:
    encoder = initial_model(OWN, seed=5).vision_encoder
    weights = encoder.state_dict()
    storage.write_bytes(tmp_path / "encoder_final.pt", serialise(weights))
    storage.write_bytes(tmp_path / "wrapped.pt", serialise({"encoder_state": weights}))
    storage.write_json(tmp_path / "card.json", {"model": OWN.model_dump(), "init_seed": 0})
    found = [open_encoder(tmp_path / name) for name in ("", "encoder_final.pt", "wrapped.pt")]
    expected = found[0](pixels)
    assert expected.shape == (2, 4, 32)
    for one in found:
        assert torch.equal(one(pixels), expected)
        assert one.patches(pixels).shape == (2, 16, 32)


def test_weights_without_a_card_have_the_published_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sizes asked for, not 300 million weights."""
    asked: list[ModelParams] = []

    def build(sizes: ModelParams) -> nn.Module:
        asked.append(sizes)
        return build_encoder(OWN)

    monkeypatch.setattr("lapvqa.evaluation.encoders.open_encoder.build_encoder", build)
    weights = initial_model(OWN, seed=5).vision_encoder.state_dict()
    storage.write_bytes(tmp_path / "encoder_final.pt", serialise({"encoder_state": weights}))
    open_encoder(tmp_path / "encoder_final.pt")
    sizes = asked[0]
    assert (sizes.image_size, sizes.patch_size, sizes.width, sizes.depth) == (384, 14, 1024, 24)


# errors


def test_what_is_no_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="found nothing"):
        open_encoder(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"found notes.txt"):
        open_encoder(tmp_path)
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(CheckpointError, match=r"JSON in config.json"):
        open_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="model_type is 'bert'") as caught:
        open_encoder(tmp_path)
    assert all(kind in str(caught.value) for kind in FAMILIES)


def test_incomplete_transformers_folders_are_refused(tmp_path: Path) -> None:
    whole = tiny.save(tmp_path / "whole", tiny.clip(), tiny.clip_processor())

    def copy(name: str) -> Path:
        return shutil.copytree(whole, tmp_path / name)

    def rewrite(path: Path, **changes: Any) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    settings = "preprocessor_config.json"
    folder = copy("settings")
    (folder / settings).unlink()
    with pytest.raises(CheckpointError, match=r"expected preprocessor_config.json"):
        open_encoder(folder)
    for number, (change, message) in enumerate(
        (
            ({"crop_size": 32}, "the size is 32, but config.json says 64"),
            ({"resample": 7}, "found 7"),
            ({"image_mean": [0.5]}, "expected 3 numbers in image_mean"),
            ({"crop_size": {"height": 64, "width": 32}}, "side of a square"),
        )
    ):
        folder = copy(f"settings{number}")
        rewrite(folder / settings, **change)
        with pytest.raises(CheckpointError, match=message):
            open_encoder(folder)
    folder = copy("weights")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="expected weights in the folder .weights."):
        open_encoder(folder)
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="transformers cannot load"):
        open_encoder(folder)
    folder = copy("lacking")
    weights = tiny.clip().state_dict()
    del weights["vision_model.post_layernorm.weight"]
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="lack 1 tensors of CLIPModel"):
        open_encoder(folder)


class Harmful:
    """What a pickle can do to its reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_pickles_run_no_code(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    folders = {
        "transformers": tiny.save(tmp_path / "clip", tiny.clip(), tiny.clip_processor()),
        "timm": timm_folder(tmp_path / "timm", "vit_tiny_patch16_224", **SMALL)[0],
        "open_clip": tiny.open_clip_folder(tmp_path / "open_clip", {}, VISION),
    }
    for name, folder in folders.items():
        for weights in folder.glob("*model.*[nst]"):
            weights.unlink()
        file = "open_clip_pytorch_model.bin" if name == "open_clip" else "pytorch_model.bin"
        torch.save({"visual.conv1.weight": Harmful(harm)}, folder / file)
        with pytest.raises(LapvqaError):
            open_encoder(folder)
    assert not harm.exists()


@pytest.mark.parametrize("name", ["transformers", "timm"])
def test_a_package_that_is_not_installed_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "timm":
        folder, _ = timm_folder(tmp_path / "vit", "vit_tiny_patch16_224", **SMALL)
    else:
        folder = tiny.save(tmp_path / "clip", tiny.clip(), tiny.clip_processor())
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=f"needs the package {name}") as caught:
        open_encoder(folder)
    assert "make setup-encoders" in caught.value.hint
