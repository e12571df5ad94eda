"""What an objective is: a model's loss, and all that depends on which loss it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lapvqa.machine import Strategy
from lapvqa.networks import device as computing
from lapvqa.networks.decoder import CaptionDecoder
from lapvqa.params import ModelParams, PretrainParams
from lapvqa.pretrain.distributed import World, distribute
from lapvqa.pretrain.inputs import Inputs

Search = Callable[[CaptionDecoder, Tensor], list[list[int]]]
"""Maps a decoder and visual tokens [B, M, D] to texts, in numbers of the cut vocabulary."""


@dataclass(frozen=True)
class BatchResult:
    """Values of one validation batch, on the CPU; ``size`` is their weight."""

    size: int
    values: tuple[Tensor, ...]


class Objective(ABC):
    """A model and its loss; ``module`` is what training calls."""

    hides_words: ClassVar[bool] = False
    """A share of its reports is written blind (``pretrain.parallel_share``)."""
    all_pairs_at_once: ClassVar[bool] = False
    """A rank holds its pairs' logits with those of all ranks; ``memory`` counts them."""

    def __init__(
        self,
        model: Any,
        params: PretrainParams,
        log_count: Tensor,
        world: World,
        strategy: Strategy,
        device: torch.device,
    ) -> None:
        """Wrap ``model``, made by this objective's entry of ``pretrain.model.MODELS``.

        ``log_count`` float32 [V]: of the cut vocabulary, for those that write.
        """
        self.model, self.params, self.world, self.device = model, params, world, device
        self.module = distribute(self.wrapped(log_count), world, strategy, device)

    def wrapped(self, log_count: Tensor) -> nn.Module:
        """Return the module that training calls: from inputs to what the loss needs."""
        del log_count
        module: nn.Module = self.model
        return module

    @abstractmethod
    def backward(self, micro: Sequence[Inputs], num_targets: int) -> Tensor:
        """Add the gradients of a step; return this rank's part of its loss.

        ``num_targets`` counts the tokens of the whole step, over all ranks.
        """

    @abstractmethod
    def measure(self, inputs: Inputs) -> BatchResult:
        """Return the values of one validation batch."""

    @abstractmethod
    def summarise(self, measured: Sequence[BatchResult]) -> dict[str, float]:
        """Return ``val_loss`` and further metrics from all validation batches, in order."""

    def write(self, images: Tensor, search: Search) -> list[list[int]]:
        """Return what a model that writes writes for images, by a search for texts.

        Which one is no matter of training: its code must not count as training's.
        """
        module: Any = getattr(self.module, "module", self.module)  # below DDP
        written: list[list[int]] = module.write(images, search)
        return written

    @staticmethod
    @abstractmethod
    def text_flops(
        sizes: ModelParams, *, length: float, memory: int, targets: float, vocabulary: int
    ) -> float:
        """Return the FLOPs of an image's text side and head, forward; counted as ``flops`` does.

        ``length``: its places, with padding; ``memory``: its visual tokens; ``targets``: its tokens
        that reach a head of ``vocabulary`` rows.
        """

    def _call(self, *arguments: Any) -> Any:
        with computing.mixed_precision(self.device):
            return self.module(*arguments)
