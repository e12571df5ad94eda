"""Whose films and texts the page shows: a program's drawings freely, patients only if asked for.

The page, its pictures, MLflow's copy of them and `dvc plots` all stem from what is chosen here. A
report in which the search for identities found anything is no example, whatever is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lapvqa import storage
from lapvqa.evaluation.task import EvaluationTask
from lapvqa.project import Project
from lapvqa.schemas import INVENTORY, STUDIES

SOURCE = "source"


@dataclass(frozen=True)
class Patients:
    """``wanted``: report.patients is show; ``synthetic``: the input folders that a program drew."""

    wanted: bool
    synthetic: frozenset[str]
    archive: str
    """The archive's folder, as the inventory names it; empty if it does not."""
    flagged: Collection[str]
    """Keys of the studies whose report may name somebody, and of their images."""

    @property
    def real(self) -> bool:
        """Whether the archive is of patients, as far as anybody knows."""
        return SOURCE not in self.synthetic

    def may_show(self, task: EvaluationTask) -> bool:
        """Say whether the films and texts of a task may be examples."""
        return self.wanted or not self.is_of_patients(task)

    def is_of_patients(self, task: EvaluationTask) -> bool:
        """Say whether the films and texts of a task are of people, as far as anybody knows."""
        folders = {SOURCE} if task.folder is None or task.folder.of_archive else set()
        folders |= {task.folder.name} if task.folder else set()
        return not folders <= self.synthetic

    def without_flagged(self, predictions: pa.Table) -> pa.Table:
        """Return the rows that are of no flagged study."""
        flagged = pa.array(sorted(self.flagged), pa.string())
        for column in {"sample", "image", "reference_image"} & set(predictions.column_names):
            predictions = predictions.filter(pc.invert(pc.is_in(predictions[column], flagged)))
        return predictions


def read_patients(
    tasks: Iterable[EvaluationTask], project: Project, images: pa.Table, *, wanted: bool
) -> Patients:
    """Read who may be shown; MissingArtifactError without inventory or studies.

    ``images``: rows of IMAGES.
    """
    names = {task.folder.name for task in tasks if task.folder and task.examples != "probe"}
    facts = {
        name: storage.read_table(
            project.inventory(name), INVENTORY, made_by="inventory"
        ).schema.metadata or {}
        for name in (SOURCE, *sorted(names))
    }  # fmt: skip
    studies = storage.read_table(project.studies, STUDIES, made_by="ingest")
    named = pc.greater(pc.list_value_length(studies["identity_flags"]), 0)
    flagged = studies.filter(named)["study_key"]
    of_flagged = images.filter(pc.is_in(images["study_key"], flagged.combine_chunks()))
    return Patients(
        wanted,
        frozenset(name for name, said in facts.items() if b"synthetic" in said),
        facts.get(SOURCE, {}).get(b"folder", b"").decode(),
        {*flagged.to_pylist(), *of_flagged["image_key"].to_pylist()},
    )
