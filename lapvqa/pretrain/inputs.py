"""From a batch as stored to what the model takes: on the device, augmented, numbered.

Augmentation, mirroring, hidden words and dropped patches belong to an epoch of training alone, and
each is a pure function of (seed, epoch, the pair's index).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lapvqa.images import transforms
from lapvqa.images.report_pairs import IGNORED, Batch
from lapvqa.networks.vocabulary import CutVocabulary
from lapvqa.params import PretrainParams
from lapvqa.pretrain.parallel import hide_inputs

_DROP_STREAM = 4  # 0 order, 1 augmentation, 2 hidden words, 3 mirroring


@dataclass(frozen=True)
class Inputs:
    """One micro-batch on the device.

    ``images`` float32 [B, 1, S, S]; ``tokens`` [B, T] of the cut vocabulary; ``valid`` bool
    [B, T], false on padding; ``places`` int64 [P], the positions among B * T that have a target,
    and ``targets`` [P]; ``groups`` int64 [B], equal for equal reports; ``keep`` int64 [B, K], the
    patches that are looked at, or None for all.
    """

    images: Tensor
    tokens: Tensor
    valid: Tensor
    places: Tensor
    targets: Tensor
    groups: Tensor
    keep: Tensor | None


class Preparer:
    """Turns batches into inputs, on one device, by one set of parameters."""

    def __init__(
        self, params: PretrainParams, vocabulary: CutVocabulary, device: torch.device
    ) -> None:
        self.params, self.vocabulary, self.device = params, vocabulary, device

    def plain(self, batch: Batch) -> Inputs:
        """Return the inputs of a batch as it is, for validation."""
        images = transforms.to_input(self._move(batch.images), self.params.model.image_size)
        return self._inputs(batch, images, self.vocabulary.number(batch.inputs), None)

    def training(self, batch: Batch, epoch: int) -> Inputs:
        """Return the inputs of a batch as an epoch of training sees it."""
        params, indices = self.params, batch.indices
        images = transforms.to_input(self._move(batch.images), params.model.image_size)
        if params.flip:
            images = transforms.mirror(
                images, seed=params.seed, epoch=epoch, indices=indices, sided=batch.sided
            )
        if params.augment:
            images = transforms.augment(images, seed=params.seed, epoch=epoch, indices=indices)
        tokens = self.vocabulary.number(batch.inputs)
        if params.objective == "captioning":
            tokens = hide_inputs(
                tokens, params.parallel_share, seed=params.seed, epoch=epoch, indices=indices
            )
        keep = None
        if params.keep_patches < 1:
            grid = params.model.image_size // params.model.patch_size
            keep = choose_patches(
                grid**2, params.keep_patches, seed=params.seed, epoch=epoch, indices=indices
            )
        return self._inputs(batch, images, tokens, keep)

    def _inputs(self, batch: Batch, images: Tensor, tokens: Tensor, keep: Tensor | None) -> Inputs:
        # Found on the CPU: a device would have to be waited for.
        valid = batch.targets != IGNORED
        places = valid.flatten().nonzero().squeeze(1)
        targets = self.vocabulary.number(batch.targets.flatten()[places])
        return Inputs(
            images=images, tokens=self._move(tokens), valid=self._move(valid),
            places=self._move(places), targets=self._move(targets),
            groups=self._move(batch.groups), keep=None if keep is None else self._move(keep),
        )  # fmt: skip

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)


def choose_patches(
    num_patches: int, share: float, *, seed: int, epoch: int, indices: Sequence[int]
) -> Tensor:
    """Return which patches of each image are looked at: int64 [B, K], ascending.

    K is ``share`` of them, at least one (FLIP, arXiv:2212.00794).
    """
    kept = max(1, round(share * num_patches))
    rows = [
        np.random.Generator(np.random.Philox(key=seed, counter=[0, index, epoch, _DROP_STREAM]))
        .permutation(num_patches)[:kept]
        for index in indices
    ]  # fmt: skip
    return torch.from_numpy(np.sort(np.stack(rows), axis=1))
