"""Model inputs made of a stored batch: moved to the device, augmented, tokens renumbered.

Augmentation, mirroring, hidden words and dropped patches are applied in training only, and each is
a pure function of (seed, epoch, the pair's index).
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

# Streams of random numbers; 0 is the order of samples, 1 augmentation, 3 mirroring.
_PARALLEL_STREAM, _DROP_STREAM = 2, 4


@dataclass(frozen=True)
class Inputs:
    """One micro-batch on the device.

    ``images`` float32 [B, 1, S, S]; ``tokens`` [B, T] of the cut vocabulary; ``valid`` bool
    [B, T], false on padding; ``places`` int64 [P], the positions among B * T that have a target,
    and ``targets`` [P]; ``groups`` int64 [B], equal for equal reports; ``keep`` int64 [B, K], the
    patches that are encoded, or None for all; ``hidden`` bool [B], the reports that are written
    blind, or None.
    """

    images: Tensor
    tokens: Tensor
    valid: Tensor
    places: Tensor
    targets: Tensor
    groups: Tensor
    keep: Tensor | None
    hidden: Tensor | None = None

    @property
    def written_tokens(self) -> Tensor:
        """``tokens`` with the begin token everywhere in reports that are written blind."""
        if self.hidden is None:
            return self.tokens
        return torch.where(self.hidden.unsqueeze(1), self.tokens[:, :1], self.tokens)


class Preparer:
    """Turns batches into inputs on one device, by one set of parameters."""

    def __init__(
        self,
        params: PretrainParams,
        vocabulary: CutVocabulary,
        device: torch.device,
        *,
        hides_words: bool,
    ) -> None:
        self.params, self.vocabulary, self.device = params, vocabulary, device
        self.hides_words = hides_words

    def for_validation(self, batch: Batch) -> Inputs:
        """Return the inputs of a batch as it is, for validation."""
        images = transforms.to_input(self._move(batch.images), self.params.model.image_size)
        return self._inputs(batch, images, None, None)

    def for_training(self, batch: Batch, epoch: int) -> Inputs:
        """Return the inputs of a batch as an epoch of training sees it."""
        params, indices = self.params, batch.indices
        images = transforms.to_input(self._move(batch.images), params.model.image_size)
        if params.flip:
            images = transforms.mirror(
                images, seed=params.seed, epoch=epoch, indices=indices, sided=batch.sided
            )
        if params.augment:
            images = transforms.augment(images, seed=params.seed, epoch=epoch, indices=indices)
        hidden = keep = None
        if self.hides_words and params.parallel_share:
            hidden = draw_hidden(
                params.parallel_share, seed=params.seed, epoch=epoch, indices=indices
            )
        if params.keep_patches < 1:
            grid = params.model.image_size // params.model.patch_size
            keep = choose_patches(
                grid**2, params.keep_patches, seed=params.seed, epoch=epoch, indices=indices
            )
        return self._inputs(batch, images, keep, hidden)

    def _inputs(
        self, batch: Batch, images: Tensor, keep: Tensor | None, hidden: Tensor | None
    ) -> Inputs:
        # Found on the CPU: a device would have to be waited for.
        valid = batch.targets != IGNORED
        places = valid.flatten().nonzero().squeeze(1)
        targets = self.vocabulary.number(batch.targets.flatten()[places])
        return Inputs(
            images=images, tokens=self._move(self.vocabulary.number(batch.inputs)),
            valid=self._move(valid),
            places=self._move(places), targets=self._move(targets),
            groups=self._move(batch.groups), keep=None if keep is None else self._move(keep),
            hidden=None if hidden is None else self._move(hidden),
        )  # fmt: skip

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)


def draw_hidden(share: float, *, seed: int, epoch: int, indices: Sequence[int]) -> Tensor:
    """Return which reports, ``share`` of them, are written blind: bool [B].

    Parallel prediction: some reports are written without a sight of their own earlier words. A
    decoder that sees these can guess most of the next word from language alone, and a small
    archive's wording is soon known by heart; where it sees none, all it knows is the image
    (CapPa, arXiv:2306.07915, section 3.2; there the hidden share is 0.75 too).
    Which ones is a pure function of (seed, epoch, the sample's index).
    """
    return torch.tensor(
        [_generator(seed, index, epoch, _PARALLEL_STREAM).random() < share for index in indices]
    )


def choose_patches(
    num_patches: int, share: float, *, seed: int, epoch: int, indices: Sequence[int]
) -> Tensor:
    """Return which patches of each image are encoded: int64 [B, K], ascending.

    K is ``share`` of them, at least one (FLIP, arXiv:2212.00794).
    """
    kept = max(1, round(share * num_patches))
    rows = [
        _generator(seed, index, epoch, _DROP_STREAM).permutation(num_patches)[:kept]
        for index in indices
    ]
    return torch.from_numpy(np.sort(np.stack(rows), axis=1))


def _generator(seed: int, index: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, index, epoch, stream]))
