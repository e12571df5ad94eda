"""The model that a command uses: the project's own, a folder, the champion, a registered version.

A registered encoder is fetched once into .lapvqa/champions, where the gate keeps it too.
"""

from __future__ import annotations

from pathlib import Path

from lapvqa import storage
from lapvqa.errors import BusyError, ConfigError
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project

CHAMPION = "champion"
_SCHEME = "models:/"


def find(given: str | None, project: Project | None) -> Path:
    """Return the local path of the model called ``given``; None: the one of params.yaml.

    Raises ConfigError without a project where one is needed, MissingArtifactError for an unknown
    version.
    """
    registered = given is not None and (given == CHAMPION or given.startswith(_SCHEME))
    if given is not None and not registered:
        return Path(given)
    if project is None:
        raise ConfigError(
            "expected a project here (dvc.yaml in this folder or above it), found none",
            hint="change into your project, or give --model FOLDER",
        )
    if given is None:
        return project.model_dir(load_params(project.params).pretrain.objective)
    from tasks.mlflow_records import registry
    from tasks.mlflow_records.connection import connect

    store = connect(project, load_machine(project))
    sha256 = registry.named(store, project, given).sha256
    return registry.fetch(store, project, sha256, project.champion(sha256))


def find_finished(given: str | None, project: Project | None) -> Path:
    """Return the same; BusyError if no encoder is there yet and a run is about to bring it.

    MissingArtifactError if the project's own is meant, and no run has brought it.
    """
    from lapvqa.pretrain.files import ENCODER_FILE

    path = find(given, project)
    if project is None or (path / ENCODER_FILE).exists():
        return path
    locks = {name: project.work_dir(name).with_suffix(".lock") for name in ("pretrain", "export")}
    at_work = [name for name, lock in locks.items() if storage.holder(lock)]
    if at_work and path.resolve().parent == project.model_dir(path.name).resolve().parent:
        raise BusyError(
            f"expected an encoder at {path}, found a run at work there (stage {at_work[0]})",
            hint="the encoder comes with stage export: `lapvqa status` says how far the run is",
        )
    if given is None:
        storage.require(path / ENCODER_FILE, made_by="export")
    return path
