"""Features of frozen encoders, computed once per (encoder, images) and kept under .lapvqa/work.

Image files are decoded once into chunks of stored pixels; a chunk's features are keyed by what the
encoder is (sha256 of its weights), what it does (its output for fixed images: two encoders may
share weights and differ in the number of heads) and the chunk's pixels, so every evaluation that
sees the same images shares them. A changed file or decoder makes another key; a killed run
continues at the first missing chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from lapvqa import storage
from lapvqa.config import Machine
from lapvqa.data import geometry, transforms
from lapvqa.layout import Layout
from lapvqa.params import load_params
from lapvqa.pretrain.device import choose_device, make_deterministic
from lapvqa.pretrain.encoder import VisionEncoder
from lapvqa.pretrain.files import load_encoder, untrained_encoder
from lapvqa.probe import images as image_code
from lapvqa.probe.images import read_image
from lapvqa.recorder import Recorder
from lapvqa.schemas import INVENTORY, STORED_SIZE

CHUNK = 512
"""Images per cached file: 75 MB of pixels."""

BATCH = 32
"""Images per forward pass; fixed, because the bits of a sum may depend on it."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageFolder:
    """A dataset's folder and its inventory: path -> "size mtime"."""

    name: str
    folder: Path
    files: Mapping[str, str]

    def present(self, paths: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of ``paths`` the inventory lists."""
        return np.array([path in self.files for path in paths], dtype=bool)


@dataclass(frozen=True)
class Features:
    """Features of n images under each system.

    ``readable`` [n]: false where the file is missing or broken; ``systems``: system -> float32
    [number readable, D]; ``encoders``: system -> sha256 of its weights.
    """

    readable: NDArray[np.bool_]
    systems: dict[str, NDArray[np.float32]]
    encoders: dict[str, str]


def open_folder(name: str, layout: Layout, machine: Machine) -> ImageFolder | None:
    """Return the input folder ``name`` (chexpert, nih14); None if it is absent or empty."""
    folder = machine.folder(name, load_params(layout.params).inventory, layout)
    table = storage.read_table(layout.inventory(name), INVENTORY, made_by="inventory")
    if not folder.is_dir() or not table.num_rows:
        return None
    sizes, times = table["size"].to_pylist(), table["mtime_ns"].to_pylist()
    stamps = (f"{size} {time}" for size, time in zip(sizes, times, strict=True))
    return ImageFolder(name, folder, dict(zip(table["path"].to_pylist(), stamps, strict=True)))


def load_systems(folder: Path) -> dict[str, VisionEncoder]:
    """Return the trained encoder of ``folder`` and its untrained twin, in eval mode."""
    return {"trained": load_encoder(folder), "untrained": untrained_encoder(folder)}


def extract(
    encoders: Mapping[str, VisionEncoder],
    source: ImageFolder,
    paths: Sequence[str],
    *,
    layout: Layout,
    machine: Machine,
    recorder: Recorder,
) -> Features:
    """Return the mean over the pooled tokens of each encoder for each image of ``paths``."""
    make_deterministic(threads=machine.workers)
    device = choose_device(machine)
    moved = {name: encoder.to(device).eval() for name, encoder in encoders.items()}
    digests = {name: encoder_digest(encoder) for name, encoder in moved.items()}
    work = layout.work_dir("features")
    caches = {
        name: work / "features" / digests[name] / fingerprint(encoder, device, machine)
        for name, encoder in moved.items()
    }
    used: set[Path] = set()
    readable: list[NDArray[np.bool_]] = []
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in moved}
    done, total = 0, len(paths) * len(moved)
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start : start + CHUNK]
        cached = work / "pixels" / source.name / f"{_chunk_key(source, chunk)}.npz"
        used.add(cached)
        pixels, good = _stored_pixels(cached, source, chunk, machine)
        readable.append(good)
        for name, encoder in moved.items():
            parts[name].append(_chunk_features(caches[name], encoder, pixels, device))
            done += len(chunk)
            recorder.progress(done, total, unit="images", note=name)
    _remove_others(work / "pixels" / source.name, used)
    systems = {name: np.concatenate(values) for name, values in parts.items()}
    return Features(np.concatenate(readable), systems, digests)


def encoder_digest(encoder: torch.nn.Module) -> str:
    """Return the sha256 of names, shapes and bytes of the weights, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def fingerprint(encoder: VisionEncoder, device: torch.device, machine: Machine) -> str:
    """Return the sha256 of the features of two fixed images of noise, computed here and now.

    It tells apart what the weights alone do not: the number of heads, pooling, the code, the
    libraries, the device and the number of threads.
    """
    noise = np.random.default_rng(0).integers(0, 256, (2, STORED_SIZE, STORED_SIZE), dtype=np.uint8)
    content = encode(encoder, noise, device).tobytes()
    return hashlib.sha256(f"{device.type} {machine.workers}\n".encode() + content).hexdigest()


@torch.inference_mode()
def encode(encoder: VisionEncoder, pixels: Pixels, device: torch.device) -> NDArray[np.float32]:
    """Map stored pixels uint8 [n, 384, 384] to features float32 [n, D]."""
    means = []
    for start in range(0, len(pixels), BATCH):
        batch = torch.from_numpy(pixels[start : start + BATCH]).to(device)
        tokens = encoder(transforms.to_input(batch, encoder.image_size))  # [B, N, D]
        means.append(tokens.mean(dim=1).float().cpu().numpy())
    features: NDArray[np.float32] = np.concatenate(means)
    return features


def _stored_pixels(
    cached: Path, source: ImageFolder, chunk: Sequence[str], machine: Machine
) -> tuple[Pixels, NDArray[np.bool_]]:
    """Return (pixels of the readable images, readable [n]), decoded on the first call only."""
    if cached.exists():
        with np.load(cached) as stored:
            return stored["pixels"], stored["readable"]
    with ThreadPoolExecutor(machine.workers) as pool:  # Pillow decodes without the GIL
        images = list(pool.map(lambda path: read_image(source.folder / path), chunk))
    readable = np.array([image is not None for image in images], dtype=bool)
    good = [image for image in images if image is not None]
    pixels = np.stack(good) if good else np.zeros((0, STORED_SIZE, STORED_SIZE), dtype=np.uint8)
    with storage.atomic_path(cached) as temporary, temporary.open("wb") as handle:
        np.savez(handle, pixels=pixels, readable=readable)
    return pixels, readable


def _chunk_features(
    folder: Path, encoder: VisionEncoder, pixels: Pixels, device: torch.device
) -> NDArray[np.float32]:
    if not len(pixels):
        return np.zeros((0, encoder.width), dtype=np.float32)
    shape = f"{len(pixels)} {BATCH}\n".encode()
    cached = folder / f"{hashlib.sha256(shape + pixels.tobytes()).hexdigest()}.npy"
    if cached.exists():
        stored: NDArray[np.float32] = np.load(cached)
        return stored
    features = encode(encoder, pixels, device)
    with storage.atomic_path(cached) as temporary, temporary.open("wb") as handle:
        np.save(handle, features)
    return features


def _chunk_key(source: ImageFolder, chunk: Sequence[str]) -> str:
    libraries = f"{PIL.__version__} {cv2.__version__}"
    lines = [_code_digest(geometry, image_code), libraries, str(source.folder)]
    lines += [f"{path} {source.files.get(path, 'missing')}" for path in chunk]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _code_digest(*modules: ModuleType) -> str:
    """Return the sha256 of source files: a cache must not outlive the code that filled it."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()


def _remove_others(folder: Path, used: set[Path]) -> None:
    """Drop pixel chunks of files that have changed since: they are large and never met again."""
    for path in set(folder.glob("*.npz")) - used:
        path.unlink(missing_ok=True)
