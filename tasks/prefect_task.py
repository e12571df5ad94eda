"""The decorator of all our Prefect tasks: their common settings in one place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from tasks.session import current

P = ParamSpec("P")
R = TypeVar("R")


def pipeline_task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a Prefect task: never cached (DVC is the only cache), never retried, counted.

    Bad data stays bad, and a stage is resumed by the next run, not repeated by this one.
    """

    def wrap(function: Callable[P, R]) -> Task[P, R]:
        @functools.wraps(function)
        def counted(*args: P.args, **kwargs: P.kwargs) -> R:
            current().task_runs += 1
            return function(*args, **kwargs)

        return task(cache_policy=NO_CACHE, persist_result=False, retries=0, **options)(counted)

    return wrap
