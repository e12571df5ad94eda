"""What a head sees: tokens of an encoder that is frozen, or trained with the head (native)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lapvqa import storage
from lapvqa.datasets.stored import StoredImages
from lapvqa.evaluation.features import FeatureStore, open_store
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.evaluation.image_folder import Pixels
from lapvqa.images.shards import ShardStore, verify_shards
from lapvqa.job import Job
from lapvqa.metrics.replicates import head_name
from lapvqa.networks.device import choose_device, make_deterministic
from lapvqa.networks.weights import serialise
from lapvqa.params import RecipeParams
from lapvqa.project import Project

Tokens = Literal["pooled", "patches"]

ENCODER = "encoder.pt"
"""Beside the head of a native recipe: the encoder that was trained with it."""


@dataclass(frozen=True)
class Images:
    """Images by number: sha256 of the stored pixels, and how to read these, uint8 [k, 384, 384]."""

    digests: list[str]
    read: Callable[[Sequence[int]], Pixels]


class Vision:
    """Images as tokens of one encoder.

    ``trained``: the encoder if gradients reach it, else None.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        images: Images,
        kind: Tokens,
        store: FeatureStore | None,
        device: torch.device,
    ) -> None:
        self._encoder, self._images, self._kind, self._store = encoder, images, kind, store
        self.device = device
        self.trained = encoder if store is None else None

    @property
    def width(self) -> int:
        """The width of the tokens."""
        return self._encoder.width

    def tokens(self, numbers: Sequence[int]) -> Tensor:
        """Return the tokens [k, N, D] of images, on the device."""
        if self._store is not None:
            features = self._store.take([self._images.digests[one] for one in numbers])
            return torch.from_numpy(features).to(self.device)
        pixels = torch.from_numpy(self._images.read(numbers)).to(self.device)
        encoder = self._encoder
        return (encoder.patches(pixels) if self._kind == "patches" else encoder(pixels)).float()

    def save_trained(self, folder: Path) -> None:
        """Write ``encoder.pt`` if gradients reached the encoder: its head needs these weights.

        A plain state dict under the names of the encoder's own library.
        """
        if self.trained is not None:
            weights = {name: one.detach().cpu() for name, one in self.trained.weights().items()}
            storage.write_bytes(folder / ENCODER, serialise(weights))


def seeded(
    encoders: Mapping[str, ImageEncoder], recipe: RecipeParams
) -> Iterator[tuple[str, ImageEncoder, RecipeParams]]:
    """Yield name, encoder and recipe of each head to train: encoder by encoder, seed by seed.

    A native recipe trains a copy of the encoder, so that every head starts from the same.
    """
    for name, encoder in encoders.items():
        for number in range(recipe.seeds):
            chosen = recipe.model_copy(update={"seed": recipe.seed + number})
            own = copy.deepcopy(encoder) if recipe.encoder == "native" else encoder
            yield head_name(name, number), own, chosen


def open_vision(
    encoder: ImageEncoder,
    images: Images,
    kind: Tokens,
    recipe: RecipeParams,
    *,
    job: Job,
    progress: Callable[[int, int], None],
) -> Vision:
    """Return the images as tokens; of a frozen encoder all are computed here, once."""
    make_deterministic(threads=job.machine.workers)
    device = choose_device(job.machine)
    if recipe.encoder == "native":
        return Vision(encoder.to(device), images, kind, None, device)
    store = open_store(encoder, kind, job=job)
    store.fill(images.digests, images.read, progress=progress)
    return Vision(encoder, images, kind, store, device)


def stored_images(
    keys: Sequence[str], stored: StoredImages, project: Project
) -> tuple[Images, dict[str, int]]:
    """Return the archive's images of ``keys`` and the number of each key."""
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    rows = [stored.rows[key] for key in numbers]
    shards, places = [row[5] for row in rows], [row[6] for row in rows]
    verify_shards(project.images_dir, set(shards))
    store = ShardStore(project.images_dir)

    def read(wanted: Sequence[int]) -> Pixels:
        return store.read([shards[one] for one in wanted], [places[one] for one in wanted])

    return Images([stored.digest_of[key] for key in numbers], read), numbers
