"""The exported encoder as a registered model of MLflow: a version per set of weights."""

from __future__ import annotations

import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lapvqa import storage
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import locked
from tasks.mlflow_records.connection import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL = "lapvqa-encoder"
ALIAS = "champion"
WEIGHTS, CARD = "encoder.safetensors", "card.json"
_FOLDER = "encoder"  # within the run's artifacts


class Registered(NamedTuple):
    """A version of the registry, and the sha256 of its weights."""

    version: str
    sha256: str


def register_folder(store: Store, project: Project, folder: Path) -> Registered:
    """Register the weights of one model folder, unless these are; alias ``champion``.

    Raises MissingArtifactError before export.
    """
    weights = storage.require(folder / WEIGHTS, made_by="export")
    card = storage.require(folder / CARD, made_by="export")
    digest = storage.sha256_file(weights)
    known = _known_version(store.client, digest)
    if known is None:
        known = _new_version(store, project, weights, card, digest)
    store.client.set_registered_model_alias(MODEL, ALIAS, known)
    return Registered(known, digest)


def _known_version(client: MlflowClient, digest: str) -> str | None:
    versions = client.search_model_versions(f"name = '{MODEL}'")
    registered = [version for version in versions if version.tags.get("sha256") == digest]
    return str(registered[0].version) if registered else None


def _new_version(store: Store, project: Project, weights: Path, card: Path, digest: str) -> str:
    from mlflow.pyfunc import save_model

    client, run_id = store.client, _run_of(store, project, weights)
    with tempfile.TemporaryDirectory(dir=project.state) as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about signatures; ours is in the docstring
        model = Path(scratch) / _FOLDER
        save_model(
            path=model,
            python_model=str(Path(__file__).with_name("encoder_pyfunc.py")),
            artifacts={"weights": str(weights), "card": str(card)},
            # Named here, or MLflow would load the model in a new process to find out.
            pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "torch", "lapvqa")],
        )
        client.log_artifacts(run_id, str(model), _FOLDER)
    if not client.search_registered_models(f"name = '{MODEL}'"):
        client.create_registered_model(MODEL)
    created = client.create_model_version(
        MODEL,
        source=f"{client.get_run(run_id).info.artifact_uri}/{_FOLDER}",
        run_id=run_id,
        tags={"sha256": digest, "dvc.path": _path(project, weights)},
    )
    return str(created.version)


def _run_of(store: Store, project: Project, weights: Path) -> str:
    """Return the run that wrote the weights; a new one if DVC ran or restored it without us."""
    path = _path(project, weights)
    md5 = next((lock.outs[path] for lock in locked(project).values() if path in lock.outs), "")
    runs = store.client.search_runs(
        [store.experiment], f"tags.`dvc.out.{path}` = '{md5}'", max_results=1
    )
    if runs:
        return str(runs[0].info.run_id)
    created = store.client.create_run(
        store.experiment,
        start_time=round(time.time() * 1000),
        run_name="encoder",
        tags={f"dvc.out.{path}": md5, "mlflow.source.name": "lapvqa"},
    )
    store.client.set_terminated(created.info.run_id)
    return str(created.info.run_id)


def _path(project: Project, file: Path) -> str:
    return file.relative_to(project.root).as_posix()
