"""Prefect's and MLflow's stores, empty and with all their tables, for projects that start quickly.

A new store is migrated by the real thing, which takes seconds; here that happens once per test run.
The tests that run a toy or a pipeline from nothing migrate their own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from once import built_once

from lapvqa.project import Project

_MIGRATE = """
from pathlib import Path
from lapvqa.project import Project
from tasks.mlflow_records.connection import embedded_uri
from tasks.prefect_server import start_server_early

project = Project(Path.cwd())
server = start_server_early(project)
from mlflow import MlflowClient
MlflowClient(tracking_uri=embedded_uri(project)).search_experiments()
server.wait()
server.stop()
"""


def migrated(factory: pytest.TempPathFactory) -> Project:
    """Return a project that has these stores and nothing else."""
    return Project(built_once(factory, "migrated-stores", _migrate))


def give(factory: pytest.TempPathFactory, project: Project) -> None:
    """Copy the stores into a project that has none."""
    shutil.copytree(migrated(factory).state, project.state, dirs_exist_ok=True)


def _migrate(root: Path) -> None:
    subprocess.run([sys.executable, "-c", _MIGRATE], cwd=root, check=True)
