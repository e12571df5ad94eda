"""Features of encoders, computed once per (encoder, image), shared by all evaluations.

An encoder is what it is (sha256 of its weights) and what it does (its output for fixed images: two
encoders may share weights and differ in the number of heads); an image is the sha256 of its stored
pixels. A store is a folder of chunks that only grows: ``<name>.npy`` holds the features of the
images listed in ``<name>.json``. A killed run continues at the first missing chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lapvqa import storage
from lapvqa.datasets.image_folder import Pixels
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.job import Job
from lapvqa.machine import Machine
from lapvqa.networks.device import choose_device, make_deterministic
from lapvqa.schemas import STORED_SIZE

Kind = Literal["mean", "pooled", "patches"]
"""Mean over the tokens [D], float32; tokens [N, D] or patch tokens [G * G, D], both float16."""

CHUNK = 256
"""Images per file: 134 MB of pooled tokens at the published size, 382 MB of patches."""

BATCH = 32
"""Images per forward pass, always: the bits of a sum may depend on it."""


class FeatureStore:
    """Features of one encoder and one kind; ``fill`` computes what is missing, ``take`` reads."""

    def __init__(
        self, encoder: ImageEncoder, kind: Kind, folder: Path, device: torch.device
    ) -> None:
        self._encoder, self._kind, self._folder, self._device = encoder, kind, folder, device
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
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            self._write([digests[place] for place in chunk], read(chunk))
            progress(start + len(chunk), len(missing))

    def take(self, digests: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of images as float32, [k, ...]; KeyError before ``fill``."""
        places = [self._places[digest] for digest in digests]
        return np.stack([self._chunk(path)[row] for path, row in places]).astype(np.float32)

    def _write(self, digests: list[str], pixels: Pixels) -> None:
        features = encode(self._encoder, pixels, self._device, kind=self._kind)
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


def open_store(encoder: ImageEncoder, kind: Kind, *, job: Job) -> FeatureStore:
    """Return the store of an encoder; moves it to the machine's device, in eval mode."""
    make_deterministic(threads=job.machine.workers)
    device = choose_device(job.machine)
    encoder.to(device).eval()
    known = encoder_digest(encoder), fingerprint(encoder, device, job.machine)
    folder = job.project.work_dir("features").joinpath("features", *known, kind)
    return FeatureStore(encoder, kind, folder, device)


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


def fingerprint(encoder: ImageEncoder, device: torch.device, machine: Machine) -> str:
    """Return the sha256 of the tokens of two fixed images of noise, computed here and now.

    It tells apart what the weights alone do not: the number of heads, pooling, preprocessing, the
    code, the libraries, the device and the number of threads.
    """
    noise = np.random.default_rng(0).integers(0, 256, (2, STORED_SIZE, STORED_SIZE), dtype=np.uint8)
    images = torch.from_numpy(noise).to(device)
    with torch.inference_mode():
        content = [encoder(images), encoder.patches(images)]
    state = hashlib.sha256(f"{device.type} {machine.workers} {BATCH}\n".encode())
    for tokens in content:
        state.update(tokens.float().cpu().numpy().tobytes())
    return state.hexdigest()


@torch.inference_mode()
def encode(
    encoder: ImageEncoder, pixels: Pixels, device: torch.device, *, kind: Kind = "mean"
) -> NDArray[np.float32] | NDArray[np.float16]:
    """Map stored pixels uint8 [n, 384, 384], n >= 1, to features [n, ...]; see ``Kind``.

    The last batch is filled up with black images, so that no image's bits depend on how many
    others are asked for with it.
    """
    parts = []
    for start in range(0, len(pixels), BATCH):
        batch = np.zeros((BATCH, STORED_SIZE, STORED_SIZE), dtype=np.uint8)
        some = pixels[start : start + BATCH]
        batch[: len(some)] = some
        images = torch.from_numpy(batch).to(device)
        tokens = encoder.patches(images) if kind == "patches" else encoder(images)
        values = tokens.float().mean(dim=1) if kind == "mean" else tokens.half()
        parts.append(values[: len(some)].cpu().numpy())
    return np.concatenate(parts)
