"""Independent stages at the same time, as many as the machine's cores and memory allow.

Each is a `dvc repro -s` of its own, so each computes what it would alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from pathlib import Path
from typing import TypeVar

import psutil

from lapvqa.machine import Machine
from lapvqa.runtime import available_cores

R = TypeVar("R")

_STAGE_BYTES = 4 * 2**30
"""What an evaluation may need: with the published encoder, a batch of images and its head."""
_MOST = 4


def at_once(machine: Machine) -> int:
    """Return how many stages may run at once; one where a GPU's memory would have to be shared."""
    chosen = machine.execution.stages_at_once
    if chosen != "auto":
        return chosen
    if machine.device.startswith("cuda") or (
        machine.device == "auto" and Path("/dev/nvidia0").exists()
    ):
        return 1
    memory = psutil.virtual_memory().available // _STAGE_BYTES
    return max(1, min(available_cores(), memory, _MOST))


def run_all(
    names: Sequence[str],
    above: Mapping[str, Collection[str]],
    work: Callable[[str], R],
    *,
    limit: int,
    stop: threading.Event,
) -> dict[str, R]:
    """Call ``work`` for each of ``names``, at most ``limit`` at once; return what it returned.

    A name waits for those of ``names`` that are ``above`` it. After a failure nothing new begins;
    what runs ends by itself, and the first failure in the order of ``names`` is raised. If this
    thread is interrupted, ``stop`` is set, which ``work`` heeds. What is alone runs in this thread.
    """
    done: dict[str, R] = {}
    waiting, running = list(names), dict[Future[R], str]()
    with ThreadPoolExecutor(limit, thread_name_prefix="stage") as pool:
        try:
            while waiting or running:
                ready = [
                    name
                    for name in waiting
                    if all(other in done for other in above[name] if other in names)
                ][: limit - len(running)]
                waiting = [name for name in waiting if name not in ready]
                if len(ready) == 1 and not running:
                    done[ready[0]] = work(ready[0])
                    continue
                for name in ready:
                    running[pool.submit(copy_context().run, work, name)] = name
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                if any(future.exception() for future in ended):
                    wait(running)
                    raise next(error for future in running if (error := future.exception()))
                done |= {running.pop(future): future.result() for future in ended}
        except BaseException as error:
            if not any(future.done() and future.exception() is error for future in running):
                stop.set()
            raise
    return done
