"""The order of pairs: a function of the plan alone; and the threads that read ahead."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_project
from hypothesis import given
from hypothesis import strategies as st

from lapvqa.errors import ConfigError, MissingArtifactError, SchemaError
from lapvqa.images import report_pairs
from lapvqa.images.report_pairs import Batch, Pair
from lapvqa.images.shards import ShardStore
from lapvqa.pretrain import members
from lapvqa.pretrain.loader import STEPS_AHEAD, Loader, Plan

Read = tuple[list[Pair], ShardStore]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """20 pairs and their images."""
    project = write_project(tmp_path_factory.mktemp("project"))
    return report_pairs.read_pairs(project, "train")[0], ShardStore(project.images_dir)


def shown(batch: Batch) -> list[object]:
    """Return all that a batch holds, to be compared."""
    images = (batch.images.shape, batch.images.dtype, batch.images.numpy().tobytes())
    tensors = (batch.inputs, batch.targets, batch.groups)
    return [batch.indices, batch.sided, *images, *(tensor.tolist() for tensor in tensors)]


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A plan of any size that divides, seen by one of its ranks."""
    world_size, accumulate = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return Plan(
        num_pairs=draw(st.integers(1, 300)),
        batch_size=draw(st.integers(1, 12)) * world_size * accumulate,
        seed=draw(st.integers(0, 2**63)),
        world_size=world_size,
        rank=draw(st.integers(0, world_size - 1)),
        accumulate=accumulate,
    )


@given(plans(), st.integers(0, 5))
def test_an_epoch_shows_each_pair_as_often_as_full_batches_need(plan: Plan, epoch: int) -> None:
    """Every pair, none twice as long as there are unseen ones; what fills up is the order's start.

    So with batches no larger than the split, a pair is seen once or twice in an epoch.
    """
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    assert {plan.place(step)[0] for step in steps} == {epoch}
    assert [plan.place(step)[1] for step in steps] == list(range(len(steps)))
    rows = [index for step in steps for index in plan.global_indices(step)]
    assert len(rows) == plan.steps_per_epoch * plan.batch_size
    assert len(rows) - plan.batch_size < plan.num_pairs  # no step that shows nothing new
    order = report_pairs.epoch_order(plan.num_pairs, seed=plan.seed, epoch=epoch).tolist()
    times, more = divmod(len(rows), plan.num_pairs)
    assert rows == order * times + order[:more]
    seen = Counter(rows)
    assert set(seen) == set(range(plan.num_pairs))
    assert set(seen.values()) <= {times, times + 1}
    if plan.batch_size <= plan.num_pairs:
        assert max(seen.values()) <= 2


@given(plans(), st.integers(0, 1000))
def test_ranks_and_micro_batches_are_the_global_batch_cut(plan: Plan, step: int) -> None:
    whole = plan.global_indices(step)
    assert len(whole) == plan.batch_size
    ranks = [replace(plan, rank=rank).micro_batches(step) for rank in range(plan.world_size)]
    assert [index for rank in ranks for part in rank for index in part] == whole
    assert {len(rank) for rank in ranks} == {plan.accumulate}
    assert len({len(part) for rank in ranks for part in rank}) == 1
    alone = replace(plan, world_size=1, rank=0, accumulate=1)
    assert alone.micro_batches(step) == [whole]


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 6))
def test_a_batch_that_does_not_divide_names_the_nearest_that_do(
    batch_size: int, world_size: int, accumulate: int
) -> None:
    def plan(size: int) -> Plan:
        return Plan(100, size, seed=0, world_size=world_size, accumulate=accumulate)

    if batch_size % (world_size * accumulate) == 0:
        plan(batch_size)
        return
    with pytest.raises(ConfigError, match=f"batch of {batch_size}") as caught:
        plan(batch_size)
    sizes = [int(word) for word in caught.value.hint.split() if word.isdigit()]
    assert sizes
    for size in sizes:
        plan(size)
        assert abs(size - batch_size) < world_size * accumulate


@pytest.mark.parametrize("wrong", [{"num_pairs": 0}, {"rank": 2}, {"accumulate": 0}])
def test_a_plan_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="plan"):
        Plan(**{"num_pairs": 10, "batch_size": 4, "seed": 0, "world_size": 2, **wrong})


def test_the_batches_are_equal_for_any_number_of_workers(read: Read) -> None:
    plan = Plan(len(read[0]), batch_size=6, seed=3, accumulate=2)
    steps = 3 * plan.steps_per_epoch + 1
    inline = [
        [shown(one) for one in step] for step in Loader(*read, plan, workers=0).batches(0, steps)
    ]
    assert [[one[0] for one in step] for step in inline] == list(
        map(plan.micro_batches, range(steps))
    )
    for workers in (1, 2, 4):
        loader = Loader(*read, plan, workers=workers)
        ahead = [[shown(one) for one in step] for step in loader.batches(0, steps)]
        assert ahead == inline, workers


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_taken_up_again_goes_on_as_the_undisturbed_one(read: Read, workers: int) -> None:
    plan = Plan(len(read[0]), batch_size=8, seed=1)
    whole = [shown(step[0]) for step in Loader(*read, plan, workers=workers).batches(0, 9)]
    for first in range(10):
        again = Loader(*read, plan, workers=workers).batches(first, 9)
        assert [shown(step[0]) for step in again] == whole[first:]


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 2)])
def test_ranks_together_read_what_one_rank_reads(
    read: Read, world_size: int, accumulate: int
) -> None:
    alone = Loader(*read, Plan(len(read[0]), batch_size=8, seed=1), workers=0)
    plan = replace(alone.plan, world_size=world_size, accumulate=accumulate)
    ranks = [
        Loader(*read, replace(plan, rank=rank), workers=1).batches(0, 4)
        for rank in range(world_size)
    ]
    for whole, *parts in zip(alone.batches(0, 4), *ranks, strict=True):
        micro = [batch for rank in parts for batch in rank]
        assert len(micro) == world_size * accumulate
        assert [index for batch in micro for index in batch.indices] == whole[0].indices
        assert torch.equal(torch.cat([batch.images for batch in micro]), whole[0].images)
        assert torch.equal(torch.cat([batch.groups for batch in micro]), whole[0].groups)
        tokens = sum(alone.num_targets(batch.indices) for batch in micro)
        assert tokens == alone.num_targets(whole[0].indices)
        assert tokens == (whole[0].targets != report_pairs.IGNORED).sum()


