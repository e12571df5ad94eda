"""Vision towers of transformers: a folder written by ``save_pretrained``."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lapvqa.errors import CheckpointError
from lapvqa.evaluation.encoders.external import (
    FILTERS,
    ExternalEncoder,
    Preprocess,
    channel_values,
    filter_number,
    find_weights,
    read_config,
    resize_as_owlv2,
    resize_with_pillow,
    square_side,
)
from lapvqa.evaluation.encoders.packages import optional

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

_LOADING_ERRORS = (
    OSError, RuntimeError, ValueError, KeyError, SafetensorError, pickle.UnpicklingError,
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """Where a kind of model has its vision tower.

    ``model``: the class that is loaded; ``part``: its vision tower, "" if itself; ``norm``: the
    tower's norm that its pooled feature passes but its last hidden state has not; ``first``: class
    tokens before the patches; ``options``: changes of the configuration.
    """

    model: str
    part: str = ""
    norm: str = ""
    first: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


_CLIP_NORM = "post_layernorm"
FAMILIES = {
    "clip": Family("CLIPModel", part="vision_model", norm=_CLIP_NORM, first=1),
    "clip_vision_model": Family("CLIPVisionModel", norm=_CLIP_NORM, first=1),
    "siglip": Family("SiglipModel", part="vision_model"),
    "siglip_vision_model": Family("SiglipVisionModel"),
    "vit": Family("ViTModel", first=1, options={"add_pooling_layer": False}),
    # No patch is masked; in which order they come is settled by ``_in_order``.
    "vit_mae": Family("ViTMAEModel", first=1, options={"mask_ratio": 0.0}),
    "owlv2": Family("Owlv2ForObjectDetection", part="owlv2.vision_model", norm=_CLIP_NORM, first=1),
    "florence2": Family("Florence2ForConditionalGeneration", part="model.vision_tower"),
}
"""``model_type`` of config.json -> its vision tower."""


class VisionTower(nn.Module):
    """A vision tower of transformers whose output is its patch tokens."""

    def __init__(self, vision: nn.Module, family: Family) -> None:
        super().__init__()
        self.vision, self.family = vision, family

    def forward(self, images: Tensor) -> Tensor:
        """Map input [B, C, S, S] to patch tokens [B, N, D]."""
        masked = self.family.model == "ViTMAEModel"
        options = {"noise": _in_order(self.vision, images)} if masked else {}
        hidden: Tensor = self.vision(images, **options).last_hidden_state
        if hidden.ndim == 4:  # DaViT's last map [B, D, G, G]
            return hidden.flatten(2).transpose(1, 2)
        tokens = hidden[:, self.family.first :]
        return self.vision.get_submodule(self.family.norm)(tokens) if self.family.norm else tokens


def _in_order(vision: nn.Module, images: Tensor) -> Tensor:
    """Return the noise that ViTMAE sorts its patches by, so that they stay where they are."""
    config: Any = vision.config
    count = (images.shape[-1] // config.patch_size) ** 2
    return torch.arange(count, device=images.device).float().expand(len(images), -1)


def open_transformers(folder: Path) -> ExternalEncoder:
    """Open the vision tower of a transformers folder.

    Raises MissingPackageError without transformers, CheckpointError for an unknown model_type, a
    missing or damaged file, or weights that do not fit.
    """
    kind = read_config(folder / "config.json").get("model_type")
    if kind not in FAMILIES:
        raise CheckpointError(
            f"config.json: model_type is {kind!r}, whose vision tower is not known",
            hint=f"known: {', '.join(FAMILIES)}",
        )
    family = FAMILIES[kind]
    vision = load_part(folder, family.model, family.part, options=family.options)
    sizes: Any = vision.config
    if kind == "florence2":
        channels, expected, width = sizes.in_channels, None, sizes.embed_dim[-1]
    else:
        channels, expected, width = sizes.num_channels, sizes.image_size, sizes.hidden_size
    preprocess = read_preprocess(folder, channels=channels, image_size=expected, kind=kind)
    about = f"transformers {family.model}{'.' if family.part else ''}{family.part}"
    return ExternalEncoder(VisionTower(vision, family), preprocess, width=width, about=about)


def load_part(
    folder: Path, model: str, part: str, *, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """Load a class of transformers from a folder and return one module of it, in float32.

    Raises CheckpointError unless every tensor of that module is in the folder.
    """
    library = optional("transformers", needed_for=f"the folder {folder.name}")
    find_weights(folder, WEIGHTS)
    with _quietly(library), torch.random.fork_rng(devices=[]):
        try:
            whole, loading = getattr(library, model).from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                **(options or {}),
            )
        except _LOADING_ERRORS as error:
            raise CheckpointError(
                f"transformers cannot load {model} from the folder {folder.name}: "
                f"{type(error).__name__}: {str(error)[:300]}",
                hint="config.json and the weights must come from one checkpoint",
            ) from error
    missing = sorted(name for name in loading["missing_keys"] if name.startswith(part))
    if missing:
        raise CheckpointError(
            f"the weights of {folder.name} lack {len(missing)} tensors of {model}: "
            f"{', '.join(missing[:3])}",
            hint="the checkpoint must be in the form of transformers' own class (for Florence-2, "
            "the converted one, not the one that runs code of its folder)",
        )
    return whole.eval().get_submodule(part)  # type: ignore[no-any-return]


@contextmanager
def _quietly(library: ModuleType) -> Iterator[None]:
    """Switch off transformers' progress bars and reports; what is amiss is raised here."""
    logging = library.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def read_preprocess(
    folder: Path, *, channels: int, image_size: int | None, kind: str
) -> Preprocess:
    """Read preprocessor_config.json (or processor_config.json, which newer versions write).

    ``image_size``: what the model's positions are for; CheckpointError if the file says another.
    """
    name = "preprocessor_config.json"
    settings = _settings(folder)
    cropped = bool(settings.get("do_center_crop")) and settings.get("crop_size") is not None
    size = square_side(settings.get("crop_size" if cropped else "size"), where=f"{name}: size")
    if image_size not in (None, size):
        raise CheckpointError(
            f"{name}: the size is {size}, but config.json says {image_size}",
            hint="both files must come from one checkpoint",
        )
    normalised = settings.get("do_normalize", True)
    mean, std = (
        channel_values(settings.get(key) if normalised else other, channels=channels, where=key)
        for key, other in (("image_mean", 0.0), ("image_std", 1.0))
    )
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    if kind == "owlv2":
        matrix, about = resize_as_owlv2(size), "linear"
    else:
        where = f"{name}: resample"
        matrix = resize_with_pillow(size, settings.get("resample"), where=where)
        about = FILTERS[filter_number(settings.get("resample"), where=where)]
    return Preprocess(
        matrix, mean=mean, std=std, factor=factor, whole_levels=kind != "owlv2", about=about
    )


def _settings(folder: Path) -> dict[str, Any]:
    newer = folder / "processor_config.json"
    if not (folder / "preprocessor_config.json").is_file() and newer.is_file():
        settings = read_config(newer).get("image_processor")
        if isinstance(settings, dict):
            return settings
    return read_config(folder / "preprocessor_config.json")
