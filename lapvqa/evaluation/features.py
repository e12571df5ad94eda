"""Features of encoders, computed once per (encoder, image), shared by all evaluations.

An encoder is what it is (sha256 of its weights) and what it does (its output for fixed images: two
encoders may share weights and differ in the number of heads); an image is the sha256 of its stored
pixels. A store is a folder of chunks that only grows: ``<name>.npy`` holds the features of the
images listed in ``<name>.json``. A killed run continues at the first missing chunk.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lapvqa import storage
from lapvqa.datasets.image_folder import Pixels
from lapvqa.errors import ConfigError
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.job import Job
from lapvqa.networks.allocation_counter import AllocationCounter
from lapvqa.networks.device import Computer, open_computer
from lapvqa.networks.encoder import pooling_matrix
from lapvqa.schemas import STORED_SIZE

Kind = Literal["mean", "pooled", "patches"]
"""Mean over the tokens [D], float32; tokens [N, D] or patch tokens [G * G, D], both float16."""

CHUNK = 256
"""Images per file: 134 MB of pooled tokens at the published size, 382 MB of patches."""


class FeatureStore:
    """Features of one encoder and one kind; ``fill`` computes what is missing, ``take`` reads."""

    def __init__(
        self, encode: Callable[[Tensor], NDArray[np.floating]], folder: Path, computer: Computer
    ) -> None:
        """``encode`` maps stored pixels [n, 384, 384] on the device to features [n, ...]."""
        self.encode, self._folder, self._computer = encode, folder, computer
        self._places: dict[str, tuple[Path, int]] = {}
        for listing in sorted(folder.glob("*.json")):
            self._index(listing)
        self._open: dict[Path, NDArray[np.floating]] = {}

    def fill(
        self,
        digests: Sequence[str],
        read: Callable[[Sequence[int]], Pixels],
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Compute the features of images that are not there yet.

        ``read`` maps positions in ``digests`` to stored pixels uint8 [k, 384, 384].
        """
        first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
        missing = sorted(place for digest, place in first.items() if digest not in self._places)
        chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
        with closing(self._computer.ahead(read, chunks)) as coming:
            for number, (chunk, pixels) in enumerate(zip(chunks, coming, strict=True)):
                self._write([digests[place] for place in chunk], pixels)
                progress(number * CHUNK + len(chunk), len(missing))

    def take(self, digests: Sequence[str]) -> NDArray[np.floating]:
        """Return the features of images as they are stored, [k, ...]; KeyError before ``fill``."""
        places = [self._places[digest] for digest in digests]
        return np.stack([self._chunk(path)[row] for path, row in places])

    def _write(self, digests: list[str], pixels: Tensor) -> None:
        features = self.encode(pixels)
        name = hashlib.sha256("\n".join(digests).encode()).hexdigest()
        path = self._folder / f"{name}.npy"
        with storage.atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.save(handle, features)
        listing = path.with_suffix(".json")
        storage.write_json(listing, {"digests": digests})  # last: it says that the chunk is there
        self._index(listing)

    def _index(self, listing: Path) -> None:
        digests = storage.read_json(listing, made_by="the evaluations")["digests"]
        for row, digest in enumerate(digests):
            self._places.setdefault(digest, (listing.with_suffix(".npy"), row))

    def _chunk(self, path: Path) -> NDArray[np.floating]:
        if path not in self._open:
            self._open[path] = np.load(path, mmap_mode="r")
        return self._open[path]


def open_store(encoder: ImageEncoder, kind: Kind, *, job: Job, grid: int = 0) -> FeatureStore:
    """Return the store of an encoder; moves it to the machine's device, in eval mode.

    ``grid``: see ``encode``.
    """
    computer = open_computer(job.machine, job.computing)
    encoder.to(computer.device).eval()
    rows = rows_at_once(encoder, computer)
    known = encoder_digest(encoder), fingerprint(encoder, computer, rows)
    name = f"{kind}{grid or ''}"
    folder = job.project.work_dir("features").joinpath("features", *known, name)
    act = partial(encode, encoder, computer=computer, kind=kind, rows=rows, grid=grid)
    return FeatureStore(act, folder, computer)


def means(
    encoders: Mapping[str, ImageEncoder],
    digests: Sequence[str],
    read: Callable[[Sequence[int]], Pixels],
    *,
    job: Job,
) -> dict[str, NDArray[np.float32]]:
    """Return the mean over each encoder's tokens for each image, [n, D]; see ``fill``."""
    values = {}
    for name, encoder in encoders.items():
        store = open_store(encoder, "mean", job=job)
        store.fill(digests, read, progress=partial(job.recorder.progress, unit="images", note=name))
        values[name] = store.take(digests)
    return values


