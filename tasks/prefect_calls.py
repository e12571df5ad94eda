"""Calls to a Prefect server that may die, hang or never come up: none of them stops the work.

The work is done once, and its outcome is the run's, whatever Prefect makes of it. What Prefect has
missed is told it afterwards (``prefect_history``).
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from tasks.prefect_history import COMPLETED, CRASHED, FAILED

P = ParamSpec("P")
R = TypeVar("R")

_PERIOD_S = 2.0
_AGAIN_S = 30.0
_PATIENCE_S = 3.0


@dataclass
class History:
    """What Prefect has seen of the tasks of a run, and what it failed with."""

    task_states: dict[str, str] = field(default_factory=dict)
    """Prefect's id of each task run that has begun -> the state it is in, or ended in."""
    lost: str = ""
    """What Prefect failed with first; empty while it has not."""

    def lose(self, why: str) -> None:
        """Keep what Prefect failed with, for the end of the run."""
        self.lost = self.lost or why.partition("\n")[0]


@dataclass
class Outcome:
    """What became of the work that Prefect's engine was to call."""

    began: bool = False
    ended: bool = False
    value: Any = None
    error: BaseException | None = None
    flow_run: str = ""
    """Prefect's id of the flow run; empty if it knows nothing of it."""

    @property
    def state(self) -> str:
        """The state in which it ends, by Prefect's name."""
        if self.ended:
            return COMPLETED
        return FAILED if isinstance(self.error, Exception) else CRASHED


_outcome: ContextVar[Outcome | None] = ContextVar("lapvqa_outcome", default=None)


def kept(function: Callable[P, R]) -> Callable[P, R]:
    """Let ``through`` know how ``function`` ends; for the function under ``@flow``."""

    @functools.wraps(function)
    def work(*args: P.args, **kwargs: P.kwargs) -> R:
        outcome = _outcome.get() or Outcome()
        outcome.began, outcome.flow_run = True, _flow_run()
        try:
            outcome.value = value = function(*args, **kwargs)
        except BaseException as error:
            outcome.error = error
            raise
        outcome.ended = True
        return value

    return work


def through(
    engine: Callable[[], R], plain: Callable[[], R], lost: Callable[[str], None],
    outcome: Outcome | None = None,
) -> R:  # fmt: skip
    """Return what the ``kept`` function returned that ``engine`` calls, or raise what it raised.

    If Prefect itself fails, ``lost`` gets the reason; if it does so before the function began,
    ``plain`` calls it. Interrupts go through. ``outcome`` is filled in.
    """
    outcome = outcome or Outcome()
    token = _outcome.set(outcome)
    try:
        return engine()
    except BaseException as error:
        own = outcome.error
        if error is own or not isinstance(error, Exception):
            raise
        if own is None and outcome.began and not outcome.ended:
            raise
        lost(_named(error))
        if own is not None:
            # Prefect turns SIGTERM into a signal of its own, and that into ours at its end.
            is_known = isinstance(own, Exception | KeyboardInterrupt | SystemExit)
            raise own if is_known else KeyboardInterrupt from None
        if outcome.ended:
            value: R = outcome.value
            return value
    finally:
        _outcome.reset(token)
    return plain()


def attempt(call: Callable[[], object]) -> None:
    """Call Prefect for something that is only to look at; a failure is a line for debugging.

    Outside of a flow run there is nothing to show it in.
    """
    try:
        if _flow_run():
            call()
    except Exception as error:  # noqa: BLE001 - records must never stop the science
        logging.getLogger(__name__).debug("Prefect took no record: %s", _named(error))


def run_log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """Return Prefect's log of the present run; outside of one, a log that nobody reads."""
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)


class ProgressBar:
    """A progress artifact of the present run, written by a thread that alone waits for Prefect."""

    def __init__(self, key: str, description: str) -> None:
        self._key, self._description = key, description
        self._share: float | None = None
        self._artifact: Any = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, share: float) -> None:
        """Show ``share`` (0 to 100) within a few seconds; returns at once."""
        self._share = share
        if self._thread is None and _flow_run():
            work = functools.partial(copy_context().run, self._follow)
            self._thread = threading.Thread(target=work, name="progress", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Show the last share, if Prefect takes it soon."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)

    def _follow(self) -> None:
        shown, failed_at = None, float("-inf")
        while True:
            over, share = self._over.wait(0 if shown is None else _PERIOD_S), self._share
            if share != shown and (over or time.monotonic() - failed_at > _AGAIN_S):
                try:
                    self._tell(share or 0.0)
                except Exception:  # noqa: BLE001 - an outage, whatever it looks like
                    failed_at = time.monotonic()
                shown = share
            if over:
                return

    def _tell(self, share: float) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if self._artifact is None:
            self._artifact = create_progress_artifact(
                share, key=self._key, description=self._description
            )
        else:
            update_progress_artifact(self._artifact, share)


def _flow_run() -> str:
    """Return Prefect's id of the flow run around; empty outside of any."""
    from prefect.runtime import flow_run  # not above: Prefect reads its settings on import

    return flow_run.id or ""


def _named(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
