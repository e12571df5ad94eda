"""The exported encoder as a registered model of MLflow: a version per set of weights.

Export makes a version the ``candidate``. Which one is the ``champion`` is for ``tasks.promotion``
to say, which alone moves that alias. On a server that several projects share, each has a model of
its own name: what one of them does moves no alias of another.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from lapvqa import storage
from lapvqa.errors import MissingArtifactError
from lapvqa.lineage import ledger
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import locked
from tasks.mlflow_records.connection import Store, embedded_uri

MODEL = "lapvqa-encoder"
CANDIDATE = "candidate"
SCHEME = "models:/"
WEIGHTS, CARD = "encoder.safetensors", "card.json"
_FOLDER = "encoder"  # within the run's artifacts


class Registered(NamedTuple):
    """A version of the registry, and the sha256 of its weights."""

    version: str
    sha256: str


def model_name(store: Store, project: Project) -> str:
    """Return what the project's model is called: on a shared server by the project's first entry.

    A clone has the same ledger, so it is the same project.
    """
    if store.uri == embedded_uri(project):
        return MODEL
    entries = ledger.entries(project)
    return f"{MODEL}-{entries[0].id[:8]}" if entries else MODEL


def register_folder(store: Store, project: Project, folder: Path) -> Registered:
    """Register the weights of one model folder, unless these are; alias ``candidate``.

    Raises MissingArtifactError before export.
    """
    weights = storage.require(folder / WEIGHTS, made_by="export")
    card = storage.require(folder / CARD, made_by="export")
    digest = storage.sha256_file(weights)
    known = find(store, project, digest) or _new_version(store, project, weights, card, digest)
    set_alias(store, project, CANDIDATE, known)
    return known


def find(store: Store, project: Project, sha256: str) -> Registered | None:
    """Return the version of these weights; None if none is registered."""
    name = model_name(store, project)
    versions = store.client.search_model_versions(f"name = '{name}'")
    known = [version for version in versions if version.tags.get("sha256") == sha256]
    return Registered(str(known[0].version), sha256) if known else None


def aliased(store: Store, project: Project, alias: str) -> Registered | None:
    """Return the version that has an alias; None if none has it."""
    from mlflow.exceptions import MlflowException

    try:
        found = store.client.get_model_version_by_alias(model_name(store, project), alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return Registered(str(found.version), found.tags.get("sha256", ""))


def named(store: Store, project: Project, asked: str) -> Registered:
    """Return the version that is called models:/NAME/VERSION or NAME@ALIAS, or by its alias alone.

    Raises MissingArtifactError, which lists the aliases, if there is none.
    """
    name = model_name(store, project)
    versions = [
        store.client.get_model_version(name, found.version)  # a search leaves aliases out
        for found in store.client.search_model_versions(f"name = '{name}'")
    ]
    calls = {
        call: Registered(str(one.version), one.tags.get("sha256", ""))
        for one in versions
        for call in (
            f"{name}/{one.version}",
            *(call for alias in one.aliases for call in (alias, f"{name}@{alias}")),
        )
    }
    found = calls.get(asked.removeprefix(SCHEME))
    if found is None:
        raise MissingArtifactError(
            "there is no champion yet"
            if asked == "champion"
            else f"no registered model is called {asked!r}",
            hint=f"known: {', '.join(sorted(calls)) or 'none yet: `lapvqa run` registers it'}",
        )
    return found


def set_alias(store: Store, project: Project, alias: str, to: Registered) -> None:
    """Move an alias; MLflow does so in one step, but asks nobody what it was before."""
    store.client.set_registered_model_alias(model_name(store, project), alias, to.version)


def tag(store: Store, project: Project, of: Registered, tags: dict[str, str]) -> None:
    """Set tags of a version."""
    for key, value in tags.items():
        store.client.set_model_version_tag(model_name(store, project), of.version, key, value)


def fetch(store: Store, project: Project, sha256: str, folder: Path) -> Path:
    """Bring registered weights and their card into ``folder``; return the weights' file.

    What is there already is not fetched again. Raises MissingArtifactError if the registry has
    them no more.
    """
    from mlflow.artifacts import download_artifacts

    weights = folder / WEIGHTS
    if weights.exists() and storage.sha256_file(weights) == sha256:
        return weights
    known = find(store, project, sha256)
    if known is None:
        raise MissingArtifactError(
            f"expected the registered model {sha256[:12]}, found no version of these weights",
            hint="`lapvqa rollback` goes back to the champion before it",
        )
    version = store.client.get_model_version(model_name(store, project), known.version)
    with tempfile.TemporaryDirectory(dir=project.state) as scratch:
        came = download_artifacts(
            artifact_uri=f"{version.source}/artifacts", dst_path=scratch, tracking_uri=store.uri
        )
        for name in (CARD, WEIGHTS):
            storage.write_bytes(folder / name, (Path(came) / name).read_bytes())
    if storage.sha256_file(weights) != sha256:
        weights.unlink()
        raise MissingArtifactError(
            f"expected the weights {sha256[:12]} in the registry, found others",
            hint="the stored model was changed; `lapvqa rollback` goes back to the one before it",
        )
    return weights


def _new_version(
    store: Store, project: Project, weights: Path, card: Path, digest: str
) -> Registered:
    from mlflow.pyfunc import save_model

    from tasks.mlflow_records.signature import example, signature

    client, run_id = store.client, _run_of(store, project, weights)
    with tempfile.TemporaryDirectory(dir=project.state) as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Path(scratch) / _FOLDER
        save_model(
            path=model,
            python_model=str(Path(__file__).with_name("encoder_pyfunc.py")),
            artifacts={"weights": str(weights), "card": str(card)},
            signature=signature(),
            input_example=example(),
            # Named here, or MLflow would load the model in a new process to find out.
            pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "torch", "lapvqa")],
        )
        client.log_artifacts(run_id, str(model), _FOLDER)
    name = model_name(store, project)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    created = client.create_model_version(
        name,
        source=f"{client.get_run(run_id).info.artifact_uri}/{_FOLDER}",
        run_id=run_id,
        tags={"sha256": digest, "dvc.path": _path(project, weights)},
    )
    return Registered(str(created.version), digest)


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
