"""Models of timm: a folder in the form that its ``save_for_hf`` writes."""

from __future__ import annotations

import pickle
from pathlib import Path
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
    resize_with_pillow,
    square_side,
)
from lapvqa.evaluation.encoders.packages import optional

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_LOADING_ERRORS = (
    OSError, RuntimeError, ValueError, TypeError, KeyError, SafetensorError, pickle.UnpicklingError,
)  # fmt: skip
# Arguments of timm's factory that would read files from elsewhere or fetch them.
_NOT_SIZES = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"}
_NOT_SIZES |= {"cache_dir", "scriptable", "exportable", "no_jit"}


class Trunk(nn.Module):
    """A timm model whose output is its patch tokens, or the cells of its last map."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Map input [B, C, S, S] to tokens [B, N, D].

        A ViT whose last norm stands behind its pooling (``fc_norm``) has it applied to each token.
        """
        model: Any = self.model
        features: Tensor = model.forward_features(images)
        if features.ndim == 4:
            last = getattr(model, "output_fmt", "NCHW") == "NHWC"
            return features.flatten(1, 2) if last else features.flatten(2).transpose(1, 2)
        tokens = features[:, getattr(model, "num_prefix_tokens", 0) :]
        normed: Tensor = getattr(model, "fc_norm", nn.Identity())(tokens)
        return normed


def open_timm(folder: Path) -> ExternalEncoder:
    """Open a timm folder: config.json with ``architecture`` and ``pretrained_cfg``, and weights.

    Raises MissingPackageError without timm, CheckpointError for an unknown architecture, a missing
    or damaged file, or weights that do not fit.
    """
    config = read_config(folder / "config.json")
    find_weights(folder, WEIGHTS)
    architecture = check_architecture(config["architecture"])
    foreign = sorted(_NOT_SIZES & set(config.get("model_args") or {}))
    if foreign:
        raise CheckpointError(
            f"config.json: model_args has {', '.join(foreign)}, which are no sizes of a model",
            hint="save the folder again with timm's save_for_hf",
        )
    # timm's own reading of the folder, without classifier; weights_only is its default.
    model = create(f"local-dir:{folder}", name=folder.name, pretrained=True, num_classes=0)
    settings = config.get("pretrained_cfg", config)  # older files have it all at the top
    preprocess = make_preprocess(
        settings.get("input_size"),
        settings.get("interpolation"),
        settings.get("mean"),
        settings.get("std"),
        channels=int(settings["input_size"][0]) if settings.get("input_size") else 3,
    )
    about = f"timm {architecture}"
    return ExternalEncoder(Trunk(model), preprocess, width=model_width(model), about=about)


def check_architecture(architecture: object) -> str:
    """Return a name that the installed timm knows; CheckpointError for another."""
    library = optional("timm", needed_for="a timm model")
    if not isinstance(architecture, str) or not library.is_model(architecture):
        raise CheckpointError(
            f"timm {library.__version__} has no model {architecture!r}",
            hint="`timm.list_models()` lists the known ones; a newer timm may have it",
        )
    return architecture


def create(model: str, *, name: str, **arguments: Any) -> nn.Module:
    """Build a model with timm's factory; torch's own generator is left as it was."""
    library = optional("timm", needed_for="a timm model")
    with torch.random.fork_rng(devices=[]):
        try:
            made: nn.Module = library.create_model(model, **arguments)
        except _LOADING_ERRORS as error:
            raise CheckpointError(
                f"timm cannot load the folder {name}: {type(error).__name__}: {str(error)[:300]}",
                hint="config.json and the weights must come from one checkpoint",
            ) from error
    return made.eval()


def model_width(model: nn.Module) -> int:
    """Return the width of a timm model's tokens."""
    width: Any = model.num_features
    return int(width)


def make_preprocess(
    size: object, interpolation: object, mean: object, std: object, *, channels: int
) -> Preprocess:
    """Make the preprocessing of a timm or open_clip configuration."""
    side = square_side(size, where="config.json: input_size")
    where = "config.json: interpolation"
    return Preprocess(
        resize_with_pillow(side, interpolation, where=where),
        mean=channel_values(mean, channels=channels, where="config.json: mean"),
        std=channel_values(std, channels=channels, where="config.json: std"),
        about=FILTERS[filter_number(interpolation, where=where)],
    )
