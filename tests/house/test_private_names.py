"""An upgrade of Prefect, DVC or MLflow that moves a name which nobody promised: which one."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from tasks import dvc_private, mlflow_private, prefect_private

PRIVATE = (prefect_private, dvc_private, mlflow_private)
PROMISED = {
    "prefect": {
        "prefect", "prefect.artifacts", "prefect.cache_policies", "prefect.client.schemas.filters",
        "prefect.client.schemas.actions", "prefect.client.schemas.objects",
        "prefect.client.orchestration", "prefect.exceptions",
        "prefect.futures",
        "prefect.logging", "prefect.runtime", "prefect.schedules", "prefect.states",
        "prefect.types.entrypoint", "prefect.client.schemas.schedules", "prefect.events",
        "prefect.deployments", "prefect.server.api.server",
    },
    "dvc": {"dvc.repo", "dvc.exceptions", "dvc.lock", "dvc.dependency"},
    "mlflow": {
        "mlflow", "mlflow.artifacts", "mlflow.entities", "mlflow.exceptions", "mlflow.pyfunc",
        "mlflow.models", "mlflow.pyfunc.model", "mlflow.types", "mlflow.types.schema",
    },
}  # fmt: skip
"""Modules that their documentation names, or that hold no more than a class of errors."""


@pytest.mark.parametrize(
    ("place", "parameters"),
    [
        pytest.param(place, wanted, id=place)
        for one in PRIVATE
        for place, wanted in one.NAMES.items()
    ],
)
def test_each_is_where_it_was_and_takes_what_we_pass(
    place: str, parameters: tuple[str, ...] | None
) -> None:
    module, _, path = place.partition(":")
    found = importlib.import_module(module)
    for name in path.split("."):
        assert hasattr(found, name), f"{place} has moved: see {module} of the new version"
        found = getattr(found, name)
    if parameters is None:
        return
    taken = inspect.signature(found).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in taken.values())
    missing = [name for name in parameters if name not in taken and not takes_all]
    assert not missing, f"{place} no longer takes {', '.join(missing)}"


def test_dvcs_list_of_readers_and_writers_is_called_what_we_call_it() -> None:
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    assert (RWLOCK_FILE, RWLOCK_LOCK) == (dvc_private.RWLOCK, dvc_private._GUARD)


def test_prefects_workers_keep_what_waits_where_we_drop_it() -> None:
    from prefect._internal.concurrency.services import QueueService

    assert "_queue" in inspect.getsource(QueueService.__init__)
    assert issubclass(importlib.import_module("prefect.events.worker").EventsWorker, QueueService)


def test_no_other_file_uses_a_name_that_nobody_promised(repository: Path) -> None:
    own = {one.__file__ for one in PRIVATE}
    used = {
        (path.relative_to(repository).as_posix(), module)
        for folder in ("tasks", "flows")
        for path in (repository / folder).rglob("*.py")
        if str(path) not in own
        for module in imported(path)
        if module.split(".")[0] in PROMISED and module not in PROMISED[module.split(".")[0]]
    }
    assert used == set()


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever the import stands, but for types."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
    return names
