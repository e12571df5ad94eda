"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two processes with a thread per core each wait for one another in every small product.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes is the machine's load, no fault of what is tested.
settings.register_profile("any load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any load")


def pytest_configure() -> None:
    """Heed Ctrl-C, which whoever starts the tests in the background of a shell has switched off.

    Processes inherit that, so those that the tests interrupt would never notice.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the whole pipelines: a file goes to one worker, so a long one must not be last."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The project's own folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Real radiographs with real text; the only input a test may do without."""
    folder = Path(os.environ.get("LAPVQA_CORPUS", REPOSITORY.parent / "shared" / "corpus"))
    if not folder.is_dir():
        pytest.skip("the corpus of real radiographs is not here (set LAPVQA_CORPUS)")
    return folder
