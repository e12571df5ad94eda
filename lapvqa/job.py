"""The Job: all that a stage is handed besides its section of params.yaml, resolved once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lapvqa.machine import Machine, load_machine
from lapvqa.params import ComputingParams, InventoryParams, load_params
from lapvqa.project import Project
from lapvqa.recorder import Recorder

Counts = dict[str, float | int | str]
"""The closing counts that a stage returns, for the ledger, MLflow and the terminal."""


@dataclass(frozen=True)
class Job:
    """The project, the machine, the recorder; what several stages need of params.yaml.

    ``folders``: absolute path of each input folder, by its name in ``InventoryParams``.
    ``keep_ids``: identifiers stand in the tables as they are, not as keyed hashes.
    ``computing``: how torch computes.
    ``files_gone``: share of an input folder's files that may be gone since the last inventory.
    """

    project: Project
    machine: Machine
    recorder: Recorder
    folders: Mapping[str, Path]
    objective: str
    keep_ids: bool
    files_gone: float = 1.0
    computing: ComputingParams = ComputingParams()

    @property
    def model(self) -> Path:
        """Folder of the model that params.yaml names: models/<objective>."""
        return self.project.model_dir(self.objective)


def open_job(project: Project, recorder: Recorder, *, machine: Machine | None = None) -> Job:
    """Read params.yaml and local.yaml and resolve their folders; ConfigError lists every fault."""
    params = load_params(project.params)
    machine = load_machine(project) if machine is None else machine
    folders = {
        name: machine.folder(name, params.inventory, project)
        for name in InventoryParams.model_fields
    }
    return Job(
        project, machine, recorder, folders, params.pretrain.objective,
        params.ingest.deid.keep_ids, params.safeguards.files_gone, params.computing,
    )  # fmt: skip
