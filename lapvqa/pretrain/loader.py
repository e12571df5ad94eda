"""The pairs to train on, and batches of them in an order that depends on nothing but the plan.

Which pairs a step sees is a pure function of (seed, epoch, step, world size): not of the number of
workers, their speed, or the step at which a run was resumed.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lapvqa.errors import ConfigError, SourceError
from lapvqa.images.report_pairs import (
    Batch,
    Pair,
    digest_pairs,
    epoch_order,
    read_batch,
    read_excluded,
    read_pairs,
)
from lapvqa.images.shards import ShardStore, verify_shards
from lapvqa.networks.decoder import MAX_LENGTH
from lapvqa.project import Project

T = TypeVar("T")
STEPS_AHEAD = 2
"""Steps per worker that are read before they are asked for."""


@dataclass(frozen=True)
class Corpus:
    """The pairs of train and validate, the shards that hold their images, and a digest of all.

    ``without_image`` counts the reports of both splits that have no frontal image; ``excluded``
    the images that are left out because a test set has them too.
    """

    train: list[Pair]
    validate: list[Pair]
    store: ShardStore
    without_image: int
    digest: str
    excluded: int = 0


def read_corpus(project: Project, *, verify: bool = True) -> Corpus:
    """Read the pairs of train and validate.

    ``verify``: look at the digests of the shards, unless another process of this machine does.

    Raises SourceError if there is nothing to train on, SchemaError if a shard is damaged.
    """
    train, train_without = read_pairs(project, "train")
    validate, validate_without = read_pairs(project, "validate")
    excluded = len(read_excluded(project))
    if not train:
        raise SourceError(
            "expected frontal images with reports in the split train, found none "
            f"({train_without} reports there have no frontal image, the firewall excludes "
            f"{excluded} images of train and validate)",
            hint="data/rejects.parquet and data/token_rejects.parquet say what was rejected; "
            "images of unknown view are not trained on, unless ingest.unknown_view is frontal; "
            "data/firewall/account.json says which test sets have the images excluded",
        )
    longest = max(len(pair.token_ids) for pair in train + validate)
    if longest > MAX_LENGTH:
        raise ConfigError(
            f"the decoder has {MAX_LENGTH} positions, the longest report {longest} tokens",
            hint=f"set tokens.max_length to at most {MAX_LENGTH}",
        )
    digest = digest_pairs(train + validate)
    store = ShardStore(project.images_dir)
    if verify:
        verify_shards(project.images_dir, {pair.shard for pair in train + validate})
    return Corpus(train, validate, store, train_without + validate_without, digest, excluded)


@dataclass(frozen=True)
class Plan:
    """Which pairs each step of a run sees, on each of ``world_size`` processes.

    An epoch is the fewest steps that show every pair; of those that ``old`` marks (a byte per pair,
    0 or 1; empty: none) the share ``replay``, drawn anew for each epoch. Each global batch holds
    exactly ``batch_size`` rows: the last one of an epoch goes on with the first pairs of the same
    epoch's order, so that every step weighs the same and every rank has the same number of rows.

    Raises ConfigError if ``batch_size`` does not divide by ``world_size`` times ``accumulate``.
    """

    num_pairs: int
    batch_size: int
    seed: int
    world_size: int = 1
    rank: int = 0
    accumulate: int = 1
    old: bytes = b""
    replay: float = 1.0

    def __post_init__(self) -> None:
        counts = (self.shown, self.batch_size, self.world_size, self.accumulate)
        if min(counts) < 1 or not 0 <= self.rank < self.world_size:
            raise ValueError(f"a plan needs counts from 1 and a rank of the world: {self}")
        slices = self.world_size * self.accumulate
        if self.batch_size % slices:
            below = self.batch_size // slices * slices
            sizes = [str(size) for size in (below, below + slices) if size]
            raise ConfigError(
                f"a batch of {self.batch_size} cannot be cut into {self.world_size} processes x "
                f"{self.accumulate} micro-batches of one size",
                hint=f"set pretrain.batch_size to {' or '.join(sizes)}",
            )

    @property
    def shown(self) -> int:
        """How many pairs an epoch shows."""
        return self.num_pairs - self.old.count(1) + self._replayed

    @property
    def _replayed(self) -> int:
        return math.ceil(self.replay * self.old.count(1))

    @property
    def steps_per_epoch(self) -> int:
        """How many steps show an epoch's pairs."""
        return -(-self.shown // self.batch_size)

    def place(self, step: int) -> tuple[int, int]:
        """Return the epoch of a step and the step's position in it, both from 0."""
        return divmod(step, self.steps_per_epoch)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order in which an epoch shows the pairs, [shown]."""
        order = epoch_order(self.num_pairs, seed=self.seed, epoch=epoch)
        return order if self.shown == self.num_pairs else self._without_the_rest(epoch)

    @lru_cache(maxsize=2)  # noqa: B019 - a plan lives as long as the process
    def _without_the_rest(self, epoch: int) -> NDArray[np.int64]:
        order = epoch_order(self.num_pairs, seed=self.seed, epoch=epoch)
        is_old = np.frombuffer(self.old, dtype=bool)[order]
        return order[~is_old | (is_old.cumsum() <= self._replayed)]

    def global_indices(self, step: int) -> list[int]:
        """Return the pairs of a step over all ranks: ``batch_size`` indices."""
        epoch, position = self.place(step)
        order = self.order(epoch)
        start = position * self.batch_size
        rows = np.arange(start, start + self.batch_size) % self.shown
        chosen: list[int] = order[rows].tolist()
        return chosen

    def micro_batches(self, step: int) -> list[list[int]]:
        """Return this rank's pairs of a step as ``accumulate`` lists of equal length.

        Micro-batches of all ranks, rank by rank, are ``global_indices`` in order.
        """
        size = self.batch_size // (self.world_size * self.accumulate)
        first = self.rank * self.accumulate
        indices = self.global_indices(step)
        return [
            indices[part * size : (part + 1) * size]
            for part in range(first, first + self.accumulate)
        ]


class Loader:
    """Reads a plan's steps, ``workers`` threads ahead; 0 reads when asked.

    Threads, since reading a row is one copy that runs without the interpreter's lock, while a
    process would have to copy each batch once more. ``pin`` (CUDA only) puts images into
    page-locked memory, from which ``to(device, non_blocking=True)`` does not wait.

    ``wait_s``: seconds that training waited for the last step's batches.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        store: ShardStore,
        plan: Plan,
        *,
        workers: int,
        pin: bool = False,
    ) -> None:
        if plan.num_pairs != len(pairs) or workers < 0:
            raise ValueError(f"{len(pairs)} pairs and {workers} workers for {plan}")
        self.pairs, self.store, self.plan = pairs, store, plan
        self.workers, self.pin = workers, pin
        self.wait_s = 0.0
        self._num_targets = np.array([len(pair.token_ids) - 1 for pair in pairs], dtype=np.int64)

    def num_targets(self, indices: Sequence[int]) -> int:
        """Return how many tokens the pairs at ``indices`` have to predict; reads nothing."""
        return int(self._num_targets[list(indices)].sum())

    def batches(self, first_step: int, last_step: int) -> Generator[list[Batch]]:
        """Yield this rank's micro-batches as they are stored; see ``steps``."""
        return self.steps(first_step, last_step, lambda batch, _: batch)

    def steps(
        self, first_step: int, last_step: int, prepare: Callable[[Batch, int], T]
    ) -> Generator[list[T]]:
        """Yield what ``prepare`` makes of this rank's micro-batches, step by step.

        ``prepare`` gets a batch and its epoch, in the thread that has read it. ``last_step`` is no
        step of them. An error in a step is raised when its turn comes. Closing the generator, as
        leaving a ``for`` over it does, ends all threads.
        """

        def read(step: int) -> list[T]:
            epoch, _ = self.plan.place(step)
            return [
                prepare(read_batch(self.pairs, indices, self.store, pin=self.pin), epoch)
                for indices in self.plan.micro_batches(step)
            ]

        steps = range(first_step, last_step)
        return self._timed(self._ahead(read, steps) if self.workers else map(read, steps))

    def _timed(self, source: Iterable[list[T]]) -> Generator[list[T]]:
        started = time.perf_counter()
        for batches in source:
            self.wait_s = time.perf_counter() - started
            yield batches
            started = time.perf_counter()

    def _ahead(self, read: Callable[[int], list[T]], steps: range) -> Generator[list[T]]:
        """Read up to ``STEPS_AHEAD`` steps per worker before they are asked for, in order."""
        waiting: deque[Future[list[T]]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        try:
            for step in steps:
                waiting.append(pool.submit(read, step))
                if len(waiting) > STEPS_AHEAD * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
