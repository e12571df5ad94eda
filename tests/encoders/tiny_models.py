"""Tiny random models, each saved by its own library in its own format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vocab_size": 99, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 3,
    "pad_token_id": 0,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 3,
    "image_size": 64, "patch_size": 16,
}  # fmt: skip
DAVIT: dict[str, Any] = {
    "depths": [1, 1, 1, 1], "embed_dim": [16, 16, 32, 32], "num_heads": [2, 2, 2, 2],
    "num_groups": [2, 2, 2, 2], "window_size": 4, "drop_path_rate": 0.0, "projection_dim": 24,
}  # fmt: skip
BART: dict[str, Any] = {
    "vocab_size": 99, "d_model": 24, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32, "max_position_embeddings": 64,
}  # fmt: skip

Feature = Callable[[Tensor], Tensor]


def randomised(model: nn.Module) -> nn.Module:
    """Move all weights far from their start, or a wrong norm or a missing bias would not show."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def clip() -> nn.Module:
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)
    return randomised(transformers.CLIPModel(config))


def siglip() -> nn.Module:
    config = transformers.SiglipConfig(
        text_config={**TEXT, "projection_size": 48}, vision_config={**VISION, "image_size": 72}
    )
    return randomised(transformers.SiglipModel(config))


def vit() -> nn.Module:
    return randomised(transformers.ViTForImageClassification(transformers.ViTConfig(**VISION)))


def mae() -> nn.Module:
    config = transformers.ViTMAEConfig(
        **VISION, decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2
    )
    return randomised(transformers.ViTMAEForPreTraining(config))


def owlv2() -> nn.Module:
    vision = {**VISION, "image_size": 400, "patch_size": 80}
    config = transformers.Owlv2Config(text_config=TEXT, vision_config=vision, projection_dim=24)
    return randomised(transformers.Owlv2ForObjectDetection(config))


def florence2() -> nn.Module:
    config = transformers.Florence2Config(
        text_config=BART | {"model_type": "bart"}, vision_config=DAVIT, image_token_id=98
    )
    return randomised(transformers.Florence2ForConditionalGeneration(config))


def clip_processor() -> Any:
    return CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})


def florence_processor() -> Any:
    return CLIPImageProcessorPil(
        size={"height": 64, "width": 64}, do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip


def siglip_processor() -> Any:
    return SiglipImageProcessorPil(size={"height": 72, "width": 72})


def vit_processor() -> Any:
    return ViTImageProcessorPil(size={"height": 64, "width": 64}, resample=2)


def owlv2_processor() -> Any:
    return Owlv2ImageProcessorPil(size={"height": 400, "width": 400})


def save(folder: Path, model: nn.Module, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def processed(processor: Any, pixels: np.ndarray) -> Tensor:
    """Return the library's own input for grey pictures [B, 384, 384] that it gets as RGB."""
    pictures = [np.repeat(one[:, :, None], 3, axis=2) for one in pixels]
    found: Tensor = processor(pictures, return_tensors="pt")["pixel_values"]
    return found.float()


def open_clip_folder(folder: Path, weights: dict[str, Tensor], vision: dict[str, Any]) -> Path:
    """Write open_clip's layout: a configuration and the whole model's weights."""
    folder.mkdir()
    config = {
        "model_cfg": {
            "embed_dim": 24, "quick_gelu": True, "vision_cfg": vision, "text_cfg": {"width": 32},
        },
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    }  # fmt: skip
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.save(weights, folder / "open_clip_pytorch_model.bin")
    return folder


_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip


def as_open_clip(vision: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of transformers' CLIPVisionModel to open_clip's."""
    from_state = vision.state_dict()
    weights = {
        "visual.conv1.weight": from_state["embeddings.patch_embedding.weight"],
        "visual.class_embedding": from_state["embeddings.class_embedding"],
        "visual.positional_embedding": from_state["embeddings.position_embedding.weight"],
        "visual.proj": torch.ones(48, 24),
        "text_projection": torch.ones(32, 24),
    }
    for kind in ("weight", "bias"):
        weights[f"visual.ln_pre.{kind}"] = from_state[f"pre_layrnorm.{kind}"]
        weights[f"visual.ln_post.{kind}"] = from_state[f"post_layernorm.{kind}"]
        for layer in range(2):
            ours, theirs = f"visual.transformer.resblocks.{layer}", f"encoder.layers.{layer}"
            for name, other in _BLOCK.items():
                weights[f"{ours}.{name}.{kind}"] = from_state[f"{theirs}.{other}.{kind}"]
            parts = [from_state[f"{theirs}.self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            weights[f"{ours}.attn.in_proj_{kind}"] = torch.cat(parts)
    return weights
