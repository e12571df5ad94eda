"""Model inputs made of a stored batch: tokens renumbered, moved to the device, augmented.

All that is drawn, numbered or counted is so on the host, ahead of its step, in the loader's
threads; the device computes on pixels, and nothing of it is waited for. Augmentation, mirroring,
hidden words and dropped patches are for training only, and each is a pure function of (seed, epoch,
the pair's index).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lapvqa.images import transforms
from lapvqa.images.report_pairs import IGNORED, Batch
from lapvqa.networks.vocabulary import CutVocabulary
from lapvqa.params import PretrainParams

# Streams of random numbers; 0 is the order of samples, 1 augmentation, 3 mirroring.
_PARALLEL_STREAM, _DROP_STREAM = 2, 4
_PLACES = 128


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


@dataclass(frozen=True)
class Prepared:
    """One micro-batch on the host, page-locked where that pays.

    ``images`` uint8 [B, 384, 384]; ``mirrored`` bool [B] and ``changes`` float32 [B, 7] are what
    ``transforms`` draws, or None; all others as in ``Inputs``.
    """

    images: Tensor
    mirrored: Tensor | None
    changes: Tensor | None
    tokens: Tensor
    valid: Tensor
    places: Tensor
    targets: Tensor
    groups: Tensor
    keep: Tensor | None
    hidden: Tensor | None


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
        self.hides_words, self.on_gpu = hides_words, device.type == "cuda"

    def for_validation(self, batch: Batch) -> Inputs:
        """Return the inputs of a batch as it is, for validation."""
        return self.to_inputs(self._prepared(batch))

    def prepare(self, batch: Batch, epoch: int) -> Prepared:
        """Do for a batch of an epoch of training all that needs no device; by any thread."""
        params = self.params
        drawn: dict[str, Any] = {"seed": params.seed, "epoch": epoch, "indices": batch.indices}
        mirrored = changes = keep = hidden = None
        if params.flip:
            mirrored = transforms.draw_mirrored(**drawn, sided=batch.sided)
        if params.augment:
            changes = transforms.draw_changes(**drawn)
        if self.hides_words and params.parallel_share:
            hidden = draw_hidden(params.parallel_share, **drawn)
        if params.keep_patches < 1:
            grid = params.model.image_size // params.model.patch_size
            keep = choose_patches(grid**2, params.keep_patches, **drawn)
        return self._prepared(batch, mirrored, changes, keep, hidden)

    def to_inputs(self, prepared: Prepared) -> Inputs:
        """Move a micro-batch to the device, and change its images there."""
        moved: dict[str, Any] = {
            field.name: None if value is None else value.to(self.device, non_blocking=True)
            for field in fields(prepared)
            for value in [getattr(prepared, field.name)]
        }
        images = transforms.to_input(moved.pop("images"), self.params.model.image_size)
        mirrored, changes = moved.pop("mirrored"), moved.pop("changes")
        if mirrored is not None:
            images = transforms.mirror(images, mirrored)
        if changes is not None:
            images = transforms.augment(images, changes)
        return Inputs(images=images, **moved)

    def _prepared(
        self,
        batch: Batch,
        mirrored: Tensor | None = None,
        changes: Tensor | None = None,
        keep: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Prepared:
        further = padded_length(batch.inputs.shape[1], on_gpu=self.on_gpu) - batch.inputs.shape[1]
        tokens = functional.pad(self.vocabulary.number(batch.inputs), (0, further))
        all_targets = functional.pad(batch.targets, (0, further), value=IGNORED)
        valid = all_targets != IGNORED
        places = valid.flatten().nonzero().squeeze(1)
        made = (
            mirrored, changes, tokens, valid, places,
            self.vocabulary.number(all_targets.flatten()[places]), batch.groups, keep, hidden,
        )  # fmt: skip
        # The images are page-locked already: the loader reads them into such memory.
        return Prepared(batch.images, *(self._locked(one) for one in made))  # type: ignore[arg-type]

    def _locked(self, tensor: Tensor | None) -> Tensor | None:
        return tensor.pin_memory() if tensor is not None and self.on_gpu else tensor


def padded_length(length: int, *, on_gpu: bool) -> int:
    """Return to how many places a micro-batch's reports of at most ``length`` tokens are padded.

    On a GPU to a multiple of 128: of lengths there are then four, so that plans and compiled code
    are made for few, and none is one (T % 128 == 64, with a mask) whose attention has been wrong
    in some versions of cuDNN. Not on a CPU: it would compute what nobody needs.
    """
    return -(-length // _PLACES) * _PLACES if on_gpu else length


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
