"""Pairs of a frontal image and its report's tokens, in a stateless random order, and batches."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lapvqa import storage
from lapvqa.images.shards import ShardStore
from lapvqa.project import Project
from lapvqa.schemas import EXCLUDED, FRONTAL_VIEWS, IMAGES, STORED_SIZE, TOKENS

IGNORED = -100
"""Target of a position without one; torch's own default."""

_ORDER_STREAM = 0


@dataclass(frozen=True)
class Pair:
    """One image and its report.

    ``token_ids`` uint16, 50256 at begin and end; ``shard`` and ``row`` say where the pixels are.
    ``sided``: the report names a side of the body.
    """

    study_key: str
    shard: str
    row: int
    pixels_sha256: str
    token_ids: NDArray[np.uint16]
    sided: bool

    @cached_property
    def group(self) -> int:
        """Number of the report's wording, 0..2^63-1: equal tokens, equal number, in any split.

        A digest, so that it depends on no other pair. Two of 400,000 wordings share one by chance
        with a probability of 1e-8.
        """
        digest = hashlib.blake2b(self.token_ids.tobytes(), digest_size=8).digest()
        return int.from_bytes(digest) >> 1


@dataclass(frozen=True)
class Batch:
    """``indices`` of the pairs, ``images`` uint8 [B, 384, 384], ``inputs`` and ``targets`` [B, T].

    ``targets`` are the next tokens, -100 on padding; T is the longest report of the batch.
    ``sided`` says of each report whether it names a side of the body.
    ``groups`` int64 [B]: equal where reports have the same tokens (``Pair.group``); a contrastive
    loss must not take such pairs for negatives of each other.
    """

    indices: list[int]
    images: Tensor
    inputs: Tensor
    targets: Tensor
    sided: list[bool]
    groups: Tensor


def read_pairs(project: Project, split: str) -> tuple[list[Pair], int]:
    """Return the pairs of a split, ordered by keys, and how many of its reports got no image.

    All frontal images of a study count; one of unknown view does not, as it may be a lateral one
    (``ingest.unknown_view`` can name it frontal). The images that the firewall excludes are no
    pairs, whoever asks: no head may be trained on them either.
    """
    images = storage.read_table(project.images, IMAGES, made_by="ingest")
    excluded = read_excluded(project)
    tokens = storage.read_table(project.tokens_dir, TOKENS, made_by="tokens")
    columns = ["image_key", "study_key", "split", "view", "shard", "row", "pixels_sha256"]
    of_study: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for image in images.select(columns).to_pylist():
        if image["split"] == split:
            of_study[image["study_key"]].append(image)
    pairs, without_image = [], 0
    kept = zip(*(tokens[name].to_pylist() for name in ("study_key", "split", "sided")), strict=True)
    offsets, flat = _flat_tokens(tokens["token_ids"])
    for report, (study_key, report_split, sided) in enumerate(kept):
        if report_split != split:
            continue
        frontal = [image for image in of_study[study_key] if image["view"] in FRONTAL_VIEWS]
        without_image += not frontal
        token_ids = flat[offsets[report] : offsets[report + 1]]
        pairs += [
            Pair(study_key, image["shard"], image["row"], image["pixels_sha256"], token_ids, sided)
            for image in sorted(frontal, key=lambda image: image["image_key"])
            if image["image_key"] not in excluded
        ]
    return sorted(pairs, key=lambda pair: pair.study_key), without_image


def read_excluded(project: Project) -> frozenset[str]:
    """Return the keys of the images that a test set has too (stage ``firewall``).

    Raises MissingArtifactError where nobody has looked.
    """
    table = storage.read_table(project.excluded, EXCLUDED, made_by="firewall")
    return frozenset(table["image_key"].to_pylist())


def _flat_tokens(column: Any) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """Return offsets [reports + 1] and all ids in one array; no Python list per report."""
    lists = column.combine_chunks()
    return lists.offsets.to_numpy(), lists.values.to_numpy()


def digest_pairs(pairs: Sequence[Pair]) -> str:
    """Return a sha256 over every pixel (by its own digest), token and side, in order."""
    digest = hashlib.sha256()
    for pair in pairs:
        facts = f"{pair.study_key} {pair.pixels_sha256} {len(pair.token_ids)} {pair.sided}\n"
        digest.update(facts.encode())
        digest.update(pair.token_ids.tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=2)
def epoch_order(num_pairs: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the pairs in an epoch: a pure function, so a resume replays nothing."""
    stream = np.random.Philox(key=seed, counter=[0, 0, epoch, _ORDER_STREAM])
    order = np.random.Generator(stream).permutation(num_pairs)
    order.flags.writeable = False  # one array for every caller
    return order


def read_batch(
    pairs: Sequence[Pair], indices: Sequence[int], store: ShardStore, *, pin: bool = False
) -> Batch:
    """Read the pairs at ``indices`` as a batch padded to its longest report.

    ``pin``: its images into page-locked memory, which needs CUDA.
    """
    chosen = [pairs[index] for index in indices]
    images = _empty_images(len(chosen), pin=pin)
    store.read_into(images.numpy(), [pair.shard for pair in chosen], [pair.row for pair in chosen])
    inputs, targets = pad_tokens([pair.token_ids for pair in chosen])
    groups = torch.tensor([pair.group for pair in chosen], dtype=torch.int64)
    sided = [pair.sided for pair in chosen]
    return Batch(list(indices), images, inputs, targets, sided, groups)


def _empty_images(count: int, *, pin: bool) -> Tensor:
    shape = (count, STORED_SIZE, STORED_SIZE)
    if pin:
        # torch keeps page-locked memory and hands it out again once the copies out of it are done.
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
    # numpy asks for huge pages, torch does not: a seventh of the time, which page faults take.
    return torch.from_numpy(np.empty(shape, dtype=np.uint8))


def pad_tokens(reports: Sequence[NDArray[np.uint16]]) -> tuple[Tensor, Tensor]:
    """Return inputs [B, T] and the tokens that follow them, int64, -100 where there is none."""
    longest = max(len(report) for report in reports)
    inputs = np.zeros((len(reports), longest - 1), dtype=np.int64)
    targets = np.full((len(reports), longest - 1), IGNORED, dtype=np.int64)
    for row, report in enumerate(reports):
        inputs[row, : len(report) - 1] = report[:-1]
        targets[row, : len(report) - 1] = report[1:]
    return torch.from_numpy(inputs), torch.from_numpy(targets)
