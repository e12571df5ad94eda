"""The base of all task heads: its published file, its check of features, its first weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class Form:
    """The published form of a head's file (datasets' cards).

    Without ``keys`` the file is the plain state dict. Otherwise it is a dict: ``state_dict``, the
    constructor's arguments under the names in ``keys`` (argument -> name), and facts about the
    training: ``encoder``, ``epoch`` and the ``scores``.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    scores: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the file is nothing but the state dict."""
        return not self.keys

    @property
    def facts(self) -> tuple[str, ...]:
        """The names of what the file says about the training."""
        return () if self.is_plain else ("encoder", "epoch", *self.scores)


class Head(nn.Module):
    """A task head over visual tokens of width ``vis_dim``.

    Each constructor argument is an attribute of the same name.
    """

    form: ClassVar[Form]
    vis_dim: int


def check_features(features: Tensor, *, name: str, width: int, dim: int = 3) -> None:
    """Raise ValueError unless ``features`` has ``dim`` axes, the last of them ``width`` wide."""
    if features.ndim != dim or features.shape[-1] != width:
        axes = ["B", "N"][: dim - 1]
        raise ValueError(
            f"{name}: expected [{', '.join(axes)}, {width}], found {list(features.shape)}; "
            "the head must have been made for the width of this encoder"
        )


def check_heads(d_model: int, nhead: int) -> None:
    """Raise ValueError unless the attention heads divide the width."""
    if d_model < 1 or nhead < 1 or d_model % nhead:
        raise ValueError(f"expected d_model to be a multiple of {nhead} heads, found {d_model}")


def init_layers(layers: nn.Module) -> None:
    """Give each layer of torch's transformers weights of its own: Xavier-uniform, zero biases.

    torch's stacks are copies of one layer, weights and all.
    """
    for parameter in layers.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    for module in layers.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def box_mlp(d_model: int) -> nn.Sequential:
    """Return the MLP d_model - d_model - 4 whose sigmoid is a box (cx, cy, w, h)."""
    return nn.Sequential(nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, 4))