def describe(encoders: Mapping[str, ImageEncoder]) -> dict[str, str]:
    """Return what the systems' encoders are, for a protocol."""
    digests = {
        f"encoder_sha256_{name}": encoder_digest(encoder) for name, encoder in encoders.items()
    }
    return {**digests, **{f"encoder_{name}": encoder.about for name, encoder in encoders.items()}}


def encoder_digest(encoder: torch.nn.Module) -> str:
    """Return the sha256 of names, shapes and bytes of the weights, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        digest.update(values.view(torch.uint8).numpy().tobytes() if values.ndim else b"")
        digest.update(b"" if values.ndim else str(values.item()).encode())
    return digest.hexdigest()


def fingerprint(encoder: ImageEncoder, computer: Computer, rows: int) -> str:
    """Return the sha256 of the tokens of two fixed images of noise, computed here and now.

    It tells apart what the weights alone do not: the number of heads, pooling, preprocessing, the
    code, the libraries, the device, its precision, the number of threads and of ``rows`` at once.
    """
    noise = np.random.default_rng(0).integers(0, 256, (2, STORED_SIZE, STORED_SIZE), dtype=np.uint8)
    images = computer.put(noise)
    with computer.inference():
        content = [encoder(images), encoder.patches(images)]
    threads = torch.get_num_threads()
    state = hashlib.sha256(f"{computer.device.type} {threads} {rows}\n".encode())
    for tokens in content:
        state.update(tokens.float().cpu().numpy().tobytes())
    return state.hexdigest()


def rows_at_once(encoder: ImageEncoder, computer: Computer) -> int:
    """Return how many images ``encode`` takes at a time: as many as the device holds well."""
    return computer.rows(lambda: forward_bytes(encoder))


def forward_bytes(encoder: ImageEncoder) -> float:
    """Return the bytes that one image takes at the peak of a forward pass; computes nothing.

    Found on fake tensors, in float32: a GPU's bfloat16 takes less.
    """
    counter = AllocationCounter()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(1, STORED_SIZE, STORED_SIZE, dtype=torch.uint8, device=_place(encoder))
        with counter:
            encoder.patches(images)
    return float(counter.peak)


def _place(encoder: ImageEncoder) -> torch.device:
    return next((tensor.device for tensor in encoder.state_dict().values()), torch.device("cpu"))


def encode(
    encoder: ImageEncoder,
    pixels: Tensor,
    *,
    computer: Computer,
    rows: int,
    kind: Kind = "mean",
    grid: int = 0,
) -> NDArray[np.floating]:
    """Map stored pixels uint8 [n, 384, 384], n >= 1, on the device, to features [n, ...].

    See ``Kind``; with ``grid`` tokens are averaged to so many a side. ``rows`` images are computed
    at a time, always, the last of them filled up with black ones: no image's bits depend on how
    many others are asked for with it.
    """
    parts = []
    with computer.inference():
        for start in range(0, len(pixels), rows):
            some = pixels[start : start + rows]
            batch = some.new_zeros(rows, *some.shape[1:])
            batch[: len(some)] = some
            tokens = encoder.patches(batch) if kind == "patches" else encoder(batch)
            tokens = means_of_cells(tokens, grid) if grid else tokens
            values = tokens.float().mean(dim=1) if kind == "mean" else tokens.half()
            parts.append(values[: len(some)])
    return torch.cat(parts).cpu().numpy()


def means_of_cells(tokens: Tensor, grid: int) -> Tensor:
    """Map tokens [B, n * n, D], by rows, to means of cells [B, grid * grid, D], float32.

    Raises ConfigError where the tokens are no square, or a smaller one.
    """
    count = tokens.shape[1]
    side = math.isqrt(count)
    if side * side != count or side < grid:
        raise ConfigError(
            f"recipe.token_grid is {grid}, the encoder hands on {count} tokens of an image",
            hint=f"set it to at most {side}, or to 0 for all tokens",
        )
    # Products with a constant matrix: their gradients are the same bits on a GPU too.
    pooling = pooling_matrix(side, grid).to(tokens.device)
    batch, _, width = tokens.shape
    rows = pooling @ tokens.float().reshape(batch, side, side * width)
    cells = pooling @ rows.reshape(batch * grid, side, width)
    return cells.reshape(batch, grid**2, width).float()
