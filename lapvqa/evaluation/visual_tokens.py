"""Images as a head sees them: tokens of an encoder that is frozen, or trained with it (native)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from torch import Tensor

from lapvqa import storage
from lapvqa.datasets.image_folder import Pixels
from lapvqa.datasets.stored import StoredImages
from lapvqa.evaluation.features import means_of_cells, open_store
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.images.shards import ShardStore, verify_shards
from lapvqa.job import Job
from lapvqa.networks.device import Computer, open_computer
from lapvqa.networks.weights import serialise
from lapvqa.params import RecipeParams
from lapvqa.project import Project

TokenKind = Literal["pooled", "patches"]

ENCODER = "encoder.pt"
"""Beside the head of a native recipe: the encoder that was trained with it."""


@dataclass(frozen=True)
class NumberedImages:
    """Images by number: sha256 of the stored pixels, and how to read these, uint8 [k, 384, 384]."""

    digests: list[str]
    read: Callable[[Sequence[int]], Pixels]


class VisualTokens:
    """Images as tokens of one encoder.

    ``trained``: the encoder if gradients reach it, else None.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        read: Callable[[Sequence[int]], NDArray[Any]],
        make: Callable[[Tensor], Tensor],
        computer: Computer,
        *,
        trained: bool,
    ) -> None:
        """``read``: from numbers of images to what is stored of them; ``make``: to tokens."""
        self._read, self._make, self.computer = read, make, computer
        self._coming: dict[tuple[int, ...], Future[Tensor]] = {}
        self.width = encoder.width
        self.trained = encoder if trained else None

    def of(self, numbers: Sequence[int]) -> Tensor:
        """Return the tokens [k, N, D] of images, on the device."""
        coming = self._coming.pop(tuple(numbers), None)
        values = self._read(numbers) if coming is None else coming.result()
        return self._make(self.computer.put(values))

    def expect(self, asked: Sequence[Sequence[int]], pool: Executor) -> None:
        """Read what ``of`` will be asked for next, while the device computes."""
        for numbers in asked:
            self._coming[tuple(numbers)] = pool.submit(
                lambda chosen: self.computer.pinned(self._read(chosen)), numbers
            )

    def save_trained(self, folder: Path) -> None:
        """Write ``encoder.pt`` if gradients reached the encoder: its head needs these weights.

        A plain state dict under the names of the encoder's own library.
        """
        if self.trained is not None:
            weights = {
                name: tensor.detach().cpu() for name, tensor in self.trained.weights().items()
            }
            storage.write_bytes(folder / ENCODER, serialise(weights))


def open_visual_tokens(
    encoder: ImageEncoder,
    images: NumberedImages,
    kind: TokenKind,
    recipe: RecipeParams,
    *,
    job: Job,
    progress: Callable[[int, int], None],
) -> VisualTokens:
    """Return the images as tokens, [k, N, D] on the device for numbers of images.

    Of a frozen encoder all are computed here, once, and stored; if the head reads each but once,
    they are computed when it asks.
    """
    computer = open_computer(job.machine, job.computing)
    encoder.to(computer.device)

    def native(pixels: Tensor) -> Tensor:
        tokens = encoder.patches(pixels) if kind == "patches" else encoder(pixels)
        grid = recipe.token_grid
        return means_of_cells(tokens, grid) if grid else tokens.float()

    if recipe.encoder == "native":
        return VisualTokens(encoder, images.read, native, computer, trained=True)
    store = open_store(encoder, kind, job=job, grid=recipe.token_grid)
    if recipe.epochs == recipe.seeds == 1:

        def streamed(pixels: Tensor) -> Tensor:
            return computer.put(store.encode(pixels)).float()

        return VisualTokens(encoder, images.read, streamed, computer, trained=False)
    store.fill(images.digests, images.read, progress=progress)

    def stored(numbers: Sequence[int]) -> NDArray[Any]:
        return store.take([images.digests[number] for number in numbers])

    return VisualTokens(encoder, stored, Tensor.float, computer, trained=False)


def shard_images(places: Sequence[tuple[str, str, int]], project: Project) -> NumberedImages:
    """Return images of data/images by number; ``places``: pixels' sha256, shard, row of each."""
    verify_shards(project.images_dir, {shard for _, shard, _ in places})
    store = ShardStore(project.images_dir)

    def read(numbers: Sequence[int]) -> Pixels:
        some = [places[number] for number in numbers]
        return store.read([shard for _, shard, _ in some], [row for _, _, row in some])

    return NumberedImages([digest for digest, _, _ in places], read)


def stored_images(
    keys: Sequence[str], stored: StoredImages, project: Project
) -> tuple[NumberedImages, dict[str, int]]:
    """Return the archive's images of ``keys`` and the number of each key."""
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    places = [(stored.digest_of[key], *stored.rows[key][5:7]) for key in numbers]
    return shard_images(places, project), numbers