class Broken(ShardStore):
    """A store with a damaged file at its ``bad``-th read; counts reads, each as slow as told."""

    def __init__(self, folder: Path, *, bad: int | None = None, seconds: float = 0.0) -> None:
        super().__init__(folder)
        self.bad, self.seconds, self.reads = bad, seconds, 0
        self._lock = threading.Lock()

    def read_into(self, out: np.ndarray, shards: Sequence[str], rows: Sequence[int]) -> None:
        with self._lock:
            self.reads += 1
            damaged = self.reads == self.bad
        time.sleep(self.seconds)
        if damaged:
            raise SchemaError("images-7 is damaged", hint="make it again")
        super().read_into(out, shards, rows)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_reading_raises_is_raised_at_the_turn_of_its_step(read: Read, workers: int) -> None:
    store = Broken(read[1].folder, bad=4)
    loader = Loader(read[0], store, Plan(20, batch_size=4, seed=0), workers=workers)
    batches = loader.batches(0, 10)
    found = [next(batches)[0].indices for _ in range(3)]
    assert found == [loader.plan.global_indices(step) for step in range(3)]
    with pytest.raises(SchemaError, match="images-7") as caught:
        next(batches)
    assert caught.value.hint == "make it again"
    assert not loader_threads()


def test_a_missing_shard_is_named_by_its_worker(tmp_path: Path, read: Read) -> None:
    loader = Loader(read[0], ShardStore(tmp_path), Plan(20, batch_size=4, seed=0), workers=2)
    with pytest.raises(MissingArtifactError, match=read[0][0].shard):
        next(loader.batches(0, 10))
    assert not loader_threads()


def fail_at_the_first_step(loader: Loader) -> None:
    for _ in loader.batches(0, 1000):
        assert loader_threads()
        raise RuntimeError("of the consumer")


def test_no_thread_outlives_its_use(read: Read) -> None:
    loader = Loader(*read, Plan(20, batch_size=4, seed=0), workers=4)
    with closing(loader.batches(0, 1000)) as batches:
        next(batches)
        assert loader_threads()
    assert not loader_threads()
    for _ in loader.batches(0, 1000):
        break
    assert not loader_threads()
    with pytest.raises(RuntimeError, match="of the consumer"):
        fail_at_the_first_step(loader)
    assert not loader_threads()
    assert len(list(loader.batches(0, 7))) == 7
    assert not loader_threads()


@pytest.mark.parametrize("workers", [1, 3])
def test_only_so_many_steps_are_read_ahead(read: Read, workers: int) -> None:
    store = Broken(read[1].folder)
    loader = Loader(read[0], store, Plan(20, batch_size=4, seed=0), workers=workers)
    with closing(loader.batches(0, 1000)) as batches:
        for step in range(1, 4):
            next(batches)
            deadline = time.monotonic() + 60
            while store.reads < step + STEPS_AHEAD * workers and time.monotonic() < deadline:
                time.sleep(0.01)  # until the workers have done what they may
            time.sleep(0.05)
            assert store.reads == step + STEPS_AHEAD * workers


def test_waiting_is_told(read: Read) -> None:
    """Inline a step costs its reading; read ahead, while the consumer was busy, next to nothing."""
    store = Broken(read[1].folder, seconds=0.05)
    inline = Loader(read[0], store, Plan(20, batch_size=4, seed=0), workers=0)
    for _ in inline.batches(0, 3):
        assert inline.wait_s >= 0.05
    ahead = Loader(read[0], store, Plan(20, batch_size=4, seed=0), workers=2)
    waits = []
    for _ in ahead.batches(0, 6):
        waits.append(ahead.wait_s)
        time.sleep(0.2)
    assert waits[0] >= 0.05
    assert min(waits[1:]) < 0.02


def test_a_loader_refuses_the_plan_of_other_pairs(read: Read) -> None:
    with pytest.raises(ValueError, match="20 pairs"):
        Loader(*read, Plan(19, batch_size=4, seed=0), workers=0)


@given(plans(), st.data())
def test_members_count_what_the_steps_sample(plan: Plan, data: st.DataObject) -> None:
    steps = data.draw(st.integers(0, 3 * plan.steps_per_epoch))
    counted: Counter[int] = Counter()
    first: dict[int, int] = {}
    for step in range(steps):
        for index in plan.global_indices(step):
            counted[index] += 1
            first.setdefault(index, step + 1)
    pairs = range(plan.num_pairs)
    assert members.sampled(plan, steps).tolist() == [counted[index] for index in pairs]
    assert members.first_steps(plan, steps).tolist() == [first.get(index, 0) for index in pairs]
